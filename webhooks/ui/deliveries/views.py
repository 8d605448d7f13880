"""The delivery log in the product, the page of one delivery, and what is done with it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from webhooks import audit, events
from webhooks.delivery import backlog
from webhooks.delivery_log import detail as detail_
from webhooks.delivery_log import query as log_query
from webhooks.models import Action, Attempt, Delivery, Replay, ReplayStatus, Status, Trigger
from webhooks.ui.deliveries.forms import EditedPayloadForm, LogForm
from webhooks.ui.figures import number
from webhooks.ui.requests import HtmxRequest, post_only

_PARTS = ("request", "response")
# A page of a delivery that moves soon asks that often whether it did.
_SOON_SECONDS = 60
_RUNNING_SHOWN = 3
_MAX_DIGITS = 15


@require_safe
@permission_required("webhooks.view_delivery", raise_exception=True)
def log(request: HttpRequest) -> HttpResponse:
    form = LogForm(request.GET)
    found = log_query.Page()
    if form.is_valid():
        found = log_query.page(
            form.conditions(), before=_key(request, "before"), after=_key(request, "after")
        )
    may_send = request.user.has_perm("webhooks.test_webhook")
    counted = _counted_by_chart(request.GET.get("counted", ""))
    context = {
        "form": form,
        "page": found,
        "older_link": _link(request, before=found.older_than),
        "newer_link": _link(request, after=found.newer_than),
        "newest_link": _link(request, newest="1") if _is_deep(request) else "",
        "counted": counted,
        "counted_text": number(counted),
        "export_query": urlencode(_filters(request)),
        "webhook_id": form.cleaned_data.get("webhook", "") if form.is_valid() else "",
        "may_send": may_send,
        "running": _running() if may_send else [],
        "backlog": backlog.report(),
    }
    return render(request, "webhooks/deliveries/list.html", context)


def _counted_by_chart(text: str) -> int:
    """Return how many requests a chart counted whose number was followed here; 0 for none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else 0


def _running() -> list[Replay]:
    running = Replay.objects.filter(status=ReplayStatus.RUNNING).order_by("-id")
    return list(
        running.select_related("webhook").only("id", "scope", "webhook__name")[:_RUNNING_SHOWN]
    )


def _key(request: HttpRequest, name: str) -> str:
    return request.GET.get(name, "").replace("\0", "")


def _is_deep(request: HttpRequest) -> bool:
    return bool(_key(request, "before") or _key(request, "after"))


def _filters(request: HttpRequest) -> dict[str, str]:
    return {name: request.GET[name] for name in LogForm.base_fields if request.GET.get(name)}


def _link(request: HttpRequest, **place: str) -> str:
    """Return an address with the same filters at another place; empty for a place there is not."""
    (name, key), *_rest = place.items()
    if not key:
        return ""
    query = _filters(request) if name == "newest" else {**_filters(request), name: key}
    return "?" + urlencode(query)


@require_safe
@never_cache
@permission_required("webhooks.view_delivery", raise_exception=True)
def detail(request: HtmxRequest, delivery_id: str) -> HttpResponse:
    delivery = get_delivery(delivery_id)
    if request.htmx and request.GET.get("seen") == _seen(delivery):
        # Nothing new: htmx changes nothing and asks again.
        return HttpResponse(status=204)
    context = {
        **detail_.context_of(
            delivery,
            may_see_payload=request.user.has_perm("webhooks.view_payload"),
            wanted=request.GET.get("attempt", ""),
            against=request.GET.get("against", ""),
        ),
        **links(request, delivery),
        "seen": _seen(delivery),
        "is_moving": _is_moving(delivery),
    }
    is_part = bool(request.htmx)
    name = "webhooks/deliveries/_delivery.html" if is_part else "webhooks/deliveries/detail.html"
    return render(request, name, context)


def get_delivery(delivery_id: str) -> Delivery:
    """Return a delivery with its event and webhook, without secrets; raise Http404."""
    delivery = log_query.get(delivery_id)
    if delivery is None:
        raise Http404
    return delivery


def links(request: HttpRequest, delivery: Delivery) -> dict[str, Any]:
    """Return where the page's buttons lead, and which of them this person has."""
    may_send = request.user.has_perm("webhooks.test_webhook")
    is_present = delivery.webhook.deleted_at is None
    may_see = request.user.has_perm("webhooks.view_payload")
    may_cancel = request.user.has_perm("webhooks.change_webhook")

    def of(name: str) -> str:
        return reverse(f"webhooks:{name}", args=[delivery.pk])

    return {
        "log_url": reverse("webhooks:deliveries"),
        "page_url": of("delivery"),
        "redeliver_url": of("delivery_redeliver") if may_send and is_present else "",
        "send_now_url": of("delivery_send_now") if may_send and is_present else "",
        "edit_url": of("delivery_edit") if may_send and may_see and is_present else "",
        "cancel_url": of("delivery_cancel") if may_cancel else "",
        "bodies_url": of("delivery") if may_see else "",
    }


