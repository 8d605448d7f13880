"""Request parameters: the admin's extra parameters and headers, and the reserved names."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from webhooks import network
from webhooks.models import ClientAuthentication, Credential, GrantType
from webhooks.oauth.endpoints import callback_url
from webhooks.oauth.errors import MisconfiguredError, stored
from webhooks.oauth.exchange_log import clean

Pairs = list[tuple[str, str]]

# Set by this client; a second value would be an attack or a mistake (RFC 6749 section 3.1).
_CLIENT = frozenset(
    {"client_id", "client_secret", "client_assertion", "client_assertion_type", "redirect_uri"}
)
RESERVED_IN_AUTHORIZATION = _CLIENT | {
    "response_type", "state", "code_challenge", "code_challenge_method", "response_mode",
    "request", "request_uri", "code", "scope",
}  # fmt: skip
RESERVED_IN_TOKEN_REQUEST = _CLIENT | {
    "grant_type", "code", "code_verifier", "refresh_token", "assertion", "device_code",
}  # fmt: skip
# The standard refresh request has no redirect URI, but Kommo requires one.
RESERVED_IN_REFRESH = RESERVED_IN_TOKEN_REQUEST - {"redirect_uri"}
# Placeholders: a parameter of the authorization response, the callback URL, or the client secret
# (for providers with another name for it, so that it stays in its encrypted field).
_PLACEHOLDER = re.compile(r"\{(?:callback\.([A-Za-z0-9_.-]{1,100})|callback_url|client_secret)\}")
# JWT claims that are generated for each request.
RESERVED_CLAIMS = frozenset({"iat", "exp", "jti", "nbf"})
_RESERVED = {
    "authorization": RESERVED_IN_AUTHORIZATION,
    "token": RESERVED_IN_TOKEN_REQUEST,
    "refresh": RESERVED_IN_REFRESH,
}
_MAX_LENGTH, _MAX_HEADER_NAME = 4096, 100
# Control characters, and lone surrogates, which cannot be encoded in a request.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Header values in ASCII (RFC 9110 section 5.5), and the headers that only this client may set.
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_OWN_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-length"),
        *("content-type", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


def reserved_in(step: str, grant: str) -> frozenset[str]:
    """Return the reserved names for a step: "authorization", "token" or "refresh".

    A client credentials request may set `grant_type`: Zoom calls it "account_credentials".
    """
    may_name_grant = step == "token" and grant == GrantType.CLIENT_CREDENTIALS
    return _RESERVED[step] - {"grant_type"} if may_name_grant else _RESERVED[step]


def check_parameters(parameters: Any, reserved: Iterable[str]) -> Pairs:
    """Return extra parameters as pairs; a list of values repeats the name.

    Errors: MisconfiguredError, with a message for the form field.
    """
    if not isinstance(parameters, Mapping):
        raise MisconfiguredError(stored("parameters_no_mapping"))
    pairs = []
    for name, value in parameters.items():
        if name.lower() in reserved:
            raise MisconfiguredError(stored("reserved_parameter", name=name))
        for one in value if isinstance(value, list) else [value]:
            pairs.append((name, _text(name, one)))
    return pairs


def check_headers(text: str) -> Pairs:
    """Parse extra headers, one "Name: value" a line. Errors: MisconfiguredError."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = (part.strip() for part in line.partition(":"))
        # Neither error message repeats the value, which may be a secret.
        is_name = network.HEADER_NAME.fullmatch(name) and len(name) <= _MAX_HEADER_NAME
        if not colon or not is_name or len(line) > _MAX_LENGTH:
            raise MisconfiguredError(stored("no_header_line", line=name[:60]))
        if not _HEADER_VALUE.fullmatch(value):
            raise MisconfiguredError(stored("no_header_value"))
        if name.lower() in _OWN_HEADERS:
            raise MisconfiguredError(stored("reserved_header", name=name))
        found.append((name, value))
    return network.merge_headers(found)


