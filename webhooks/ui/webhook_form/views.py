"""The form: create, edit, preview and test a webhook."""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
)
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import audit, catalogue, events
from webhooks.alerts import notifications
from webhooks.delivery import queue
from webhooks.delivery_log import detail
from webhooks.models import (
    WEBHOOK_SECRETS,
    Action,
    Delivery,
    Status,
    Trigger,
    Webhook,
)
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui import trail
from webhooks.ui.expired_session import keep, keeps_typed, keeps_typed_at
from webhooks.ui.requests import HtmxRequest, button, page, whole_number
from webhooks.ui.status import has_token_problem, needs_token
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form.filter import ACTION, FilterSection
from webhooks.ui.webhook_form.mapping import MappingSection
from webhooks.ui.webhook_form.preview import UnsavedForm, preview_context
from webhooks.ui.webhook_form.sections import RecipientsField

# How long a page polls for the result; after that it offers Check again.
_POLL_FOR = timedelta(seconds=15)
_OPEN = {Status.PENDING, Status.SENDING}


@page("webhooks.add_webhook", has_form=True, guard=keeps_typed)
def create(request: HtmxRequest) -> HttpResponse:
    """Show the empty form, or save it and go on to the provider if a token was requested."""
    wants_token = request.POST.get("action") == "authorize"
    if wants_token and not request.user.has_perm("webhooks.authorize_webhook"):
        raise PermissionDenied
    form = form_context.bind_form(request, Webhook(created_by_id=request.user.pk))
    if not form_context.save_if_valid(request, form):
        return form_context.show_form(request, form)
    webhook = form.instance
    form_context.reveal_signing_secret(request, webhook)
    wants_test = request.POST.get("action") == "test"
    messages.success(request, _what_next(request, webhook, is_done=wants_token or wants_test))
    same = Webhook.objects.present().filter(name=webhook.name, url=webhook.url)
    if same.exclude(pk=webhook.pk).exists():
        # The browser's Back button shows the same form; saving it creates another webhook.
        messages.warning(
            request,
            _("Another webhook has the same name and URL. If you saved twice, delete one of them."),
        )
    if wants_token:
        return form_context.begin_authorization(request, form.credential)
    if wants_test:
        return _send_test(request, webhook)
    if request.user.has_perm("webhooks.change_webhook"):
        return redirect("webhooks:edit", webhook.pk)
    if request.user.has_perm("webhooks.view_webhook"):
        return redirect("webhooks:detail", webhook.pk)
    return redirect("webhooks:create")


def _what_next(request: HttpRequest, webhook: Webhook, *, is_done: bool) -> str:
    """Return a message that the webhook was created, with the next step to its first event."""
    if needs_token(webhook.credential) and not is_done:
        sentence = _("“%(name)s” was created. Next, get an access token.")
    elif request.user.has_perm("webhooks.test_webhook") and not is_done:
        sentence = _("“%(name)s” was created. Now send a test.")
    else:
        sentence = _("“%(name)s” was created.")
    return sentence % {"name": webhook.name}


@page("webhooks.change_webhook", has_form=True, guard=keeps_typed)
def edit(request: HtmxRequest, pk: int) -> HttpResponse:
    seen = trail.newest_entry(Webhook, pk)
    found = Webhook.objects.present().select_related("credential")
    webhook = found.filter(pk=pk).first()
    if webhook is None:
        return _deleted(request, pk)
    form = form_context.bind_form(request, webhook, seen=seen)
    try:
        is_saved = form_context.save_if_valid(request, form)
    except Http404:
        return _deleted(request, pk)
    if not is_saved:
        return form_context.show_form(request, form, **_sent_test(request, pk))
    if request.POST.get("action") == "test":
        return _send_test(request, form.instance)
    messages.success(request, _("The changes were saved."))
    return redirect("webhooks:edit", pk)


def _deleted(request: HttpRequest, pk: int) -> HttpResponse:
    """Show that the webhook is in the trash; a posted form is kept until it is restored."""
    trashed = Webhook.objects.trashed().defer(*WEBHOOK_SECRETS)
    webhook = get_object_or_404(trashed, pk=pk)
    context = {"webhook": webhook, "is_kept": keep(request, is_deleted=True)}
    return render(request, "webhooks/webhook_form/deleted.html", context, status=404)


def _sent_test(request: HttpRequest, pk: int) -> dict[str, object]:
    """Return the context of the test that was just sent from the form, to show its result."""
    sent = Delivery.objects.select_related("event", "webhook").filter(
        pk=request.GET.get("test", "").replace("\0", ""), webhook_id=pk, trigger=Trigger.TEST
    )
    delivery = sent.first() if "test" in request.GET else None
    return _test_context(request, delivery) if delivery else {}


