"""The log of exchanges with authorization servers: requests and responses, redacted.

Of codes, verifiers, secrets and tokens only the last four characters are kept; control characters
are replaced and long text is cut. Templates still have to escape the text.
"""

import json
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from django.db import DatabaseError

from webhooks.models import Credential, ExchangeKind, OAuthExchange
from webhooks.security.masker import Masker, NameMasker

# Secrets, or a masker built from them.
Secrets = Iterable[str] | Masker

MAX_TEXT = 500
# Enough of a response to recognize it.
MAX_RECORDED = 4_000
# The last four characters of a shorter secret would reveal too much of it.
_MIN_TAIL = 12
_TAIL = 4
# Control, format (such as bidirectional overrides), surrogate, private and unassigned characters,
# line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# One long word of letters, digits, Base64 characters and "|" (Laravel, Amazon); URLs and scopes do
# not match.
_LIKE_A_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w.~+/=|-]{20,}", re.ASCII)
# Names of tokens in some responses, elsewhere ordinary words.
_NAMES_OF_TOKENS = frozenset({"access", "refresh", "jwt"})
# The same, as a word within a text.
_WORD_LIKE_A_TOKEN = re.compile(
    r"""(?P<name>(?<![^\s"'<>&,;=(\[{]))(?=[A-Za-z_.~+/|-]*[0-9])(?=[0-9_.~+/|-]*[A-Za-z])
    (?P<value>[\w.~+/|-]{20,}={0,2})(?![^\s"'<>&,;)\]}\\])""",
    re.ASCII | re.VERBOSE,
)
# User and password before a URL's host, also with the slashes that browsers forgive.
_LOGIN = re.compile(r"\A([a-z][a-z0-9+.-]*:[/\\]*|[/\\]{2,})[^/\\]*@", re.IGNORECASE)


def mask(secret: str) -> str:
    """Return the visible part of a secret: its last four characters, if it is long enough."""
    if secret.startswith("…") and len(secret) <= 1 + _TAIL:
        # Masked already.
        return secret
    return f"…{secret[-_TAIL:]}" if len(secret) >= _MIN_TAIL else "…"


def known(secrets: Secrets) -> Masker:
    """Return a masker for these secrets, built once for several texts."""
    return secrets if isinstance(secrets, Masker) else Masker(secrets, shown=mask)


def mask_known(text: str, secrets: Secrets) -> str:
    """Mask these secrets in the text, in every encoding and also truncated."""
    return known(secrets).mask(text, is_cut=True) if text else ""


def clean(text: str, *, secrets: Secrets = (), limit: int = MAX_TEXT) -> str:
    """Return a provider's text as one line without secrets or control characters."""
    # Cut first, because only a small part is kept.
    text = mask_known(text[: 20 * limit], secrets)
    text = _mask_named(text)
    text = " ".join(_replaced(text, " ").split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def redact_pairs(
    pairs: Iterable[tuple[str, str]], *, secrets: Secrets = (), may_grant: bool = False
) -> str:
    """Return form or query parameters, secrets masked, one a line.

    `may_grant` (there may be a code) masks every value that looks like one, whatever its name.
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
    """Return a response body of any format, secrets masked, cut.

    `may_grant` (there may be a token) masks every value that looks like one, whatever its name.
    """
    masker = known(secrets)
    body = mask_known(body, masker)
    try:
        redacted = _redacted(json.loads(body), may_grant=may_grant)
        text = json.dumps(redacted, ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        text = _redact_text(body, may_grant=may_grant)
    # Again, because secrets that were escaped in the body are plain text after parsing.
    return visible(mask_known(text, masker), limit=MAX_RECORDED)


def visible(text: str, *, limit: int = MAX_RECORDED) -> str:
    """Return text that is safe to store and show; line breaks and tabs are kept."""
    text = _replaced(text[: limit + 1].replace("\r\n", "\n"), "\ufffd", kept="\n\t")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _replaced(text: str, by: str, *, kept: str = "") -> str:
    """Replace the unsafe characters in a text, except those in `kept`."""
    # Fast path: most texts have none.
    if text.translate(dict.fromkeys(map(ord, kept))).isprintable():
        return text
    return "".join(
        by if unicodedata.category(one) in _UNSAFE and one not in kept else one for one in text
    )


def is_secret(name: str) -> bool:
    return _NAMES.is_secret(name)


# Fields named "code" and "state" are secrets only in these exchanges.
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
        # `safe` takes ASCII characters only.
        return urlencode(masked, quote_via=quote).replace(quote("…"), "…")
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
    # For example a URL in a sentence, with a secret in its query string.
    return _mask_named(value, may_grant=may_grant)


def _hides(name: str, value: Any, *, may_grant: bool) -> bool:
    is_named = may_grant and name.lower() in _NAMES_OF_TOKENS
    if isinstance(value, str) and (is_named or (may_grant and _LIKE_A_TOKEN.fullmatch(value))):
        return True
    # A number named "code" is an error code, one named "tokens" a count.
    is_number = isinstance(value, int) and (name.lower() == "code" or name.lower().endswith("s"))
    return is_secret(name) and not is_number


logger = logging.getLogger(__name__)

# Request headers that never contain a secret.
_UNMASKED_HEADERS = ("Accept", "Content-Type")
# Response headers that are recorded; cookies and all others are not.
_RECORDED_HEADERS = (
    "content-type",
    "location",
    "retry-after",
    "www-authenticate",
    "date",
    "x-request-id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """One redacted exchange, ready to be stored."""

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
    """Store an exchange; a database error is only logged, because the token matters more."""
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
            url=bare_url(transcript.url)[:2048],
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
    lines = [f"{method} {bare_url(url)}"]
    for name, value in (headers or {}).items():
        scheme, _, _credentials = value.partition(" ")
        # Extra headers may contain a key.
        shown = value if name in _UNMASKED_HEADERS else mask(value)
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
    """Return a response as text, redacted and cut; for `may_grant` see `redact_body`."""
    lines, masker = [f"HTTP {status}"], known(secrets)
    for name, value in headers.items():
        if name.lower() in _RECORDED_HEADERS:
            value = bare_url(value) if name.lower() == "location" else value
            lines.append(f"{name}: {clean(value, secrets=masker, limit=200)}")
    shown = redact_body(body, secrets=masker, may_grant=may_grant)
    text = "\n".join([*lines, "", shown])
    return visible(text.rstrip())


def bare_url(url: str) -> str:
    """Return a URL's scheme, host and path: login, query string and fragment may be secrets."""
    return _LOGIN.sub(r"\1", re.split(r"[?#]", url.strip(), maxsplit=1)[0])
