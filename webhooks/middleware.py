r"""The middleware of the product, in the order of MIDDLEWARE.

`SecurityHeaders` and `ShowUnseen` stand outside of everything, so that static files and refused
requests get them too; `PersonsTimeZone`, `SecondFactor` and `LeadBack` look at the person.
"""

import re
from collections.abc import Callable

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import Resolver404, resolve, reverse
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from webhooks.ui.account import time_zone

# Features that no page here asks for, so that no injected script can either.
_UNUSED = (
    "accelerometer",
    "autoplay",
    "camera",
    "display-capture",
    "encrypted-media",
    "fullscreen",
    "geolocation",
    "gyroscope",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "picture-in-picture",
    "publickey-credentials-get",
    "screen-wake-lock",
    "usb",
    "xr-spatial-tracking",
)
# The copy buttons write to the clipboard.
PERMISSIONS_POLICY = ", ".join([*(f"{name}=()" for name in _UNUSED), "clipboard-write=(self)"])


class SecurityHeaders:
    """Add what an answer does not have yet; a view's own choice stays."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        for name, value in _headers(request).items():
            response.headers.setdefault(name, value)
        return response


def _headers(request: HttpRequest) -> dict[str, str]:
    headers = {
        "Permissions-Policy": PERMISSIONS_POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": settings.X_FRAME_OPTIONS,
        "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
        "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    # RFC 6797 section 7.2: never over plain HTTP.
    if settings.SECURE_HSTS_SECONDS and request.is_secure():
        value = f"max-age={settings.SECURE_HSTS_SECONDS}"
        if settings.SECURE_HSTS_INCLUDE_SUBDOMAINS:
            value += "; includeSubDomains"
        if settings.SECURE_HSTS_PRELOAD:
            value += "; preload"
        headers["Strict-Transport-Security"] = value
    return headers


# In UTF-8: C0 controls but tab, line feed and return, delete, C1 controls, the marks and overrides
# that turn text around (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069), and the
# separators that end a line in some programs only (U+2028, U+2029).
_UNSEEN = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]"
    rb"|\xe2\x81[\xa6-\xa9]"
)
# Values arrive here escaped, so a quote or a bracket in them ends nothing.
_KEPT = re.compile(rb"(<textarea[^>]*>.*?</textarea>|\svalue=\"[^\"]*\")", re.DOTALL)


class ShowUnseen:
    """Rewrites pages that hold such a character, and costs the others one search."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if not isinstance(response, HttpResponse):
            return response
        if "text/html" in response.get("Content-Type", "") and _UNSEEN.search(response.content):
            response.content = shown(response.content)
            if "Content-Length" in response:
                response["Content-Length"] = str(len(response.content))
        return response


def shown(html: bytes) -> bytes:
    """Return a page with escapes for what cannot be seen outside of form controls."""
    parts = _KEPT.split(html)
    # Every second part is what was split at.
    parts[::2] = [_UNSEEN.sub(_escaped, part) for part in parts[::2]]
    return b"".join(parts)


def _escaped(found: re.Match[bytes]) -> bytes:
    code = ord(found[0].decode())
    return f"\\x{code:02x}".encode() if code <= 0xFF else f"\\u{code:04x}".encode()


class PersonsTimeZone:
    """Show every time of an answer in the zone of who asks; else in that of the settings."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if name := time_zone.chosen(request) or time_zone.of_browser(request):
            timezone.activate(name)
        else:
            timezone.deactivate()
        response = self._get_response(request)
        # A file that is streamed is written after this; the next request sets its own zone.
        if not response.streaming:
            timezone.deactivate()
        return response


# Returns the answer for somebody who has not proved it yet, and None for everybody else.
Check = Callable[[HttpRequest], HttpResponseBase | None]


class SecondFactor:
    """Answer with what SECOND_FACTOR_CHECK returns, until it returns None."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        if not settings.SECOND_FACTOR_CHECK:
            raise MiddlewareNotUsed
        self._get_response = get_response
        self._check: Check = import_string(settings.SECOND_FACTOR_CHECK)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        # Whoever cannot prove it can still leave.
        is_leaving = request.path in (reverse("logout"), reverse("admin:logout"))
        if request.user.is_authenticated and not is_leaving:
            answer = self._check(request)
            if answer is not None:
                return answer
        return self._get_response(request)


_PAGES = {"detail", "delivery", "deliveries", "replay", "connection", "connections", "list"}


class LeadBack:
    """Middleware: answer a person's GET of such an address with the page above it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if response.status_code != 405 or not _is_asked_by_a_person(request):
            return response
        messages.info(request, _("Nothing was done yet: press the button again."))
        return redirect(_page_above(request.path))


def _is_asked_by_a_person(request: HttpRequest) -> bool:
    return (
        request.method == "GET"
        and request.path.startswith(reverse("webhooks:list"))
        and "text/html" in request.headers.get("Accept", "")
        and "HX-Request" not in request.headers
    )


def _page_above(path: str) -> str:
    """Return the nearest address above that is a page of its own."""
    top = reverse("webhooks:list")
    while path != top:
        path = path.rstrip("/").rpartition("/")[0] + "/"
        try:
            if resolve(path).url_name in _PAGES:
                break
        except Resolver404:
            continue
    return path
