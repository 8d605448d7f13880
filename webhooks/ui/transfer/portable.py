"""A webhook as JSON: every setting by the name of its column, no secret, connections by name."""

from collections.abc import Collection, Iterable
from typing import Any

from django.db import models
from django.utils.translation import gettext as _

from webhooks import oauth
from webhooks.models import AuthorizationType, GrantType, Webhook
from webhooks.security.encryption import SecretField, SecretUnreadableError
from webhooks.ui.webhook_form.headers import Header, stored_headers

VERSION = 1
# What belongs to this site's row alone: its identity, its history, its secrets' dates.
NOT_PORTABLE = frozenset(
    {
        *("id", "uid", "version", "created_at", "created_by", "updated_at", "deleted_at"),
        *("is_connection", "connection", "allowed_hosts", "pause_reason", "paused_at"),
        *("previous_signing_secret_until", "secrets_changed_at", "alerts_muted_until"),
    }
)
# New columns are portable by themselves.
FIELDS: dict[str, "models.Field[Any, Any]"] = {
    field.name: field
    for field in Webhook._meta.concrete_fields
    if field.name not in NOT_PORTABLE and not isinstance(field, SecretField)
}
_SECRETS = ("basic_password", "client_secret")


def document(webhooks: Iterable[Webhook]) -> dict[str, Any]:
    """Return the file's content."""
    return {"version": VERSION, "webhooks": [as_json(webhook) for webhook in webhooks]}


def as_json(webhook: Webhook) -> dict[str, Any]:
    """Return one webhook; `secrets` names what has to be entered where it is imported."""
    headers, secrets = _headers(webhook)
    own = [name for name in _SECRETS if webhook.has_secret(name)]
    return {
        "uid": webhook.uid,
        **settings_of(webhook),
        "headers": headers,
        "connection": webhook.connection.name if webhook.connection else None,
        "secrets": [*own, *secrets],
    }


def settings_of(webhook: Webhook) -> dict[str, Any]:
    """Return the value of every portable column."""
    found = {name: getattr(webhook, name) for name in FIELDS}
    # The default is an address of this site; elsewhere it is another one.
    if found["callback_url"] == oauth.default_callback_url():
        found["callback_url"] = ""
    return found


def portable_headers(headers: Iterable[Header]) -> list[dict[str, Any]]:
    """Return headers as they are in a file: a secret one without its value."""
    return [
        {"name": header.name, "secret": True}
        if header.is_secret
        else {"name": header.name, "value": header.value}
        for header in headers
    ]


def _headers(webhook: Webhook) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        headers = stored_headers(webhook)
    except SecretUnreadableError:
        # Sealed under a key that is gone: the other settings are still worth having.
        return [], ["headers"]
    return portable_headers(headers), [f"headers.{one.name}" for one in headers if one.is_secret]


def missing_secrets(webhook: Webhook, listed: Collection[str] = ()) -> list[str]:
    """Name, for people, the secrets that a webhook's requests need and do not have.

    `listed` are those that the file names: a client of the authorization code grant may have none,
    so only the file knows that this one had.
    """
    missing = []
    if not webhook.connection_id:
        kind, grant = webhook.authorization_type, webhook.grant_type
        if kind == AuthorizationType.BASIC and not webhook.has_secret("basic_password"):
            missing.append(_("the password"))
        needs_client = kind == AuthorizationType.OAUTH2 and (
            grant == GrantType.CLIENT_CREDENTIALS or "client_secret" in listed
        )
        if needs_client and not webhook.has_secret("client_secret"):
            missing.append(_("the client secret"))
    try:
        headers = stored_headers(webhook)
    except SecretUnreadableError:
        return missing
    if "headers" in listed and not headers:
        missing.append(_("the headers, which the other site could not read"))
    nameless = [header.name for header in headers if header.is_secret and not header.value]
    return missing + [_("the value of the header %s") % name for name in nameless]
