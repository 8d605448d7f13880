"""The token panel: get, refresh, clear and check access tokens; the provider's answer."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required, permission_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe

from webhooks import audit, events, oauth
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    Action,
    AuthorizationType,
    ClientAuthentication,
    Credential,
    OAuthToken,
)
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
# The last answers of a provider that a session has used: their states, hashed, and credentials.
_FINISHED_KEY, _FINISHED_KEPT = "webhook_authorizations_finished", 10
_LABELS = {name: field.verbose_name for name, field in AUTHORIZATION_FIELDS.items()}


@require_safe
@permission_required("webhooks.view_webhook", raise_exception=True)
def credential_page(request: HtmxRequest, pk: int) -> HttpResponse:
    """Redirect to the page of whose credential it is: where its buttons are."""
    credential = get_object_or_404(Credential.objects.present().select_related("webhook"), pk=pk)
    if credential.webhook is not None:
        return redirect("webhooks:detail", credential.webhook.pk)
    return redirect("webhooks:connection", credential.pk)


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def authorize(request: HtmxRequest, pk: int) -> HttpResponse:
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


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
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


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def clear_token(request: HtmxRequest, pk: int) -> HttpResponse:
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    is_revoked = oauth.clear_token(credential)
    audit.record(Action.TOKEN_CLEARED, credential, user=request.user)
    if not is_revoked:
        sentence = _("The token may still be valid at the provider. Revoke it there.")
        form_context.leave_failure(request, credential, sentence)
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
        began = oauth.pending_credential(request.GET.get("state", ""))
        next_page = {"next": form_context.form_url(began) + "#token"} if began else None
        return _see_other(HttpResponseRedirect(reverse("login", query=next_page)))
    if not request.user.has_perm("webhooks.authorize_webhook"):
        messages.error(request, _("You may no longer get access tokens, so none was stored."))
        return _see_other(redirect("webhooks:list"))
    state = oauth.hashed(request.GET.get("state", ""))
    if stored := _finished(request, state):
        # Back leads here once more.
        sentence = _("The access token is stored already.")
        form_context.leave_success(request, stored, sentence)
        return _see_other(HttpResponseRedirect(form_context.panel_url(request, stored)))
    try:
        credential = oauth.finish_authorization(
            dict(request.GET.lists()),
            user=request.user,
            session_key=request.session.session_key or "",
        )
    except oauth.AuthorizationError as error:
        return _see_other(_failed(request, error))
    finished = request.session.get(_FINISHED_KEY, [])
    request.session[_FINISHED_KEY] = [*finished, [state, credential.pk]][-_FINISHED_KEPT:]
    audit.record(Action.AUTHORIZED, credential, user=request.user)
    released = events.release_held(credential)
    form_context.leave_success(request, credential, token_stored(released))
    return _see_other(HttpResponseRedirect(form_context.panel_url(request, credential)))


def _finished(request: HtmxRequest, state: str) -> Credential | None:
    """Return the credential that an answer with this state has given a token in this session."""
    finished = dict(request.session.get(_FINISHED_KEY, []))
    if state not in finished:
        return None
    found = Credential.objects.present().filter(pk=finished[state]).first()
    token = OAuthToken.objects.filter(credential=found).first() if found else None
    return found if token and token.has_access_token() else None


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
    credential = _credential(pk)
    diagnosis = oauth.diagnose(credential)
    context: dict[str, Any] = {
        "findings": [(one, _LABELS[one.field]) for one in oauth.examine(credential)],
        "diagnosis": diagnosis,
        "fields": [(name, _LABELS[name]) for name in diagnosis.fields] if diagnosis else [],
        "callback_url": credential.callback_url or oauth.default_callback_url(),
    }
    return _show_check(request, credential, context)


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def try_authentication(request: HtmxRequest, pk: int) -> HttpResponse:
    """Send the client's credentials in both ways, and offer the one that works."""
    credential = _credential(pk)
    return _show_check(request, credential, {"tried": oauth.try_authentication(credential)})


@post_only
@never_cache
@permission_required("webhooks.authorize_webhook", raise_exception=True)
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
