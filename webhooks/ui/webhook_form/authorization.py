"""The rules of each authorization type's fields. Only the chosen type's fields are checked."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, network, oauth
from webhooks.models import (
    AuthorizationType,
    ClientAuthentication,
    GrantType,
    TokenPlacement,
    is_plain_http,
)
from webhooks.ui.fields import url_problem
from webhooks.ui.webhook_form.headers import check_name

BASIC_FIELDS = ("basic_login", "basic_password")
# In the order of the page, which follows the steps of the grant.
ADVANCED_FIELDS = (
    "uses_pkce",
    "requires_issuer",
    "scope_separator",
    "audience",
    "resource",
    "authorization_parameters",
    "token_parameters",
    "refresh_parameters",
    "assertion_claims",
    "uses_json_token_request",
    "refresh_url",
    "revocation_url",
    "token_path",
    "token_placement",
    "token_header",
    "header_prefix",
    "token_query_parameter",
    "expired_status_codes",
    "reauthorization_words",
)
# Secrets of several lines, which the page shows among the advanced fields.
ADVANCED_SECRETS = ("client_key", "token_headers")
OAUTH_FIELDS = (
    "grant_type",
    "provider",
    "issuer",
    "token_name",
    "callback_url",
    "auth_url",
    "token_url",
    "client_id",
    "client_secret",
    "scope",
    "client_authentication",
    *ADVANCED_FIELDS,
    *ADVANCED_SECRETS,
)
# Only a grant that redirects the browser uses these.
_REDIRECT_FIELDS = frozenset(
    {"callback_url", "uses_pkce", "requires_issuer", "authorization_parameters"}
)
# Only a grant that a user approves uses these; tokens of other grants are not refreshed.
_PERSON_FIELDS = frozenset({"auth_url", "refresh_parameters", "refresh_url"})
# Used with every authorization type: any provider or receiver may require mutual TLS.
CERTIFICATE = "client_certificate"
FIELDS_OF = {
    AuthorizationType.NONE: (),
    AuthorizationType.BASIC: BASIC_FIELDS,
    AuthorizationType.OAUTH2: OAUTH_FIELDS,
}
# Error messages of empty fields.
REQUIRED = {
    "basic_login": _("Enter the login."),
    "basic_password": _("Enter the password."),
    "client_certificate": _("Paste the certificate and its private key, both PEM."),
    "client_secret": _("Enter the client secret."),
    "auth_url": _("Enter the provider's auth URL."),
    "token_url": _("Enter the provider's access token URL."),
    "client_id": _("Enter the client ID of this app at the provider."),
}
# Not allowed by RFC 7617 section 2.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 6749 appendix A: VSCHAR, and scope-tokens with spaces between.
_CLIENT_ID = re.compile(r"[\x20-\x7e]+")
_SCOPE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
# The prefix of a header value; some providers use one with spaces in it.
_PREFIX = re.compile(r"[\x21-\x7e]+( [\x21-\x7e]+)*")
# Unreserved characters (RFC 3986 section 2.3), which all receivers read the same way.
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]+")
_PATH = re.compile(r"[^.\s]+(\.[^.\s]+)*")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7e]+")
# Names of query parameters whose values are secrets: access_token, X-Api-Key, sig, userPassword.
_SECRET_NAME = re.compile(
    # Words that mean a secret, also directly after another word.
    r".{0,40}(?:tokens?|secrets?|password|passwd|passphrase|"
    r"(?:access|auth|api|app|client|private|secret|account|subscription|functions|license|"
    r"developer|master|storage|encryption)[._-]?keys?)"
    # Words that mean a secret only alone or after a separator.
    r"|keys?|(?:.{0,40}[._-])?(?:pwd?|pass|passcode|bearer|otp|jwt|sid|sig|signature|"
    r"hmac(?:[._-]?\w{1,10})?|(?:basic|http)?[._-]?auth|authorization|credentials?|"
    r"(?:php|j)?sess(?:ion)?[._-]?id|(?:user|write|integration|dev|ws)[._-]?key)",
    re.I,
)
# Names that end with such a word and are no secrets.
_NO_SECRET_NAME = re.compile(
    r"(?:page|next|sync|continuation|csrf)[._-]?(?:page)?[._-]?tokens?", re.I
)
# Azure Functions names its key “code”; a code with another meaning is shorter.
_SHORTEST_CODE = 40


def secret_in_url(url: str) -> str:
    """Return the name of a query parameter that looks like a secret; empty when none does."""
    names = (name for name, value in _query_of(url) if value and _is_secret(name, value))
    return next(names, "")


def _is_secret(name: str, value: str) -> bool:
    if _NO_SECRET_NAME.fullmatch(name):
        return False
    is_key = name.lower() == "code" and len(value) >= _SHORTEST_CODE
    return is_key or _SECRET_NAME.fullmatch(name) is not None


def _query_of(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        return []


def unchosen_fields(chosen: str, grant: str) -> set[str]:
    """Return the fields of the types and grants that were not chosen."""
    others = {field for kind, fields in FIELDS_OF.items() if kind != chosen for field in fields}
    return others | unused_fields(grant)


def unused_fields(grant: str) -> frozenset[str]:
    """Return the fields that a grant type does not use."""
    if grant == GrantType.AUTHORIZATION_CODE:
        return frozenset()
    return _REDIRECT_FIELDS if grant == GrantType.DEVICE_CODE else _REDIRECT_FIELDS | _PERSON_FIELDS


def basic_errors(values: Mapping[str, Any], *, has_password: bool) -> dict[str, Any]:
    """Return an error message for each invalid field of Basic authentication."""
    login = values.get("basic_login", "")
    errors: dict[str, Any] = {}
    if not login:
        errors["basic_login"] = REQUIRED["basic_login"]
    elif ":" in login:
        errors["basic_login"] = _("A login cannot contain a colon.")
    elif _CONTROL.search(login):
        errors["basic_login"] = _("A login cannot contain control characters.")
    password = values.get("basic_password", "")
    if not has_password:
        errors["basic_password"] = REQUIRED["basic_password"]
    elif isinstance(password, str) and _CONTROL.search(password):
        errors["basic_password"] = _("A password cannot contain control characters.")
    return errors


def oauth_errors(
    values: Mapping[str, Any],
    *,
    trusted: Mapping[str, Any],
    secrets: Collection[str],
    check_url: Callable[[str], object],
) -> dict[str, Any]:
    """Return an error message for each invalid field of OAuth 2.0; `secrets` names those set.

    A client secret is optional, except for client credentials and for a JWT signed with it.
    `check_url` raises UnsafeURLError or NameNotResolvedError.
    """
    grant, way = values["grant_type"], values["client_authentication"]
    unused = unused_fields(grant)
    errors: dict[str, Any] = {
        field: REQUIRED[field]
        for field in ("auth_url", "token_url", "client_id")
        if field not in unused and not values.get(field)
    }
    for field in ("auth_url", "token_url", "refresh_url", "revocation_url"):
        value = "" if field in unused else values.get(field)
        if value and (reason := _endpoint_error(value, check_url, was=trusted[field])):
            errors[field] = reason
    if "callback_url" not in unused:
        try:
            oauth.check_callback_url(values.get("callback_url", ""))
        except ValueError as error:
            errors["callback_url"] = str(error)
    needed = ""
    if way == ClientAuthentication.CERTIFICATE:
        needed = "client_certificate"
    # A missing private key is created on save.
    elif way != ClientAuthentication.KEY_JWT and (
        grant == GrantType.CLIENT_CREDENTIALS or way == ClientAuthentication.SECRET_JWT
    ):
        needed = "client_secret"
    if needed and needed not in secrets:
        errors[needed] = REQUIRED[needed]
    return {**_advanced_errors(values), **_client_errors(values), **errors}


def _client_errors(values: Mapping[str, Any]) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    if not _CLIENT_ID.fullmatch(values.get("client_id", "")):
        errors["client_id"] = _("A client ID has only ASCII letters, digits and signs.")
    secret = values.get("client_secret", "")
    if isinstance(secret, str) and _CONTROL.search(secret):
        errors["client_secret"] = _("A client secret cannot contain control characters.")
    if not _SCOPE.fullmatch(values.get("scope", "")):
        errors["scope"] = _(
            "A scope is ASCII words with spaces between, without quotes, for example “read write”."
        )
    return errors


def _advanced_errors(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an error message for each invalid advanced field, and for the issuer."""
    text = {name: str(values.get(name) or "") for name in (*ADVANCED_FIELDS, "issuer", "url")}
    errors: dict[str, Any] = {"issuer": _issuer_error(text["issuer"])}
    try:
        reserved = oauth.reserved_in("token", values["grant_type"])
        oauth.check_parameters(values.get("token_parameters") or {}, reserved)
    except oauth.MisconfiguredError as error:
        errors["token_parameters"] = str(error)
    if not all(_ABSOLUTE.fullmatch(one) for one in text["resource"].split()):
        errors["resource"] = _(
            "A resource is a whole address without # (RFC 8707), for example "
            "“https://api.example.com/”."
        )
    if not _PRINTABLE.fullmatch(text["audience"]):
        errors["audience"] = _("An audience has only ASCII letters, digits and signs.")
    if text["token_path"] and not _PATH.fullmatch(text["token_path"]):
        errors["token_path"] = _(
            "A path is names with dots between, for example “authed_user.access_token”."
        )
    if values["token_placement"] == TokenPlacement.QUERY:
        errors["token_query_parameter"] = _query_error(text["token_query_parameter"], text["url"])
    else:
        errors["token_header"] = _header_error(text["token_header"])
        if text["header_prefix"] and not _PREFIX.fullmatch(text["header_prefix"]):
            errors["header_prefix"] = _(
                "A header prefix is a word of ASCII letters, digits and signs, for example "
                "“Bearer”."
            )
    return {field: sentence for field, sentence in errors.items() if sentence}


