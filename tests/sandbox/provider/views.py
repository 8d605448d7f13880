"""The toolkit's endpoints with their gaps closed, the first page, and the tests' controls."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from oauth2_provider import views as toolkit
from oauth2_provider.models import AccessToken, Application, Grant, RefreshToken

from tests.sandbox.clients import AUTHORIZATION_CLIENT, MACHINE_CLIENT, OTHER_CLIENT
from tests.sandbox.provider import records
from tests.sandbox.provider.faults import ENDPOINTS, set_fault, set_token_seconds
from tests.sandbox.provider.options import Options


class AuthorizationView(toolkit.AuthorizationView):
    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        callback = urlsplit(context.get("redirect_uri") or "")
        return {**context, "redirect_origin": f"{callback.scheme}://{callback.netloc}"}

    def redirect(self, redirect_to: str, application: Application | None) -> HttpResponse:
        """Add the issuer to every response; the toolkit leaves it out of errors (RFC 9207 2)."""
        parts = urlsplit(redirect_to)
        query = [(name, value) for name, value in parse_qsl(parts.query, True) if name != "iss"]
        query.append(("iss", Options.read().url))
        answer = parts._replace(query=urlencode(query)).geturl()
        response: HttpResponse = super().redirect(answer, application)
        response["Cache-Control"] = "no-store"
        return response


class TokenView(toolkit.TokenView):
    @transaction.atomic
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Respond within one write transaction, so that one request uses a code or refresh token.

        The toolkit validates before its own transaction, so two at once would both succeed.
        """
        response: HttpResponse = super().post(request, *args, **kwargs)
        return response


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """Show the values to type into a webhook."""
    url = Options.read().url
    context = {
        "auth_url": f"{url}/authorize/",
        "token_url": f"{url}/token/",
        "metadata_url": f"{url}/.well-known/oauth-authorization-server",
        "callback_urls": Options.read().callback_urls,
        "clients": [
            (AUTHORIZATION_CLIENT, "authorization code"),
            (OTHER_CLIENT, "authorization code"),
            (MACHINE_CLIENT, "client credentials"),
        ],
    }
    return render(request, "home.html", context)


@require_GET
def token_requests(request: HttpRequest) -> JsonResponse:
    return _recorded(request, "token")


@require_GET
def revocation_requests(request: HttpRequest) -> JsonResponse:
    return _recorded(request, "revoke")


def _recorded(request: HttpRequest, endpoint: str) -> JsonResponse:
    number = int(request.GET.get("since", 0))
    return JsonResponse(records.since(number, endpoint=endpoint), safe=False)


@csrf_exempt
@require_POST
def control(request: HttpRequest) -> JsonResponse:
    """Change how the provider behaves; an unknown name gives a 400."""
    try:
        changes = json.loads(request.body)
        for name, value in changes.items():
            _change(name, value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return JsonResponse({"error": f"{type(error).__name__}: {error}"}, status=400)
    return JsonResponse({"changed": sorted(changes)})


def _change(name: str, value: Any) -> None:
    if name in ENDPOINTS:
        set_fault(name, value)
    elif name == "token_seconds":
        set_token_seconds(int(value))
    elif name == "expire_tokens" and value:
        AccessToken.objects.update(expires=timezone.now() - timedelta(seconds=1))
    elif name == "revoke_grants" and value:
        _revoke_grants()
    elif name == "clear_requests" and value:
        records.clear()
    else:
        raise KeyError(name)


@transaction.atomic
def _revoke_grants() -> None:
    RefreshToken.objects.filter(revoked=None).update(revoked=timezone.now(), access_token=None)
    AccessToken.objects.all().delete()
    Grant.objects.all().delete()
