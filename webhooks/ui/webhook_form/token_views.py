"""The token panel of the form: get, refresh, clear and check a token; the OAuth callback."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods
from django_htmx.http import HttpResponseClientRedirect

from webhooks import audit, events, oauth
from webhooks.models import (
    Action,
    AuthorizationType,
    ClientAuthentication,
    Credential,
    OAuthToken,
)
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui.expired_session import keeps_typed_at
from webhooks.ui.requests import HtmxRequest, button, page
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form import oauth_fields
from webhooks.ui.webhook_form.oauth_fields import LABELS

# The last authorization responses used in a session: their hashes and credential ids.
_FINISHED_KEY, _FINISHED_KEPT = "webhook_authorizations_finished", 10
# More than revoking a replaced token takes, before the other tab's session is saved.
_JUST_NOW = timedelta(minutes=1)
# No provider issues longer tokens.
_MAX_TOKEN = 8192


@page()
def credential_page(request: HtmxRequest, pk: int) -> HttpResponse:
    """Redirect to the credential's token panel, or the best page that this user may open."""
    credential = get_object_or_404(Credential.objects.present().select_related("webhook"), pk=pk)
    return redirect(form_context.panel_url(request, credential))


def _form_of(pk: int) -> str:
    credential = Credential.objects.present().filter(pk=pk).first()
    return form_context.form_url(credential) if credential else ""


@keeps_typed_at(_form_of)
@button("webhooks.authorize_webhook")
def authorize(request: HtmxRequest, pk: int) -> HttpResponse:
    """Save the posted form, if there is one, and redirect the browser to the provider."""
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    form_context.begin_series(request, credential)
    if "draft" in request.POST:
        form_context.check_may_change(request, credential)
        form = form_context.bind_form(request, credential.subject)
        if not form_context.save_if_valid(request, form):
            return form_context.show_form(request, form)
        credential = form.credential
    return form_context.begin_authorization(request, credential)


@page("webhooks.authorize_webhook", has_form=True)
def device(request: HtmxRequest, pk: int) -> HttpResponse:
    """Show the code to enter at the provider; a POST checks whether it was approved."""
    credential = _credential(pk)
    state, bound_to = form_context.device_state(request, credential), form_context.bound_to(request)
    if _finished(request, oauth.hashed(state)):
        # The browser's Back button, or a poll that waited for the last one.
        return _redirect(request, form_context.panel_url(request, credential))
    try:
        if request.method == "POST" and oauth.poll_device(state, **bound_to):
            _finish(request, oauth.hashed(state), credential)
            return _redirect(request, form_context.after_grant(request, credential))
        pending = oauth.pending_device(state, **bound_to)
    except oauth.AuthorizationError as error:
        if error.credential or not _is_stored_just_now(request, credential):
            form_context.keep_message(request, credential, failure=str(error))
        return _redirect(request, form_context.panel_url(request, credential))
    except SecretUnreadableError as error:
        form_context.keep_message(request, credential, failure=str(error))
        return _redirect(request, form_context.panel_url(request, credential))
    context = {"credential": credential, "pending": pending, "name": credential.subject.name}
    context["form_url"] = form_context.page_url(request, credential)
    name = "_device.html" if request.htmx else "device.html"
    return render(request, f"webhooks/webhook_form/{name}", context)


def _is_stored_just_now(request: HtmxRequest, credential: Credential) -> bool:
    """Return whether another tab, whose poll used up the code, has got the user's token."""
    since = timezone.now() - _JUST_NOW
    rows = OAuthToken.objects.filter(credential=credential, granted_by=request.user.pk)
    return rows.filter(obtained_at__gt=since).exists()


def _redirect(request: HtmxRequest, url: str) -> HttpResponse:
    return (
        HttpResponseClientRedirect(url) if request.htmx else HttpResponseRedirect(url, status=303)
    )


@button("webhooks.authorize_webhook")
def paste_token(request: HtmxRequest, pk: int) -> HttpResponse:
    """Store a refresh token that was obtained elsewhere, and refresh with it."""
    credential = _credential(pk)
    typed = request.POST.get("refresh_token", "").strip()
    if credential.is_machine or not typed or len(typed) > _MAX_TOKEN or not typed.isprintable():
        sentence = _("This is not a refresh token. Paste the whole token and nothing else.")
        return _answer(request, credential, failure=sentence)
    try:
        assert request.user.is_authenticated
        oauth.store_refresh_token(credential, typed, user=request.user)
    except (oauth.TokenUnavailableError, SecretUnreadableError) as error:
        return _answer(request, credential, failure=str(error))
    return _answer(request, credential, success=form_context.authorized(request, credential))


