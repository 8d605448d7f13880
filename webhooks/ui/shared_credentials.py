"""Connections: list them, check where they may be sent, create and delete them.

A connection is a credential with a name: docs/decisions/0005-credentials.md.
"""

import copy
from datetime import datetime

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from webhooks import events, network, oauth
from webhooks.alerts import problems
from webhooks.models import (
    CREDENTIAL_SECRETS,
    TOKEN_SECRETS,
    AuthorizationType,
    Credential,
    EditedRow,
    GrantType,
    OAuthToken,
    TokenState,
    Webhook,
    host_entry,
    may_be_sent_to,
    origin_of,
)
from webhooks.ui.status import SECRETS_OF_TOKEN

_MAX_NAME = 100


class ConnectionUnavailableError(ValueError):
    """The requested action is not possible now; str() is a sentence with the reason."""


def known_origin(url: object) -> str:
    """Return the origin of a URL; empty if the network guard rejects the URL."""
    text = str(url or "").strip()
    try:
        network.parse_url(text)
    except network.UnsafeURLError:
        return ""
    return origin_of(text)


def connections() -> QuerySet[Credential]:
    """Return all connections with their tokens, without secrets."""
    found = Credential.objects.shared().select_related("token")
    return found.defer(*CREDENTIAL_SECRETS, *SECRETS_OF_TOKEN)


def check_receiver(credential: Credential, url: str) -> None:
    """Raise ValidationError if a credential may not be sent to a URL."""
    origin = known_origin(url)
    if origin and not may_be_sent_to(credential, origin):
        raise ValidationError(
            _(
                "“%(name)s” may not be sent to %(origin)s. Add it to the hosts of the connection, "
                "or choose another one."
            ),
            code="host",
            params={"name": credential.name, "origin": origin},
        )


def bound_elsewhere(row: EditedRow, field: str, url: str) -> str:
    """Return why a stored secret has to be entered again for a URL; empty if it does not."""
    if may_be_sent_to(row, url, field):
        return ""
    known = row.secret_origins.get(field, [])
    if not known:
        sentence = _("Enter it again: it was not entered for %(origin)s.")
    else:
        sentence = _(
            "Enter it again to send it to %(origin)s: it was entered for %(known)s and goes "
            "nowhere else."
        )
    return sentence % {"origin": origin_of(url), "known": ", ".join(known)}


def users_of(connection: Credential) -> QuerySet[Webhook]:
    """Return the webhooks that use a connection, without deleted ones."""
    return Webhook.objects.present().filter(credential=connection.pk)


def lock_connection(pk: int) -> None:
    """Lock a connection against deletion until the end of the current transaction.

    Call it before a webhook begins to use the connection. Raises ConnectionUnavailableError.
    """
    present = Credential.objects.shared().select_for_update().filter(pk=pk)
    if not present.values_list("pk", flat=True):
        raise ConnectionUnavailableError(
            _("The connection was deleted in the meantime. Choose another, or other credentials.")
        )


def delete(connection: Credential) -> None:
    """Erase a connection's secrets and revoke its token.

    Raises ConnectionUnavailableError if webhooks use it.
    """
    before = copy.copy(connection)
    with transaction.atomic():
        # So that no webhook begins to use it between query and deletion: see `lock_connection`.
        locked = Credential.objects.select_for_update().filter(pk=connection.pk)
        list(locked.values_list("pk"))
        if users_of(connection).exists():
            raise ConnectionUnavailableError(
                _("“%s” is used by webhooks. Choose other credentials for them first.") % connection
            )
        tokens = events.erase(connection)
    # Revocation uses the network, so it comes after the transaction.
    oauth.revoke(before, tokens)


