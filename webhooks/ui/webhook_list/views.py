"""The paginated list of webhooks, and its bulk actions: pause, resume, delete.

A bulk action works on the selected rows, or on all webhooks that match the list's filters. Its
confirmation carries the ids that were counted, so only webhooks that were shown are deleted.
"""

import time
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import audit, events
from webhooks.delivery import backlog, trash
from webhooks.models import OPEN_STATUSES, Action, Delivery, HoldReason, Status, Webhook
from webhooks.ui import webhook_query
from webhooks.ui.expired_session import is_shown_again, keeps_selection, pressed
from webhooks.ui.requests import (
    button,
    offer_undo,
    own_address,
    page,
    redirect_back,
)
from webhooks.ui.status import MAX_COUNTED, capped_count
from webhooks.ui.trash.views import EventLimitError, restored
from webhooks.ui.webhook_detail.views import resumed
from webhooks.ui.webhook_list import context

WEBHOOKS_PER_PAGE = 50
PERMISSIONS = {
    "pause": "webhooks.change_webhook",
    "resume": "webhooks.change_webhook",
    "delete": "webhooks.delete_webhook",
    "restore": "webhooks.delete_webhook",
}
# Action -> the action that undoes it.
_UNDO = {"pause": "resume", "resume": "pause", "delete": "restore"}
# A slower page looks broken. The remaining webhooks need another confirmation.
MAX_SECONDS = 10.0
_NAMES_SHOWN = 12


@page("webhooks.view_webhook")
def list_webhooks(request: HttpRequest) -> HttpResponse:
    """Show a page of the filtered list. htmx selects its parts from the same response."""
    found = webhook_query.order(
        webhook_query.find(request.GET), webhook_query.wanted_sort(request.GET)
    )
    page = Paginator(context.with_columns(found), WEBHOOKS_PER_PAGE).get_page(
        request.GET.get("page")
    )
    rows = context.rows(list(page))
    has_any = bool(rows) or Webhook.objects.present().exists()
    shown = {
        "rows": rows,
        "page": page,
        "has_any": has_any,
        "may_choose": any(map(request.user.has_perm, PERMISSIONS.values())),
        **webhook_query.choices(request.GET),
        "first_steps": _first_steps(request, rows, page.paginator.count),
        "sandbox_url": settings.WEBHOOKS_SANDBOX_URL,
        "backlog": backlog.report() if has_any else None,
    }
    return render(request, "webhooks/webhook_list/list.html", shown)


def _first_steps(
    request: HttpRequest, rows: list[dict[str, Any]], count: int
) -> list[dict[str, Any]]:
    """Return the remaining first steps on a site with one webhook or none."""
    if webhook_query.is_filtered(request.GET) or count > 1:
        return []
    if not rows:
        return context.first_steps(None, may=request.user.has_perm)
    return context.first_steps(rows[0]["webhook"], rows[0]["last"], may=request.user.has_perm)


# ---- Bulk actions -----------------------------------------------------------------------------


@keeps_selection
@button("webhooks.view_webhook")
def bulk_action(request: HttpRequest) -> HttpResponse:
    undone, _colon, undone_ids = request.POST.get("undo", "").partition(":")
    action = undone or pressed(request)
    if action not in PERMISSIONS:
        raise BadRequest("Unknown action.")
    if not request.user.has_perm(PERMISSIONS[action]):
        raise PermissionDenied
    ids = webhook_query.chosen_ids(QueryDict(f"webhooks={undone_ids}") if undone else request.POST)
    if not ids:
        messages.info(request, _("Select webhooks first, then choose what to do with them."))
        return redirect_back(request, "webhooks:list")
    # Deleting, and resuming with held deliveries, need a confirmation.
    asks = action == "delete" or (action == "resume" and _count_held(ids) > 0)
    is_asked = asks and not undone and not request.POST.get("is_confirmed")
    if is_asked or is_shown_again(request):
        return _confirm(request, action, ids)
    done, left, refused = _carry_out(request, action, ids)
    for refusal in sorted(refused):
        messages.error(request, refusal)
    sentence = _done_sentence(action, len(done))
    if refused and not done:
        return redirect("webhooks:trash")
    if done and not undone and action in _UNDO:
        offer_undo(request, sentence, _UNDO[action], done)
    else:
        messages.success(request, sentence)
    if left and action == "restore":
        messages.warning(request, _("This took too long and stopped. The rest are in the trash."))
        return redirect("webhooks:trash")
    if left:
        return _confirm(request, action, left, is_rest=True)
    return redirect_back(request, "webhooks:list")


