"""What the views ask of a request: the type with htmx, and POST where a button is the only way."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import Resolver404, resolve, reverse
from django.utils.translation import gettext as _
from django_htmx.middleware import HtmxDetails

View = Callable[..., HttpResponse]
# The names of addresses that have a page to press a button on.
_PAGES = {
    "detail",
    "delivery",
    "deliveries",
    "replay",
    "connection",
    "connections",
    "credential",
    "list",
}


class HtmxRequest(HttpRequest):
    """A request as `HtmxMiddleware` hands it on; `htmx` is true for one that htmx sent."""

    htmx: HtmxDetails


def post_only(view: View) -> View:
    """Accept POST alone, and redirect a browser's GET to the page that has the button.

    A login leads to such an address when the session had ended before the button was pressed.
    """

    @wraps(view)
    def guarded(request: HtmxRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "POST":
            return view(request, *args, **kwargs)
        is_page = "text/html" in request.headers.get("Accept", "") and not request.htmx
        if request.method != "GET" or not is_page:
            return HttpResponseNotAllowed(["POST"])
        messages.info(request, _("Nothing was done yet: press the button again."))
        return redirect(_page_above(request.path))

    return guarded


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
