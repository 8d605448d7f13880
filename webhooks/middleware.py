"""The product's middleware, in the order of MIDDLEWARE."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.utils.module_loading import import_string

from webhooks.api.events import ENDPOINTS, ApiHttpResponse, is_for_api
from webhooks.api.health import healthz
from webhooks.api.wsgi import EventApi
from webhooks.ui.account import time_zone

# 32,000 characters took half a minute.
_MAX_PATH = 512
# Bytes; the parts of 4 MB kept a thread busy for 40 seconds.
_MAX_FORM_WITHOUT_LOGIN = 65_536

Handler = Callable[[HttpRequest], HttpResponseBase]

# In UTF-8: C0 controls except tab, line feed and carriage return, delete, C1 controls, direction
# marks and overrides (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069), and separators
# that end a line in some programs only (U+2028, U+2029).
_CONTROLS = bytes([*range(9), 11, 12, *range(14, 32), 127])
_LONGER = (
    rb"\xc2[\x80-\x9f]",
    rb"\xd8\x9c",
    rb"\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])",
)
_INVISIBLE = re.compile(b"|".join((b"[" + re.escape(_CONTROLS) + b"]", *_LONGER)))
# Searched one by one: each begins with a fixed byte, which makes a page with none six times faster.
_LONGER_ALONE = [re.compile(pattern) for pattern in _LONGER]
# Form values stay as they were typed. They are HTML-escaped here, so a quote or a bracket in them
# ends nothing. An unclosed element extends to the end of the page, which keeps the search linear.
_EDITED = re.compile(
    rb"(<textarea[^>]*(?:>.*?(?:</textarea>|\Z)|\Z)|\svalue=\"[^\"]*(?:\"|\Z))", re.DOTALL
)


def event_api(get_response: Handler) -> Handler:
    """Serve the event API, which needs no session, user, page or form from later middleware."""
    api = EventApi()

    def respond(request: HttpRequest) -> HttpResponseBase:
        answer = api.answer(request) if request.path_info in ENDPOINTS else None
        return get_response(request) if answer is None else ApiHttpResponse(answer)

    return respond


def own_headers(get_response: Handler) -> Handler:
    """Keep other sites from using a response and, by default, caches from storing it."""

    def respond(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        # No middleware of Django sets these.
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        response.headers.setdefault("Cache-Control", "no-store, private")
        return response

    return respond


def short_path(get_response: Handler) -> Handler:
    """Refuse a path that is longer than any of this site before it is matched with its URLs.

    Patterns with two variable parts, as in Django admin, take quadratic time, in which Python runs
    no other thread.
    """

    def respond(request: HttpRequest) -> HttpResponseBase:
        if len(request.path_info) > _MAX_PATH:
            sentence = "The address is too long.\n"
            status = HTTPStatus.REQUEST_URI_TOO_LONG
            return HttpResponse(sentence, content_type="text/plain", status=status)
        return get_response(request)

    return respond


def health_probe(get_response: Handler) -> Handler:
    """Respond to `/healthz` for any Host: a load balancer uses the address of each process."""

    def respond(request: HttpRequest) -> HttpResponseBase:
        return (healthz if request.path_info == "/healthz" else get_response)(request)

    return respond


def escaped_invisibles(get_response: Handler) -> Handler:
    """Escape invisible characters in every page; a page without any costs one search.

    Not a template filter: a place where it is forgotten, or Django admin, would show them.
    """

    def respond(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        is_page = "text/html" in response.get("Content-Type", "")
        if is_page and isinstance(response, HttpResponse) and has_invisibles(response.content):
            response.content = escape_invisibles(response.content)
            if "Content-Length" in response:
                response["Content-Length"] = str(len(response.content))
        return response

    return respond


def has_invisibles(html: bytes) -> bool:
    has_controls = len(html.translate(None, _CONTROLS)) < len(html)
    return has_controls or any(pattern.search(html) for pattern in _LONGER_ALONE)


def escape_invisibles(html: bytes) -> bytes:
    """Return a page with escapes for the invisible characters outside of form controls."""
    parts = _EDITED.split(html)
    # Odd parts are the form controls.
    parts[::2] = [_INVISIBLE.sub(_escape, part) for part in parts[::2]]
    return b"".join(parts)


def _escape(found: re.Match[bytes]) -> bytes:
    return found[0].decode().encode("unicode_escape")


def reader_time_zone(get_response: Handler) -> Handler:
    """Show every time in a response in the reader's time zone."""

    def respond(request: HttpRequest) -> HttpResponseBase:
        if name := time_zone.chosen(request) or time_zone.of_browser(request):
            timezone.activate(name)
        else:
            timezone.deactivate()
        response = get_response(request)
        # A streamed file is written after this; the next request sets its own time zone.
        if not response.streaming:
            timezone.deactivate()
        return response

    return respond


class LoginRequired(LoginRequiredMiddleware):
    """Require a login for every view that is not marked `login_not_required`.

    Django reads the user for marked views, too, and so `/readyz` would fail without a database.
    """

    def process_view(
        self, request: HttpRequest, view_func: Callable[..., Any], *arguments: Any
    ) -> HttpResponseBase | None:
        if not getattr(view_func, "login_required", True):
            return None
        return super().process_view(request, view_func, *arguments)


def upload_login(get_response: Handler) -> Handler:
    """Require a login for a large multipart form before it is read; only files are that large.

    Its parts may have any number of headers, each of which Python parses in quadratic time. The
    API's URLs do not read forms.
    """

    def respond(request: HttpRequest) -> HttpResponseBase:
        try:
            size = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            # Django takes it for 0, too, and reads nothing.
            size = 0
        is_large = size > _MAX_FORM_WITHOUT_LOGIN
        is_form = is_large and request.content_type == "multipart/form-data"
        if is_form and not is_for_api(request) and not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        return get_response(request)

    return respond


def second_factor(get_response: Handler) -> Handler:
    """Return the response of SECOND_FACTOR_CHECK until it returns None."""
    if not settings.SECOND_FACTOR_CHECK:
        raise MiddlewareNotUsed
    check: Callable[[HttpRequest], HttpResponseBase | None]
    check = import_string(settings.SECOND_FACTOR_CHECK)

    def respond(request: HttpRequest) -> HttpResponseBase:
        # Logging out needs no second factor.
        is_leaving = request.path in (reverse("logout"), reverse("admin:logout"))
        if request.user.is_authenticated and not is_leaving:
            answer = check(request)
            if answer is not None:
                return answer
        return get_response(request)

    return respond
