"""Makes foreign text safe to keep and to show: secrets masked, control characters out, cut.

Pure. What it returns is still to be escaped by the template that shows it.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from webhooks.masking import Masker

MAX_TEXT = 500
# Enough of an answer to see what it is; more is only bulk.
MAX_RECORDED = 4_000
# A shorter secret would give away too much of itself by its last four characters.
_MIN_TAIL = 12
_TAIL = 4
# Control, format (also what turns the direction of text), surrogate, private and unassigned.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_NAME = (
    r"(?:[a-z_]*token|[a-z_]*secret|code|code_verifier|state|password|[a-z_]*assertion"
    r"|authorization|cookie|api_?key)"
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_IN_TEXT = re.compile(
    rf"""(?P<name>["']?\b{_NAME}["']?\s*[:=]\s*["']?)(?P<value>[^\s"'&<>,;}}]{{6,}})""",
    re.IGNORECASE,
)
# One long word of letters, digits and what Base64 has; an address or a scope is none.
_LIKE_A_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w.~+/=-]{20,}", re.ASCII)
_Hides = Callable[[str, Any], bool]
_CREDENTIALS = re.compile(r"\b(?P<name>Bearer|Basic)\s+(?P<value>[A-Za-z0-9+/=._~-]{8,})")


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
    secrets = tuple(secrets)
    return "\n".join(
        f"{visible(name)}={mask(value) if is_secret(name) else visible(mask_known(value, secrets))}"
        for name, value in pairs
    )


def redact_body(body: str, *, secrets: Iterable[str] = (), may_grant: bool = False) -> str:
    """Return an answer's body, secrets masked whatever its format, cut.

    In one that may grant, whatever looks like a token is masked, whatever its name.
    """
    body = mask_known(body, secrets)
    hides = _hides_token if may_grant else _hides
    try:
        text = json.dumps(_redacted(json.loads(body), hides), ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        text = _redact_text(body, hides)
    # Once more: what was escaped in the body is plain now.
    return visible(mask_known(text, secrets), limit=MAX_RECORDED)


def visible(text: str, *, limit: int = MAX_RECORDED) -> str:
    """Return text that a database and a page can hold; lines stay lines."""
    kept = text[: limit + 1].replace("\r\n", "\n")
    text = "".join(
        one if one in "\n\t" or unicodedata.category(one) not in _UNSAFE else "\ufffd"
        for one in kept
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_secret(name: str) -> bool:
    return _SECRET_NAME.fullmatch(name) is not None


def _mask_named(text: str) -> str:
    # First what follows a scheme: to the other rule the scheme itself looks like the value.
    return _IN_TEXT.sub(_masked, _CREDENTIALS.sub(_masked, text))


def _masked(match: re.Match[str]) -> str:
    return match["name"] + mask(match["value"])


def _redact_text(text: str, hides: _Hides) -> str:
    if re.fullmatch(r"[\w.%+*~-]+=[^\s<>]*", text):
        pairs = parse_qsl(text, keep_blank_values=True)
        masked = [(name, mask(value) if hides(name, value) else value) for name, value in pairs]
        return urlencode(masked, safe="…", quote_via=quote)
    return _mask_named(text)


def _redacted(value: Any, hides: _Hides, *, is_hidden: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            key: _redacted(one, hides, is_hidden=is_hidden or hides(key, one))
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_redacted(one, hides, is_hidden=is_hidden) for one in value]
    if is_hidden and value is not None and not isinstance(value, bool):
        return mask(str(value))
    # An address in a sentence, say, with what came in its query.
    return _mask_named(value) if isinstance(value, str) else value


def _hides(key: str, value: Any) -> bool:
    # A number called "code" says what went wrong.
    return is_secret(key) and not (key.lower() == "code" and isinstance(value, int))


def _hides_token(key: str, value: Any) -> bool:
    is_like_one = isinstance(value, str) and _LIKE_A_TOKEN.fullmatch(value) is not None
    return is_like_one or _hides(key, value)
