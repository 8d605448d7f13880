"""Connections: list, form, deletion, and converting a webhook's credentials to a connection."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks import audit
from webhooks.models import (
    CREDENTIAL_SECRETS,
    WEBHOOK_SECRETS,
    Action,
    AuthorizationType,
    Credential,
    Webhook,
    origin_of,
    token_of,
)
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui import shared_credentials, trail
from webhooks.ui.expired_session import keeps_typed
from webhooks.ui.requests import button, page, whole_number
from webhooks.ui.status import SECRETS_OF_TOKEN, needs_token
from webhooks.ui.trail import audit_trail
from webhooks.ui.webhook_form import context as form_context


@page("webhooks.view_connection")
def list_connections(request: HttpRequest) -> HttpResponse:
    is_used = Q(users__deleted_at=None)
    found = shared_credentials.connections().annotate(used_by=Count("users", filter=is_used))
    found = found.order_by("name", "pk")
    rows = [{"connection": connection, "token": token_of(connection)} for connection in found]
    may_authorize = request.user.has_perm("webhooks.authorize_webhook")
    has_ended = may_authorize and bool(shared_credentials.ended_grants(timezone.now()))
    context = {"rows": rows, "has_ended": has_ended}
    return render(request, "webhooks/connections/list.html", context)


@page("webhooks.view_connection")
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a connection; secrets are listed by name only."""
    found = Credential.objects.shared().select_related("token__granted_by", "created_by")
    connection = get_object_or_404(found.defer(*SECRETS_OF_TOKEN), pk=pk)
    context = {
        "connection": connection,
        # Used by templates that are shared with the webhook's page.
        "is_connection": True,
        "credential": connection,
        "token": token_of(connection),
        "needs_token": needs_token(connection),
        "is_oauth": connection.is_oauth,
        "secrets": {field: connection.has_secret(field) for field in CREDENTIAL_SECRETS},
        "users": shared_credentials.users_of(connection).defer(*WEBHOOK_SECRETS),
        **audit_trail(connection),
    }
    return render(request, "webhooks/connections/detail.html", context)


@page("webhooks.add_connection", has_form=True, guard=keeps_typed)
def create(request: HttpRequest) -> HttpResponse:
    """Show the empty form; save it, and continue to the provider if a token was requested."""
    wants_token = request.POST.get("action") == "authorize"
    if wants_token and not request.user.has_perm("webhooks.authorize_webhook"):
        raise PermissionDenied
    connection = Credential(
        authorization_type=AuthorizationType.OAUTH2,
        created_by_id=request.user.pk,
    )
    form = form_context.bind_form(request, connection)
    if not form_context.save_if_valid(request, form):
        return form_context.show_form(request, form)
    messages.success(request, _("The connection “%s” was created.") % connection)
    if wants_token:
        return form_context.begin_authorization(request, connection)
    if request.user.has_perm("webhooks.change_connection"):
        return redirect("webhooks:connection_edit", connection.pk)
    if request.user.has_perm("webhooks.view_connection"):
        return redirect("webhooks:connections")
    return redirect("webhooks:connection_create")


@page("webhooks.change_connection", has_form=True, guard=keeps_typed)
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    seen = trail.newest_entry(Credential, pk)
    connection = get_object_or_404(Credential.objects.shared(), pk=pk)
    form = form_context.bind_form(request, connection, seen=seen)
    if not form_context.save_if_valid(request, form):
        return form_context.show_form(request, form)
    messages.success(request, _("The changes were saved."))
    return redirect("webhooks:connection_edit", pk)


