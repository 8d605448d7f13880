"""The list of webhooks, the page of one, and what is done to it: pause, resume, copy, delete."""

import re
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.paginator import Paginator
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webhooks import backlog, events
from webhooks.models import (
    AuthorizationType,
    Delivery,
    GrantType,
    PauseReason,
    Status,
    TokenState,
    Webhook,
)
from webhooks.secrets import SecretField, SecretUnreadable
from webhooks.views import editor, notices
from webhooks.views.notices import MAX_COUNTED, counted
from webhooks.views.standing import needs_token, standing_of, token_of

WEBHOOKS_PER_PAGE = 50
RECENT_DELIVERIES = 20

STATUS_CHOICES = {
    "active": gettext_lazy("Active"),
    "paused": gettext_lazy("Paused"),
    "attention": gettext_lazy("Needs attention"),
}
_SECRETS = [field.name for field in Webhook._meta.fields if isinstance(field, SecretField)]
_TOKEN_SECRETS = ["token__access_token", "token__refresh_token"]
_CONNECTION_SECRETS = [f"connection__{name}" for name in (*_SECRETS, *_TOKEN_SECRETS)]
_FILTERS = ("q", "status", "authorization", "connection")
# What belongs to one webhook alone: its identity, its signing secrets, its history.
_NOT_COPIED = {
    "id",
    "uid",
    "version",
    "created_at",
    "created_by",
    "updated_at",
    "deleted_at",
    "paused_at",
    "signing_secret",
    "previous_signing_secret",
    "previous_signing_secret_until",
    "secrets_changed_at",
}


@require_safe
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def list_webhooks(request: HttpRequest) -> HttpResponse:
    found = _search(request)
    page = Paginator(found, WEBHOOKS_PER_PAGE).get_page(request.GET.get("page"))
    last_ids = {webhook.pk: getattr(webhook, "last_delivery_id", None) for webhook in page}
    last = Delivery.objects.in_bulk([pk for pk in last_ids.values() if pk])
    rows = [
        {
            "webhook": webhook,
            "token": token_of(webhook.credentials),
            "standing": standing_of(webhook),
            "last": last.get(last_ids[webhook.pk] or ""),
        }
        for webhook in page
    ]
    context = {
        "rows": rows,
        "page": page,
        "is_filtered": any(request.GET.get(key) for key in _FILTERS),
        "connection": _wanted_connection(request),
        "has_any": bool(rows) or Webhook.objects.present().exists(),
        "status_choices": STATUS_CHOICES.items(),
        "authorization_choices": AuthorizationType.choices,
        "sandbox_url": settings.WEBHOOKS_SANDBOX_URL,
        "backlog": backlog.report(),
    }
    return render(request, "webhooks/list.html", context)


def _search(request: HttpRequest) -> QuerySet[Webhook]:
    found = (
        Webhook.objects.present()
        .select_related("token", "state", "connection__token")
        .defer(*_SECRETS, *_TOKEN_SECRETS, *_CONNECTION_SECRETS)
        .annotate(last_delivery_id=Subquery(newest_delivery(OuterRef("pk"))))
    )
    if words := request.GET.get("q", "").replace("\0", "").strip():
        found = found.filter(Q(name__icontains=words) | Q(url__icontains=words))
    if (authorization := request.GET.get("authorization")) in AuthorizationType.values:
        found = found.annotate(sends=_sends()).filter(sends=authorization)
    if connection := _wanted_connection(request):
        found = found.filter(connection=connection)
    match request.GET.get("status"):
        case "active":
            found = found.filter(is_active=True)
        case "paused":
            found = found.filter(is_active=False)
        case "attention":
            found = found.filter(_needs_attention())
    return found


def newest_delivery(webhook: int | OuterRef) -> QuerySet[Delivery, Any]:
    """Return a query for the id of a webhook's newest delivery: one step into an index."""
    return Delivery.objects.filter(webhook=webhook).order_by("-id").values("pk")[:1]


def _wanted_connection(request: HttpRequest) -> Webhook | None:
    """Return the connection whose webhooks are asked for."""
    wanted = request.GET.get("connection", "")
    if not re.fullmatch("[0-9]{1,18}", wanted):
        return None
    return Webhook.objects.connections().defer(*_SECRETS).filter(pk=wanted).first()


def _sends() -> Coalesce:
    """Return the authorization type of what authorizes a webhook's requests."""
    return Coalesce("connection__authorization_type", "authorization_type")


def _needs_attention() -> Q:
    """Match what `standing_of` colours as warning or danger."""
    own = Q(connection=None) & _is_unauthorized("")
    shared = Q(connection__isnull=False) & _is_unauthorized("connection__")
    is_active_but = Q(state__failing_since_at__isnull=False) | own | shared
    return Q(pause_reason__in=[PauseReason.GONE, PauseReason.FAILING]) | (
        Q(is_active=True) & is_active_but
    )


def _is_unauthorized(owner: str) -> Q:
    """Match webhooks whose credentials, reached by the prefix `owner`, wait for a person."""
    token = f"{owner}token"
    has_no_token = Q(**{token: None}) | Q(**{f"{token}__state": TokenState.NONE})
    broken = [TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED]
    is_broken = Q(**{f"{token}__state__in": broken})
    waits = has_no_token & Q(**{f"{owner}grant_type": GrantType.AUTHORIZATION_CODE})
    return Q(**{f"{owner}authorization_type": AuthorizationType.OAUTH2}) & (waits | is_broken)


