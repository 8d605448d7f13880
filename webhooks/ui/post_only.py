"""What only a button posts to, asked for as a page: after a login, or for another language.

Leads to the page that has the button instead of a bare 405; machines and htmx keep theirs.
"""

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import Resolver404, resolve, reverse
from django.utils.translation import gettext as _

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
