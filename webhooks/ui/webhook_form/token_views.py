"""The token panel: get, refresh, clear and check access tokens; the provider's answer."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from webhooks import audit, events, oauth
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    Action,
    AuthorizationType,
    ClientAuthentication,
    Credential,
)
from webhooks.ui.requests import HtmxRequest, button, page
from webhooks.ui.status import token_stored
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form import oauth_fields

# Who may fill in one of these forms may ask a provider for its endpoints.
_EDITORS = (
    "webhooks.add_webhook",
    "webhooks.change_webhook",
    "webhooks.add_connection",
    "webhooks.change_connection",
)
_LABELS = {name: field.verbose_name for name, field in AUTHORIZATION_FIELDS.items()}


@page("webhooks.view_webhook")
def credential_page(request: HtmxRequest, pk: int) -> HttpResponse:
    """Redirect to the page of whose credential it is: where its buttons are."""
    credential = get_object_or_404(Credential.objects.present().select_related("webhook"), pk=pk)
    if credential.webhook is not None:
        return redirect("webhooks:detail", credential.webhook.pk)
    return redirect("webhooks:connection", credential.pk)


@button("webhooks.authorize_webhook")
def authorize(request: HtmxRequest, pk: int) -> HttpResponse:
    """Save the form that was posted, if one was, and send the browser to the provider."""
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    if "draft" in request.POST:
        form_context.check_may_change(request, credential)
        form = form_context.bind_form(request, credential.subject)
        if not form_context.save_if_valid(request, form):
            return form_context.show_form(request, form)
        credential = form.credential
    if credential.authorization_type != AuthorizationType.OAUTH2:
        sentence = _("Choose OAuth 2.0 as the authorization type to get an access token.")
        form_context.leave_failure(request, credential, sentence)
        return HttpResponseRedirect(form_context.panel_url(request, credential), status=303)
    return form_context.begin_authorization(request, credential)


@button("webhooks.authorize_webhook")
def refresh_token(request: HtmxRequest, pk: int) -> HttpResponse:
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    try:
        oauth.refresh(credential)
    except oauth.TokenUnavailableError as error:
        form_context.leave_failure(request, credential, str(error))
        return _answer(request, credential)
    audit.record(Action.TOKEN_REFRESHED, credential, user=request.user)
    events.release_held(credential)
    return _answer(request, credential, success=_("The access token was refreshed."))


@button("webhooks.authorize_webhook")
def clear_token(request: HtmxRequest, pk: int) -> HttpResponse:
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    oauth.clear_token(credential)
    audit.record(Action.TOKEN_CLEARED, credential, user=request.user)
    return _answer(request, credential, success=_("The access token was cleared."))


@require_GET
@never_cache
@login_not_required
def oauth_callback(request: HtmxRequest) -> HttpResponse:
    """Take the provider's answer and go on, at once, to a page without it in its address."""
    if not request.user.is_authenticated:
        # Required here: the middleware would carry the code along in the login page's address.
        sentence = _(
            "Your session ended while you were at the provider, so no access token was stored. "
            "Log in and press Get new access token again."
        )
        messages.warning(request, sentence)
        return _see_other(redirect("login"))
    if not request.user.has_perm("webhooks.authorize_webhook"):
        messages.error(request, _("You may no longer get access tokens, so none was stored."))
        return _see_other(redirect("webhooks:list"))
    try:
        credential = oauth.finish_authorization(
            dict(request.GET.lists()),
            user=request.user,
            session_key=request.session.session_key or "",
        )
    except oauth.AuthorizationError as error:
        return _see_other(_failed(request, error))
    audit.record(Action.AUTHORIZED, credential, user=request.user)
    released = events.release_held(credential)
    form_context.leave_success(request, credential, token_stored(released))
    return _see_other(HttpResponseRedirect(form_context.panel_url(request, credential)))


