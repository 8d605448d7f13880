"""The list of alert channels, each with a test button, and the form of a channel."""

from django.contrib import messages
from django.db import transaction
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from webhooks import audit
from webhooks.alerts import notifications, problems
from webhooks.models import Action, AlertChannel, ChannelKind
from webhooks.ui.alerts.forms import ChannelForm
from webhooks.ui.expired_session import is_shown_again, keeps_typed
from webhooks.ui.fields import focus_mistake
from webhooks.ui.requests import button, page


@page("webhooks.view_webhook")
def list_channels(request: HttpRequest) -> HttpResponse:
    found = AlertChannel.objects.defer("secret").annotate(webhook_count=Count("webhooks"))
    # Django ignores the model's own order in a query with GROUP BY.
    context = {"channels": found.order_by("name", "pk"), "kinds": ChannelKind.choices}
    return render(request, "webhooks/alerts/list.html", context)


@page("webhooks.view_webhook", "webhooks.change_webhook", has_form=True, guard=keeps_typed)
def add(request: HttpRequest, kind: str) -> HttpResponse:
    if kind not in ChannelKind.values:
        raise Http404
    channel = AlertChannel(kind=kind, created_by_id=request.user.pk)
    if kind == ChannelKind.EMAIL and request.method != "POST" and request.GET.get("mine"):
        channel.recipient = getattr(request.user, "email", "")
    return _edit(request, channel, Action.CREATED)


@page("webhooks.view_webhook", "webhooks.change_webhook", has_form=True, guard=keeps_typed)
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    return _edit(request, get_object_or_404(AlertChannel, pk=pk), Action.CHANGED)


def _edit(request: HttpRequest, channel: AlertChannel, action: Action) -> HttpResponse:
    is_posted = request.method == "POST"
    form = ChannelForm(request.POST if is_posted else None, instance=channel)
    if not is_posted or is_shown_again(request) or not form.is_valid():
        context = {"form": form, "channel": channel}
        status = 422 if form.errors else 200
        focus_mistake(form)
        return render(request, "webhooks/alerts/form.html", context, status=status)
    with transaction.atomic():
        form.save()
        audit.record(action, channel, user=request.user)
    messages.success(request, _("Saved. Send a test to see that it arrives."))
    return redirect("webhooks:alerts")


@button("webhooks.change_webhook")
def test(request: HttpRequest, pk: int) -> HttpResponse:
    channel = get_object_or_404(AlertChannel, pk=pk)
    is_sent = notifications.send_test(channel, timezone.now())
    audit.record(Action.TESTED, channel, user=request.user)
    if is_sent:
        messages.success(request, _("The test for “%s” was accepted.") % channel)
    else:
        reason = problems.sentence(channel.last_error) or _("The mail server did not accept it.")
        text = _("The test for “%(name)s” was not accepted. %(reason)s")
        messages.error(request, text % {"name": channel, "reason": reason})
    return redirect("webhooks:alerts")


@page("webhooks.view_webhook", "webhooks.change_webhook", has_form=True)
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete after a confirmation, since an erased secret cannot be restored."""
    channel = get_object_or_404(AlertChannel, pk=pk)
    if request.method != "POST":
        return render(request, "webhooks/alerts/confirm_delete.html", {"channel": channel})
    with transaction.atomic():
        audit.record(Action.DELETED, channel, user=request.user)
        channel.delete()
    messages.success(request, _("“%s” gets no more alerts.") % channel)
    return redirect("webhooks:alerts")