@page("webhooks.view_connection", "webhooks.delete_connection", has_form=True)
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete after a confirmation; while webhooks use the connection, list them instead."""
    connection = get_object_or_404(Credential.objects.shared().select_related("token"), pk=pk)
    if request.method == "POST":
        try:
            shared_credentials.delete(connection)
        except shared_credentials.ConnectionUnavailableError:
            return _confirm_delete(request, connection, status=409)
        audit.record(Action.DELETED, connection, user=request.user)
        messages.success(request, _("The connection “%s” is deleted.") % connection)
        return redirect("webhooks:connections")
    return _confirm_delete(request, connection)


def _confirm_delete(
    request: HttpRequest, connection: Credential, status: int = 200
) -> HttpResponse:
    context = {
        "connection": connection,
        "token": token_of(connection),
        "users": shared_credentials.users_of(connection),
    }
    return render(request, "webhooks/connections/confirm_delete.html", context, status=status)


@page("webhooks.view_connection")
def panel(request: HttpRequest) -> HttpResponse:
    """Show the state of the connection chosen on a webhook's form."""
    wanted = request.GET.get("connection", "")
    found = shared_credentials.connections().filter(pk=whole_number(wanted)).first()
    return render(request, "webhooks/connections/_panel.html", {"connection": found})


@page("webhooks.authorize_webhook")
def grants(request: HttpRequest) -> HttpResponse:
    """List the grants that ended or end soon, grouped by user and provider, each with a button."""
    groups = [
        {
            "rows": found,
            "token": found[0].token,
            "server": origin_of(found[0].token_url).partition("://")[2],
            "can_combine": len(found) > 1
            and len({shared_credentials.client_of(one) for one in found}) == 1,
        }
        for found in shared_credentials.ended_grants(timezone.now())
    ]
    return render(request, "webhooks/connections/grants.html", {"groups": groups})


@button("webhooks.change_webhook", "webhooks.add_connection", "webhooks.authorize_webhook")
def combine_grants(request: HttpRequest) -> HttpResponse:
    """Combine several webhooks' credentials into one connection, and request its token."""
    asked = set(request.POST.getlist("credential"))
    ended = {one.pk for found in shared_credentials.ended_grants(timezone.now()) for one in found}
    present = Webhook.objects.present().select_related("credential").order_by("pk")
    try:
        with transaction.atomic():
            webhooks = list(present.filter(credential__in=[pk for pk in ended if str(pk) in asked]))
            before = [audit.snapshot(Webhook.objects.get(pk=one.pk)) for one in webhooks]
            connection = shared_credentials.combine(webhooks, created_by_id=request.user.pk)
            note = audit.note("from_credentials_of", name=webhooks[0].name)
            audit.record(Action.CREATED, connection, user=request.user, note=note)
            for webhook, earlier in zip(webhooks, before, strict=True):
                form_context.record_changes(request, webhook, earlier)
    except (shared_credentials.ConnectionUnavailableError, SecretUnreadableError) as error:
        messages.error(request, str(error))
        return redirect("webhooks:grants")
    return form_context.begin_authorization(request, connection)


@button("webhooks.change_webhook", "webhooks.add_connection")
def save_as_connection(request: HttpRequest, pk: int) -> HttpResponse:
    """Convert a webhook's credentials to a connection, which the webhook then uses."""
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    try:
        with transaction.atomic():
            before = audit.snapshot(Webhook.objects.get(pk=pk))
            connection = shared_credentials.save_as_connection(
                webhook, created_by_id=request.user.pk
            )
            note = audit.note("from_credentials_of", name=webhook.name)
            audit.record(Action.CREATED, connection, user=request.user, note=note)
            form_context.record_changes(request, webhook, before)
    except (shared_credentials.ConnectionUnavailableError, SecretUnreadableError) as error:
        messages.error(request, str(error))
        return redirect("webhooks:edit", pk)
    sentence = _(
        "The credentials of “%(webhook)s” are now the connection “%(connection)s”. Other "
        "webhooks for the same hosts can use it too."
    )
    messages.success(request, sentence % {"webhook": webhook, "connection": connection})
    if not request.user.has_perm("webhooks.change_connection"):
        return redirect("webhooks:edit", pk)
    return redirect("webhooks:connection_edit", connection.pk)
