"""Parses a successful token response: token, lifetime, scope; keeps only what is safe to store.

Pure. Source: RFC 6749 sections 3.3 and 5.1, RFC 6750 section 2.1.
"""

import base64
import email.utils
import hmac
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.dateparse import parse_duration

from webhooks.oauth.errors import UnusableResponseError, stored
from webhooks.oauth.exchange_log import clean

# Ten years: longer is a mistake or means "never", and dates must stay within a database's range.
MAX_SECONDS = 10 * 365 * 86_400.0
# A token is refreshed when a tenth of its lifetime is left, at most 60 s before it expires.
_MARGIN_SHARE, _MAX_MARGIN_SECONDS = 0.1, 60.0
# From here on a Unix time is in milliseconds or a finer unit: in seconds it would be the year 5138.
_FINER_FROM = 1e11
# No token expires before September 2020: a smaller number is a duration, or a mistake.
_UNIX_FROM = 1.6e9
# Names of lifetimes. Zoho's older responses have milliseconds in "expires_in" and seconds in
# "expires_in_sec"; Shopee and DingTalk write "expire_in", Lark "expire".
_LIFETIME_NAMES = ("expires_in_sec", "expires_in_seconds", "expires_in", "expire_in", "expire")
# Names of expiry times. Microsoft writes "expires_on", ASP.NET ".expires", Go "expiry", Google's
# IAM "expireTime" and its libraries "expiry_date".
_EXPIRY_NAMES = (
    "expires_at", "expires_on", "expires", ".expires", "expiry", "expiry_date", "expiration",
    "expiration_date", "expiration_time", "expires_date", "expire_time", "expire_at", "valid_until",
)  # fmt: skip
_BEFORE_ACCESS = ("", "access_token_", "token_", "access_")
# Intuit writes "x_refresh_token_expires_in", Taobao "re_expires_in".
_BEFORE_REFRESH = ("refresh_token_", "refresh_", "x_refresh_token_", "re_")
# Stricter than float(), which also accepts "1_000" and the digits of every script.
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_MAX_NUMBER_LENGTH = 40
# A number with a unit: Protobuf writes "3600s", Node.js servers write "1h" as in their settings.
_DURATION = re.compile(
    r"(?P<number>[^a-z\s]++)\s*+(?:(?P<ms>ms|milliseconds?)|(?P<s>s|secs?|seconds?)"
    r"|(?P<m>m|mins?|minutes?)|(?P<h>h|hrs?|hours?)|(?P<d>d|days?))",
    re.IGNORECASE,
)
# Date format of older ASP.NET versions, before ISO 8601.
_ASP_DATE = re.compile(r"/Date\(([0-9]{1,15})(?:[+-][0-9]{4})?\)/")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def expires_in(fields: dict[str, Any], now: datetime) -> float | None:
    """Return the seconds until a token expires, negative if it has expired, None if unknown.

    Source: RFC 6749 section 5.1. Zero counts as unknown: some providers mean "never" by it.
    """
    seconds = _life(fields, _BEFORE_ACCESS, now)
    if seconds is not None:
        return seconds
    # RFC 9068 section 2.2: an access token that is a JWT contains its expiry.
    moment = _moment((claims_of(fields.get("access_token")) or {}).get("exp"))
    return None if moment is None else _clamped(moment - now.timestamp() or -1.0)


def refresh_expires_in(fields: dict[str, Any], now: datetime) -> float | None:
    """Return the seconds until the refresh token expires, or None if unknown."""
    seconds = _life(fields, _BEFORE_REFRESH, now)
    return seconds if seconds is not None and seconds > 0 else None


def _life(fields: dict[str, Any], prefixes: Iterable[str], now: datetime) -> float | None:
    """Return the seconds from now by the first usable field with one of these prefixes."""
    lifetimes = [f"{prefix}{name}" for prefix in prefixes for name in _LIFETIME_NAMES]
    expiries = [f"{prefix}{name}" for prefix in prefixes for name in _EXPIRY_NAMES]
    # Facebook's older responses have seconds in "expires", others a time.
    dated = [f"{prefix}expires" for prefix in prefixes]
    for name in (*lifetimes, *dated):
        seconds = duration(fields.get(name))
        if seconds and seconds < (_UNIX_FROM if name in dated else now.timestamp()):
            return _clamped(seconds)
    for name in (*lifetimes, *expiries):
        moment = _moment(fields.get(name))
        if moment is not None:
            return _clamped(moment - now.timestamp() or -1.0)
    return None


