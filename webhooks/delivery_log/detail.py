"""Data for the page of one delivery, in the product and in Django admin.

The number of rows read does not depend on the size of the log. The caller decides who may see
payloads.
"""

import json
from itertools import zip_longest
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import payloads
from webhooks.curl import CurlError, writer
from webhooks.delivery import queue
from webhooks.delivery_log import diff
from webhooks.delivery_log.decoded_body import header_lines
from webhooks.delivery_log.diff import Difference
from webhooks.models import Attempt, Delivery, Event, HoldReason, Outcome, Status, Webhook

# Attempts on one page; the retry schedule has ten.
MAX_ATTEMPTS = 100
# Attempts loaded with their bodies; older ones are loaded one at a time.
FULL_ATTEMPTS = 10
# The part of a body that a page shows.
SHOWN_BYTES = 20_000
# The part of the payload that a page shows; larger, since only complete JSON can be folded.
PAYLOAD_BYTES = 65_536
_BODIES = ("request_body", "response_body")
# Fields that every event document begins with; an edited copy gets its own.
RESERVED = ("event", "event_id", "occurred_at", "project_id")
# Sources of edited copies and tests, hidden because the trigger is shown in words.
_OUR_SOURCES = ("edited", "test")

# What a delivery on hold waits for.
_RELEASES: dict[str, Promise] = {
    HoldReason.PAUSED: gettext_lazy("Sent after the webhook is resumed."),
    HoldReason.REAUTHORIZATION: gettext_lazy("Sent after the webhook is authorized again."),
    HoldReason.MISCONFIGURED: gettext_lazy("Sent after the settings are corrected."),
    HoldReason.NO_TOKEN: gettext_lazy("Sent after the webhook is authorized."),
}


def context_of(
    delivery: Delivery, *, may_see_payload: bool, wanted: str = "", against: str = ""
) -> dict[str, Any]:
    """Return the context of `webhooks/deliveries/_delivery.html` without links and buttons.

    `wanted` is the number of an attempt to open, `against` that of one to compare it with.
    """
    rows = _attempts(delivery, wanted, against)
    payload = bytes(delivery.event.payload)
    login = _login(delivery.webhook)
    is_held = delivery.status == Status.HELD
    full = {row.pk for row in rows if not row.get_deferred_fields()}
    opened = next((row for row in rows if str(row.number) == wanted), rows[0] if rows else None)
    attempts = []
    for row, previous in zip_longest(rows, rows[1:]):
        shown: dict[str, Any] = {
            "row": row,
            # Makes the ids of this attempt's parts unique on the page.
            "key": str(row.pk),
            "is_full": row.pk in full,
            "is_open": row is opened,
        }
        if row.pk in full and may_see_payload:
            shown |= _command(row, payload, login)
        if row.pk in full and previous and previous.pk in full:
            found = diff.compare(previous, row, payload=payload, with_bodies=may_see_payload)
            shown |= {"previous": previous, "differences": found}
        attempts.append(shown)
    return {
        "delivery": delivery,
        "event": delivery.event,
        "event_source": "" if delivery.event.source in _OUR_SOURCES else delivery.event.source,
        "webhook": delivery.webhook,
        "attempts": attempts,
        "comparison": _comparison(rows, wanted, against, payload, may_see_payload),
        "wanted": wanted,
        "against": against,
        # The badge already says that it is on hold.
        "status_sentence": f"{delivery.get_hold_reason_display()}."
        if is_held
        else status_sentence(delivery),
        "release": _RELEASES.get(delivery.hold_reason, "") if is_held else "",
        "shown_bytes": SHOWN_BYTES,
        "payload_bytes": PAYLOAD_BYTES,
        "may_see_payload": may_see_payload,
        "may_resend": delivery.status not in (Status.SENDING, Status.HELD),
        "is_open": delivery.status in (Status.PENDING, Status.HELD, Status.PARKED),
    }


def _attempts(delivery: Delivery, wanted: str, against: str) -> list[Attempt]:
    """Return the newest attempts, newest first, with bodies for recent and requested ones."""
    newest = Attempt.objects.filter(delivery=delivery).order_by("-number", "-id")
    rows = list(newest.defer(*_BODIES)[:MAX_ATTEMPTS])
    asked = {wanted, against, _before(wanted)}
    keys = [row.pk for row in rows[:FULL_ATTEMPTS]]
    keys += [row.pk for row in rows[FULL_ATTEMPTS:] if str(row.number) in asked]
    full = Attempt.objects.filter(delivery=delivery).in_bulk(keys)
    return [full.get(row.pk, row) for row in rows]


def _before(number: str) -> str:
    return str(int(number) - 1) if number.isdecimal() and len(number) < 6 else ""


def _command(row: Attempt, payload: bytes, login: str) -> dict[str, Any]:
    """Return the cURL command to copy, or the reason why there is none."""
    if row.is_address_cut:
        sentence = _("Only the beginning of the address is stored, so there is no cURL command.")
        return {"curl_refusal": sentence}
    try:
        headers = header_lines(row.request_headers)
        body = row.body_sent(payload)
        return {"curl": writer.build(row.request_line, headers, body, login=login)}
    except CurlError as refused:
        return {"curl_refusal": str(refused)}


def _login(webhook: Webhook) -> str:
    credential = webhook.credential
    return credential.basic_login if credential.is_basic else ""


def _comparison(
    rows: list[Attempt], wanted: str, against: str, payload: bytes, may_see_payload: bool
) -> list[Difference] | None:
    """Compare the two chosen attempts; return None unless two different ones are chosen."""
    by_number = {str(row.number): row for row in rows}
    if wanted == against or wanted not in by_number or against not in by_number:
        return None
    before, after = sorted((by_number[wanted], by_number[against]), key=lambda row: row.number)
    return diff.compare(before, after, payload=payload, with_bodies=may_see_payload)


def is_due_within(delivery: Delivery, seconds: float) -> bool:
    """Return whether the next attempt is due within `seconds`, or overdue."""
    due_at = delivery.next_attempt_at
    return due_at is not None and (due_at - queue.now()).total_seconds() < seconds


def status_sentence(delivery: Delivery) -> str:
    """Return one sentence about what became of a delivery, or what it waits for."""
    match delivery.status:
        case Status.PENDING:
            if delivery.attempt_count:
                return _("Waiting for its next attempt.")
            return _("Waiting for its first attempt.")
        case Status.SENDING:
            return _("Being sent right now.")
        case Status.SUCCEEDED:
            if delivery.attempt_count == 1:
                return _("Succeeded at the first attempt.")
            text = ngettext(
                "Succeeded after %d attempt.",
                "Succeeded after %d attempts.",
                delivery.attempt_count,
            )
            return text % delivery.attempt_count
        case Status.HELD:
            return _("On hold: %s.") % delivery.get_hold_reason_display()
        case Status.PARKED:
            return _("Stuck: sending it crashed three times. Resend it or cancel it.")
        case Status.CANCELLED:
            return _("Cancelled before it succeeded.")
    if delivery.outcome:
        return _("Given up: %s.") % Outcome(delivery.outcome).label
    return _("Given up.")


def editable_payload(event: Event) -> str:
    """Return an event's payload as JSON to edit, without the fields that each copy gets new.

    Invisible characters are written as JSON escapes.
    """
    document = payloads.read_document(event.payload)
    payload = {name: value for name, value in document.items() if name not in RESERVED}
    text = json.dumps(payload, ensure_ascii=False, indent=2)
    return "".join(
        one if one == "\n" or one.isprintable() else json.dumps(one)[1:-1] for one in text
    )
