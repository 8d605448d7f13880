"""What is done to many webhooks at once: pause, resume, delete.

Works on the rows that were ticked, or on everything the list's address matches. A confirmation
freezes what was counted: it carries the ids, so nobody deletes what they did not see.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from webhooks import audit, events
from webhooks.models import Action, Delivery, HoldReason, Status, Webhook
from webhooks.ui.notices import MAX_COUNTED, counted
from webhooks.ui.webhook_list import query as list_query

PERMISSIONS = {
    "pause": "webhooks.change_webhook",
    "resume": "webhooks.change_webhook",
    "delete": "webhooks.delete_webhook",
}
_OPEN = (Status.PENDING, Status.SENDING, Status.HELD, Status.PARKED)
# Tokens are revoked over the network; a page that takes longer looks broken. What is left is asked
# for again.
_MAX_SECONDS = 10.0
_NAMES_SHOWN = 12
_CHUNK = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for, of which webhooks; `held` says what a resume does with held deliveries."""

    action: str
    ids: list[int]
    held: str
    is_confirmed: bool


@require_POST
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def act(request: HttpRequest) -> HttpResponse:
    action = request.POST.get("action", "")
    if action not in PERMISSIONS:
        raise BadRequest("Unknown action.")
    if not request.user.has_perm(PERMISSIONS[action]):
        raise PermissionDenied
    wish = Wish(
        action=action,
        ids=chosen(request.POST),
        held=request.POST.get("held", ""),
        is_confirmed=bool(request.POST.get("is_confirmed")),
    )
    if not wish.ids:
        messages.info(request, _("Tick the webhooks first, then say what happens to them."))
        return back(request)
    if _must_ask(wish):
        return _ask(request, wish)
    done, left = _carry_out(request, wish)
    messages.success(request, _sentence(wish, done))
    return _ask(request, wish, left=left) if left else back(request)


def chosen(data: QueryDict) -> list[int]:
    """Return the ids of the webhooks that were ticked, or of all that match the filters."""
    if data.get("is_all"):
        return list(list_query.find(data).order_by("name", "pk").values_list("pk", flat=True))
    typed = [*data.getlist("webhook"), *data.get("webhooks", "").split(",")]
    ids = dict.fromkeys(int(one) for one in typed if re.fullmatch("[0-9]{1,18}", one))
    return list(ids)


def back(request: HttpRequest) -> HttpResponse:
    """Return to the list as it was."""
    address = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(address, allowed_hosts=None):
        address = reverse("webhooks:list")
    return redirect(address)


def _must_ask(wish: Wish) -> bool:
    """Say whether a person has to decide first: before a loss, and about what is held."""
    if wish.is_confirmed:
        return False
    return wish.action == "delete" or (wish.action == "resume" and _held(wish.ids) > 0)


def _held(ids: list[int]) -> int:
    held = Delivery.objects.filter(
        webhook__in=ids, status=Status.HELD, hold_reason=HoldReason.PAUSED
    )
    return held.order_by().values_list("pk")[: MAX_COUNTED + 1].count()


def _ask(request: HttpRequest, wish: Wish, *, left: list[int] | None = None) -> HttpResponse:
    """Show what would happen to how many; `left` when a part of it is done already."""
    ids = left or wish.ids
    found = Webhook.objects.present().filter(pk__in=ids)
    names = list(found.values_list("name", flat=True)[:_NAMES_SHOWN])
    count = found.count()
    still_open = Delivery.objects.filter(webhook__in=ids, status__in=_OPEN).order_by()
    context = {
        "action": wish.action,
        "count": count,
        "names": names,
        "more": count - len(names),
        "ids": ",".join(map(str, ids)),
        "held": counted(_held(ids)) if wish.action == "resume" else "",
        "chosen_held": wish.held,
        "open_count": counted(still_open.values_list("pk")[: MAX_COUNTED + 1].count()),
        "is_rest": left is not None,
        "next": request.POST.get("next", ""),
        "retention_days": settings.WEBHOOKS_RETENTION_DAYS,
    }
    return render(request, "webhooks/webhook_list/bulk_confirm.html", context)


def _carry_out(request: HttpRequest, wish: Wish) -> tuple[int, list[int]]:
    """Do it webhook by webhook for a while; return how many changed, and what is left."""
    ends = time.monotonic() + _MAX_SECONDS
    done = 0
    for number, webhook in enumerate(_webhooks(wish.ids)):
        if webhook is not None:
            done += _apply(request, wish, webhook)
        if time.monotonic() > ends:
            return done, wish.ids[number + 1 :]
    return done, []


def _webhooks(ids: list[int]) -> Iterator[Webhook | None]:
    """Yield each webhook in turn; None for one that is gone."""
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        found = Webhook.objects.present().in_bulk(chunk)
        yield from (found.get(pk) for pk in chunk)


def _apply(request: HttpRequest, wish: Wish, webhook: Webhook) -> int:
    """Change one webhook and note who did; return 0 for one that is so already."""
    if wish.action == "delete":
        # No transaction of ours: a token is revoked over the network first.
        events.delete(webhook)
        audit.record(Action.DELETED, webhook, user=request.user)
        return 1
    if webhook.is_active == (wish.action == "resume"):
        return 0
    with transaction.atomic():
        if wish.action == "pause":
            events.pause(webhook)
            audit.record(Action.PAUSED, webhook, user=request.user)
        else:
            events.resume(webhook, drop_held=wish.held == "drop")
            audit.record(Action.RESUMED, webhook, user=request.user)
    return 1


def _sentence(wish: Wish, done: int) -> str:
    texts = {
        "pause": ngettext(
            "%d webhook was paused. Its events wait until it is resumed.",
            "%d webhooks were paused. Their events wait until they are resumed.",
            done,
        ),
        "resume": ngettext("%d webhook is active again.", "%d webhooks are active again.", done),
        "delete": ngettext("%d webhook was deleted.", "%d webhooks were deleted.", done),
    }
    if not done:
        already = {
            "pause": _("Nothing changed: they are all paused already."),
            "resume": _("Nothing changed: they are all active already."),
            "delete": _("Nothing changed: they are gone already."),
        }
        return already[wish.action]
    return texts[wish.action] % done