def refresh_at(issued_at: datetime | None, expires_at: datetime | None) -> datetime | None:
    """Return when to refresh a token, or None if its expiry is unknown."""
    if issued_at is None or expires_at is None:
        return expires_at
    life = max(0.0, (expires_at - issued_at).total_seconds())
    return expires_at - timedelta(seconds=min(_MAX_MARGIN_SECONDS, life * _MARGIN_SHARE))


def is_over(issued_at: datetime | None, expires_at: datetime | None) -> bool:
    """Return whether a token had already expired when it was issued."""
    return issued_at is not None and expires_at is not None and expires_at <= issued_at


def number(value: Any) -> float | None:
    """Return a number or numeric text as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        value = value.strip()
        if len(value) > _MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(value):
            return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    # "1e999" overflows to infinity.
    return result if math.isfinite(result) else None


def duration(value: Any) -> float | None:
    """Return a number, optionally with a unit, as seconds, or None."""
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found.lastgroup is None:
        return _iso_duration(value) if str(value).startswith("P") else number(value)
    count = number(found["number"])
    return None if count is None else count * _UNIT_SECONDS[found.lastgroup]


def _iso_duration(value: str) -> float | None:
    """Return an ISO 8601 duration as seconds; Java servers write "PT1H"."""
    try:
        found = parse_duration(value)
    except OverflowError:
        return None
    return found.total_seconds() if found else None


def _clamped(seconds: float) -> float | None:
    return None if seconds == 0 else max(-MAX_SECONDS, min(seconds, MAX_SECONDS))


def _moment(value: Any) -> float | None:
    """Return Unix seconds from a Unix time of any unit, an ISO 8601 time or an HTTP date."""
    asp_date = _ASP_DATE.fullmatch(value.strip()) if isinstance(value, str) else None
    unix = number(asp_date[1] if asp_date else value)
    if unix is not None:
        while unix >= _FINER_FROM:
            unix /= 1000
        return unix if unix >= _UNIX_FROM else None
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return http_date(value)


def http_date(text: str) -> float | None:
    """Return an HTTP date (RFC 9110 section 5.6.7) as Unix seconds, or None."""
    try:
        parsed = email.utils.parsedate_tz(text)
        return email.utils.mktime_tz(parsed) if parsed else None
    except (ValueError, OverflowError):
        return None


# Characters that cannot change a header's meaning: visible ASCII (RFC 9110 section 5.5).
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e]+")
# Token types that can only be used with a key: RFC 9449, RFC 6749 section 7.1.
_SENDER_CONSTRAINED = frozenset({"dpop", "pop", "mac"})
# RFC 6749 appendix A.17.
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]+")
# RFC 6749 section 3.3.
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_MAX_SCOPE = 4096
# Scopes that providers often leave out of the granted scope, or call by another of these names:
# Salesforce grants "refresh_token" for "offline_access".
_SILENT_SCOPES = frozenset({"offline_access", "offline", "refresh_token", "openid"})
# Scopes that Microsoft and others add to the requested ones.
_ADDED_SCOPES = _SILENT_SCOPES | {"profile", "email"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedToken:
    """The values of a successful response that are safe to store."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    token_type: str = "Bearer"  # noqa: S105 - a name, not a secret.
    # Joined by spaces; None if the response has no scope.
    scope: str | None = None
    # Seconds from the response; negative: expired when issued; None: unknown.
    expires_in: float | None = None
    refresh_expires_in: float | None = None
    # As received, not yet checked.
    id_token: str = field(default="", repr=False)


def read_grant(
    fields: dict[str, Any], *, path: str = "", token_types: Iterable[str] = (), now: datetime
) -> tuple[GrantedToken, str]:
    """Return the token and a warning or "". Errors: UnusableResponseError."""
    token_fields, name = _at_path(fields, path)
    value = token_fields.get(name)
    # Providers that write "accessToken" also write "expiresIn" and "refreshToken".
    token_fields = {snake_case(name): one for name, one in token_fields.items()} | token_fields
    if not isinstance(value, str) or _is_missing(value):
        found_at = "" if path else next(_paths_to_token(fields), "")
        raise UnusableResponseError("no_token", _missing(found_at=found_at, path=path))
    if not _ACCESS_TOKEN.fullmatch(value):
        raise UnusableResponseError("unsafe_token")
    refresh_token, is_refused = _refresh_token(token_fields.get("refresh_token"))
    # Bitbucket writes "scopes"; an empty list there counts as no scope.
    scopes = read_scope(token_fields.get("scopes")) or None
    token = GrantedToken(
        access_token=value,
        refresh_token=refresh_token,
        token_type=_checked_type(token_fields.get("token_type"), token_types),
        scope=read_scope(token_fields["scope"]) if "scope" in token_fields else scopes,
        expires_in=expires_in({**token_fields, "access_token": value}, now),
        refresh_expires_in=refresh_expires_in(token_fields, now),
        id_token=id_token if isinstance(id_token := token_fields.get("id_token"), str) else "",
    )
    if is_refused:
        return token, stored("bad_refresh_token")
    return token, ""


