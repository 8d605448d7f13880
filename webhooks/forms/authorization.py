"""The rules of each authorization type's fields. Only the chosen type's fields are checked."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext_lazy as _

from webhooks import network, oauth
from webhooks.forms.texts import REQUIRED
from webhooks.models import AuthorizationType

BASIC_FIELDS = ("basic_login", "basic_password")
OAUTH_FIELDS = (
    "token_name",
    "callback_url",
    "auth_url",
    "token_url",
    "client_id",
    "client_secret",
    "scope",
    "client_authentication",
)
FIELDS_OF = {
    AuthorizationType.NONE: (),
    AuthorizationType.BASIC: BASIC_FIELDS,
    AuthorizationType.OAUTH2: OAUTH_FIELDS,
}
# RFC 7617 section 2.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 6749 appendix A: VSCHAR, and scope-tokens with spaces between.
_CLIENT_ID = re.compile(r"[\x20-\x7e]+")
_SCOPE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*")
_LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "::1"}


def unchosen_fields(chosen: str) -> set[str]:
    """Return the fields of the types that were not chosen."""
    return {field for kind, fields in FIELDS_OF.items() if kind != chosen for field in fields}


def basic_errors(values: Mapping[str, Any], *, has_password: bool) -> dict[str, Any]:
    """Return a sentence for each wrong field of Basic authentication."""
    login = values.get("basic_login", "")
    errors: dict[str, Any] = {}
    if not login:
        errors["basic_login"] = REQUIRED["basic_login"]
    elif ":" in login:
        errors["basic_login"] = _("A login cannot contain a colon: it ends the login.")
    elif _CONTROL.search(login):
        errors["basic_login"] = _("A login cannot contain control characters.")
    password = values.get("basic_password", "")
    if not has_password:
        errors["basic_password"] = REQUIRED["basic_password"]
    elif isinstance(password, str) and _CONTROL.search(password):
        errors["basic_password"] = _("A password cannot contain control characters.")
    return errors


def oauth_errors(values: Mapping[str, Any], *, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sentence for each wrong field of OAuth 2.0; a client secret may be absent."""
    errors: dict[str, Any] = {
        field: REQUIRED[field]
        for field in ("auth_url", "token_url", "client_id")
        if not values.get(field)
    }
    for field in {"auth_url", "token_url"} - errors.keys():
        if reason := _endpoint_error(values[field], was=stored[field]):
            errors[field] = reason
    try:
        oauth.check_callback_url(values.get("callback_url", ""))
    except ValueError as error:
        errors["callback_url"] = str(error)
    if "client_id" not in errors and not _CLIENT_ID.fullmatch(values["client_id"]):
        errors["client_id"] = _("A client ID has only ASCII letters, digits and signs.")
    secret = values.get("client_secret", "")
    if isinstance(secret, str) and _CONTROL.search(secret):
        errors["client_secret"] = _("A client secret cannot contain control characters.")
    if not _SCOPE.fullmatch(values.get("scope", "")):
        errors["scope"] = _(
            "A scope is ASCII words with spaces between, without quotes, for example “read write”."
        )
    return errors


def _endpoint_error(url: str, *, was: str) -> Any:
    """Return why a provider's address cannot be used, or None."""
    try:
        network.check_url(url)
    except network.UnsafeURL as error:
        return error.reason
    except network.NameNotResolved as error:
        # A name server that is down for a moment does not stop other changes.
        if url != was:
            return error.reason
    parts = urlsplit(url)
    if parts.scheme != "https" and (parts.hostname or "") not in _LOOPBACK:
        # RFC 6749 section 3.2: credentials and codes travel over TLS.
        return _("The address must start with https://: secrets are sent to it.")
    if parts.fragment:
        return _("The address cannot have a fragment (the part after #).")
    return None
