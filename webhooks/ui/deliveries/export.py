"""The log as CSV: what the current filters show, streamed, bounded, harmless in a spreadsheet."""

import csv
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks import audit
from webhooks.delivery_log import query as log_query
from webhooks.delivery_log.query import Conditions
from webhooks.models import Action, Delivery, Event
from webhooks.ui.deliveries.forms import LogForm
from webhooks.ui.requests import page

MAX_ROWS = 100_000
# With payloads the file is a hundred times as large.
MAX_PAYLOAD_ROWS = 10_000
_MAX_SECONDS = 60.0
# Each takes one of the web server's threads, of which there are 8 or 16, for as long as its client
# takes to read.
MAX_AT_ONCE = 4
_room = threading.BoundedSemaphore(MAX_AT_ONCE)
# The longest text of a spreadsheet's cell is 32,767 characters.
_MAX_CELL = 32_000
# A cell that begins with one of these is a formula to a spreadsheet, in full width too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "|", "%")
# Where a list is written with semicolons, as in Ukrainian, a spreadsheet takes them for the commas
# of the file: what follows one begins a cell, and a quote before it is none of its text.
_SPLIT = re.compile(f'(;"*)(?=[{re.escape("".join(_FORMULA))}])')
CHUNK = 200
# Payloads read at a time, each of a megabyte at the most by default.
_WHOLE = 10
COLUMNS = (
    "delivery", "created_at", "status", "trigger", "webhook_id", "webhook", "event", "event_type",
    "call_id", "occurred_at", "outcome", "response_code", "attempts", "hold_reason",
    "next_attempt_at", "finished_at", "copy_of",
)  # fmt: skip


@page("webhooks.view_delivery")
def export(request: HttpRequest) -> HttpResponseBase:
    form = LogForm(request.GET)
    if not form.is_valid():
        return _to_log(request)
    may_see = request.user.has_perm("webhooks.view_payload")
    with_payload = bool(request.GET.get("payload")) and may_see
    if not _room.acquire(blocking=False):
        messages.warning(request, _("Other exports are running. Try again in a minute."))
        return _to_log(request)
    conditions = form.conditions(may_see_numbers=may_see)
    lines = _Lines(_written(conditions, with_payload=with_payload))
    note = audit.note("csv_with_payloads" if with_payload else "csv")
    audit.record(Action.EXPORTED, None, user=request.user, object_type="delivery", note=note)
    name = f"deliveries-{timezone.now():%Y%m%d-%H%M%S}.csv"
    return StreamingHttpResponse(
        lines,
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


def _to_log(request: HttpRequest) -> HttpResponseBase:
    return redirect(f"{request.path.removesuffix('export.csv')}?{request.GET.urlencode()}")


class _Lines:
    """The lines of an export; it makes room for another one when it is closed."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._has_room = True

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def close(self) -> None:
        """Make room; called by the response, or for one that was never sent."""
        if self._has_room:
            self._has_room = False
            _room.release()

    __del__ = close


class _Echo:
    """A file that gives back what is written to it."""

    def write(self, line: str) -> str:
        return line


def _written(conditions: Conditions, *, with_payload: bool) -> Iterator[str]:
    writer = csv.writer(_Echo(), quoting=csv.QUOTE_ALL)
    # Without the mark spreadsheets take the text for Latin-1.
    yield "\ufeff" + writer.writerow([*COLUMNS, *(["payload"] if with_payload else [])])
    limit = MAX_PAYLOAD_ROWS if with_payload else MAX_ROWS
    rows = log_query.every(conditions, limit=limit, seconds=_MAX_SECONDS)
    while chunk := list(islice(rows, CHUNK)):
        payloads = _payloads(chunk) if with_payload else {}
        for delivery in chunk:
            cells = _cells(delivery)
            if with_payload:
                cells.append(payloads.get(delivery.event_id, ""))
            yield writer.writerow([cell(text) for text in cells])


def _payloads(chunk: list[Delivery]) -> dict[str, str]:
    """Return the beginnings of payloads; few are in memory whole at a time."""
    rows = Event.objects.filter(pk__in={row.event_id for row in chunk}).values_list("pk", "payload")
    return {pk: _beginning(payload) for pk, payload in rows.iterator(chunk_size=_WHOLE)}


def _beginning(payload: "bytes | memoryview[int]") -> str:
    # A character has at most four bytes.
    return bytes(payload[: 4 * _MAX_CELL]).decode("utf-8", "replace")[:_MAX_CELL]


def _cells(delivery: Delivery) -> list[object]:
    event = delivery.event
    return [
        delivery.pk, _time(delivery.created_at), delivery.status, delivery.trigger,
        delivery.webhook_id, delivery.webhook.name, event.pk, event.type, event.call_id,
        _time(event.occurred_at), delivery.outcome, delivery.status_code, delivery.attempt_count,
        delivery.hold_reason, _time(delivery.next_attempt_at), _time(delivery.finished_at),
        event.copy_of,
    ]  # fmt: skip


def _time(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds") if moment else ""


def _escape(character: str) -> str:
    # As in JSON, so that a payload stays JSON: two units for what is newer than Python's Unicode.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def cell(value: object) -> str:
    """Return a cell that is only ever text: no formula, and nothing that cannot be seen."""
    text = "" if value is None else str(value)[:_MAX_CELL]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escape(one) for one in text)
    text = _SPLIT.sub(r"\1'", text)
    # A number is no formula, and ours are never negative.
    return f"'{text}" if text.startswith(_FORMULA) else text
