"""The delivery log in the product, the page of one delivery, and its actions."""

import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import audit, events
from webhooks.delivery import backlog
from webhooks.delivery_log import detail as detail_
from webhooks.delivery_log import query as log_query
from webhooks.delivery_log.figures import number
from webhooks.models import (
    FINAL_STATUSES,
    Action,
    Attempt,
    Delivery,
    Resend,
    ResendStatus,
    SavedView,
    Status,
    Trigger,
    Webhook,
)
from webhooks.ui.deliveries.forms import EditedPayloadForm, LogForm
from webhooks.ui.expired_session import is_shown_again, keeps_typed, returns_to_selection
from webhooks.ui.fields import focus_mistake, is_visible
from webhooks.ui.requests import HtmxRequest, button, page, redirect_back, whole_number

_PARTS = ("request", "response")
# A delivery's page refreshes itself if the next attempt is due within this time.
_SOON_SECONDS = 60
_RUNNING_SHOWN = 3
# More than one page; keeps a forged request from selecting the whole log.
_MAX_SELECTED = 1000
_MAX_VIEWS, _MAX_VIEW_NAME, _MAX_VIEW_QUERY = 20, 40, 1000
# How often an open log requests new rows.
_LIVE_SECONDS = 3
# The deliveries that an action changes.
_CHANGED_BY = {
    Action.RESENT: Q(status__in=(Status.PENDING, Status.PARKED))
    | Q(status__in=FINAL_STATUSES, webhook__deleted_at=None),
    Action.CANCELLED: Q(status__in=(Status.PENDING, Status.HELD, Status.PARKED)),
}


@page("webhooks.view_delivery")
def log(request: HtmxRequest) -> HttpResponse:
    return show_log(request) or render(
        request, "webhooks/deliveries/list.html", log_context(request)
    )


def show_log(request: HtmxRequest) -> HttpResponse | None:
    """Return the response to htmx, which polls for new rows; None for other requests."""
    if not request.htmx:
        return None
    found = _rows(request)
    if request.GET.get("seen") == found["seen"]:
        return HttpResponse(status=204)
    return render(request, "webhooks/deliveries/_log_results.html", found)


def log_context(request: HttpRequest) -> dict[str, Any]:
    """Return the context of `webhooks/deliveries/_log.html`, in the product and Django admin."""
    counted = whole_number(request.GET.get("counted", ""))
    query = urlencode(_filters(request.GET))
    rows = _rows(request)
    form = rows["form"]
    return {
        **rows,
        "counted": counted,
        "counted_text": number(counted),
        "export_query": query,
        "views": [
            {"label": label, "query": one, "pk": pk, "is_current": one == query}
            for label, one, pk in _views(request)
        ],
        "resend_url": _resend_url(form, rows["page"].rows) if rows["may_send"] else "",
        "running": _running() if rows["may_send"] else [],
        # A search for a call does not need the backlog.
        "backlog": None if request.GET.get("q") else backlog.report(),
    }


def _resend_url(form: LogForm, shown: Sequence[Delivery]) -> str:
    """Return the URL to resend deliveries of the chosen webhook or of all; "" if it is deleted."""
    chosen = form.cleaned_data.get("webhook", "") if form.is_valid() else ""
    if not chosen:
        return reverse("webhooks:resend_create_for_all")
    if shown:
        is_present = shown[0].webhook.deleted_at is None
    else:
        is_present = Webhook.objects.present().filter(pk=chosen).exists()
    return reverse("webhooks:resend_create", args=[chosen]) if is_present else ""


def _views(request: HttpRequest) -> list[tuple[str, str, int | None]]:
    """Return label, query and key of the built-in views, then of the user's saved views."""
    own = SavedView.objects.filter(user=request.user.pk).values_list("name", "query", "pk")
    return [
        (_("All"), "", None),
        (str(Status.FAILED.label), "status=failed", None),
        (str(Status.PENDING.label), "status=pending", None),
        (str(Status.HELD.label), "status=held", None),
        *own,
    ]


