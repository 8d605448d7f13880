"""Held deliveries: which of them may be released, and their release in batches.

A pause, a resume, a deletion and a new token move the first rows at once and leave the rest to the
sweep, so that a million rows delay no request: for the first three the webhook's flag decides, and
the engine reads it.

What ends a hold also releases the held rows: a resume, a new token, a corrected form. A row held a
moment after that, or a process that died between the two, leaves rows that nothing else would
release; `release_overlooked` finds them. The caller notifies the engine.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from webhooks import network
from webhooks.delivery import queue
from webhooks.delivery.fan_out import is_readable
from webhooks.models import (
    BLOCKED_STATES,
    Credential,
    Delivery,
    DeliveryQuerySet,
    HoldReason,
    OAuthToken,
    Status,
    Trigger,
    Webhook,
    may_be_sent_to,
)
from webhooks.models.webhook import bump_version

TOKEN_HOLDS = (HoldReason.REAUTHORIZATION, HoldReason.MISCONFIGURED, HoldReason.NO_TOKEN)
BATCH = 2000
# The most rows that a person's request moves at once.
ROWS_AT_ONCE = 2000
# The most rows that one sweep moves; the next one continues.
ROWS_AT_A_LOOK = 20_000

# A loose index scan: one probe per webhook that has such rows, however many rows it has.
WITH_ROWS = """
WITH RECURSIVE found(webhook_id) AS (
  SELECT min(webhook_id) FROM webhooks_delivery WHERE status = '{status}'
  UNION ALL
  SELECT (SELECT min(d.webhook_id) FROM webhooks_delivery d
          WHERE d.status = '{status}' AND d.webhook_id > found.webhook_id)
  FROM found WHERE found.webhook_id IS NOT NULL
)
SELECT webhook_id FROM found WHERE webhook_id IS NOT NULL
"""


def release(held: QuerySet[Delivery], at_most: int) -> int:
    """Make held deliveries due, oldest first; return how many."""
    released, last = 0, ""
    while released < at_most:
        size = min(BATCH, at_most - released)
        following = held.filter(status=Status.HELD, pk__gt=last).order_by("id")
        with transaction.atomic():
            # Skip rows that another process is releasing or cancelling.
            locked = following.select_for_update(skip_locked=True, of=("self",))
            batch = list(locked.values_list("pk", flat=True)[:size])
            if not batch:
                break
            released += Delivery.objects.filter(pk__in=batch, status=Status.HELD).update(
                status=Status.PENDING, hold_reason="", next_attempt_at=Now()
            )
        if len(batch) < size:
            break
        last = batch[-1]
    return released


def stop(webhook_id: int, at_most: int) -> int:
    """Hold the waiting rows of a webhook that sends nothing; cancel those of a deleted one.

    Return how many rows; if it is `at_most`, there may be more.
    """
    stopped: int = queue.backend().hold([webhook_id], HoldReason.PAUSED.value, at_most)
    return stopped


def cancel_held(webhook_id: int, at_most: int) -> int:
    """Cancel the held rows of a deleted webhook; return how many, as `stop` does."""
    held = Delivery.objects.in_status(Status.HELD).filter(webhook=webhook_id)
    return _cancel(held, at_most)


def _cancel(held: QuerySet[Delivery], at_most: int) -> int:
    """Cancel the oldest of these held rows that are not locked; return how many."""
    with transaction.atomic():
        free = held.order_by("id").select_for_update(skip_locked=True, of=("self",))
        chosen = list(free.values_list("pk", flat=True)[:at_most])
        return Delivery.objects.filter(pk__in=chosen, status=Status.HELD).cancel()


def cancel_paused(webhook_id: int, at_most: int) -> int:
    """Cancel the rows that a resume is to cancel, held or not; return how many, as `stop` does."""
    webhooks = Webhook.objects.filter(pk=webhook_id)
    before = webhooks.values_list("cancels_before", flat=True).first()
    if before is None:
        # Another sweep has finished it.
        return 0
    stopped = stop(webhook_id, at_most)
    held = Delivery.objects.filter(
        webhook=webhook_id,
        status=Status.HELD,
        hold_reason=HoldReason.PAUSED,
        created_at__lt=before,
    )
    cancelled = _cancel(held, at_most)
    waiting = Delivery.objects.in_status(Status.PENDING).filter(
        webhook=webhook_id, created_at__lt=before
    )
    # Another transaction may keep rows locked.
    is_left = held.exists() or waiting.exclude(trigger=Trigger.TEST).exists()
    if stopped < at_most and cancelled < at_most and not is_left:
        with transaction.atomic():
            # Not equality, as SQLite stored milliseconds; the flag of a later resume stays.
            finished = webhooks.filter(cancels_before__lte=before)
            free = list(finished.select_for_update(skip_locked=True).values_list("pk", flat=True))
            finished.filter(pk__in=free).update(cancels_before=None, **bump_version())
    return max(stopped, cancelled)


def stop_overlooked() -> int:
    """Hold or cancel rows that requests left to the sweep; return how many, at most 20,000."""
    pending, held = webhooks_with(Status.PENDING), webhooks_with(Status.HELD)
    if not pending and not held:
        return 0
    inactive = Webhook.objects.filter(Q(is_active=False) | Q(deleted_at__isnull=False))
    work = [
        partial(stop, pk) for pk in inactive.filter(pk__in=pending).values_list("pk", flat=True)
    ]
    deleted = Webhook.objects.filter(pk__in=held, deleted_at__isnull=False)
    work += [partial(cancel_held, pk) for pk in deleted.values_list("pk", flat=True)]
    cancelling = Webhook.objects.filter(pk__in={*pending, *held}, cancels_before__isnull=False)
    work += [partial(cancel_paused, pk) for pk in cancelling.values_list("pk", flat=True)]
    return _move_in_turn(work, most=ROWS_AT_ONCE)


def _move_in_turn(work: Sequence[Callable[[int], int]], *, most: int) -> int:
    """Let each function move its share of 20,000 rows, `most` at a time; return how many moved.

    So a million rows of one webhook delay those of no other.
    """
    moved = 0
    while work and moved < ROWS_AT_A_LOOK:
        share = max(1, min(most, (ROWS_AT_A_LOOK - moved) // len(work)))
        left = []
        for move in work:
            if moved < ROWS_AT_A_LOOK:
                count = move(share)
                moved += count
                if count >= share:
                    left.append(move)
        work = left
    return moved


def webhooks_with(status: Status) -> list[int]:
    """Return the webhooks that have rows of a status."""
    with connection.cursor() as cursor:
        cursor.execute(WITH_ROWS.format(status=status.value))
        return [row[0] for row in cursor.fetchall()]


def waiting_for(credential: Credential) -> DeliveryQuerySet:
    """Return deliveries that wait for a credential, at every webhook that uses or owns it.

    Leaves out those that wait for an unreadable filter.
    """
    users = Webhook.objects.filter(Q(credential=credential) | Q(own_credential=credential))
    filters = dict(users.values_list("pk", "filter"))
    held = Delivery.objects.filter(webhook__in=list(filters), status=Status.HELD)
    unreadable = [pk for pk, tree in filters.items() if not is_readable(tree)]
    waiting = held.filter(hold_reason__in=TOKEN_HOLDS)
    if unreadable:
        waiting = waiting.exclude(hold_reason=HoldReason.MISCONFIGURED, webhook__in=unreadable)
    return waiting


def release_overlooked() -> int:
    """Release held rows that can be sent; return how many, at most 20,000.

    Rows that the engine would only hold again stay, so that none moves back and forth.
    """
    holding = webhooks_with(Status.HELD)
    work = []
    for webhook in _sendable(holding) if holding else ():
        held = Delivery.objects.in_status(Status.HELD).filter(webhook=webhook)
        if not is_readable(webhook.filter):
            # Only from the oldest rows: millions behind them may wait for the filter.
            oldest = held.order_by("id").values_list("pk", "hold_reason")[:BATCH]
            others = [pk for pk, reason in oldest if reason != HoldReason.MISCONFIGURED]
            held = held.filter(pk__in=others)
        work.append(partial(release, held))
    return _move_in_turn(work, most=ROWS_AT_A_LOOK)


def _sendable(webhook_ids: Iterable[int]) -> list[Webhook]:
    """Return those of the webhooks that are active and whose requests can be authorized."""
    active = Webhook.objects.active().filter(pk__in=webhook_ids, cancels_before=None)
    active = active.select_related("credential")
    columns = ("webhook", "allowed_hosts", "authorization_type", "grant_type", "secret_origins")
    wanted = ("url", "filter", "secret_origins", *(f"credential__{name}" for name in columns))
    webhooks = list(active.only(*wanted).order_by("pk"))
    used = {webhook.credential_id for webhook in webhooks}
    tokens = OAuthToken.objects.only("state", "access_token", "refresh_token").in_bulk(used)
    return [
        webhook
        for webhook in webhooks
        if _may_go(webhook)
        and _is_authorized(webhook.credential, tokens.get(webhook.credential_id))
    ]


def _may_go(webhook: Webhook) -> bool:
    """Return whether the webhook's secrets may be sent to its receiver."""
    try:
        origin = network.parse_url(webhook.url).origin
    except network.UnsafeURLError:
        # Sending refuses the URL, with a reason at the webhook; with a shared credential it waits.
        return not webhook.credential.is_shared
    return may_be_sent_to(webhook.credential, origin) and may_be_sent_to(
        webhook, origin, "headers_json"
    )


def _is_authorized(credential: Credential, token: OAuthToken | None) -> bool:
    """Return whether the engine has a token, fetches one, or records that it cannot get one."""
    if not credential.is_oauth:
        return True
    if token is not None and token.state in BLOCKED_STATES:
        return False
    if credential.is_machine:
        return True
    return token is not None and (token.has_access_token() or token.has_refresh_token())