def _failed(request: HtmxRequest, error: oauth.AuthorizationError) -> HttpResponseRedirect:
    if error.credential is None:
        messages.error(request, str(error))
        return redirect("webhooks:list")
    form_context.leave_failure(request, error.credential, str(error))
    return HttpResponseRedirect(form_context.panel_url(request, error.credential))


def _see_other(response: HttpResponseRedirect) -> HttpResponse:
    """Answer 303, with headers that keep the address with the code to this browser."""
    response.status_code = 303
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    return response


def _answer(request: HtmxRequest, credential: Credential, *, success: str = "") -> HttpResponse:
    """Show the panel alone to htmx, and the whole page to everything else."""
    if success:
        form_context.leave_success(request, credential, success)
    if not request.htmx:
        return HttpResponseRedirect(form_context.panel_url(request, credential), status=303)
    context = form_context.token_panel(request, credential)
    return render(request, "webhooks/webhook_form/_token_panel.html", context)


# ---- The provider's endpoints and the client's authentication ---------------------------------


@button()
def find_endpoints(request: HtmxRequest) -> HttpResponse:
    """Show what the posted issuer tells about itself; the form does the same without a script."""
    if not any(map(request.user.has_perm, _EDITORS)):
        raise PermissionDenied
    context = {"endpoints": oauth_fields.find_endpoints(request.POST)}
    return render(request, "webhooks/webhook_form/_oauth_endpoints.html", context)


@button("webhooks.authorize_webhook")
def check(request: HtmxRequest, pk: int) -> HttpResponse:
    """Ask the provider's endpoints as they are saved, and explain the last failure."""
    credential = _credential(pk)
    diagnosis = oauth.diagnose(credential)
    context: dict[str, Any] = {
        "findings": [(one, _LABELS[one.field]) for one in oauth.examine(credential)],
        "diagnosis": diagnosis,
        "fields": [(name, _LABELS[name]) for name in diagnosis.fields] if diagnosis else [],
        "callback_url": credential.callback_url or oauth.default_callback_url(),
    }
    return _show_check(request, credential, context)


@button("webhooks.authorize_webhook")
def try_authentication(request: HtmxRequest, pk: int) -> HttpResponse:
    """Send the client's credentials in both ways, and offer the one that works."""
    credential = _credential(pk)
    return _show_check(request, credential, {"tried": oauth.try_authentication(credential)})


@button("webhooks.authorize_webhook")
def switch_authentication(request: HtmxRequest, pk: int) -> HttpResponse:
    """Save the way that works; a token that was misconfigured is tried again."""
    credential = _credential(pk)
    form_context.check_may_change(request, credential)
    way = request.POST.get("client_authentication", "")
    if way not in ClientAuthentication.values:
        return HttpResponseBadRequest(_("There is no such way to send credentials."))
    with transaction.atomic():
        subject = credential.subject
        before = audit.snapshot(subject)
        credential.client_authentication = way
        credential.save(update_fields=["client_authentication"])
        form_context.record_changes(request, subject, before)
    url = credential.receiver_url
    oauth.drop_if_changed(oauth.fingerprint(credential, url), credential, url)
    events.release_held(credential)
    form_context.leave_success(
        request,
        credential,
        _("The credentials are now sent as “%s”.") % ClientAuthentication(way).label,
    )
    return HttpResponseRedirect(form_context.panel_url(request, credential), status=303)


def _credential(pk: int) -> Credential:
    present = Credential.objects.present()
    return get_object_or_404(present, pk=pk, authorization_type=AuthorizationType.OAUTH2)


def _show_check(
    request: HtmxRequest, credential: Credential, context: dict[str, Any]
) -> HttpResponse:
    """Show the result alone to htmx, and on a page of its own to everything else."""
    context = {
        "credential": credential,
        "name": credential.subject.name,
        "form_url": form_context.form_url(credential),
        **context,
    }
    is_htmx = bool(request.htmx)
    name = (
        "webhooks/webhook_form/_token_check.html"
        if is_htmx
        else "webhooks/webhook_form/token_check.html"
    )
    return render(request, name, context)
