"""Create and edit a webhook, rotate its signing secret, and try its alerts."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from webhooks import audit, events
from webhooks.alerts import notifications
from webhooks.models import Action, Webhook
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui import edit_conflict
from webhooks.ui.expired_session import keeps_typed
from webhooks.ui.status import needs_token
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form.alerts import RecipientsField


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@keeps_typed
@permission_required("webhooks.add_webhook", raise_exception=True)
def create(request: HttpRequest) -> HttpResponse:
    """Show the empty form; save it, and go on to the provider when a token was asked for."""
    wants_token = request.POST.get("action") == "authorize"
    if wants_token and not request.user.has_perm("webhooks.authorize_webhook"):
        raise PermissionDenied
    form = form_context.bind_form(request, Webhook(created_by_id=request.user.pk))
    webhook = form_context.save_if_valid(request, form)
    if webhook is None:
        return form_context.show_form(request, form)
    form_context.reveal_signing_secret(request, webhook)
    messages.success(request, _what_next(request, webhook, wants_token=wants_token))
    if wants_token:
        return form_context.begin_authorization(request, webhook)
    return redirect("webhooks:edit", webhook.pk)


def _what_next(request: HttpRequest, webhook: Webhook, *, wants_token: bool) -> str:
    """Say that the webhook is there, and what leads to its first event."""
    if needs_token(webhook) and not wants_token:
        sentence = _("“%(name)s” was created. Next, get an access token.")
    elif request.user.has_perm("webhooks.test_webhook") and not wants_token:
        sentence = _("“%(name)s” was created. Now send a test.")
    else:
        sentence = _("“%(name)s” was created.")
    return sentence % {"name": webhook.name}


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@keeps_typed
@permission_required("webhooks.change_webhook", raise_exception=True)
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    seen = edit_conflict.newest(pk)
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    form = form_context.bind_form(request, webhook, seen=seen)
    if form_context.save_if_valid(request, form) is None:
        return form_context.show_form(request, form)
    messages.success(request, _("The changes were saved."))
    return redirect("webhooks:edit", pk)


@require_POST
@never_cache
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def rotate_secret(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a new signing secret and show it once; the old one stays valid for 24 hours."""
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    try:
        with transaction.atomic():
            events.rotate_signing_secret(webhook)
            audit.record(
                Action.SECRET_ROTATED, webhook, user=request.user, fields=["signing_secret"]
            )
    except SecretUnreadableError:
        messages.error(request, form_context.wrong_key())
        return redirect("webhooks:edit", pk)
    form_context.reveal_signing_secret(request, webhook)
    if not request.headers.get("HX-Request"):
        return redirect(reverse("webhooks:edit", args=[pk]) + "#signing")
    webhook.refresh_from_db()
    context = {"webhook": webhook, **form_context.signing_panel(request, webhook)}
    return render(request, "webhooks/webhook_form/_signing.html", context)


@require_POST
@never_cache
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def send_test_mail(request: HttpRequest, pk: int) -> HttpResponse:
    """Mail the recipients as they are typed, saved or not, and say what came of it."""
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    result = _mail_result(webhook, request.POST.get("alert_recipients", ""))
    if result["is_sent"]:
        audit.record(Action.TESTED, webhook, user=request.user, note=_("Test mail to recipients"))
    if request.headers.get("HX-Request"):
        return render(request, "webhooks/webhook_form/_test_mail.html", {"test_mail": result})
    return form_context.show_form(
        request, form_context.bind_form(request, webhook), test_mail=result
    )


def _mail_result(webhook: Webhook, typed: str) -> dict[str, Any]:
    """Send the test mail; return a sentence and the kind that colours it."""
    try:
        webhook.alert_recipients = RecipientsField().clean(typed)
    except ValidationError as error:
        return {"is_sent": False, "kind": "danger", "sentence": " ".join(error.messages)}
    addresses = ", ".join(webhook.alert_recipients)
    if not addresses:
        sentence = _("No mail was sent: enter the address of a recipient first.")
        return {"is_sent": False, "kind": "warning", "sentence": sentence}
    if not notifications.send_test_mail(webhook):
        sentence = _("The mail server did not take the mail. The log of this site says why.")
        return {"is_sent": False, "kind": "danger", "sentence": sentence}
    if settings.EMAIL_BACKEND.endswith("console.EmailBackend"):
        sentence = _(
            "No mail server is set up, so the mail was written to the log of this site. Set "
            "EMAIL_URL to send it."
        )
        return {"is_sent": True, "kind": "warning", "sentence": sentence}
    sentence = _("The mail server took a test mail for %s.") % addresses
    return {"is_sent": True, "kind": "success", "sentence": sentence}