@require_GET
@login_not_required
def public_key(request: HttpRequest, uid: str, form: str) -> HttpResponse:
    """Show a credential's public key to its provider, which has no login on this site."""
    present = Credential.objects.present().filter(authorization_type=AuthorizationType.OAUTH2)
    credential = get_object_or_404(present, uid=uid)
    try:
        has_key = bool(credential.client_key)
    except SecretUnreadableError:
        return HttpResponse(status=503)
    if not has_key or form not in ("json", "pem"):
        raise Http404
    if form == "pem":
        return HttpResponse(oauth.public_pem(credential), content_type="application/x-pem-file")
    return JsonResponse(oauth.public_keys(credential), content_type="application/jwk-set+json")


@button("webhooks.authorize_webhook")
def refresh_token(request: HtmxRequest, pk: int) -> HttpResponse:
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    try:
        oauth.refresh(credential)
    except oauth.TokenUnavailableError as error:
        return _answer(request, credential, failure=str(error))
    audit.record(Action.TOKEN_REFRESHED, credential, user=request.user)
    events.release_held(credential)
    return _answer(request, credential, success=_("The access token was refreshed."))


@button("webhooks.authorize_webhook")
def clear_token(request: HtmxRequest, pk: int) -> HttpResponse:
    credential = get_object_or_404(Credential.objects.present(), pk=pk)
    is_revoked = oauth.clear_token(credential)
    audit.record(Action.TOKEN_CLEARED, credential, user=request.user)
    if is_revoked:
        return _answer(request, credential, success=_("The access token was cleared."))
    sentence = _(
        "The access token was cleared. It may still be valid at the provider: revoke it there."
    )
    return _answer(request, credential, failure=sentence)


@csrf_exempt
@require_http_methods(["GET", "POST"])
@never_cache
@login_not_required
def oauth_callback(request: HtmxRequest) -> HttpResponse:
    """Handle the authorization response, and redirect at once to a URL without its parameters.

    A response by POST (OAuth 2.0 Form Post Response Mode) is rejected: it has no cookies.
    """
    if request.method == "POST":
        refused = "webhooks/webhook_form/callback_form_post.html"
        return _private(
            HttpResponse(render_to_string(refused), status=405, headers={"Allow": "GET"})
        )
    if not request.user.is_authenticated:
        # Checked here, because the middleware would put the code into the login page's URL.
        sentence = _(
            "Your session ended while you were at the provider. No access token was "
            "stored. Press Get new access token again."
        )
        messages.warning(request, sentence)
        began = oauth.pending_credential(request.GET.get("state", ""))
        # Which page the user may open is known only after the login.
        next_url = reverse("webhooks:credential", args=[began.pk]) if began else ""
        next_page = {"next": next_url} if next_url else None
        return _see_other(HttpResponseRedirect(reverse("login", query=next_page)))
    if not request.user.has_perm("webhooks.authorize_webhook"):
        messages.error(
            request, _("You no longer have permission to get access tokens. None was stored.")
        )
        return _see_other(redirect("home"))
    response_hash = _hash_of_response(request)
    if stored := _finished(request, response_hash):
        # The browser's Back button requests this URL again.
        sentence = _("The access token is stored already.")
        return _see_other(form_context.to_panel(request, stored, success=sentence))
    try:
        credential = oauth.finish_authorization(
            dict(request.GET.lists()), **form_context.bound_to(request)
        )
    except oauth.AuthorizationError as error:
        if error.credential is None:
            messages.error(request, str(error))
            return _see_other(redirect("home"))
        return _see_other(form_context.to_panel(request, error.credential, failure=str(error)))
    _finish(request, response_hash, credential)
    return _see_other(HttpResponseRedirect(form_context.after_grant(request, credential)))


def _hash_of_response(request: HtmxRequest) -> str:
    """Return a hash of the whole authorization response: another one with its state differs."""
    pairs = [(name, value) for name, values in request.GET.lists() for value in values]
    return oauth.hashed(urlencode(sorted(pairs)))


def _finish(request: HtmxRequest, response_hash: str, credential: Credential) -> None:
    """Remember a used response, record who got the token, and leave a message for the panel."""
    finished = request.session.get(_FINISHED_KEY, [])
    request.session[_FINISHED_KEY] = [*finished, [response_hash, credential.pk]][-_FINISHED_KEPT:]
    stored_now = form_context.authorized(request, credential)
    form_context.keep_message(request, credential, success=stored_now)


def _finished(request: HtmxRequest, response_hash: str) -> Credential | None:
    """Return the credential for which this session already stored the token of this response."""
    finished = dict(request.session.get(_FINISHED_KEY, []))
    if response_hash not in finished:
        return None
    found = Credential.objects.present().filter(pk=finished[response_hash]).first()
    token = OAuthToken.objects.filter(credential=found).first() if found else None
    return found if token and token.has_access_token() else None


