"""The log of exchanges with authorization servers: what was asked and answered, redacted.

Codes, verifiers, secrets and tokens are kept by their last four characters; control characters
are out and long text is cut. A template still has to escape what is kept.
"""

import json
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from django.db import DatabaseError

from webhooks.models import Credential, ExchangeKind, OAuthExchange
from webhooks.security.masker import Masker, NameMasker

# Secrets, or what masks them already.
Secrets = Iterable[str] | Masker

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


def known(secrets: Secrets) -> Masker:
    """Return what masks these secrets, to be worked out once for several texts."""
    return secrets if isinstance(secrets, Masker) else Masker(secrets, shown=mask)


def mask_known(text: str, secrets: Secrets) -> str:
    """Mask these secrets wherever they are in the text, in every spelling, also cut off."""
    return known(secrets).mask(text, is_cut=True) if text else ""


def clean(text: str, *, secrets: Secrets = (), limit: int = MAX_TEXT) -> str:
    """Return a provider's words as one line without secrets or control characters."""
    # Bounded before the work: only a little of it is kept.
    text = mask_known(text[: 20 * limit], secrets)
    text = _mask_named(text)
    text = " ".join(_replaced(text, " ").split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def redact_pairs(
    pairs: Iterable[tuple[str, str]], *, secrets: Secrets = (), may_grant: bool = False
) -> str:
    """Return form or query parameters, secrets masked, one a line.

    Among those that may grant, whatever looks like a code is masked, whatever its name.
    """
    masker = known(secrets)
    shown = (
        (
            name,
            mask(value)
            if _hides(name, value, may_grant=may_grant)
            else visible(mask_known(value, masker)),
        )
        for name, value in pairs
    )
    return "\n".join(f"{visible(name)}={value}" for name, value in shown)


def redact_body(body: str, *, secrets: Secrets = (), may_grant: bool = False) -> str:
    """Return an answer's body, secrets masked whatever its format, cut.

    In one that may grant, whatever looks like a token is masked, whatever its name.
    """
    masker = known(secrets)
    body = mask_known(body, masker)
    try:
        redacted = _redacted(json.loads(body), may_grant=may_grant)
        text = json.dumps(redacted, ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        text = _redact_text(body, may_grant=may_grant)
    # Once more: what was escaped in the body is plain now.
    return visible(mask_known(text, masker), limit=MAX_RECORDED)


def visible(text: str, *, limit: int = MAX_RECORDED) -> str:
    """Return text that a database and a page can hold; lines stay lines."""
    text = _replaced(text[: limit + 1].replace("\r\n", "\n"), "\ufffd", kept="\n\t")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _replaced(text: str, by: str, *, kept: str = "") -> str:
    """Return a text whose control characters and the like are replaced, but for those kept."""
    # Nearly always there is none.
    if text.translate(dict.fromkeys(map(ord, kept))).isprintable():
        return text
    return "".join(
        by if unicodedata.category(one) in _UNSAFE and one not in kept else one for one in text
    )


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


logger = logging.getLogger(__name__)

# Header fields of a request whose values are ours.
_SHOWN = ("Accept", "Content-Type")
# Header fields of an answer that tell something; cookies and the rest are not kept.
_TOLD = ("content-type", "location", "retry-after", "www-authenticate", "date", "x-request-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """One redacted exchange, ready to be kept."""

    kind: ExchangeKind
    url: str
    started_at: datetime
    duration_ms: float | None = None
    status_code: int | None = None
    request: str = field(default="", repr=False)
    response: str = field(default="", repr=False)


def record(
    credential: Credential, transcript: Transcript, *, result: str, message: str = ""
) -> None:
    """Keep an exchange; an error of the database is only logged, for the token counts more."""
    duration_ms = transcript.duration_ms
    logger.info(
        "oauth_exchange credential=%d kind=%s status=%s result=%s duration_ms=%.0f",
        credential.pk,
        transcript.kind.value,
        transcript.status_code,
        result,
        duration_ms or 0.0,
    )
    try:
        OAuthExchange.objects.create(
            credential=credential,
            kind=transcript.kind,
            started_at=transcript.started_at,
            duration_ms=None if duration_ms is None else round(duration_ms, 1),
            url=without_query(transcript.url)[:2048],
            status_code=transcript.status_code,
            result=result,
            request=transcript.request,
            response=transcript.response,
            message=message[:1000],
        )
    except DatabaseError as error:
        logger.warning(
            "oauth_exchange_lost credential=%d error=%s", credential.pk, type(error).__name__
        )


def describe_request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    pairs: Iterable[tuple[str, str]] = (),
    secrets: Secrets = (),
) -> str:
    """Return a request as text, redacted."""
    lines = [f"{method} {without_query(url)}"]
    for name, value in (headers or {}).items():
        scheme, _, _credentials = value.partition(" ")
        # What people add may hold a key.
        shown = value if name in _SHOWN else mask(value)
        lines.append(f"{name}: {scheme} …" if name == "Authorization" else f"{name}: {shown}")
    body = redact_pairs(pairs, secrets=secrets)
    return visible("\n".join([*lines, "", body]).rstrip())


def describe_response(
    status: int,
    headers: Mapping[str, str],
    body: str,
    *,
    secrets: Secrets = (),
    may_grant: bool = False,
) -> str:
    """Return an answer as text, redacted and cut; one that may grant has tokens by any name."""
    lines, masker = [f"HTTP {status}"], known(secrets)
    for name, value in headers.items():
        if name.lower() in _TOLD:
            lines.append(f"{name}: {clean(value, secrets=masker, limit=200)}")
    shown = redact_body(body, secrets=masker, may_grant=may_grant)
    text = "\n".join([*lines, "", shown])
    return visible(text.rstrip())


def without_query(url: str) -> str:
    """Return a URL without what may be secret in it."""
    try:
        return urlsplit(url)._replace(query="", fragment="").geturl()
    except ValueError:
        return url.partition("?")[0]