def _missing(*, found_at: str, path: str) -> str:
    if found_at:
        return stored("token_elsewhere", path=found_at)
    return stored("no_token_at_path", path=path) if path else stored("no_token_answer")


def has_token(fields: dict[str, Any], path: str) -> bool:
    """Return whether there is a value at the path of the token."""
    token_fields, name = _at_path(fields, path)
    return bool(token_fields.get(name))


def scope_change(granted: str | None, requested: str) -> str:
    """Return a warning if other scopes were granted than requested (RFC 6749 section 5.1)."""
    asked = set(re.split(r"[\s,]+", requested)) - _SILENT_SCOPES - {""}
    given = set((granted or "").split())
    # Microsoft's ".default" requests all scopes of the application; the response lists them.
    # Reddit's "*" is all scopes.
    is_all = "*" in asked | given or any(_short(one) == ".default" for one in asked)
    if granted is None or not asked or is_all:
        return ""
    # Microsoft and Google use both the short name and the URL of a scope.
    if missing := _without(asked, given):
        return stored("scope_missing", scope=" ".join(missing)[:300])
    if more := _without(given - _ADDED_SCOPES, asked):
        return stored("scope_added", scope=" ".join(more)[:300])
    return ""


def _without(scopes: set[str], others: set[str]) -> list[str]:
    """Return the scopes that the others neither name nor imply, compared by short name."""
    known = {_short(one) for one in others}
    return sorted(one for one in scopes if known.isdisjoint(_wider(_short(one))))


def _wider(scope: str) -> Iterator[str]:
    """Yield a scope and the scopes that imply it; some providers return only those."""
    yield scope
    # GitHub returns "user" for "user user:email" and "admin:org" for "admin:org read:org", Shopify
    # "write_orders" for "read_orders write_orders".
    first, colon, rest = scope.partition(":")
    if colon:
        yield first
    if not colon or rest == "read":
        # Bitbucket returns "repository:write" for "repository repository:write".
        yield f"{first}:write"
    if first in ("read", "write"):
        yield from (f"{wider}:{rest}" for wider in ("write", "admin"))
    if scope == "public_repo":
        yield "repo"
    if scope.startswith("read_"):
        yield f"write_{scope.removeprefix('read_')}"


def _short(scope: str) -> str:
    # Google returns "email" as ".../auth/userinfo.email".
    return scope.rpartition("/")[2].lower().removeprefix("userinfo.")


def read_scope(value: Any) -> str | None:
    """Return the granted scopes joined by spaces, from a list or a text with spaces or commas."""
    if isinstance(value, str) and value.startswith(("[", '"')):
        value = _json(value)
    if isinstance(value, list):
        texts = [one for one in value if isinstance(one, str)]
        # TikTok for Business lists numbers that do not correspond to the requested scopes.
        value = " ".join(texts) if texts or not value else None
    if not isinstance(value, str):
        return None
    names = [one for one in re.split(r"[\s,]+", value) if _SCOPE_TOKEN.fullmatch(one)]
    kept, length = [], -1
    for name in dict.fromkeys(names):
        length += 1 + len(name)
        if length > _MAX_SCOPE:
            break
        kept.append(name)
    return " ".join(kept)


