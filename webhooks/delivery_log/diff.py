"""Compare two attempts of a delivery, in words and as a small diff.

Users who may not see payloads see only whether bodies differ, and only response headers that
cannot repeat a payload. Texts are untrusted: the page shows them through `logtext.visible`.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from webhooks import network
from webhooks.delivery import outcomes
from webhooks.delivery_log import decoded_body
from webhooks.delivery_log.figures import milliseconds
from webhooks.models import Attempt

# The comparison is quadratic in the number of lines.
_MAX_COMPARED_LINES = 300
_MAX_LINE = 300
_MAX_SHOWN_LINES = 40
# Smaller differences in time, as a share and in milliseconds, are ignored.
_MIN_SHARE, _MIN_MILLISECONDS = 0.5, 20.0
# Headers that differ in every attempt.
_ALWAYS_NEW = frozenset({"webhook-timestamp", "webhook-signature", "webhook-attempt", "date"})

Lines = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference: a label with the old and the new value, or with the lines of a diff.

    A line has a `kind` (added, removed, same, or gap for omitted lines), a `sign` and a `text`.
    """

    label: str
    before: str = ""
    after: str = ""
    lines: tuple[dict[str, str], ...] = ()


def compare(
    before: Attempt,
    after: Attempt,
    *,
    payload: bytes,
    with_bodies: bool,
) -> list[Difference]:
    """Return the differences; `payload` is the body of an attempt that stored none of its own."""
    found = [*_answers(before, after), *_times(before, after)]
    asked = [decoded_body.header_lines(one.request_headers) for one in (before, after)]
    answered = [
        decoded_body.response_header_lines(one.response_headers, with_bodies)
        for one in (before, after)
    ]
    found += _headers(_("Request header %s"), *asked)
    found += _headers(_("Response header %s"), *answered)
    sent = [attempt.body_sent(payload) for attempt in (before, after)]
    found += _bodies(_("Request body"), sent[0], sent[1], with_bodies)
    got = [bytes(attempt.response_body) for attempt in (before, after)]
    found += _bodies(_("Response body"), got[0], got[1], with_bodies)
    return found


def _answers(before: Attempt, after: Attempt) -> Iterator[Difference]:
    if before.outcome != after.outcome:
        yield Difference(
            label=_("Outcome"),
            before=before.get_outcome_display(),
            after=after.get_outcome_display(),
        )
    if before.status_code != after.status_code:
        yield Difference(
            label=_("Response code"),
            before=str(before.status_code or _("no response")),
            after=str(after.status_code or _("no response")),
        )
    if before.error != after.error:
        yield Difference(
            label=_("Error"),
            before=outcomes.sentence(before.error) or _("none"),
            after=outcomes.sentence(after.error) or _("none"),
        )
    if before.remote_address != after.remote_address:
        yield Difference(
            label=_("Address"),
            before=before.remote_address or _("not connected"),
            after=after.remote_address or _("not connected"),
        )


def _times(before: Attempt, after: Attempt) -> Iterator[Difference]:
    """Compare the total time and the phases; yield only noticeable differences."""
    phases = [
        (_("Total time"), "total_ms"),
        (_("Name lookup"), "dns_ms"),
        (_("Connect"), "connect_ms"),
        (_("TLS"), "tls_ms"),
        (_("First byte"), "first_byte_ms"),
    ]
    for label, field in phases:
        old, new = getattr(before, field), getattr(after, field)
        if old is None or new is None:
            continue
        change = abs(new - old)
        if change >= _MIN_MILLISECONDS and change >= _MIN_SHARE * min(old, new):
            yield Difference(label=label, before=milliseconds(old), after=milliseconds(new))


def _headers(label: str, before: Lines, after: Lines) -> Iterator[Difference]:
    old, new = _values(before), _values(after)
    for name in dict.fromkeys([*old, *new]):
        if name in _ALWAYS_NEW or old.get(name) == new.get(name):
            continue
        yield Difference(
            label=label % name,
            before=old.get(name, _("absent")),
            after=new.get(name, _("absent")),
        )


def _values(lines: Lines) -> dict[str, str]:
    """Return header values by lower-case name; values of the same name are joined."""
    return {name.lower(): value for name, value in network.merge_headers(lines)}


def _bodies(label: str, before: bytes, after: bytes, with_bodies: bool) -> Iterator[Difference]:
    if before == after:
        return
    lines: tuple[dict[str, str], ...] = ()
    old, new = decoded_body.read(before), decoded_body.read(after)
    if with_bodies and decoded_body.BodyKind.BINARY not in (old.kind, new.kind):
        lines = tuple(_diff(old.text.split("\n"), new.text.split("\n")))
    yield Difference(label=label, before=_size(before), after=_size(after), lines=lines)


def _size(body: bytes) -> str:
    # Django's no-break space would be shown as an escape.
    return filesizeformat(len(body)).replace("\xa0", " ") if body else _("empty")


def _diff(before: Sequence[str], after: Sequence[str]) -> Iterator[dict[str, str]]:
    old = [line[:_MAX_LINE] for line in before[:_MAX_COMPARED_LINES]]
    new = [line[:_MAX_LINE] for line in after[:_MAX_COMPARED_LINES]]
    kinds = {"+": "added", "-": "removed", " ": "same", "@": "gap"}
    shown = 0
    # The first two lines of a unified diff are file names.
    for line in list(difflib.unified_diff(old, new, n=2, lineterm=""))[2:]:
        if shown == _MAX_SHOWN_LINES:
            yield {"kind": "gap", "sign": "…", "text": ""}
            return
        kind = kinds.get(line[:1], "same")
        if kind != "gap":
            yield {"kind": kind, "sign": line[:1], "text": line[1:]}
        elif shown:
            yield {"kind": kind, "sign": "…", "text": ""}
        else:
            continue
        shown += 1
