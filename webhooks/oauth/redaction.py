"""Makes foreign text safe to keep and to show: secrets masked, control characters out, cut.

Pure. What it returns is still to be escaped by the template that shows it.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from webhooks.security.masking import Masker, NameMasker

MAX_TEXT = 500
# Enough of an answer to see what it is; more is only bulk.
MAX_RECORDED = 4_000
# A shorter secret would give away too much of itself by its last four characters.
_MIN_TAIL = 12
_TAIL = 4
# Control, format (also what turns the direction of text), surrogate, private and unassigned.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# One long word of letters, digits and what Base64 has; an address or a scope is none.
_LIKE_A_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w.~+/=-]{20,}", re.ASCII)
# The same among others.
_WORD_LIKE_A_TOKEN = re.compile(
    r"""(?P<name>(?<![^\s"'<>&,;=(\[{]))(?=[A-Za-z_.~+/-]*[0-9])(?=[0-9_.~+/-]*[A-Za-z])
    (?P<value>[\w.~+/-]{20,}={0,2})(?![^\s"'<>&,;)\]}\\])""",
    re.ASCII | re.VERBOSE,
)


def mask(secret: str) -> str:
    """Return what may be seen of a secret: its last four characters, if it is long enough."""
    if secret.startswith("…") and len(secret) <= 1 + _TAIL:
        # Masked already.
        return secret
    return f"…{secret[-_TAIL:]}" if len(secret) >= _MIN_TAIL else "…"


def mask_known(text: str, secrets: Iterable[str]) -> str:
    """Mask these secrets wherever they are in the text, in every spelling, also cut off."""
    return Masker(secrets, shown=mask).mask(text, is_cut=True)


def clean(text: str, *, secrets: Iterable[str] = (), limit: int = MAX_TEXT) -> str:
    """Return a provider's words as one line without secrets or control characters."""
    # Bounded before the work: only a little of it is kept.
    text = mask_known(text[: 20 * limit], secrets)
    text = _mask_named(text)
    text = "".join(" " if unicodedata.category(one) in _UNSAFE else one for one in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def redact_pairs(pairs: Iterable[tuple[str, str]], *, secrets: Iterable[str] = ()) -> str:
    """Return form or query parameters, secrets masked, one a line."""
    known = Masker(secrets, shown=mask)
    shown = (
        (name, mask(value) if is_secret(name) else visible(known.mask(value, is_cut=True)))
        for name, value in pairs
    )
    return "\n".join(f"{visible(name)}={value}" for name, value in shown)


def redact_body(body: str, *, secrets: Iterable[str] = (), may_grant: bool = False) -> str:
    """Return an answer's body, secrets masked whatever its format, cut.

    In one that may grant, whatever looks like a token is masked, whatever its name.
    """
    known = Masker(secrets, shown=mask)
    body = known.mask(body, is_cut=True)
    try:
        redacted = _redacted(json.loads(body), may_grant=may_grant)
        text = json.dumps(redacted, ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        text = _redact_text(body, may_grant=may_grant)
    # Once more: what was escaped in the body is plain now.
    return visible(known.mask(text, is_cut=True), limit=MAX_RECORDED)


def visible(text: str, *, limit: int = MAX_RECORDED) -> str:
    """Return text that a database and a page can hold; lines stay lines."""
    kept = text[: limit + 1].replace("\r\n", "\n")
    text = "".join(
        one if one in "\n\t" or unicodedata.category(one) not in _UNSAFE else "\ufffd"
        for one in kept
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_secret(name: str) -> bool:
    return _NAMES.is_secret(name)


# A code and a state are secrets in these exchanges only.
_NAMES = NameMasker("code", "state", shown=mask)


def _mask_named(text: str, *, may_grant: bool = False) -> str:
    text = _NAMES.mask(text)
    return _WORD_LIKE_A_TOKEN.sub(_masked, text) if may_grant else text


def _masked(match: re.Match[str]) -> str:
    return match["name"] + mask(match["value"].rstrip())


def _redact_text(text: str, *, may_grant: bool) -> str:
    if re.fullmatch(r"[\w.%+*~-]+=[^\s<>]*", text):
        pairs = parse_qsl(text, keep_blank_values=True)
        masked = [
            (name, mask(value) if _hides(name, value, may_grant=may_grant) else value)
            for name, value in pairs
        ]
        return urlencode(masked, safe="…", quote_via=quote)
    return _mask_named(text, may_grant=may_grant)


def _redacted(value: Any, *, may_grant: bool, is_hidden: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            key: _redacted(
                one,
                may_grant=may_grant,
                is_hidden=is_hidden or _hides(key, one, may_grant=may_grant),
            )
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_redacted(one, may_grant=may_grant, is_hidden=is_hidden) for one in value]
    if is_hidden and value is not None and not isinstance(value, bool):
        return mask(str(value))
    if not isinstance(value, str):
        return value
    if may_grant and _LIKE_A_TOKEN.fullmatch(value):
        return mask(value)
    # An address in a sentence, say, with what came in its query.
    return _mask_named(value, may_grant=may_grant)


def _hides(name: str, value: Any, *, may_grant: bool) -> bool:
    if isinstance(value, str) and may_grant and _LIKE_A_TOKEN.fullmatch(value):
        return True
    # A number called "code" says what went wrong, one called "tokens" how many.
    is_number = isinstance(value, int) and (name.lower() == "code" or name.lower().endswith("s"))
    return is_secret(name) and not is_number
