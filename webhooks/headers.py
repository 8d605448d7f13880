"""Security headers on every answer, whoever made it: a view, static files, or an early refusal.

Outermost in MIDDLEWARE. Django's SecurityMiddleware sets most of them, but not on what is refused
before it is done (a wrong Host), and knows no Permissions-Policy. The policy of scripts and frames
is django-csp's, which stands right inside.
"""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

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