def _concerned(action: str, ids: list[int]) -> QuerySet[Webhook]:
    """Return those of the webhooks that an action would change."""
    found = Webhook.objects.present().filter(pk__in=ids)
    return found if action == "delete" else found.filter(is_active=action == "pause")


def _count_held(ids: list[int]) -> int:
    """Count the deliveries on hold that a resume would release."""
    paused = list(_concerned("resume", ids).values_list("pk", flat=True))
    held = Delivery.objects.in_status(Status.HELD)
    return held.filter(webhook__in=paused, hold_reason=HoldReason.PAUSED).count_to(MAX_COUNTED)


def _confirm(
    request: HttpRequest, action: str, ids: list[int], *, is_rest: bool = False
) -> HttpResponse:
    """Show the confirmation; `is_rest` if a part of the action is already done."""
    found = _concerned(action, ids)
    names = list(found.values_list("name", flat=True)[:_NAMES_SHOWN])
    count = found.count()
    still_open = Delivery.objects.filter(webhook__in=ids, status__in=OPEN_STATUSES)
    context = {
        "action": action,
        "count": count,
        "names": names,
        "more": count - len(names),
        "ids": ",".join(map(str, ids)),
        "held": capped_count(_count_held(ids)) if action == "resume" else "",
        "chosen_held": request.POST.get("held", ""),
        "open_count": capped_count(still_open.count_to(MAX_COUNTED)),
        "is_rest": is_rest,
        "next": own_address(request, request.POST.get("next", "")),
        "retention_days": settings.WEBHOOKS_RETENTION_DAYS,
        "kept_days": trash.KEPT_DAYS,
    }
    return render(request, "webhooks/webhook_list/bulk_confirm.html", context)


def _carry_out(
    request: HttpRequest, action: str, ids: list[int]
) -> tuple[list[int], list[int], set[str]]:
    """Apply an action until MAX_SECONDS.

    Return the changed ids, the remaining ids, and why webhooks stay in the trash.
    """
    ends = time.monotonic() + MAX_SECONDS
    done, refused = [], set()
    for number, pk in enumerate(ids):
        try:
            if _apply(request, action, pk):
                done.append(pk)
        except EventLimitError as error:
            refused.add(str(error))
        if time.monotonic() > ends:
            return done, ids[number + 1 :], refused
    return done, [], refused


def _apply(request: HttpRequest, action: str, pk: int) -> bool:
    """Change one webhook and record the user; return whether anything changed."""
    if action == "restore":
        return restored(request, pk) is not None
    webhook = Webhook.objects.present().filter(pk=pk).first()
    if webhook is None:
        return False
    if webhook.is_active == (action == "resume") and action != "delete":
        return False
    with transaction.atomic():
        if action == "delete":
            events.delete(webhook)
            audit.record(Action.DELETED, webhook, user=request.user)
        elif action == "pause":
            events.pause(webhook)
            audit.record(Action.PAUSED, webhook, user=request.user)
        else:
            resumed(request, webhook, cancels_held=request.POST.get("held") == "cancel")
    return True


def _done_sentence(action: str, done: int) -> str:
    texts = {
        "pause": ngettext(
            "%d webhook was paused. Its deliveries are on hold until it is resumed.",
            "%d webhooks were paused. Their deliveries are on hold until they are resumed.",
            done,
        ),
        "resume": ngettext("%d webhook is active again.", "%d webhooks are active again.", done),
        "delete": ngettext("%d webhook was deleted.", "%d webhooks were deleted.", done),
        "restore": ngettext("%d webhook was restored.", "%d webhooks were restored.", done),
    }
    if not done:
        already = {
            "pause": _("Nothing changed: they are all paused already."),
            "resume": _("Nothing changed: they are all active already."),
            "delete": _("Nothing changed: they were already deleted."),
            "restore": _("Nothing changed: they are not in the trash any more."),
        }
        return already[action]
    return texts[action] % done
