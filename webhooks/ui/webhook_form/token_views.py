"""The token panel: get, refresh, clear and check access tokens; the provider's answer."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required, permission_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from webhooks import audit, events, oauth
from webhooks.models import Action, AuthorizationType, ClientAuthentication, Webhook
from webhooks.ui.requests import HtmxRequest, post_only
from webhooks.ui.status import token_stored
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form import providers

# Who may fill in one of these forms may ask a provider for its endpoints.
_EDITORS = (
    "webhooks.add_webhook",
    "webhooks.change_webhook",
    "webhooks.add_connection",
    "webhooks.change_connection",
)
_LABELS = {field.name: field.verbose_name for field in Webhook._meta.concrete_fields}


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def authorize(request: HtmxRequest, pk: int) -> HttpResponse:
    """Save the form that was posted, if one was, and send the browser to the provider."""
    webhook = get_object_or_404(Webhook.objects.owners(), pk=pk)
    if "draft" in request.POST:
        model = "connection" if webhook.is_connection else "webhook"
        if not request.user.has_perm(f"webhooks.change_{model}"):
            raise PermissionDenied
        form = form_context.bind_form(request, webhook)
        saved = form_context.save_if_valid(request, form)
        if saved is None:
            return form_context.show_form(request, form)
        webhook = saved
    if webhook.authorization_type != AuthorizationType.OAUTH2:
        sentence = _("Choose OAuth 2.0 as the authorization type to get an access token.")
        form_context.leave_failure(request, webhook, sentence)
        return HttpResponseRedirect(form_context.panel_url(request, webhook), status=303)
    return form_context.begin_authorization(request, webhook)


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def refresh_token(request: HtmxRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.owners(), pk=pk)
    try:
        oauth.refresh(webhook)
    except oauth.TokenUnavailableError as error:
        form_context.leave_failure(request, webhook, str(error))
        return _answer(request, webhook)
    audit.record(Action.TOKEN_REFRESHED, webhook, user=request.user)
    events.release_held(webhook)
    return _answer(request, webhook, success=_("The access token was refreshed."))


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def clear_token(request: HtmxRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.owners(), pk=pk)
    oauth.clear_token(webhook)
    audit.record(Action.TOKEN_CLEARED, webhook, user=request.user)
    return _answer(request, webhook, success=_("The access token was cleared."))


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
        webhook = oauth.finish_authorization(
            dict(request.GET.lists()),
            user=request.user,
            session_key=request.session.session_key or "",
        )
    except oauth.AuthorizationError as error:
        return _see_other(_failed(request, error))
    audit.record(Action.AUTHORIZED, webhook, user=request.user)
    released = events.release_held(webhook)
    form_context.leave_success(request, webhook, token_stored(released))
    return _see_other(HttpResponseRedirect(form_context.panel_url(request, webhook)))


def _failed(request: HtmxRequest, error: oauth.AuthorizationError) -> HttpResponseRedirect:
    if error.webhook is None:
        messages.error(request, str(error))
        return redirect("webhooks:list")
    form_context.leave_failure(request, error.webhook, str(error))
    return HttpResponseRedirect(form_context.panel_url(request, error.webhook))


def _see_other(response: HttpResponseRedirect) -> HttpResponse:
    """Answer 303, with headers that keep the address with the code to this browser."""
    response.status_code = 303
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    return response


def _answer(request: HtmxRequest, webhook: Webhook, *, success: str = "") -> HttpResponse:
    """Show the panel alone to htmx, and the whole page to everything else."""
    if success:
        form_context.leave_success(request, webhook, success)
    if not request.htmx:
        return HttpResponseRedirect(form_context.panel_url(request, webhook), status=303)
    context = form_context.token_panel(request, webhook)
    return render(request, "webhooks/webhook_form/_token_panel.html", context)


# ---- The provider's endpoints and the client's authentication ---------------------------------


@post_only
@never_cache
def find_endpoints(request: HtmxRequest) -> HttpResponse:
    """Show what the posted issuer tells about itself; the form does the same without a script."""
    if not any(map(request.user.has_perm, _EDITORS)):
        raise PermissionDenied
    context = {"endpoints": providers.find(request.POST)}
    return render(request, "webhooks/webhook_form/_oauth_endpoints.html", context)


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def check(request: HtmxRequest, pk: int) -> HttpResponse:
    """Ask the provider's endpoints as they are saved, and explain the last failure."""
    webhook = _webhook(pk)
    diagnosis = oauth.diagnose(webhook)
    context: dict[str, Any] = {
        "findings": [(one, _LABELS[one.field]) for one in oauth.examine(webhook)],
        "diagnosis": diagnosis,
        "fields": [(name, _LABELS[name]) for name in diagnosis.fields] if diagnosis else [],
        "callback_url": webhook.callback_url or oauth.default_callback_url(),
    }
    return _show_check(request, webhook, context)


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def try_authentication(request: HtmxRequest, pk: int) -> HttpResponse:
    """Send the client's credentials in both ways, and offer the one that works."""
    webhook = _webhook(pk)
    return _show_check(request, webhook, {"tried": oauth.try_authentication(webhook)})


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def switch_authentication(request: HtmxRequest, pk: int) -> HttpResponse:
    """Save the way that works; a token that was misconfigured is tried again."""
    webhook = _webhook(pk)
    if not request.user.has_perm(f"webhooks.change_{_model(webhook)}"):
        raise PermissionDenied
    way = request.POST.get("client_authentication", "")
    if way not in ClientAuthentication.values:
        return HttpResponseBadRequest(_("There is no such way to send credentials."))
    webhook.client_authentication = way
    with transaction.atomic():
        before = Webhook.objects.get(pk=webhook.pk)
        webhook.save(update_fields=["client_authentication"])
        form_context.record_changes(request, before)
    oauth.drop_if_changed(oauth.fingerprint(webhook), webhook)
    events.release_held(webhook)
    form_context.leave_success(
        request,
        webhook,
        _("The credentials are now sent as “%s”.") % ClientAuthentication(way).label,
    )
    return HttpResponseRedirect(form_context.panel_url(request, webhook), status=303)


def _webhook(pk: int) -> Webhook:
    owners = Webhook.objects.owners()
    return get_object_or_404(owners, pk=pk, authorization_type=AuthorizationType.OAUTH2)


def _model(webhook: Webhook) -> str:
    return "connection" if webhook.is_connection else "webhook"


def _show_check(request: HtmxRequest, webhook: Webhook, context: dict[str, Any]) -> HttpResponse:
    """Show the result alone to htmx, and on a page of its own to everything else."""
    form_url = form_context.panel_url(request, webhook).partition("#")[0]
    context = {"webhook": webhook, "form_url": form_url, **context}
    is_htmx = bool(request.htmx)
    name = (
        "webhooks/webhook_form/_token_check.html"
        if is_htmx
        else "webhooks/webhook_form/token_check.html"
    )
    return render(request, name, context)
