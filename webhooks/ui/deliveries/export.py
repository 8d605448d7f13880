"""Export the filtered log as CSV: streamed, bounded, and safe to open in a spreadsheet."""

import csv
import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks import audit
from webhooks.delivery_log import query as log_query
from webhooks.delivery_log.query import Conditions
from webhooks.models import Action, Delivery, Event, ids
from webhooks.ui.deliveries.forms import LogForm
from webhooks.ui.requests import page

MAX_ROWS = 100_000
# With payloads the file is a hundred times larger.
MAX_PAYLOAD_ROWS = 10_000
# Time in the database, and with that of the client: a slow one does not keep its slot for hours.
_MAX_SECONDS, _MAX_TOTAL_SECONDS = 60.0, 600.0
# Each export occupies one of the web server's 8 or 16 threads until its client has read the file.
MAX_AT_ONCE = 4
_slots = threading.BoundedSemaphore(MAX_AT_ONCE)
# A spreadsheet cell holds at most 32,767 characters.
_MAX_CELL = 32_000
# A spreadsheet takes a cell that begins with one of these for a formula, full-width forms too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "|", "%")
# In locales that separate lists with semicolons, such as Ukrainian, a spreadsheet splits the file
# at semicolons: the text after one, and after quotes, begins a new cell.
_SPLIT = re.compile(f'(;"*)(?=[{re.escape("".join(_FORMULA))}])')
CHUNK = 200
# Payloads read at a time; each has at most a megabyte by default.
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
    if not _slots.acquire(blocking=False):
        messages.warning(request, _("Other exports are running. Try again in a minute."))
        return _to_log(request)
    conditions = form.conditions(may_see_numbers=may_see)
    more = _("Not complete: older deliveries are missing. Export them with the filter “Before” %s.")
    zone = timezone.get_current_timezone()
    lines = _Lines(_written(conditions, with_payload=with_payload, more=more, zone=zone))
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
    """The lines of an export; closing it lets another export run."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._has_slot = True

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def close(self) -> None:
        """Release the slot; called by the response, or on deletion if it was never sent."""
        if self._has_slot:
            self._has_slot = False
            _slots.release()

    __del__ = close


class _Echo:
    """A file whose `write` returns its argument."""

    def write(self, line: str) -> str:
        return line


def _written(
    conditions: Conditions, *, with_payload: bool, more: str, zone: tzinfo
) -> Iterator[str]:
    """Yield the lines; the last one is the sentence `more` if deliveries are left."""
    writer = csv.writer(_Echo(), quoting=csv.QUOTE_ALL)
    # Without the byte order mark, spreadsheets read the text as Latin-1.
    yield "\ufeff" + writer.writerow([*COLUMNS, *(["payload"] if with_payload else [])])
    limit = MAX_PAYLOAD_ROWS if with_payload else MAX_ROWS
    older_than, ends_at = "", time.monotonic() + _MAX_TOTAL_SECONDS
    for found in log_query.pages(conditions, limit=limit, seconds=_MAX_SECONDS):
        older_than = found.older_than
        for start in range(0, len(found.rows), CHUNK):
            chunk = found.rows[start : start + CHUNK]
            payloads = _payloads(chunk) if with_payload else {}
            for delivery in chunk:
                cells = _cells(delivery)
                if with_payload:
                    cells.append(payloads.get(delivery.event_id, ""))
                yield writer.writerow([cell(text) for text in cells])
        if time.monotonic() > ends_at:
            break
    if older_than:
        # The next full second, so that the next export leaves none out.
        begins_at = ids.moment(older_than).replace(microsecond=0) + timedelta(seconds=1)
        yield writer.writerow([cell(more % begins_at.astimezone(zone).isoformat())])


def _payloads(chunk: list[Delivery]) -> dict[str, str]:
    """Return the beginnings of payloads; only a few whole ones are in memory at a time."""
    rows = Event.objects.filter(pk__in={row.event_id for row in chunk}).values_list("pk", "payload")
    return {pk: _beginning(payload) for pk, payload in rows.iterator(chunk_size=_WHOLE)}


def _beginning(payload: "bytes | memoryview[int]") -> str:
    # A UTF-8 character has at most four bytes.
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
    # As in JSON, so that a payload stays valid JSON; a surrogate pair outside the BMP.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def cell(value: object) -> str:
    """Return a cell that a spreadsheet treats as text, with invisible characters escaped."""
    text = "" if value is None else str(value)[:_MAX_CELL]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escape(one) for one in text)
    text = _SPLIT.sub(r"\1'", text)
    # Numbers are not formulas; the log has no negative ones.
    return f"'{text}" if text.startswith(_FORMULA) else text
