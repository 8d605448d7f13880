"""The search in the header: pages, webhooks, and events by id, call or number; an event's page.

The start page is the first of the pages that the user may open.
"""

from typing import Any

from django.contrib import messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _

from webhooks.delivery_log import event_detail
from webhooks.delivery_log import query as log_query
from webhooks.delivery_log import search as log_search
from webhooks.delivery_log.detail import PAYLOAD_BYTES
from webhooks.models import Event, Webhook
from webhooks.ui import webhook_query
from webhooks.ui.deliveries.views import is_admin, page_url
from webhooks.ui.requests import HtmxRequest, page

_MAX_WORDS = 200
_MAX_WEBHOOKS = 8
# Events listed in the results; the log has all of them.
_MAX_EVENTS = 20
_MAX_EVENTS_AT_ONCE = 6


@page()
def home(request: HttpRequest) -> HttpResponse:
    """Redirect to the first page that the user may open."""
    _label, address = _pages("", request.user)[0]
    if address == reverse("webhooks:help_events"):
        messages.warning(request, _("Your account has no permissions yet. Ask an administrator."))
    return redirect(address)


@page()
def search(request: HtmxRequest) -> HttpResponse:
    """Show what matches the words; open a single event or delivery. htmx gets only the list."""
    words = request.GET.get("q", "").replace("\0", "").strip()[:_MAX_WORDS]
    user, is_part = request.user, bool(request.htmx)
    found = log_search.Found()
    if words and user.has_perm("webhooks.view_delivery"):
        found = log_search.find(words, may_see_numbers=user.has_perm("webhooks.view_payload"))
    most = _MAX_EVENTS_AT_ONCE if is_part else _MAX_EVENTS
    events = event_detail.outcomes(found.events[:most])
    context: dict[str, Any] = {
        "words": words,
        "pages": _pages(words, user),
        "webhooks": _webhooks(words) if words and user.has_perm("webhooks.view_webhook") else [],
        "events": events,
        "has_more_events": len(found.events) > most,
        "delivery": log_query.get(found.delivery) if found.delivery else None,
    }
    if is_part:
        return render(request, "webhooks/deliveries/_search_results.html", context)
    if context["delivery"]:
        return redirect("webhooks:delivery", found.delivery)
    if len(events) == 1 and not context["webhooks"]:
        return redirect("webhooks:event", events[0][0].pk)
    return render(request, "webhooks/deliveries/search.html", context)


def _webhooks(words: str) -> list[Webhook]:
    found = webhook_query.named(words).order_by("name", "pk")
    return list(found.only("name", "url", "is_active", "pause_reason")[:_MAX_WEBHOOKS])


def _pages(words: str, user: AbstractBaseUser | AnonymousUser) -> list[tuple[str, str]]:
    """Return label and URL of the pages whose names contain the words."""
    pages = [
        (_("Webhooks"), "webhooks:list", "webhooks.view_webhook"),
        (_("New webhook"), "webhooks:create", "webhooks.add_webhook"),
        (_("Import webhooks"), "webhooks:import", "webhooks.view_webhook webhooks.add_webhook"),
        (_("Connections"), "webhooks:connections", "webhooks.view_connection"),
        (_("New connection"), "webhooks:connection_create", "webhooks.add_connection"),
        (_("Delivery log"), "webhooks:deliveries", "webhooks.view_delivery"),
        (_("Failed deliveries"), "webhooks:deliveries?status=failed", "webhooks.view_delivery"),
        (
            _("Resend deliveries"),
            "webhooks:resend_create_for_all",
            "webhooks.view_delivery webhooks.test_webhook",
        ),
        (_("Alerts"), "webhooks:alerts", "webhooks.view_webhook"),
        (_("Status"), "webhooks:status", "webhooks.view_webhook"),
        (_("Trash"), "webhooks:trash", "webhooks.view_webhook"),
        (_("API keys"), "admin:webhooks_apikey_changelist", "webhooks.view_apikey"),
        (_("Audit trail"), "admin:webhooks_auditentry_changelist", "webhooks.view_auditentry"),
        (_("Users"), "admin:auth_user_changelist", "auth.view_user"),
        (_("Administration"), "admin:index", ""),
        (_("Event types"), "webhooks:help_events", ""),
        (_("Receiver's guide"), "webhooks:help_receivers", ""),
        (_("Time zone"), "webhooks:time_zone", ""),
    ]
    return [
        (label, _address(name))
        for label, name, permissions in pages
        if words.casefold() in label.casefold() and _may_open(name, permissions, user)
    ]


def _address(name: str) -> str:
    view, _mark, query = name.partition("?")
    return reverse(view) + (f"?{query}" if query else "")


def _may_open(name: str, permissions: str, user: Any) -> bool:
    is_open = user.is_staff or not name.startswith("admin:")
    return is_open and bool(user.has_perms(permissions.split()))


@page("webhooks.view_delivery")
def event(request: HttpRequest, event_id: str) -> HttpResponse:
    found = event_detail.get(event_id)
    if found is None:
        raise Http404
    return render(request, "webhooks/deliveries/event.html", event_context(request, found))


def event_context(request: HttpRequest, event: Event) -> dict[str, Any]:
    """Return the context of `webhooks/deliveries/_event.html`, in the product and Django admin."""
    lines: list[dict[str, Any]] = []
    unconcerned: list[dict[str, Any]] = []
    for one in event_detail.lines_of(event):
        sent = one["verdict"].get("deliveries", [])
        one["deliveries"] = [(delivery, page_url(request, delivery)) for delivery in sent]
        (lines if sent or one["verdict"]["kind"] != "neutral" else unconcerned).append(one)
    return {
        "event": event,
        "lines": lines,
        "unconcerned": unconcerned,
        "is_admin": is_admin(request),
        "payload_bytes": PAYLOAD_BYTES,
        "may_see_payload": request.user.has_perm("webhooks.view_payload"),
    }