def _json(text: str) -> Any:
    """Return the parsed JSON, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _refresh_token(value: Any) -> tuple[str, bool]:
    """Return the refresh token or "", and whether the response had an unusable one."""
    if value is None or value is False or (isinstance(value, str) and _is_missing(value)):
        return "", False
    if isinstance(value, str) and _REFRESH_TOKEN.fullmatch(value):
        return value, False
    return "", True


def rotated_token(fields: dict[str, Any], path: str) -> str:
    """Return the refresh token of a response whose access token cannot be used, or "".

    Source: RFC 6749 section 6: the new refresh token replaces the old one, which may be revoked.
    """
    for one in (path, "", *_paths_to_token(fields)):
        token_fields, _name = _at_path(fields, one)
        value = token_fields.get("refresh_token", token_fields.get("refreshToken"))
        if token := _refresh_token(value)[0]:
            return token
    return ""


def _is_missing(value: str) -> bool:
    """Return whether a text stands for a missing value, such as "null"."""
    return value.strip().lower() in ("", "null", "none", "undefined")


def _checked_type(value: Any, token_types: Iterable[str]) -> str:
    """Return the type of a token that can be sent as a bearer token (RFC 6749 section 7.1)."""
    token_type = _token_type(value)
    accepted = {"bearer", *map(_spelling, token_types)} - {""}
    if token_type is None or _spelling(token_type) not in accepted:
        reason = "unsupported_token_type"
        is_bound = token_type is None or token_type.lower() in _SENDER_CONSTRAINED
        code = reason if is_bound else "unknown_token_type"
        raise UnusableResponseError(reason, stored(code, type=clean(str(value), limit=50)))
    return token_type


def _spelling(token_type: str) -> str:
    """Return a type in normalized spelling: "BEARER_TOKEN" equals "Bearer Token"."""
    return re.sub(r"[\s_-]", "", token_type).lower()


def _token_type(value: Any) -> str | None:
    """Return the type, "Bearer" if it is missing, or None if it is not a short text."""
    if value is None:
        return "Bearer"
    if not isinstance(value, str) or len(value) > 32:
        return None
    value = value.strip()
    return "Bearer" if _is_missing(value) or value.lower() == "bearer" else value


def _at_path(fields: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the object that contains the token, and the token's name in it.

    Expiry and refresh token are read from the same object; other objects may hold another token.
    """
    *parents, name = path.split(".") if path else ["access_token"]
    current: Any = fields
    for part in parents:
        current = _step_into(current, part)
    inner = _step_into(current, name)
    if isinstance(inner, dict):
        return inner, "access_token"
    return (current, name) if isinstance(current, dict) else ({}, name)


def _step_into(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and part.isascii() and part.isdecimal() and len(part) < 4:
        return value[int(part)] if int(part) < len(value) else None
    return None


def snake_case(name: str) -> str:
    """Return the name of a field in snake_case, as in the standards."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()


# Other names of access tokens, and the least length of a value to be taken for one.
_OTHER_NAMES = frozenset(
    {
        *("token", "access", "accesstoken", "auth_token", "oauth_token", "bearer_token"),
        *("api_token", "jwt"),
    }
)
_MIN_LENGTH = 16


def _paths_to_token(fields: dict[str, Any]) -> Iterator[str]:
    """Yield the paths of access tokens elsewhere in the response, the most certain first."""
    texts = list(_texts(fields))
    for path, name, text in texts:
        if name == "access_token" and path != name and not _is_missing(text):
            yield clean(path, limit=100)
    for path, name, text in texts:
        if name in _OTHER_NAMES and len(text) >= _MIN_LENGTH and _ACCESS_TOKEN.fullmatch(text):
            yield clean(path, limit=100)


def _texts(value: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, name in snake_case and value of every text in a document."""
    if isinstance(value, list):
        value = {str(index): inner for index, inner in enumerate(value)}
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, str):
            yield path, snake_case(key), inner
        else:
            yield from _texts(inner, f"{path}.")


# Claims that name an account, the most readable first.
_NAMES = ("email", "preferred_username", "upn", "name", "sub")


def account_of(id_token: str, *, nonce: str, client_id: str) -> str:
    """Return the name of the account that a grant is for, or "". Errors: UnusableResponseError.

    `nonce` is the one that was sent; an ID token with another one belongs to another authorization.
    The signature is not checked: OpenID Connect Core 1.0 section 3.1.3.7 accepts TLS to the token
    endpoint instead. "" for anything but a signed JWT, such as one encrypted for an unknown key.
    """
    claims = claims_of(id_token)
    if claims is None:
        return ""
    repeated = claims.get("nonce")
    if repeated is not None and not hmac.compare_digest(
        str(repeated).encode(errors="replace"), nonce.encode()
    ):
        raise UnusableResponseError("other_nonce")
    audience = claims.get("aud")
    if client_id not in (audience if isinstance(audience, list) else [audience]):
        raise UnusableResponseError("other_audience")
    named = (claims.get(name) for name in _NAMES)
    return clean(next((one for one in named if isinstance(one, str) and one), ""), limit=255)


def lacks_nonce(id_token: str) -> bool:
    """Return whether an ID token has no nonce, such as LinkedIn's."""
    claims = claims_of(id_token)
    return claims is not None and claims.get("nonce") is None


def claims_of(jwt: Any) -> dict[str, Any] | None:
    """Return the unverified claims of a signed JWT (RFC 7519 section 7.2), else None."""
    if not isinstance(jwt, str) or jwt.count(".") != 2:
        return None
    payload = jwt.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None