def _rows(request: HttpRequest) -> dict[str, Any]:
    """Return the context of `webhooks/deliveries/_log_results.html`: a page of rows."""
    form = LogForm(request.GET)
    found = log_query.LogPage()
    if form.is_valid():
        conditions = form.conditions(may_see_numbers=request.user.has_perm("webhooks.view_payload"))
        found = log_query.page(
            conditions,
            before=_key(request, "before"),
            after=_key(request, "after"),
            size=log_query.PAGE_ROWS,
        )
    may_send = request.user.has_perm("webhooks.test_webhook")
    may_cancel = request.user.has_perm("webhooks.change_webhook")
    seen, new_ids = seen_rows(request, found.rows)
    durations = log_query.durations(found.rows)
    return {
        "form": form,
        "log_url": request.path,
        "address": f"{request.path}?{urlencode(_filters(request.GET) | _position(request))}",
        "page": found,
        "rows": [
            {
                "delivery": row,
                "url": page_url(request, row),
                "duration_ms": durations.get(row.pk),
                "is_new": row.pk in new_ids,
            }
            for row in found.rows
        ],
        "older_link": _link(request, before=found.older_than),
        "newer_link": _link(request, after=found.newer_than),
        "newest_link": _link(request, newest="1") if _is_deep(request) else "",
        "seen": seen,
        "live_seconds": 0 if _is_deep(request) or form.errors else _LIVE_SECONDS,
        "may_send": may_send,
        "may_cancel": may_cancel,
        "may_select": may_send or may_cancel,
        "may_see_payload": request.user.has_perm("webhooks.view_payload"),
    }


def seen_rows(
    request: HttpRequest, rows: Sequence[Delivery], *more: object
) -> tuple[str, set[str]]:
    """Return a state token that a polling page sends back as `seen`, and the ids of its new rows.

    The rows are newest first; `more` is whatever else the page shows.
    """
    state = [(row.pk, row.status, row.attempt_count, row.next_attempt_at) for row in rows]
    digest = zlib.crc32(repr((state, *more)).encode())
    newest_seen = request.GET.get("seen", "").partition("-")[2]
    new_ids = {row.pk for row in rows if newest_seen and row.pk > newest_seen}
    return f"{digest:08x}-{rows[0].pk if rows else ''}", new_ids


def page_url(request: HttpRequest, delivery: Delivery, step: str = "") -> str:
    """Return the URL of a delivery's page or action, in the product or in Django admin.

    Django admin shows the same pages under its own URLs.
    """
    if is_admin(request):
        return reverse(f"admin:webhooks_delivery_{step or 'change'}", args=[delivery.pk])
    return reverse(f"webhooks:delivery_{step}" if step else "webhooks:delivery", args=[delivery.pk])


def is_admin(request: HttpRequest) -> bool:
    return request.resolver_match is not None and request.resolver_match.app_name == "admin"


def _running() -> list[Resend]:
    running = Resend.objects.filter(status=ResendStatus.RUNNING).order_by("-id")
    return list(
        running.select_related("webhook").only("id", "scope", "webhook__name")[:_RUNNING_SHOWN]
    )


def _key(request: HttpRequest, name: str) -> str:
    return request.GET.get(name, "").replace("\0", "")


def _position(request: HttpRequest) -> dict[str, str]:
    """Return the parameters of a page other than the newest."""
    return {name: key for name in ("before", "after") if (key := _key(request, name))}


def _is_deep(request: HttpRequest) -> bool:
    return bool(_position(request))


def _filters(query: QueryDict) -> dict[str, str]:
    return {name: str(query[name]) for name in LogForm.base_fields if query.get(name)}


def _link(request: HttpRequest, **position: str) -> str:
    """Return a link with the same filters at another position; empty without a position."""
    (name, key), *_rest = position.items()
    if not key:
        return ""
    query = _filters(request.GET) if name == "newest" else {**_filters(request.GET), name: key}
    return "?" + urlencode(query)


@page("webhooks.view_delivery")
def detail(request: HtmxRequest, delivery_id: str) -> HttpResponse:
    delivery = get_delivery(delivery_id)
    if request.htmx and request.GET.get("seen") == _seen(delivery):
        # No changes: htmx leaves the page as it is and polls again.
        return HttpResponse(status=204)
    is_part = bool(request.htmx)
    name = "webhooks/deliveries/_delivery.html" if is_part else "webhooks/deliveries/detail.html"
    return render(request, name, detail_context(request, delivery))


