"""Logging in: the form, the client's address, and the page after too many failed logins.

django-axes counts failed logins, at this site's login and the admin's, in the database. It locks a
pair of account and IP address: docs/decisions/0011-what-a-failed-login-locks.md.
"""

import ipaddress
import math
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

# A provider gives each customer a whole IPv6 network: RFC 6177.
_IPV6_PREFIX = 64


class LoginForm(AuthenticationForm):
    """Django's login form, with an error message that names the fields as the page does."""

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": gettext_lazy("Wrong login or password. Check upper and lower case."),
    }


def client_address(request: HttpRequest) -> str:
    """Return the IP address of a login; for IPv6 its network, since a client has many addresses.

    Proxies wrote the last TRUSTED_PROXY_COUNT entries of X-Forwarded-For; earlier entries can be
    forged by the client.
    """
    address = str(request.META.get("REMOTE_ADDR", ""))
    if settings.BEHIND_TLS_PROXY:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
        count = settings.TRUSTED_PROXY_COUNT
        address = forwarded[-count].strip() if len(forwarded) >= count > 0 else address
    return _network_of(address) or _network_of(str(request.META.get("REMOTE_ADDR", ""))) or "::"


def _network_of(text: str) -> str:
    """Return the address or network that logins are counted for; empty if `text` is invalid."""
    # Some proxies include the port: 192.0.2.1:4711, [2001:db8::1]:4711.
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    bare = bare.partition(":")[0] if bare.count(":") == 1 else bare
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False).network_address)


def login_digest(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """Return a keyed digest of the typed login name, by which failed logins are counted."""
    typed = (credentials or request.POST).get("username")
    return salted_hmac("webhooks.login", str(typed or ""), algorithm="sha256").hexdigest()


def locked_out(
    request: HttpRequest, original_response: HttpResponse, credentials: dict[str, Any] | None
) -> HttpResponse:
    """Show the login with the time to wait; it does not reveal whether the account exists."""
    username = str((credentials or {}).get("username") or "")
    digest = login_digest(request, credentials)
    minutes = max(math.ceil(_wait(request, digest) / timedelta(minutes=1)), 1)
    sentence = ngettext(
        "Too many failed logins. Wait %d minute, then try again.",
        "Too many failed logins. Wait %d minutes, then try again.",
        minutes,
    )
    form = AuthenticationForm(request, initial={"username": username})
    context = {
        "form": form,
        "locked_sentence": sentence % minutes,
        "next": request.POST.get("next", ""),
        "title": _("Log in"),
    }
    page = render(request, "registration/login.html", context, status=429)
    page["Retry-After"] = str(minutes * 60)
    page["Cache-Control"] = "no-store"
    return page


def _wait(request: HttpRequest, digest: str) -> timedelta:
    """Return the time until the newest failed login expires."""
    attempts = AccessAttempt.objects.filter(username=digest, ip_address=client_address(request))
    newest = attempts.order_by("-attempt_time").values_list("attempt_time", flat=True).first()
    lasts = timedelta(seconds=settings.LOGIN_LOCKOUT_SECONDS)
    return lasts - (timezone.now() - newest) if newest else lasts