@require_safe
@login_required
@permission_required("webhooks.view_webhook", raise_exception=True)
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(
        Webhook.objects.present()
        .select_related("token__granted_by", "state", "created_by", "connection__token__granted_by")
        .defer(*_TOKEN_SECRETS, *_CONNECTION_SECRETS),
        pk=pk,
    )
    recent = (
        Delivery.objects.filter(webhook=webhook)
        .select_related("event")
        .defer("event__payload")
        .order_by("-id")[:RECENT_DELIVERIES]
    )
    context = {
        "webhook": webhook,
        "standing": standing_of(webhook),
        "credentials": webhook.credentials,
        "token": token_of(webhook.credentials),
        "needs_token": needs_token(webhook),
        "is_oauth": webhook.credentials.authorization_type == AuthorizationType.OAUTH2,
        "waiting": _count(webhook, Status.PENDING, Status.SENDING),
        **notices.situation(webhook),
        "deliveries": recent,
        "secrets": {field: webhook.has_secret(field) for field in _SECRETS},
    }
    return render(request, "webhooks/detail.html", context)


def _count(webhook: Webhook, *statuses: Status) -> str:
    """Count a webhook's deliveries up to a limit, as text: "12" or "1,000+".

    Asks for each status alone, because each has a partial index of its own.
    """
    count = 0
    for status in statuses:
        rows = Delivery.objects.filter(webhook=webhook, status=status)
        count += rows[: MAX_COUNTED + 1].count()
    return counted(count)


@require_POST
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def pause(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    if webhook.is_active:
        events.pause(webhook)
        messages.success(
            request, _("“%s” is paused. Nothing is sent until it is resumed.") % webhook
        )
    return _back(request, webhook)


@require_POST
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def resume(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    choice = request.POST.get("held", "")
    if not webhook.is_active:
        if choice not in ("send", "drop") and notices.held_by_pause(webhook):
            messages.info(request, _("Say below what happens to the deliveries that are held."))
            return redirect(reverse("webhooks:detail", args=[webhook.pk]) + "#resume")
        count = events.resume(webhook, drop_held=choice == "drop")
        messages.success(request, _resumed(webhook, count, is_dropped=choice == "drop"))
    return _back(request, webhook)


def _resumed(webhook: Webhook, count: int, *, is_dropped: bool) -> str:
    if not count:
        return _("“%s” is active again.") % webhook
    if is_dropped:
        text = ngettext(
            "“%(name)s” is active again; %(count)d held delivery was dropped.",
            "“%(name)s” is active again; %(count)d held deliveries were dropped.",
            count,
        )
    else:
        text = ngettext(
            "“%(name)s” is active again; %(count)d held delivery is sent now.",
            "“%(name)s” is active again; %(count)d held deliveries are sent now.",
            count,
        )
    return text % {"name": webhook.name, "count": count}


@require_POST
@login_required
@permission_required("webhooks.add_webhook", raise_exception=True)
@permission_required("webhooks.view_webhook", raise_exception=True)
def duplicate(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    try:
        copy = _copy_of(webhook)
        copy.created_by_id = request.user.pk
        copy.save()
    except SecretUnreadable as error:
        messages.error(request, str(error))
        return _back(request, webhook)
    text = _(
        "This is a copy of “%s” with its settings and credentials. It has a signing secret of its "
        "own and no access token, and it is paused: look it over, then resume it."
    )
    messages.success(request, text % webhook)
    if not request.user.has_perm("webhooks.change_webhook"):
        return redirect("webhooks:detail", copy.pk)
    editor.reveal_signing_secret(request, copy)
    return redirect("webhooks:edit", copy.pk)


def _copy_of(webhook: Webhook) -> Webhook:
    """Return an unsaved, paused copy. Secrets are opened here and sealed anew for the new row."""
    copy = Webhook()
    for field in Webhook._meta.concrete_fields:
        if field.name in _NOT_COPIED:
            continue
        value = getattr(webhook, field.attname)
        if isinstance(field, SecretField):
            if value:
                copy.set_secret(field.name, value)
        else:
            setattr(copy, field.attname, value)
    longest = 100 - len(_("%s (copy)") % "")
    copy.name = _("%s (copy)") % webhook.name[:longest]
    copy.pause(PauseReason.PERSON)
    return copy


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@permission_required("webhooks.delete_webhook", raise_exception=True)
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present().select_related("token"), pk=pk)
    if request.method == "POST":
        name = webhook.name
        events.delete(webhook)
        messages.success(request, _("“%s” is deleted.") % name)
        return redirect("webhooks:list")
    context = {
        "webhook": webhook,
        "token": token_of(webhook),
        "open_count": _count(webhook, Status.PENDING, Status.SENDING, Status.HELD, Status.PARKED),
        "retention_days": settings.WEBHOOKS_RETENTION_DAYS,
    }
    return render(request, "webhooks/confirm_delete.html", context)


def _back(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    """Return to the page the button was on."""
    address = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(address, allowed_hosts=None):
        address = reverse("webhooks:detail", args=[webhook.pk])
    return redirect(address)