def detail_context(request: HttpRequest, delivery: Delivery) -> dict[str, Any]:
    """Return the context of `webhooks/deliveries/_delivery.html`, in the product and admin."""
    return {
        **detail_.context_of(
            delivery,
            may_see_payload=request.user.has_perm("webhooks.view_payload"),
            wanted=request.GET.get("attempt", ""),
            against=request.GET.get("against", ""),
        ),
        **_links(request, delivery),
        "seen": _seen(delivery),
        "is_moving": _is_moving(delivery) and not is_admin(request),
        "is_admin": is_admin(request),
    }


def get_delivery(delivery_id: str) -> Delivery:
    """Return a delivery with its event and webhook, without secrets. Raises Http404."""
    delivery = log_query.get(delivery_id)
    if delivery is None:
        raise Http404
    return delivery


def _links(request: HttpRequest, delivery: Delivery) -> dict[str, str]:
    """Return the URLs of the page's buttons; empty where the user lacks the permission."""
    may_send = request.user.has_perm("webhooks.test_webhook") and not delivery.webhook.deleted_at
    may_see = request.user.has_perm("webhooks.view_payload")
    may_cancel = request.user.has_perm("webhooks.change_webhook")
    own = page_url(request, delivery)
    links = {
        "log_url": reverse("webhooks:deliveries"),
        "event_url": reverse("webhooks:event", args=[delivery.event_id]),
        "page_url": own,
        "resend_url": page_url(request, delivery, "resend") if may_send else "",
        "edit_url": "",
        "cancel_url": page_url(request, delivery, "cancel") if may_cancel else "",
        "bodies_url": reverse("webhooks:delivery", args=[delivery.pk]) if may_see else "",
    }
    if may_send and may_see:
        links["edit_url"] = reverse("webhooks:delivery_edit", args=[delivery.pk])
    if is_admin(request):
        links["log_url"] = reverse("admin:webhooks_delivery_changelist")
        if request.user.has_perm("webhooks.view_event"):
            links["event_url"] = reverse("admin:webhooks_event_change", args=[delivery.event_id])
    return links


def _seen(delivery: Delivery) -> str:
    return f"{delivery.status}-{delivery.attempt_count}"


def _is_moving(delivery: Delivery) -> bool:
    if delivery.status == Status.SENDING:
        return True
    return delivery.status == Status.PENDING and detail_.is_due_within(delivery, _SOON_SECONDS)