def _header_error(name: str) -> Any:
    """Return why a token cannot be sent in this header, or None."""
    if not name or name.lower() == "authorization":
        return None
    try:
        check_name(name)
    except ValidationError as error:
        return " ".join(error.messages)
    return None


def _query_error(name: str, url: str) -> Any:
    """Return why a token cannot be sent as this query parameter of the URL, or None."""
    if not _PARAMETER.fullmatch(name):
        return _("Enter the parameter's name: letters, digits, - . _ or ~, for example “auth”.")
    if name in {one for one, _value in _query_of(url)}:
        return _("The URL has a parameter of this name already. Remove it there.")
    older = {variable.older_name for variable in catalogue.VARIABLES.values()}
    if name in older or name in catalogue.VARIABLES:
        return _("Events have a variable of this name. Choose another one.")
    return None


def _issuer_error(issuer: str) -> Any:
    if not issuer:
        return None
    try:
        network.parse_url(issuer)
    except network.UnsafeURLError as error:
        return error.reason
    # Includes empty ones; the token request rejects those later.
    if "?" in issuer or "#" in issuer:
        return _("An issuer is an address without ? and # (RFC 8414).")
    return _plain_http(issuer)


def _endpoint_error(url: str, check_url: Callable[[str], object], *, was: str) -> Any:
    """Return why a URL of a provider cannot be used, or None."""
    try:
        check_url(url)
    except network.UnsafeURLError as error:
        return url_problem(error)
    except network.NameNotResolvedError as error:
        # A temporary DNS failure does not block changes of other fields.
        if url != was:
            return error.reason
    if "#" in url:
        return _("The address cannot have a fragment (the part after #).")
    return _plain_http(url)


def _plain_http(url: str) -> Any:
    if is_plain_http(url):
        # RFC 6749 section 3.2 requires TLS for credentials and codes.
        return _("The address must start with https://: secrets are sent to it.")
    return None