@button("webhooks.change_webhook")
def rotate_secret(request: HtmxRequest, pk: int) -> HttpResponse:
    """Make a new signing secret and show it once; the old ones stay valid for 24 hours."""
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
    if not request.htmx:
        return redirect(reverse("webhooks:edit", args=[pk]) + "#signing")
    webhook.refresh_from_db()
    context = {"webhook": webhook, "is_rotated": True}
    context |= form_context.signing_panel(request, webhook)
    return render(request, "webhooks/webhook_form/_signing.html", context)


class PasswordConfirmation(forms.Form):
    """Ask for the password of the current user. A wrong one counts as a failed login."""

    password = forms.CharField(
        label=gettext_lazy("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request.POST if request.method == "POST" else None)
        self._request = request

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        name = self._request.user.get_username()
        found = authenticate(request=self._request, username=name, password=password)
        if found is None or found.pk != self._request.user.pk:
            raise ValidationError(_("The password is wrong."))
        return password


@page("webhooks.change_webhook", has_form=True)
def reveal_secret(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the signing secret again, after the password; the audit trail records it."""
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    form = PasswordConfirmation(request)
    if not form.is_valid():
        shown = {"webhook": webhook, "form": form}
        status = 422 if form.is_bound else 200
        return render(request, "webhooks/webhook_form/reveal_secret.html", shown, status=status)
    audit.record(Action.SECRET_REVEALED, webhook, user=request.user, fields=["signing_secret"])
    form_context.reveal_signing_secret(request, webhook)
    return redirect(reverse("webhooks:edit", args=[pk]) + "#signing-shown")


@keeps_typed_at(lambda pk: reverse("webhooks:edit", args=[pk]))
@button("webhooks.change_webhook")
def send_test_mail(request: HtmxRequest, pk: int) -> HttpResponse:
    """Send a test email to the typed recipients, saved or not, and show the result."""
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    result = _mail_result(webhook, request.POST.get("alert_recipients", ""))
    if result["is_sent"]:
        audit.record(Action.TESTED, webhook, user=request.user, note=audit.note("test_mail"))
    if request.htmx:
        return render(request, "webhooks/webhook_form/_test_mail.html", {"test_mail": result})
    return form_context.show_form(
        request, form_context.bind_form(request, webhook), test_mail=result
    )


def _mail_result(webhook: Webhook, typed: str) -> dict[str, Any]:
    """Send the test email; return a message and the kind that sets its colour."""
    try:
        webhook.alert_recipients = RecipientsField().clean(typed)
    except ValidationError as error:
        return {"is_sent": False, "kind": "danger", "sentence": " ".join(error.messages)}
    addresses = ", ".join(webhook.alert_recipients)
    if not addresses:
        sentence = _("No email was sent. Enter a recipient first.")
        return {"is_sent": False, "kind": "warning", "sentence": sentence}
    if not notifications.send_test_mail(webhook):
        sentence = _("The mail server did not accept the email. This site's log says why.")
        return {"is_sent": False, "kind": "danger", "sentence": sentence}
    if settings.EMAIL_BACKEND.endswith("console.EmailBackend"):
        sentence = _(
            "No mail server is set up, so the email was written to this site's log. Set "
            "EMAIL_URL to send email."
        )
        return {"is_sent": True, "kind": "warning", "sentence": sentence}
    sentence = _("A test email was sent to %s.") % addresses
    return {"is_sent": True, "kind": "success", "sentence": sentence}


# ---- Live updates of the form: nothing is stored ----------------------------------------------


@button()
def try_filter(request: HttpRequest) -> HttpResponse:
    """Render the whole section after one of its buttons, or only its matches while a user types."""
    form_context.check_editor(request)
    section = FilterSection({}, request.POST, patterns=request.POST.getlist("event_types"))
    section.show_mistakes()
    is_button = request.POST.get("action", "").startswith(ACTION)
    context = {
        "section": section,
        "is_live": not is_button,
        **form_context.filter_preview_context(request, section),
    }
    template = "_filter.html" if is_button else "_filter_result.html"
    return render(request, f"webhooks/webhook_form/{template}", context)


@button()
def preview(request: HttpRequest) -> HttpResponse:
    """Render the request that the posted form would send, for htmx; store nothing."""
    webhook = _webhook(request)
    form = UnsavedForm(request.POST, webhook=webhook, session=request.session)
    if not request.user.has_perm("webhooks.view_connection"):
        form.keep_connection()
    context = {**preview_context(request, form), "is_live": True, "form": form}
    return render(request, "webhooks/webhook_form/_preview.html", context)


@button()
def edit_parameters(request: HttpRequest) -> HttpResponse:
    """Render the rows of the parameters after one of their buttons, for htmx."""
    data = request.POST
    section = MappingSection(_webhook(request), data)
    section.check(method=data.get("method", ""), body_format=data.get("body_format", ""))
    return render(request, "webhooks/webhook_form/_parameter_rows.html", {"section": section})


def _webhook(request: HttpRequest) -> Webhook:
    """Return the edited webhook, or a new one; check that the user may change or add it."""
    pk = request.POST.get("webhook", "")
    form_context.check_editor(request, "change_webhook" if pk else "add_webhook")
    if not pk.isdecimal():
        return Webhook()
    present = Webhook.objects.present().select_related("credential")
    return get_object_or_404(present, pk=whole_number(pk))


# ---- A test through the real delivery path ----------------------------------------------------


@button("webhooks.test_webhook")
def send_test(request: HtmxRequest, pk: int) -> HttpResponse:
    return _send_test(request, get_object_or_404(Webhook.objects.present(), pk=pk))


def _send_test(request: HtmxRequest, webhook: Webhook) -> HttpResponse:
    """Send a test with the saved settings, and show the result where it was requested."""
    if not request.user.has_perm("webhooks.test_webhook"):
        raise PermissionDenied
    event_type = request.POST.get("test_event_type") or catalogue.first_type(webhook.event_types)
    if not catalogue.is_known(event_type):
        return HttpResponseBadRequest(_("There is no such event type."))
    if has_token_problem(webhook.credential):
        return _refuse_test(request, webhook)
    with transaction.atomic():
        delivery = events.send_test(webhook, event_type)
        audit.record(Action.TESTED, delivery, user=request.user, note=event_type)
    if request.htmx:
        return _show_test(request, delivery)
    if "shows_test" in request.POST:
        return redirect(reverse("webhooks:edit", args=[webhook.pk], query={"test": delivery.pk}))
    return redirect("webhooks:test_result", webhook.pk, delivery.pk)


@page("webhooks.test_webhook")
def test_result(request: HtmxRequest, pk: int, delivery_id: str) -> HttpResponse:
    """Render the result alone for htmx, and a page that reloads itself otherwise."""
    delivery = get_object_or_404(
        Delivery.objects.select_related("event", "webhook"),
        pk=delivery_id.replace("\0", ""),
        webhook_id=pk,
        webhook__deleted_at=None,
        trigger=Trigger.TEST,
    )
    if request.htmx:
        return _show_test(request, delivery)
    context = _test_context(request, delivery)
    return render(request, "webhooks/webhook_form/form_test_result.html", context)


def _refuse_test(request: HtmxRequest, webhook: Webhook) -> HttpResponse:
    sentence = _("No test was sent: there is no access token. Press Get new access token first.")
    if request.htmx:
        return render(request, "webhooks/webhook_form/_test_result.html", {"refusal": sentence})
    messages.warning(request, sentence)
    if request.user.has_perm("webhooks.change_webhook"):
        return redirect(reverse("webhooks:edit", args=[webhook.pk]) + "#token")
    return redirect("webhooks:detail", webhook.pk)


def _show_test(request: HttpRequest, delivery: Delivery) -> HttpResponse:
    context = _test_context(request, delivery)
    if request.method == "GET" and context["is_polling"]:
        # No result yet: htmx changes nothing and polls again.
        return HttpResponse(status=204)
    return render(request, "webhooks/webhook_form/_test_result.html", context)


def _test_context(request: HttpRequest, delivery: Delivery) -> dict[str, object]:
    is_open = delivery.status in _OPEN
    may_see = request.user.has_perm("webhooks.view_payload")
    shown = detail.context_of(delivery, may_see_payload=may_see)
    attempt = shown["attempts"][0] if shown["attempts"] else None
    row = attempt["row"] if attempt else None
    url, sandbox = delivery.webhook.url, settings.WEBHOOKS_SANDBOX_URL
    return {
        "delivery": delivery,
        "webhook": delivery.webhook,
        "event": delivery.event,
        "attempt": attempt,
        "row": row,
        "request_body": row.body_sent(delivery.event.payload) if row else b"",
        "shown_bytes": shown["shown_bytes"],
        "may_see_payload": may_see,
        "is_open": is_open,
        "is_polling": is_open and queue.now() - delivery.created_at < _POLL_FOR,
        # Link to the page of the sandbox's receiver, if the webhook sends to it.
        "receiver_url": sandbox if sandbox and url.startswith(f"{sandbox}/") else "",
    }
