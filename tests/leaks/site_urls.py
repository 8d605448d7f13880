"""The product's URLs, one that fails with secrets in its variables, and one that leaks.

The leaked secret ("control") is used nowhere else: a place where it is not found is not searched.
"""

import logging
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.mail import mail_admins
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from tests.leaks import leaky_tasks
from webhooks.models import Credential, OAuthExchange, OAuthToken, Webhook

logger = logging.getLogger("tests.leaks")


@csrf_exempt
def break_down(request: HttpRequest) -> HttpResponse:
    """Fail as a view could: with decrypted secrets in its variables and typed ones in its error."""
    webhooks = list(Webhook._base_manager.all())
    held = [(one.headers_json, one.signing_secret) for one in webhooks]
    held += [(one.basic_password, one.client_secret) for one in Credential._base_manager.all()]
    tokens = [(one.access_token, one.refresh_token) for one in OAuthToken.objects.all()]
    posted = dict(request.POST.items())
    values = [*request.GET.values(), *request.POST.values(), *request.COOKIES.values()]
    raise RuntimeError(f"{len(held)} {len(tokens)} {posted} {values}")


def leak(request: HttpRequest) -> HttpResponse:
    """Put the control secret everywhere."""
    control = request.GET["control"]
    logger.debug("seen %s", control)
    messages.info(request, f"It is {control}")
    request.session["kept"] = control
    cache.set(f"seen:{control}", control)
    leaky_tasks.leak.delay(control)
    leaky_tasks.break_down.delay()
    webhook: Any = Webhook.objects.earliest("pk")
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(Webhook),
        object_id=str(webhook.pk),
        object_repr="CRM",
        action_flag=CHANGE,
        change_message=f"Changed to {control}.",
    )
    exchange = OAuthExchange.objects.latest("pk")
    OAuthExchange.objects.filter(pk=exchange.pk).update(message=control)
    Webhook.objects.filter(pk=webhook.pk).update(name=control[:60])
    mail_admins("Leak", control)
    return HttpResponse(control, status=int(request.GET.get("status", "200")))


urlpatterns = [
    path("broken/", break_down),
    path("leak/", leak),
    path("", include("config.urls")),
]
