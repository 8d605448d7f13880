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

from webhooks import events, oauth
from webhooks.models import AuthorizationType, ClientAuthentication, Webhook
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_form import discovery

# Whoever may fill in one of these forms may ask a provider for its endpoints.
_EDITORS = (
    "webhooks.add_webhook",
    "webhooks.change_webhook",
    "webhooks.add_connection",
    "webhooks.change_connection",
)
_LABELS = {field.name: field.verbose_name for field in Webhook._meta.concrete_fields}


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
    webhook = _webhook(pk)
    diagnosis = oauth.diagnose(webhook)
    context: dict[str, Any] = {
        "findings": [(one, _LABELS[one.field]) for one in oauth.examine(webhook)],
        "diagnosis": diagnosis,
        "fields": [(name, _LABELS[name]) for name in diagnosis.fields] if diagnosis else [],
        "callback_url": webhook.callback_url or oauth.default_callback_url(),
    }
    return _show(request, webhook, context)


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def try_authentication(request: HttpRequest, pk: int) -> HttpResponse:
    """Send the client's credentials in both ways, and offer the one that works."""
    webhook = _webhook(pk)
    return _show(request, webhook, {"tried": oauth.try_authentication(webhook)})


@require_POST
@never_cache
@login_required
@permission_required("webhooks.authorize_webhook", raise_exception=True)
def switch_authentication(request: HttpRequest, pk: int) -> HttpResponse:
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


def _show(request: HttpRequest, webhook: Webhook, context: dict[str, Any]) -> HttpResponse:
    """Show the result alone to htmx, and on a page of its own to everything else."""
    form_url = form_context.panel_url(request, webhook).partition("#")[0]
    context = {"webhook": webhook, "form_url": form_url, **context}
    is_htmx = bool(request.headers.get("HX-Request"))
    name = (
        "webhooks/webhook_form/_token_check.html"
        if is_htmx
        else "webhooks/webhook_form/token_check.html"
    )
    return render(request, name, context)