def _see_other(response: HttpResponseRedirect) -> HttpResponse:
    """Redirect with 303; the headers keep the URL, which contains the code, in this browser."""
    response.status_code = 303
    return _private(response)


def _private(response: HttpResponse) -> HttpResponse:
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    return response


def _answer(request: HtmxRequest, credential: Credential, **said: str) -> HttpResponse:
    """Render the panel alone for htmx; redirect to the whole page otherwise."""
    if not request.htmx:
        return form_context.to_panel(request, credential, **said)
    form_context.keep_message(request, credential, **said)
    context = form_context.token_panel(request, credential)
    return render(request, "webhooks/webhook_form/_token_panel.html", context)


# ---- The provider's endpoints and the client's authentication ---------------------------------


@button()
def find_endpoints(request: HtmxRequest) -> HttpResponse:
    """Show the endpoints that the posted issuer publishes; without JavaScript the form does."""
    form_context.check_editor(
        request, "add_webhook", "change_webhook", "add_connection", "change_connection"
    )
    context = {"endpoints": oauth_fields.find_endpoints(request.POST)}
    return render(request, "webhooks/webhook_form/_oauth_endpoints.html", context)


@button("webhooks.authorize_webhook")
def check(request: HtmxRequest, pk: int) -> HttpResponse:
    """Probe the provider's endpoints as saved, and explain the last failure."""
    credential = _credential(pk)
    diagnosis = oauth.diagnose(credential)
    context = {
        "findings": [(one, LABELS[one.field]) for one in oauth.examine(credential)],
        "diagnosis": diagnosis,
        "fields": [(name, LABELS[name]) for name in diagnosis.fields] if diagnosis else [],
        "callback_url": credential.callback_url or oauth.default_callback_url(),
    }
    return _show_check(request, credential, context)


@button("webhooks.authorize_webhook")
def try_authentication(request: HtmxRequest, pk: int) -> HttpResponse:
    """Try both ways to send the client's credentials, and offer the one that works."""
    credential = _credential(pk)
    return _show_check(request, credential, {"tried": oauth.try_authentication(credential)})


@button("webhooks.authorize_webhook")
def switch_authentication(request: HtmxRequest, pk: int) -> HttpResponse:
    """Save the client authentication that works; a misconfigured token is tried again."""
    credential = _credential(pk)
    form_context.check_may_change(request, credential)
    way = request.POST.get("client_authentication", "")
    if way not in ClientAuthentication.values:
        return HttpResponseBadRequest(_("There is no such way to send credentials."))
    try:
        with transaction.atomic():
            subject = credential.subject
            before = audit.snapshot(subject)
            credential.client_authentication = way
            credential.save(update_fields=["client_authentication"])
            form_context.record_changes(request, subject, before)
    except SecretUnreadableError as error:
        return form_context.to_panel(request, credential, failure=str(error))
    url = credential.receiver_url
    oauth.drop_if_changed(oauth.fingerprint(credential, url), credential, url)
    events.release_held(credential)
    sentence = _("The credentials are now sent as “%s”.") % ClientAuthentication(way).label
    return form_context.to_panel(request, credential, success=sentence)


@button("webhooks.authorize_webhook")
def restore_secret(request: HtmxRequest, pk: int) -> HttpResponse:
    """Restore the client secret that the stored token was obtained with."""
    credential = _credential(pk)
    form_context.check_may_change(request, credential)
    subject = credential.subject
    before = audit.snapshot(subject)
    try:
        is_restored = oauth.restore_secret(credential)
    except SecretUnreadableError as error:
        return form_context.to_panel(request, credential, failure=str(error))
    if is_restored:
        form_context.record_changes(request, subject, before)
        events.release_held(credential)
        form_context.keep_message(
            request, credential, success=_("The last working client secret is restored.")
        )
    return form_context.to_panel(request, credential)


def _credential(pk: int) -> Credential:
    present = Credential.objects.present()
    return get_object_or_404(present, pk=pk, authorization_type=AuthorizationType.OAUTH2)


def _show_check(
    request: HtmxRequest, credential: Credential, context: dict[str, Any]
) -> HttpResponse:
    """Render the result alone for htmx, and on a separate page otherwise."""
    context = {
        "credential": credential,
        "name": credential.subject.name,
        "form_url": form_context.page_url(request, credential),
        **context,
    }
    name = "_token_check.html" if request.htmx else "token_check.html"
    return render(request, f"webhooks/webhook_form/{name}", context)
