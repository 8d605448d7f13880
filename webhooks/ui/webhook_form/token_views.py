"""Get, refresh and clear access tokens, and receive the provider's answer."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from webhooks import audit, events, oauth
from webhooks.models import Action, AuthorizationType, Webhook
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form import token_facts


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def authorize(request: HttpRequest, pk: int) -> HttpResponse:
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


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def refresh_token(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.owners(), pk=pk)
    try:
        oauth.refresh(webhook)
    except oauth.TokenUnavailableError as error:
        form_context.leave_failure(request, webhook, str(error))
        return _answer(request, webhook)
    audit.record(Action.TOKEN_REFRESHED, webhook, user=request.user)
    events.release_held(webhook)
    return _answer(request, webhook, success=_("The access token was refreshed."))


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def clear_token(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.owners(), pk=pk)
    oauth.clear_token(webhook)
    audit.record(Action.TOKEN_CLEARED, webhook, user=request.user)
    return _answer(request, webhook, success=_("The access token was cleared."))


@require_GET
@never_cache
def oauth_callback(request: HttpRequest) -> HttpResponse:
    """Take the provider's answer and go on, at once, to a page without it in its address."""
    if not request.user.is_authenticated:
        # Not login_required: it would carry the code along in the address of the login page.
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
    form_context.leave_success(request, webhook, token_facts.stored(released))
    return _see_other(HttpResponseRedirect(form_context.panel_url(request, webhook)))


def _failed(request: HttpRequest, error: oauth.AuthorizationError) -> HttpResponseRedirect:
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


def _answer(request: HttpRequest, webhook: Webhook, *, success: str = "") -> HttpResponse:
    """Show the panel alone to htmx, and the whole page to everything else."""
    if success:
        form_context.leave_success(request, webhook, success)
    if not request.headers.get("HX-Request"):
        return HttpResponseRedirect(form_context.panel_url(request, webhook), status=303)
    context = form_context.token_panel(request, webhook)
    return render(request, "webhooks/webhook_form/_token_panel.html", context)
