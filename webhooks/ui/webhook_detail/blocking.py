"""What a person does about a delivery that blocks an ordered webhook: send it now, or cancel it."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from webhooks import audit, events
from webhooks.models import Action, Delivery, Webhook


@require_POST
@login_required
@permission_required("webhooks.test_webhook", raise_exception=True)
def send_now(request: HttpRequest, pk: int, delivery_id: str) -> HttpResponse:
    chosen = _delivery(pk, delivery_id)
    with transaction.atomic():
        if moved := events.send_now(chosen):
            audit.record_deliveries(Action.SENT_NOW, chosen, user=request.user)
    if moved:
        messages.success(request, _("The next attempt of %s starts now.") % delivery_id)
    else:
        messages.warning(request, _("%s no longer waits: look at it in the log.") % delivery_id)
    return redirect("webhooks:detail", pk)


@require_POST
@login_required
@permission_required("webhooks.change_webhook", raise_exception=True)
def cancel(request: HttpRequest, pk: int, delivery_id: str) -> HttpResponse:
    chosen = _delivery(pk, delivery_id)
    with transaction.atomic():
        if cancelled := events.cancel(chosen):
            audit.record_deliveries(Action.CANCELLED, chosen, user=request.user)
    if cancelled:
        sentence = _("%s is cancelled. What waited behind it is sent now.")
        messages.success(request, sentence % delivery_id)
    else:
        messages.warning(request, _("%s no longer waits: look at it in the log.") % delivery_id)
    return redirect("webhooks:detail", pk)


def _delivery(pk: int, delivery_id: str) -> QuerySet[Delivery]:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    found = get_object_or_404(Delivery, pk=delivery_id.replace("\0", ""), webhook=webhook)
    return Delivery.objects.filter(pk=found.pk)