@page("webhooks.view_delivery", "webhooks.view_payload")
def body(request: HttpRequest, delivery_id: str, attempt_id: int, part: str) -> HttpResponse:
    """Send the body of a request or a response as a download that browsers never display."""
    attempt = Attempt.objects.filter(pk=attempt_id, delivery=delivery_id.replace("\0", "")).first()
    if attempt is None or part not in _PARTS:
        raise Http404
    data = attempt.response_body if part == "response" else attempt.request_body
    if data is None:
        data = get_delivery(delivery_id).event.payload
    name = f"{attempt.delivery_id}-{attempt.number}-{part}.bin"
    return HttpResponse(
        bytes(data),
        content_type="application/octet-stream",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


@button("webhooks.view_delivery", "webhooks.test_webhook")
def resend(request: HttpRequest, delivery_id: str) -> HttpResponse:
    """Resend a finished delivery as a new one, or start the next attempt of a waiting one."""
    delivery = get_delivery(delivery_id)
    if not act(request, Action.RESENT, [delivery]):
        messages.warning(
            request, _("Nothing was resent. It is on hold, being sent, or its webhook was deleted.")
        )
    elif delivery.status in FINAL_STATUSES:
        same = Delivery.objects.filter(event=delivery.event_id, webhook=delivery.webhook_id)
        delivery = same.filter(trigger=Trigger.RESENT).latest("pk")
        messages.success(request, _("Resent. This is the new delivery."))
    else:
        messages.success(request, _("The next attempt starts now."))
    return redirect(page_url(request, delivery))


@button("webhooks.view_delivery", "webhooks.change_webhook")
def cancel(request: HttpRequest, delivery_id: str) -> HttpResponse:
    delivery = get_delivery(delivery_id)
    if act(request, Action.CANCELLED, [delivery]):
        messages.success(request, _("The delivery is cancelled."))
    else:
        messages.warning(request, _("This delivery is no longer waiting."))
    return redirect(page_url(request, delivery))


@returns_to_selection
@button("webhooks.view_delivery", "webhooks.change_webhook")
def cancel_selected(request: HttpRequest) -> HttpResponse:
    """Cancel the selected rows of the log; redirect to the page they were selected on."""
    if is_shown_again(request):
        return redirect_back(request, "webhooks:deliveries")
    keys = [key for key in request.POST.getlist("delivery") if "\0" not in key][:_MAX_SELECTED]
    count = act(request, Action.CANCELLED, list(Delivery.objects.filter(pk__in=keys)))
    if not keys:
        messages.warning(request, _("Select deliveries first."))
    elif not count:
        messages.warning(request, _("Nothing was cancelled: none of them is waiting any more."))
    else:
        text = ngettext("%d delivery is cancelled.", "%d deliveries are cancelled.", count)
        messages.success(request, text % count)
    return redirect_back(request, "webhooks:deliveries")


def act(request: HttpRequest, action: Action, deliveries: list[Delivery]) -> int:
    """Resend or cancel deliveries and record the user; return how many were changed."""
    with transaction.atomic():
        rows = Delivery.objects.filter(pk__in=[row.pk for row in deliveries])
        # The others stay as they are, and the audit trail does not name them.
        changing = set(rows.filter(_CHANGED_BY[action]).values_list("pk", flat=True))
        rows = Delivery.objects.filter(pk__in=changing)
        count = events.resend(rows) if action == Action.RESENT else events.cancel(rows)
        if count:
            changed = [row for row in deliveries if row.pk in changing]
            audit.record_deliveries(action, changed, user=request.user)
    return count


@button("webhooks.view_delivery")
def save_view(request: HttpRequest) -> HttpResponse:
    """Save the filters of a query string under a name; an existing view is replaced."""
    name = request.POST.get("name", "").replace("\0", "").strip()[:_MAX_VIEW_NAME]
    query = urlencode(_filters(QueryDict(request.POST.get("query", ""))))
    # A login is required, so the user has a primary key.
    user_id = request.user.pk or 0
    kept = SavedView.objects.filter(user=user_id)
    if not is_visible(name) or not query:
        messages.warning(request, _("Choose filters and enter a name first."))
    elif len(query) > _MAX_VIEW_QUERY:
        # A letter of another alphabet has six characters or more in a URL.
        messages.warning(request, _("These filters are too long to save. Shorten the search."))
    elif kept.exclude(name=name).count() >= _MAX_VIEWS:
        messages.warning(request, _("Delete a view first. The limit is %d.") % _MAX_VIEWS)
    else:
        kept.update_or_create(user_id=user_id, name=name, defaults={"query": query})
        messages.success(request, _("“%s” is saved.") % name)
    return redirect_back(request, "webhooks:deliveries")


@button("webhooks.view_delivery")
def delete_view(request: HttpRequest, pk: int) -> HttpResponse:
    get_object_or_404(SavedView, pk=pk, user=request.user.pk).delete()
    return redirect_back(request, "webhooks:deliveries")


@page(
    "webhooks.view_delivery",
    "webhooks.view_payload",
    "webhooks.test_webhook",
    has_form=True,
    guard=keeps_typed,
)
def edit(request: HttpRequest, delivery_id: str) -> HttpResponse:
    """Send an edited copy of an event's payload to this webhook only."""
    delivery = get_delivery(delivery_id)
    if delivery.webhook.deleted_at:
        messages.error(request, _("The webhook was deleted. Nothing can be sent to it."))
        return redirect("webhooks:delivery", delivery.pk)
    initial = {"payload": detail_.editable_payload(delivery.event)}
    form = EditedPayloadForm(request.POST or None, initial=initial)
    is_sent = request.method == "POST" and not is_shown_again(request)
    if is_sent and form.is_valid():
        try:
            with transaction.atomic():
                copy = events.resend_edited(delivery, form.cleaned_data["payload"])
                audit.record(
                    Action.EDITED_AND_RESENT, copy, user=request.user, note=delivery.event_id
                )
        except events.InvalidEventError as error:
            form.add_error("payload", str(error))
        else:
            messages.success(request, _("The edited copy is sent; this is its delivery."))
            return redirect("webhooks:delivery", copy.pk)
    focus_mistake(form)
    context = {
        "delivery": delivery,
        "event": delivery.event,
        "webhook": delivery.webhook,
        "form": form,
    }
    status = 422 if form.errors else 200
    return render(request, "webhooks/deliveries/edit.html", context, status=status)
