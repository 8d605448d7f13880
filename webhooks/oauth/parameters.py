"""The parameters of each request: extra ones from the admin, and those that are not theirs."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from webhooks import network
from webhooks.models import ClientAuthentication, Credential, GrantType
from webhooks.oauth.endpoints import callback_url
from webhooks.oauth.errors import MisconfiguredError, stored
from webhooks.oauth.exchange_log import clean

Pairs = list[tuple[str, str]]

# What this client decides; a second value would be an attack or a mistake (RFC 6749 section 3.1).
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
# A refresh names no callback URL of its own; Kommo's wants it.
RESERVED_IN_REFRESH = RESERVED_IN_TOKEN_REQUEST - {"redirect_uri"}
# A value that stands for another: what came back in the browser beside the code, and where; the
# secret, so that a provider that calls it otherwise gets it from where it is stored encrypted.
_PLACEHOLDER = re.compile(r"\{(?:callback\.([A-Za-z0-9_.-]{1,100})|callback_url|client_secret)\}")
# Of a JWT these are ours: each is made for one request.
RESERVED_CLAIMS = frozenset({"iat", "exp", "jti", "nbf"})
_RESERVED = {
    "authorization": RESERVED_IN_AUTHORIZATION,
    "token": RESERVED_IN_TOKEN_REQUEST,
    "refresh": RESERVED_IN_REFRESH,
}
_MAX_LENGTH, _MAX_HEADER_NAME = 4096, 100
# What no form field holds, and half of a surrogate pair, which no request does.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# RFC 9110 section 5.5, and what only we may say.
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_OWN_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-length"),
        *("content-type", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


def reserved_in(step: str, grant: str) -> frozenset[str]:
    """Return what extra parameters may not name; `step` is "authorization", "token" or "refresh".

    What looks like client credentials has another name at some: “account_credentials” at Zoom.
    """
    may_name_grant = step == "token" and grant == GrantType.CLIENT_CREDENTIALS
    return _RESERVED[step] - {"grant_type"} if may_name_grant else _RESERVED[step]


def check_parameters(parameters: Any, reserved: Iterable[str]) -> Pairs:
    """Return extra parameters as pairs; a list of values repeats the name.

    Errors: MisconfiguredError, with a sentence for the form's field.
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
    """Return the extra headers of lines of "Name: value". Errors: MisconfiguredError."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = (part.strip() for part in line.partition(":"))
        # Neither says the value, which may be a secret.
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
    """Refuse an endpoint whose query already says what is ours to say."""
    for name, _value in pairs:
        # A nonce of one's own is a parameter of the authorization: the identity token repeats it.
        if name.lower() in RESERVED_IN_AUTHORIZATION or name.lower() == "nonce":
            raise MisconfiguredError(stored("reserved_in_query", name=name, field=field))


def extra_of(credential: Credential, step: str, answered: Mapping[str, str] | None = None) -> Pairs:
    """Return what is added to the request of a step.

    `answered` is what the provider sent back in the browser; nothing does so of other grants.
    Errors: MisconfiguredError.
    """
    own = _entered(credential, step)
    if step != "authorization":
        own = [(name, _filled(value, credential, answered or {})) for name, value in own]
    return [*targets(credential), *own]


def fillable(credential: Credential, step: str) -> dict[str, Any]:
    """Return the extra parameters of a step that no answer in the browser has to fill.

    Without the secret, too, where it is not sent in the body. Errors: MisconfiguredError.
    """
    own = _entered(credential, step)
    return as_mapping(pair for pair in own if _is_fillable(pair[1], credential))


def _entered(credential: Credential, step: str) -> Pairs:
    reserved = reserved_in(step, credential.grant_type)
    return check_parameters(getattr(credential, f"{step}_parameters"), reserved)


def _is_fillable(value: str, credential: Credential) -> bool:
    try:
        _filled(value, credential, {})
    except MisconfiguredError:
        return False
    return True


def answered_values(credential: Credential, answer: Mapping[str, str]) -> dict[str, str]:
    """Return what extra parameters take of a provider's answer. Errors: MisconfiguredError."""
    pairs = [*_entered(credential, "token"), *_entered(credential, "refresh")]
    placeholders = filter(None, (_PLACEHOLDER.fullmatch(value) for _name, value in pairs))
    return {one[1]: _filled(one[0], credential, answer) for one in placeholders if one[1]}


def _filled(value: str, credential: Credential, answered: Mapping[str, str]) -> str:
    match = _PLACEHOLDER.fullmatch(value)
    if match is None:
        return value
    if match[0] == "{client_secret}":
        if credential.client_authentication != ClientAuthentication.REQUEST_BODY:
            raise MisconfiguredError(stored("secret_not_in_body"))
        return credential.client_secret
    if match[1] is None:
        return callback_url(credential)
    if match[1] not in answered:
        raise MisconfiguredError(stored("no_callback_value", name=match[1]))
    return answered[match[1]]


def targets(credential: Credential) -> Pairs:
    """Return what a token is for; both may name several (RFC 8707 section 2: repeated)."""
    return [
        *(("resource", one) for one in credential.resource.split()),
        *(("audience", one) for one in credential.audience.split()),
    ]


def as_mapping(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return pairs as a mapping; a name that is repeated has a list."""
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
    """Return the scope as this provider wants it separated."""
    if credential.scope_separator == ",":
        return ",".join(credential.scope.replace(",", " ").split())
    return " ".join(credential.scope.split())


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    # More digits than any number has that a person means.
    is_absurd = isinstance(value, int | float) and not abs(value) < 10**40
    if not isinstance(value, str | int | float) or is_absurd:
        raise MisconfiguredError(stored("parameter_no_text", name=clean(name)))
    text = str(value)
    if not name or len(name) + len(text) > _MAX_LENGTH:
        raise MisconfiguredError(stored("parameter_length", name=clean(name)))
    if _NO_TEXT.search(name + text):
        raise MisconfiguredError(stored("parameter_no_text", name=clean(name)))
    return text
