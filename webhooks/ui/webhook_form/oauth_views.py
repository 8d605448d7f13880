"""Find a provider's endpoints, check the settings, and try the other client authentication."""

from typing import Any

from django.contrib.auth.decorators import login_required, permission_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from webhooks import audit, events, oauth
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    AuthorizationType,
    ClientAuthentication,
    Credential,
)
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form import discovery

# Whoever may fill in one of these forms may ask a provider for its endpoints.
_EDITORS = (
    "webhooks.add_webhook",
    "webhooks.change_webhook",
    "webhooks.add_connection",
    "webhooks.change_connection",
)
_LABELS = {
    name: AUTHORIZATION_FIELDS[name].verbose_name
    for name in (*discovery.COMPARED, "callback_url", "refresh_url", "scope", "client_id",
                 "client_secret", "authorization_parameters")
}  # fmt: skip


@require_POST
@never_cache
@login_required
def find_endpoints(request: HttpRequest) -> HttpResponse:
    """Show what the posted issuer tells about itself; the form does the same without a script."""
    if not any(map(request.user.has_perm, _EDITORS)):
        raise PermissionDenied
    context = {"endpoints": discovery.find(request.POST)}
    return render(request, "webhooks/webhook_form/_oauth_endpoints.html", context)


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def check(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask the provider's endpoints as they are saved, and explain the last failure."""
    credential = _credential(pk)
    diagnosis = oauth.diagnose(credential)
    context: dict[str, Any] = {
        "findings": [(one, _LABELS[one.field]) for one in oauth.examine(credential)],
        "diagnosis": diagnosis,
        "fields": [(name, _LABELS[name]) for name in diagnosis.fields] if diagnosis else [],
        "callback_url": credential.callback_url or oauth.default_callback_url(),
    }
    return _show(request, credential, context)


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def try_authentication(request: HttpRequest, pk: int) -> HttpResponse:
    """Send the client's credentials in both ways, and offer the one that works."""
    credential = _credential(pk)
    return _show(request, credential, {"tried": oauth.try_authentication(credential)})


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def switch_authentication(request: HttpRequest, pk: int) -> HttpResponse:
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


def _show(request: HttpRequest, credential: Credential, context: dict[str, Any]) -> HttpResponse:
    """Show the result alone to htmx, and on a page of its own to everything else."""
    context = {
        "credential": credential,
        "name": credential.subject.name,
        "form_url": form_context.form_url(credential),
        **context,
    }
    is_htmx = bool(request.headers.get("HX-Request"))
    name = (
        "webhooks/webhook_form/_token_check.html"
        if is_htmx
        else "webhooks/webhook_form/token_check.html"
    )
    return render(request, name, context)