def save_as_connection(webhook: Webhook, *, created_by_id: int | None) -> Credential:
    """Convert a webhook's own credential, with its token, to a connection bound to its host.

    The webhook keeps using it, and gets a new, empty credential of its own. Raises
    ConnectionUnavailableError.
    """
    credential = webhook.credential
    if credential.is_shared or credential.authorization_type == AuthorizationType.NONE:
        raise ConnectionUnavailableError(_("This webhook has no credentials of its own."))
    try:
        origin = network.parse_url(webhook.url).origin
    except network.UnsafeURLError as error:
        raise ConnectionUnavailableError(error.reason) from error
    credential.webhook = None
    credential.name = _free_name(webhook.name)
    # A host without a scheme means https.
    credential.allowed_hosts = [host_entry(origin)]
    credential.created_by_id = created_by_id
    with transaction.atomic():
        credential.save(update_fields=["webhook", "name", "allowed_hosts", "created_by"])
        Credential(webhook_id=webhook.uid).save()
    return credential


def combine(webhooks: list[Webhook], *, created_by_id: int | None) -> Credential:
    """Combine the credentials of several webhooks with the same client into one connection.

    It requests the scopes of all, may be sent to the receivers of all, and needs a new token,
    since no token was granted for all of them. Raises ConnectionUnavailableError.
    """
    clients = {client_of(webhook.credential) for webhook in webhooks}
    if len(webhooks) < 2 or len(clients) != 1:
        raise ConnectionUnavailableError(
            _("These webhooks do not have the same client at one provider.")
        )
    first, *others = webhooks
    credentials = [webhook.credential for webhook in webhooks]
    origins = [origin_of(webhook.url) for webhook in webhooks]
    with transaction.atomic():
        connection = save_as_connection(first, created_by_id=created_by_id)
        connection.allowed_hosts = list(dict.fromkeys(map(host_entry, origins)))
        scopes = " ".join(one.scope for one in credentials).split()
        connection.scope = " ".join(dict.fromkeys(scopes))
        connection.accepts_plain_http = any(one.accepts_plain_http for one in webhooks)
        connection.save(update_fields=["allowed_hosts", "scope", "accepts_plain_http"])
        for webhook in others:
            webhook.credential = connection
            webhook.save(update_fields=["credential"])
        oauth.drop_if_changed("", connection, "")
    return connection


def client_of(credential: Credential) -> tuple[str, ...]:
    """Return a key that is equal for private credentials that need the same grant."""
    if credential.is_shared or credential.grant_type != GrantType.AUTHORIZATION_CODE:
        return (credential.uid,)
    return (credential.auth_url, credential.token_url, credential.client_id)


def ended_grants(now: datetime) -> list[list[Credential]]:
    """Return the credentials that need re-authorization, grouped by user and provider.

    Includes those whose grant ends soon.
    """
    tokens = OAuthToken.objects.filter(
        credential__authorization_type=AuthorizationType.OAUTH2, credential__deleted_at=None
    ).filter(
        Q(state=TokenState.NEEDS_REAUTHORIZATION)
        | Q(refresh_end_moves=False, refresh_token_expires_at__lt=now + problems.TOKEN_ENDS_WITHIN)
    )
    used = Webhook.objects.present().filter(credential=OuterRef("credential"))
    groups: dict[tuple[object, ...], list[Credential]] = {}
    found = tokens.filter(Exists(used)).defer(*TOKEN_SECRETS)
    for token in found.select_related("credential__webhook", "granted_by").order_by("pk"):
        credential = token.credential
        if not credential.is_machine:
            key = (token.granted_by_id, origin_of(credential.token_url))
            groups.setdefault(key, []).append(credential)
    return list(groups.values())


def _free_name(name: str) -> str:
    """Return a name that no other connection has, since people choose connections by name."""
    taken = {used.lower() for used in Credential.objects.shared().values_list("name", flat=True)}
    found, number = name[:_MAX_NAME], 1
    while found.lower() in taken:
        number += 1
        ending = f" {number}"
        found = name[: _MAX_NAME - len(ending)] + ending
    return found