def check_query(pairs: Iterable[tuple[str, str]], field: str) -> None:
    """Raise MisconfiguredError if an endpoint's query string contains a reserved parameter."""
    for name, _value in pairs:
        # A custom nonce must be an authorization parameter: the ID token is checked against it.
        if name.lower() in RESERVED_IN_AUTHORIZATION or name.lower() == "nonce":
            raise MisconfiguredError(stored("reserved_in_query", name=name, field=field))


def extra_parameters(
    credential: Credential, step: str, placeholder_values: Mapping[str, str] | None = None
) -> Pairs:
    """Return the parameters to add to the request of a step.

    `placeholder_values` holds the parameters of the authorization response; other grants have none.
    Errors: MisconfiguredError.
    """
    own = _entered(credential, step)
    if step != "authorization":
        own = [
            (name, _resolve_placeholder(value, credential, placeholder_values or {}))
            for name, value in own
        ]
    return [*resource_parameters(credential), *own]


def without_callback_values(credential: Credential, step: str) -> dict[str, Any]:
    """Return the extra parameters of a step that need no value of an authorization response.

    Also leaves out the client secret where it is not sent in the body. Errors: MisconfiguredError.
    """
    own = _entered(credential, step)
    return as_mapping(pair for pair in own if _can_resolve(pair[1], credential))


def _entered(credential: Credential, step: str) -> Pairs:
    reserved = reserved_in(step, credential.grant_type)
    return check_parameters(getattr(credential, f"{step}_parameters"), reserved)


def _can_resolve(value: str, credential: Credential) -> bool:
    try:
        _resolve_placeholder(value, credential, {})
    except MisconfiguredError:
        return False
    return True


def placeholder_values(credential: Credential, answer: Mapping[str, str]) -> dict[str, str]:
    """Return the values that placeholders take from an authorization response.

    Errors: MisconfiguredError.
    """
    pairs = [*_entered(credential, "token"), *_entered(credential, "refresh")]
    placeholders = filter(None, (_PLACEHOLDER.fullmatch(value) for _name, value in pairs))
    return {
        one[1]: _resolve_placeholder(one[0], credential, answer) for one in placeholders if one[1]
    }


def _resolve_placeholder(
    value: str, credential: Credential, placeholder_values: Mapping[str, str]
) -> str:
    match = _PLACEHOLDER.fullmatch(value)
    if match is None:
        return value
    if match[0] == "{client_secret}":
        if credential.client_authentication != ClientAuthentication.REQUEST_BODY:
            raise MisconfiguredError(stored("secret_not_in_body"))
        return credential.client_secret
    if match[1] is None:
        return callback_url(credential)
    if match[1] not in placeholder_values:
        raise MisconfiguredError(stored("no_callback_value", name=match[1]))
    return placeholder_values[match[1]]


def resource_parameters(credential: Credential) -> Pairs:
    """Return `resource` and `audience`, repeated for each value (RFC 8707 section 2)."""
    return [
        *(("resource", one) for one in credential.resource.split()),
        *(("audience", one) for one in credential.audience.split()),
    ]


def as_mapping(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return pairs as a mapping; the values of a repeated name become a list."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def scope(credential: Credential) -> str:
    """Return the scope with the separator that this provider expects."""
    if credential.scope_separator == ",":
        return ",".join(credential.scope.replace(",", " ").split())
    return " ".join(credential.scope.split())


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    # No real parameter has that many digits; this also rejects NaN and infinity.
    is_too_large = isinstance(value, int | float) and not abs(value) < 10**40
    if not isinstance(value, str | int | float) or is_too_large:
        raise MisconfiguredError(stored("parameter_no_text", name=clean(name)))
    text = str(value)
    if not name or len(name) + len(text) > _MAX_LENGTH:
        raise MisconfiguredError(stored("parameter_length", name=clean(name)))
    if _NO_TEXT.search(name + text):
        raise MisconfiguredError(stored("parameter_no_text", name=clean(name)))
    return text
