"""What is done to one webhook from its page: pause, resume, copy, delete."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST

from webhooks import audit, events
from webhooks.models import Action, PauseReason, Status, Webhook
from webhooks.security.encryption import SecretField, SecretUnreadableError
from webhooks.ui import notices
from webhooks.ui.connections import lifecycle
from webhooks.ui.status import token_of
from webhooks.ui.webhook_detail import views as detail_views
from webhooks.ui.webhook_form import context as form_context

_OPEN = (Status.PENDING, Status.SENDING, Status.HELD, Status.PARKED)
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


@require_POST
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def pause(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    if webhook.is_active:
        with transaction.atomic():
            events.pause(webhook)
            audit.record(Action.PAUSED, webhook, user=request.user)
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
        with transaction.atomic():
            count = events.resume(webhook, drop_held=choice == "drop")
            sentence = _resumed(webhook, count, is_dropped=choice == "drop")
            audit.record(Action.RESUMED, webhook, user=request.user, note=sentence)
        messages.success(request, sentence)
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
        with transaction.atomic():
            if copy.connection_id:
                lifecycle.hold(copy.connection_id)
            copy.save()
            note = _("Copy of “%s”") % webhook
            audit.record(Action.CREATED, copy, user=request.user, note=note)
    except (SecretUnreadableError, lifecycle.ConnectionRefused) as error:
        messages.error(request, str(error))
        return _back(request, webhook)
    text = _(
        "This is a copy of “%s” with its settings and credentials. It has a signing secret of its "
        "own and no access token, and it is paused: look it over, then resume it."
    )
    messages.success(request, text % webhook)
    if not request.user.has_perm("webhooks.change_webhook"):
        return redirect("webhooks:detail", copy.pk)
    form_context.reveal_signing_secret(request, copy)
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
        audit.record(Action.DELETED, webhook, user=request.user)
        messages.success(request, _("“%s” is deleted.") % name)
        return redirect("webhooks:list")
    context = {
        "webhook": webhook,
        "token": token_of(webhook),
        "open_count": detail_views.count(
            webhook, Status.PENDING, Status.SENDING, Status.HELD, Status.PARKED
        ),
        "retention_days": settings.WEBHOOKS_RETENTION_DAYS,
    }
    return render(request, "webhooks/webhook_detail/confirm_delete.html", context)


def _back(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    """Return to the page the button was on."""
    address = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(address, allowed_hosts=None):
        address = reverse("webhooks:detail", args=[webhook.pk])
    return redirect(address)
