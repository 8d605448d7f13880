"""Get, refresh and clear access tokens, and receive the provider's answer."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from webhooks import audit, events, oauth
from webhooks.models import Action, AuthorizationType, Credential
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form import token_facts


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def authorize(request: HttpRequest, pk: int) -> HttpResponse:
    """Save the form that was posted, if one was, and send the browser to the provider."""
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    if "draft" in request.POST:
        form_context.check_may_change(request, credential)
        if credential.webhook is not None:
            form = form_context.bind_form(request, credential.webhook)
            if not form_context.save_if_valid(request, form):
                return form_context.show_form(request, form)
            credential = form.credential
        else:
            connection_form = form_context.bind_connection(request, credential)
            if not form_context.save_if_valid(request, connection_form):
                return form_context.show_connection(request, connection_form)
    if credential.authorization_type != AuthorizationType.OAUTH2:
        sentence = _("Choose OAuth 2.0 as the authorization type to get an access token.")
        form_context.leave_failure(request, credential, sentence)
        return HttpResponseRedirect(form_context.panel_url(request, credential), status=303)
    return form_context.begin_authorization(request, credential)


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def refresh_token(request: HttpRequest, pk: int) -> HttpResponse:
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    try:
        oauth.refresh(credential)
    except oauth.TokenUnavailable as error:
        form_context.leave_failure(request, credential, str(error))
        return _answer(request, credential)
    audit.record(Action.TOKEN_REFRESHED, credential, user=request.user)
    events.release_held(credential)
    return _answer(request, credential, success=_("The access token was refreshed."))


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def clear_token(request: HttpRequest, pk: int) -> HttpResponse:
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    oauth.clear_token(credential)
    audit.record(Action.TOKEN_CLEARED, credential, user=request.user)
    return _answer(request, credential, success=_("The access token was cleared."))


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
        credential = oauth.finish_authorization(
            dict(request.GET.lists()),
            user=request.user,
            session_key=request.session.session_key or "",
        )
    except oauth.AuthorizationFailed as error:
        return _see_other(_failed(request, error))
    audit.record(Action.AUTHORIZED, credential, user=request.user)
    released = events.release_held(credential)
    form_context.leave_success(request, credential, token_facts.stored(released))
    return _see_other(HttpResponseRedirect(form_context.panel_url(request, credential)))


def _failed(request: HttpRequest, error: oauth.AuthorizationFailed) -> HttpResponseRedirect:
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


def _answer(request: HttpRequest, credential: Credential, *, success: str = "") -> HttpResponse:
    """Show the panel alone to htmx, and the whole page to everything else."""
    if success:
        form_context.leave_success(request, credential, success)
    if not request.headers.get("HX-Request"):
        return HttpResponseRedirect(form_context.panel_url(request, credential), status=303)
    context = form_context.token_panel(request, credential)
    return render(request, "webhooks/webhook_form/_token_panel.html", context)