def _seen(delivery: Delivery) -> str:
    return f"{delivery.status}-{delivery.attempt_count}"


def _is_moving(delivery: Delivery) -> bool:
    if delivery.status == Status.SENDING:
        return True
    return delivery.status == Status.PENDING and detail_.is_due_within(delivery, _SOON_SECONDS)


@require_safe
@never_cache
@permission_required("webhooks.view_delivery", raise_exception=True)
@permission_required("webhooks.view_payload", raise_exception=True)
def body(request: HttpRequest, delivery_id: str, attempt_id: int, part: str) -> HttpResponse:
    """Give the bytes of a request or a response to be saved, never to be shown."""
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


@post_only
@permission_required("webhooks.view_delivery", raise_exception=True)
@permission_required("webhooks.test_webhook", raise_exception=True)
def redeliver(request: HttpRequest, delivery_id: str) -> HttpResponse:
    delivery = get_delivery(delivery_id)
    if not _act(request, delivery, Action.REDELIVERED, events.redeliver):
        messages.error(request, _("The webhook was deleted, so nothing can be sent to it."))
        return redirect("webhooks:delivery", delivery.pk)
    same = Delivery.objects.filter(event=delivery.event_id, webhook=delivery.webhook_id)
    copy = same.filter(trigger=Trigger.REDELIVERY).latest("pk")
    messages.success(request, _("The event is sent again; this is the new delivery."))
    return redirect("webhooks:delivery", copy.pk)


@post_only
@permission_required("webhooks.view_delivery", raise_exception=True)
@permission_required("webhooks.test_webhook", raise_exception=True)
def send_now(request: HttpRequest, delivery_id: str) -> HttpResponse:
    delivery = get_delivery(delivery_id)
    if _act(request, delivery, Action.SENT_NOW, events.send_now):
        messages.success(request, _("The next attempt starts now."))
    else:
        messages.warning(request, _("This delivery no longer waits."))
    return redirect("webhooks:delivery", delivery.pk)


@post_only
@permission_required("webhooks.view_delivery", raise_exception=True)
@permission_required("webhooks.change_webhook", raise_exception=True)
def cancel(request: HttpRequest, delivery_id: str) -> HttpResponse:
    delivery = get_delivery(delivery_id)
    if _act(request, delivery, Action.CANCELLED, events.cancel):
        messages.success(request, _("The delivery is cancelled."))
    else:
        messages.warning(request, _("This delivery no longer waits."))
    return redirect("webhooks:delivery", delivery.pk)


def _act(
    request: HttpRequest,
    delivery: Delivery,
    action: Action,
    act: Callable[[QuerySet[Delivery]], int],
) -> int:
    """Do something with one delivery and write down who did; return 0 when it was too late."""
    with transaction.atomic():
        if count := act(Delivery.objects.filter(pk=delivery.pk)):
            audit.record_deliveries(action, [delivery], user=request.user)
    return count


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@permission_required("webhooks.view_delivery", raise_exception=True)
@permission_required("webhooks.view_payload", raise_exception=True)
@permission_required("webhooks.test_webhook", raise_exception=True)
def edit(request: HttpRequest, delivery_id: str) -> HttpResponse:
    """Change a copy of an event's payload and send that to this webhook alone."""
    delivery = get_delivery(delivery_id)
    if delivery.webhook.deleted_at:
        messages.error(request, _("The webhook was deleted, so nothing can be sent to it."))
        return redirect("webhooks:delivery", delivery.pk)
    initial = {"payload": detail_.editable_payload(delivery.event)}
    form = EditedPayloadForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            with transaction.atomic():
                copy = events.resend_edited(delivery, form.cleaned_data["payload"])
                audit.record(
                    Action.EDITED_AND_RESENT, copy, user=request.user, note=delivery.event_id
                )
        except events.InvalidEvent as error:
            form.add_error("payload", str(error))
        else:
            messages.success(request, _("The edited copy is sent; this is its delivery."))
            return redirect("webhooks:delivery", copy.pk)
    context = {
        "delivery": delivery,
        "event": delivery.event,
        "webhook": delivery.webhook,
        "form": form,
    }
    status = 422 if form.errors else 200
    return render(request, "webhooks/deliveries/edit.html", context, status=status)
