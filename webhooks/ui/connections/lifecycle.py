"""Make a connection of a webhook's credentials, and delete one that nobody uses.

A connection is a webhook row without a request: docs/decisions/0005-connections.md. Knows no HTTP.
"""

import copy

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from webhooks import events, network, oauth
from webhooks.models import (
    AuthorizationType,
    Connection,
    OAuthExchange,
    OAuthToken,
    TokenState,
    Webhook,
)
from webhooks.models.authorization import AuthorizationFields
from webhooks.security.encryption import SecretField

__all__ = ["ConnectionRefused", "delete", "hold", "save_as_connection", "users_of"]

_MAX_NAME = 100
# The lease is a worker's, and the old row's seals open only there.
_NOT_MOVED = {"webhook", "access_token", "refresh_token", "refresh_lease", "refresh_lease_until"}


class ConnectionRefused(ValueError):
    """What was asked for cannot be done now; str() is the sentence that says why."""


def users_of(connection: Webhook) -> QuerySet[Webhook]:
    """Return the webhooks that use a connection; a deleted one uses nothing."""
    return Webhook.objects.present().filter(connection=connection.pk)


def hold(pk: int) -> None:
    """Keep a connection from being deleted until the transaction that is open has ended.

    Whoever lets a webhook use a connection calls it first. Raises ConnectionRefused.
    """
    present = Webhook.objects.connections().select_for_update(of=("self",)).filter(pk=pk)
    if not present.values_list("pk", flat=True):
        raise ConnectionRefused(
            _("The connection was deleted in the meantime. Choose another, or other credentials.")
        )


def delete(connection: Webhook) -> None:
    """Erase a connection's secrets and revoke its token. Raises ConnectionRefused while used."""
    before = copy.copy(connection)
    with transaction.atomic():
        # Nobody begins to use it between the look and the deletion: see `hold`.
        locked = Webhook.objects.select_for_update(of=("self",)).filter(pk=connection.pk)
        list(locked.values_list("pk"))
        if users_of(connection).exists():
            raise ConnectionRefused(
                _("“%s” is used by webhooks: choose other credentials for them first.") % connection
            )
        tokens = events.erase(connection)
    # Over the network, so after the transaction.
    oauth.revoke(before, tokens)


def save_as_connection(webhook: Webhook, *, created_by_id: int | None) -> Connection:
    """Move a webhook's own credentials and token into a connection for its host, and use that.

    One transaction; nothing is sent meanwhile with half of it. Raises ConnectionRefused.
    """
    if webhook.connection_id or webhook.authorization_type == AuthorizationType.NONE:
        raise ConnectionRefused(_("This webhook has no credentials of its own."))
    try:
        host = network.parse_url(webhook.url).host
    except network.UnsafeURLError as error:
        raise ConnectionRefused(error.reason) from error
    connection = Connection(
        name=_free_name(webhook.name), allowed_hosts=[host], created_by_id=created_by_id
    )
    columns = _move_credentials(webhook, connection)
    with transaction.atomic():
        connection.save()
        _move_token(webhook, connection)
        webhook.connection = connection
        webhook.save(update_fields=[*columns, "connection", "secrets_changed_at"])
    return connection


def _free_name(name: str) -> str:
    """Return a name that no other connection has: it is chosen by its name."""
    taken = {used.lower() for used in Webhook.objects.connections().values_list("name", flat=True)}
    found, number = name[:_MAX_NAME], 1
    while found.lower() in taken:
        number += 1
        ending = f" {number}"
        found = name[: _MAX_NAME - len(ending)] + ending
    return found


def _move_credentials(webhook: Webhook, connection: Connection) -> list[str]:
    """Copy every field of the authorization, leave its default behind, and return their names."""
    changed_at = dict(webhook.secrets_changed_at)
    names = [field.name for field in AuthorizationFields._meta.get_fields()]
    for name in names:
        field = Webhook._meta.get_field(name)
        value = getattr(webhook, name)
        if not isinstance(field, SecretField):
            setattr(connection, name, value)
            setattr(webhook, name, field.get_default())  # type: ignore[union-attr]
        elif value:
            # Opened here, and sealed anew for the connection's row.
            connection.set_secret(name, value)
            webhook.set_secret(name, "")
            if name in changed_at:
                connection.secrets_changed_at[name] = changed_at[name]
    return names


def _move_token(webhook: Webhook, connection: Connection) -> None:
    """Move the token's row, unless a worker is refreshing it: its answer would be lost."""
    token = OAuthToken.objects.filter(webhook=webhook).first()
    if token is None:
        return
    moved = OAuthToken(
        webhook=connection,
        access_token=token.access_token,
        refresh_token=token.refresh_token,
        **{
            field.attname: getattr(token, field.attname)
            for field in OAuthToken._meta.concrete_fields
            if field.name not in _NOT_MOVED
        },
    )
    if moved.state == TokenState.REFRESHING:
        moved.state = TokenState.VALID
    free = Q(refresh_lease="") | Q(refresh_lease_until__lt=Now()) | Q(refresh_lease_until=None)
    # The same rows as in a worker's claim of the lease: one of the two finds none.
    if not OAuthToken.objects.filter(free, pk=token.pk, version=token.version).delete()[0]:
        raise ConnectionRefused(
            _("The access token is being refreshed right now. Try again in a few seconds.")
        )
    moved.save(force_insert=True)
    OAuthExchange.objects.filter(webhook=webhook).update(webhook=connection)
