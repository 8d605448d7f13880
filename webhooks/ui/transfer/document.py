"""A file of webhooks: settings by column name, no secrets, connections by name."""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import oauth, payloads
from webhooks.audit.versions import (
    FIELDS,
    as_settings,
    connection_of,
    lasting_settings,
    portable_headers,
)
from webhooks.models import CREDENTIAL_SECRETS, GrantType, Webhook
from webhooks.security.encryption import SecretUnreadableError

VERSION = 1
_MISSING = {
    "basic_password": gettext_lazy("the password"),
    "client_secret": gettext_lazy("the client secret"),
    "client_key": gettext_lazy("the private key"),
    "token_headers": gettext_lazy("the headers of token requests"),
    "client_certificate": gettext_lazy("the TLS client certificate"),
}
MAX_BYTES = 2 * 1024 * 1024
# A plan checks each URL; with more webhooks the page would take too long.
MAX_WEBHOOKS = 500
_UID = re.compile(r"whk_[0-9A-Za-z]{1,26}")
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")
# Written to a file to tell people which secrets to enter; not imported.
_IGNORED = {"secrets"}
_SECRET_KEYS = {
    *(*CREDENTIAL_SECRETS, "signing_secret", "previous_signing_secrets"),
    *("headers_json", "access_token", "refresh_token", "password", "token"),
}


def document(webhooks: Iterable[Webhook]) -> dict[str, Any]:
    """Return the file's content."""
    return {"version": VERSION, "webhooks": [as_json(webhook) for webhook in webhooks]}


def as_json(webhook: Webhook) -> dict[str, Any]:
    """Return one webhook; `secrets` lists what has to be entered after an import."""
    own = webhook.private_credential
    secrets = [name for name in CREDENTIAL_SECRETS if own.has_secret(name)]
    try:
        headers = portable_headers(webhook)
        secrets += [f"headers.{one['name']}" for one in headers if "secret" in one]
    except SecretUnreadableError:
        # Encrypted with another key; the other settings are still useful.
        headers = []
        secrets.append("headers")
    return {
        "uid": webhook.uid,
        **_with_callback(lasting_settings(webhook)),
        "headers": headers,
        "connection": connection_of(webhook),
        "secrets": secrets,
    }


def settings_of(webhook: Webhook) -> dict[str, Any]:
    """Return the values of all portable columns."""
    return _with_callback(as_settings(webhook))


def _with_callback(found: dict[str, Any]) -> dict[str, Any]:
    # The default is a URL of this site; another site has its own.
    if found["callback_url"] == oauth.default_callback_url():
        found["callback_url"] = ""
    return found


def missing_secrets(webhook: Webhook, listed: Collection[str] = ()) -> list[str]:
    """Return labels of the secrets that a webhook's requests need and that are missing.

    `listed` are the secrets that the file names. Only the file tells whether a client of the
    authorization code grant had a secret, since such a client may have none.
    """
    missing: list[str] = []
    credential = webhook.credential
    if not credential.is_shared:
        needed = {*listed, "basic_password"}
        if credential.grant_type == GrantType.CLIENT_CREDENTIALS:
            needed.add("client_secret")
        missing = [
            str(_MISSING[field])
            for field in credential.secrets_used
            if field in needed and not credential.has_secret(field)
        ]
    try:
        headers = webhook.read_headers()
    except SecretUnreadableError:
        return missing
    if "headers" in listed and not headers:
        missing.append(_("the headers, which the other site could not read"))
    nameless = [header.name for header in headers if header.is_secret and not header.value]
    return missing + [_("the value of the header %s") % name for name in nameless]


def section_of(missing: Collection[str]) -> str:
    """Return the section of the form in which the first of these missing secrets is entered."""
    of_credential = {str(label) for label in _MISSING.values()}
    return "authorization" if of_credential.intersection(missing) else "headers"


# ---- Reading a file ---------------------------------------------------------------------------


class FileError(ValueError):
    """The file is not a list of webhooks; str() is a sentence for people."""


def check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise FileError(_("The file is larger than %d MB.") % (MAX_BYTES // 1024**2))


def read(content: bytes) -> list[Any]:
    """Return the entries of a file, not yet validated. Raises FileError."""
    check_size(len(content))
    try:
        found = payloads.load_json(content)
    except payloads.DocumentError as error:
        raise FileError(str(error)) from None
    return _entries(found)


def _entries(found: Any) -> list[Any]:
    for leaf in _leaves(found):
        if isinstance(leaf, str) and _UNSTORABLE.search(leaf):
            raise FileError(_("The file holds characters that no text has, such as NUL."))
        if isinstance(leaf, float) and math.isinf(leaf):
            raise FileError(_("The file holds a number that is too large, such as 1e999."))
    entries = found.get("webhooks") if isinstance(found, dict) else None
    if not isinstance(entries, list) or "version" not in found:
        raise FileError(
            _('The file must be an object with a list, like {"version": 1, "webhooks": [...]}.')
        )
    if (version := json.dumps(found["version"], ensure_ascii=False)) != str(VERSION):
        raise FileError(
            _("The version of the file is %(found)s; this site reads version %(known)d.")
            % {"found": version[:20], "known": VERSION}
        )
    if not entries:
        raise FileError(_("There is no webhook in the file."))
    if len(entries) > MAX_WEBHOOKS:
        text = _("There are %(count)d webhooks in the file; at most %(limit)d are read at once.")
        raise FileError(text % {"count": len(entries), "limit": MAX_WEBHOOKS})
    return entries


def _leaves(value: Any) -> Iterator[Any]:
    """Yield every value and key. Not recursive: nesting may be as deep as the parser allows."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        else:
            yield one


def listed_secrets(entry: Mapping[str, Any]) -> frozenset[str]:
    """Return the secrets that an entry lists; none if the list is malformed."""
    found = entry.get("secrets")
    return (
        frozenset(one for one in found if isinstance(one, str))
        if isinstance(found, list)
        else frozenset()
    )


def key_errors(entry: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each invalid key; the form validates the settings."""
    found = [sentence for key, value in entry.items() if (sentence := _mistake(key, value))]
    if not isinstance(entry.get("name"), str) or not entry["name"].strip():
        found.insert(0, _("It has no name."))
    return found


def _mistake(key: str, value: Any) -> str:
    if key in _IGNORED:
        return ""
    if key in _SECRET_KEYS:
        return _("“%s”: secrets are not imported. Enter it afterwards.") % key
    match key:
        case "uid":
            is_right = isinstance(value, str) and bool(_UID.fullmatch(value))
            return "" if is_right else _("“uid” is not one of a webhook. Leave it out.")
        case "connection":
            is_right = value is None or isinstance(value, str)
            return "" if is_right else _("“connection” must be the name of a connection, or null.")
        case "headers":
            return "" if _are_headers(value) else _("“headers” must be a list of names and values.")
    return "" if key in FIELDS else _("There is no setting “%s”.") % key[:60]


def _are_headers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, dict)
        and row.keys() <= {"name", "value", "secret"}
        and isinstance(row.get("name"), str)
        and isinstance(row.get("value", ""), str)
        and isinstance(row.get("secret", False), bool)
        for row in value
    )
