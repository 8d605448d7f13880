"""The result of an event at each webhook: sent, filtered out, type not chosen, created later.

The number of statements does not depend on the number of webhooks.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.db.models import Case, Q, Value, When

from webhooks import payloads
from webhooks.delivery_log import explain
from webhooks.filters import Folded
from webhooks.models import WEBHOOK_SECRETS, Delivery, Event, Status, Webhook

# Lines on one page; webhooks with a delivery come first.
MAX_WEBHOOKS = 500
MAX_DELIVERIES = 1000
# Sources of events that are sent to one webhook only, whatever its filter.
FOR_ONE = ("test", "edited")
_ORDER = {"neutral": 2, "warning": 1, "info": 1}
# What needs attention first: a short list of outcomes must not leave it out.
_TROUBLE_FIRST = (
    Status.FAILED,
    Status.PARKED,
    Status.HELD,
    Status.PENDING,
    Status.SENDING,
    Status.CANCELLED,
    Status.SUCCEEDED,
)


def get(event_id: str) -> Event | None:
    # PostgreSQL rejects NUL in text.
    return Event.objects.filter(pk=event_id.replace("\0", "")).first()


def lines_of(event: Event) -> list[dict[str, Any]]:
    """Return a line with webhook and verdict for each webhook: sent first, then rejected."""
    sent: dict[int, list[Delivery]] = defaultdict(list)
    newest = list(Delivery.objects.filter(event=event).order_by("-id")[:MAX_DELIVERIES])
    for delivery in newest:
        sent[delivery.webhook_id].append(delivery)
    concerned = Q(pk__in=sent)
    # If there are more deliveries, a webhook without one here may have one among those.
    if event.source not in FOR_ONE and len(newest) < MAX_DELIVERIES:
        concerned |= Q(deleted_at=None)
    sent_first = Case(When(pk__in=sent, then=Value(0)), default=Value(1))
    found = Webhook.objects.filter(concerned).order_by(sent_first, "name", "pk")
    webhooks = list(found.defer(*WEBHOOK_SECRETS)[:MAX_WEBHOOKS])
    changes = explain.last_changes(webhooks, event.created_at)
    folded = Folded(payloads.read_document(event.payload))
    lines = []
    for one in webhooks:
        verdict = explain.judge_for(one, changes).verdict(event, sent[one.pk], folded)
        lines.append({"webhook": one, "verdict": verdict})
    return sorted(lines, key=_rank)


def _rank(line: dict[str, Any]) -> int:
    verdict = line["verdict"]
    return 0 if "deliveries" in verdict else _ORDER[verdict["kind"]]


def outcomes(event_ids: Sequence[str]) -> list[tuple[Event, list[Delivery]]]:
    """Return events in the order of the ids, with their newest delivery to each webhook.

    Deliveries are in the order of the attention they need: failed, stuck, on hold, waiting, ...
    """
    events = Event.objects.defer("payload").in_bulk(event_ids)
    found: dict[str, dict[int, Delivery]] = defaultdict(dict)
    rows = Delivery.objects.filter(event__in=events).select_related("webhook").order_by("id")
    for row in rows.defer(*(f"webhook__{name}" for name in WEBHOOK_SECRETS)):
        found[row.event_id][row.webhook_id] = row
    return [
        (events[one], sorted(found[one].values(), key=_attention))
        for one in event_ids
        if one in events
    ]


def _attention(delivery: Delivery) -> int:
    return _TROUBLE_FIRST.index(Status(delivery.status))
