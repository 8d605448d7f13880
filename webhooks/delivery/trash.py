"""Deleted webhooks: they send nothing, and lose their secrets after 30 days unless restored."""

import copy
import datetime as dt
import time

from django.db import transaction
from django.utils import timezone

from webhooks import audit, oauth
from webhooks.delivery import holds, queue
from webhooks.models import (
    CREDENTIAL_SECRETS,
    WEBHOOK_SECRETS,
    Action,
    Credential,
    Delivery,
    OAuthToken,
    PauseReason,
    Status,
    Trigger,
    Webhook,
    WebhookVersion,
)

# How long people have to notice that they miss one.
KEPT_DAYS = 30
# A revocation may take some seconds; the next run continues. Other tasks wait for the same slot.
_PURGED_AT_ONCE, PURGE_SECONDS = 20, 5.0


def delete(webhook: Webhook) -> None:
    """Move a webhook to the trash: cancel what waits, keep its log and encrypted secrets."""
    own = webhook.private_credential
    with transaction.atomic():
        webhook.deleted_at = queue.now()
        if webhook.is_active:
            webhook.pause(PauseReason.PERSON)
            # Equal times tell `restore` that it was active.
            webhook.paused_at = webhook.deleted_at
        webhook.save(update_fields=["deleted_at", "is_active", "pause_reason", "paused_at"])
        # Prevents a refresh of its token.
        own.deleted_at = webhook.deleted_at
        own.save(update_fields=["deleted_at"])
        # The first rows; the sweep cancels the rest, and the engine sends none of them.
        holds.stop(webhook.pk, holds.ROWS_AT_ONCE)
        holds.cancel_held(webhook.pk, holds.ROWS_AT_ONCE)
        Delivery.objects.in_status(Status.PARKED).filter(webhook=webhook).cancel()
        Delivery.objects.filter(webhook=webhook, trigger=Trigger.TEST).cancel()


def restore(pk: int) -> Webhook | None:
    """Restore a webhook from the trash as it was; return None if it is not there (any more).

    If the connection it used was deleted since, it stays paused and uses its own credential.
    """
    with transaction.atomic():
        # With the credential, so that a connection is not deleted at the same time.
        found = Webhook.objects.trashed().select_for_update(of=("self", "credential"))
        webhook = found.select_related("credential").filter(pk=pk).first()
        if webhook is None:
            return None
        own = webhook.private_credential
        own.deleted_at = None
        own.save(update_fields=["deleted_at"])
        was_active = webhook.paused_at == webhook.deleted_at
        webhook.deleted_at = None
        if webhook.credential.is_shared and webhook.credential.deleted_at:
            webhook.credential = own
        elif was_active:
            webhook.resume()
        webhook.save(
            update_fields=["deleted_at", "credential", "is_active", "pause_reason", "paused_at"]
        )
    return webhook


def purge(webhook: Webhook) -> bool:
    """Erase the secrets of a webhook in the trash and revoke its token; its log stays.

    Return False if it is no longer there: restored, or purged by another process.
    """
    own = webhook.private_credential
    before = copy.copy(own)
    with transaction.atomic():
        found = Webhook.objects.trashed().select_for_update().filter(pk=webhook.pk)
        if not found.values_list("pk"):
            return False
        tokens = erase(own)
        for field in WEBHOOK_SECRETS:
            setattr(webhook, field, "")
        webhook.secrets_changed_at = {}
        webhook.purged_at = timezone.now()
        webhook.save()
        WebhookVersion.objects.filter(webhook=webhook).delete()
    # Best effort and over the network: even if it fails, no secret is left here.
    oauth.revoke(before, tokens)
    return True


def purge_old(now: dt.datetime) -> None:
    """Purge webhooks that have been in the trash for too long."""
    ends_at = now - dt.timedelta(days=KEPT_DAYS)
    until = time.monotonic() + PURGE_SECONDS
    for webhook in Webhook.objects.trashed().filter(deleted_at__lte=ends_at)[:_PURGED_AT_ONCE]:
        if purge(webhook):
            audit.record(Action.PURGED, webhook, user=None)
        if time.monotonic() > until:
            break


def erase(credential: Credential) -> list[oauth.IssuedToken]:
    """Mark a credential as deleted and erase its secrets, in the caller's transaction.

    Return its tokens, for the provider to revoke.
    """
    # Even if the credential was changed to another type since: its grant is still valid.
    tokens = oauth.stored_tokens(credential.pk)
    credential.deleted_at = credential.deleted_at or timezone.now()
    for field in CREDENTIAL_SECRETS:
        credential.set_secret(field, "")
    credential.save()
    OAuthToken.objects.filter(credential=credential).delete()
    return tokens
