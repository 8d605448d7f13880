"""Create and edit a webhook, and rotate its signing secret."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from webhooks import events
from webhooks.models import Webhook
from webhooks.views import editor


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
@permission_required("webhooks.add_webhook", raise_exception=True)
def create(request: HttpRequest) -> HttpResponse:
    """Show the empty form; save it, and go on to the provider when a token was asked for."""
    wants_token = request.POST.get("action") == "authorize"
    if wants_token and not request.user.has_perm("webhooks.authorize_webhook"):
        raise PermissionDenied
    form = editor.bind_form(request, Webhook(created_by_id=request.user.pk))
    if request.method != "POST" or editor.is_reshaping(request) or not form.is_valid():
        return editor.show_form(request, form)
    webhook = form.save()
    editor.reveal_signing_secret(request, webhook)
    messages.success(request, _("“%(name)s” was created.") % {"name": webhook.name})
    if wants_token:
        return editor.begin_authorization(request, webhook)
    return redirect("webhooks:edit", webhook.pk)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    form = editor.bind_form(request, webhook)
    if request.method != "POST" or editor.is_reshaping(request) or not form.is_valid():
        return editor.show_form(request, form)
    form.save()
    messages.success(request, _("The changes were saved."))
    return redirect("webhooks:edit", pk)


@require_POST
@never_cache
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def rotate_secret(request: HttpRequest, pk: int) -> HttpResponse:
    """Make a new signing secret and show it once; the old one stays valid for 24 hours."""
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    events.rotate_signing_secret(webhook)
    editor.reveal_signing_secret(request, webhook)
    if not request.headers.get("HX-Request"):
        return redirect(reverse("webhooks:edit", args=[pk]) + "#signing")
    webhook.refresh_from_db()
    context = {"webhook": webhook, **editor.signing_panel(request, webhook)}
    return render(request, "webhooks/_form_signing.html", context)
