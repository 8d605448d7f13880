"""Explain why an event was or was not sent to a webhook: a label, a sentence and the conditions.

Uses the webhook's current settings, and notes whether they changed after the event. Read-only.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db.models import Max, Q, TextField
from django.db.models.functions import Cast
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import catalogue, payloads
from webhooks.delivery_log.detail import status_sentence
from webhooks.filters import Filter, FilterError, Folded, compile_filter
from webhooks.models import (
    Action,
    AuditEntry,
    Delivery,
    Event,
    Status,
    Trigger,
    Webhook,
)

# Entries that may change whether a webhook receives an event: by their action, or by a field, whose
# name is searched in the JSON text because SQLite cannot search a JSON list.
_DECIDING = (
    Q(action__in=(Action.CREATED, Action.IMPORTED, Action.RESTORED))
    | Q(fields_text__contains='"filter"')
    | Q(fields_text__contains='"event_types"')
)

# Colour of a delivery's verdict, as of its badge in the log.
_KINDS = {
    Status.SUCCEEDED: "success",
    Status.PENDING: "info",
    Status.SENDING: "info",
    Status.FAILED: "danger",
    Status.PARKED: "warning",
    Status.CANCELLED: "neutral",
    Status.HELD: "held",
}


Verdict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judge:
    """Explains many events for one webhook, which is read once.

    A verdict has a `kind` (its colour), a `label` and a `sentence`, and if they apply:
    `deliveries`, the filter's `judgement` and its `refusals`, `is_type_unwanted`, and
    `changed_since`: when the webhook was changed after the event, so the reason may differ.
    """

    webhook: Webhook
    # None if the stored filter is invalid; no event passes then.
    filter: Filter | None
    changed_at: dt.datetime

    def verdict(
        self, event: Event, deliveries: Sequence[Delivery], folded: Folded | None = None
    ) -> Verdict:
        """Return why the event was or was not sent; `deliveries` are the event's, newest first.

        `folded` is the prepared payload, to share between several filters.
        """
        if deliveries:
            return _sent(deliveries)
        return self._not_made(event) or self._not_wanted(event, folded)

    def _not_made(self, event: Event) -> Verdict | None:
        """Return the verdict if the webhook was never considered for the event, else None."""
        webhook, label = self.webhook, _("Not sent")
        if event.source == "test":
            sentence = _("It was a test of another webhook.")
        elif event.copy_of:
            sentence = _("It is an edited copy, sent to another webhook only.")
        elif event.created_at < webhook.created_at:
            label = _("Created later")
            sentence = _("The event happened before this webhook was created.")
        elif webhook.deleted_at and event.created_at >= webhook.deleted_at:
            sentence = _("The webhook was deleted before the event happened.")
        else:
            return None
        return {"kind": "neutral", "label": label, "sentence": sentence}

    def _not_wanted(self, event: Event, folded: Folded | None) -> Verdict:
        since = self.changed_at if self.changed_at > event.created_at else None
        verdict: Verdict = {"kind": "warning", "label": _("Not sent"), "changed_since": since}
        if set(catalogue.patterns_for(event.type)).isdisjoint(self.webhook.event_types):
            sentence = _("The webhook does not receive events of this type.")
            label = _("Type not chosen")
            more = {"kind": "neutral", "label": label, "is_type_unwanted": True}
            return {**verdict, **more, "sentence": sentence}
        if self.filter is None:
            sentence = _("The webhook's filter cannot be read. Edit it and save it again.")
            return {**verdict, "sentence": sentence}
        judgement = self.filter.judge(folded or payloads.read_document(event.payload))
        verdict["judgement"] = judgement
        if judgement and (refusals := list(judgement.refusals())):
            sentence = ngettext(
                "The filter did not match: %d condition was not met.",
                "The filter did not match: %d conditions were not met.",
                len(refusals),
            ) % len(refusals)
            label = _("Filtered out")
            return {**verdict, "label": label, "sentence": sentence, "refusals": refusals}
        if since:
            sentence = _("It would be sent now. The webhook was different when the event happened.")
        else:
            sentence = _("It matches, but has no delivery. The delivery may have been deleted.")
        return {**verdict, "kind": "info", "sentence": sentence}


def judge_for(webhook: Webhook, changes: Mapping[int, dt.datetime] | None = None) -> Judge:
    """Return the judge of a webhook; `changes` is the result of `last_changes`, if known."""
    compiled = None
    with suppress(FilterError):
        compiled = compile_filter(webhook.filter)
    changed_at = (changes or last_changes([webhook], webhook.created_at))[webhook.pk]
    return Judge(webhook, compiled, changed_at)


def last_changes(webhooks: Sequence[Webhook], since: dt.datetime) -> dict[int, dt.datetime]:
    """Return when filter or event types of each webhook last changed, or a time before `since`."""
    # Webhooks that were not saved since have no changes to look for.
    saved = [str(one.pk) for one in webhooks if one.updated_at >= since]
    trail = AuditEntry.objects.filter(object_type="webhook", object_id__in=saved, at__gte=since)
    named = trail.alias(fields_text=Cast("fields", TextField())).order_by()
    # Webhooks with an entry; None if it has none of the deciding ones.
    found = dict(named.values_list("object_id").annotate(changed_at=Max("at", filter=_DECIDING)))
    # A save without an audit entry may have changed anything.
    return {one.pk: found.get(str(one.pk), one.updated_at) or one.created_at for one in webhooks}


def _sent(deliveries: Sequence[Delivery]) -> Verdict:
    # The newest delivery decides, such as a resend after a failure.
    delivery = deliveries[0]
    kind = _KINDS[Status(delivery.status)]
    sentence = status_sentence(delivery)
    if all(one.trigger in (Trigger.RESENT, Trigger.BULK) for one in deliveries):
        sentence = _("%s Not at once: a person resent it later.") % sentence
    label = delivery.get_status_display()
    return {"kind": kind, "label": label, "sentence": sentence, "deliveries": deliveries}
