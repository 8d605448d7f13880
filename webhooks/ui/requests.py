"""Request handling that all views share: permissions, row ids, and redirects.

`middleware.LoginRequired`, or the `guard` of a page, has already required a login.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import Resolver404, register_converter, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from django_htmx.middleware import HtmxDetails

View = Callable[..., HttpResponseBase]
# URL names of the pages that have buttons.
_PAGES_WITH_BUTTONS = {
    "detail",
    "delivery",
    "deliveries",
    "resend",
    "connection",
    "connections",
    "credential",
    "list",
    # Django admin's delivery log.
    "webhooks_delivery_changelist",
}


# A number of up to 18 digits fits every column. A longer one overflows in SQLite, and Python
# refuses to parse thousands of digits.
_NUMBER = re.compile("[0-9]{1,18}")


def whole_number(text: str) -> int:
    """Parse a number from a request; return 0 for anything else."""
    return int(text) if _NUMBER.fullmatch(text) else 0


class RowIdConverter:
    """A primary key in a URL, `<row:pk>`; a key too long for any row does not match."""

    regex = _NUMBER.pattern

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(RowIdConverter, "row")


class HtmxRequest(HttpRequest):
    """A request that has passed `HtmxMiddleware`; `htmx` is true when htmx sent it."""

    htmx: HtmxDetails


def page(
    *permissions: str,
    has_form: bool = False,
    guard: Callable[[View], View] | None = None,
) -> Callable[[View], View]:
    """Require every permission, and accept GET and HEAD; `has_form` also accepts POST.

    `guard` decorates the permission check. Browsers do not cache the response.
    """

    def decorate(view: View) -> View:
        guarded = permission_required(permissions, raise_exception=True)(view)
        guarded = guard(guarded) if guard else guarded
        methods = ["GET", "HEAD", "POST"] if has_form else ["GET", "HEAD"]
        return require_http_methods(methods)(never_cache(guarded))

    return decorate


def button(*permissions: str) -> Callable[[View], View]:
    """Require every permission, and accept only POST.

    A browser's GET is redirected to the page that has the button: when the session expired before
    the button was pressed, the login redirects to the button's URL.
    """

    def decorate(view: View) -> View:
        pressed = permission_required(permissions, raise_exception=True)(never_cache(view))

        @wraps(view)
        def guarded(request: HtmxRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method == "POST":
                return pressed(request, *args, **kwargs)
            is_page = "text/html" in request.headers.get("Accept", "") and not request.htmx
            if request.method != "GET" or not is_page:
                return HttpResponseNotAllowed(["POST"])
            messages.info(request, _("Nothing was done. Press the button again."))
            return redirect(_closest_page(request.path))

        return guarded

    return decorate


def _closest_page(path: str) -> str:
    """Return the closest parent path that is a page with buttons, or the start page."""
    while path != "/":
        path = path.rstrip("/").rpartition("/")[0] + "/"
        try:
            if resolve(path).url_name in _PAGES_WITH_BUTTONS:
                return path
        except Resolver404:
            continue
    return reverse("home")


def own_address(request: HttpRequest, address: str) -> str:
    """Return the URL if it is on this site, else an empty string."""
    is_own = url_has_allowed_host_and_scheme(
        address, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    # `redirect` would resolve a word without a slash as the name of a view.
    return address if is_own and address.startswith("/") else ""


def offer_undo(request: HttpRequest, sentence: str, action: str, ids: list[int]) -> None:
    """Add a success message with an Undo button that runs a bulk action on these ids."""
    # `ui/_messages.html` posts the tag unchanged to the bulk actions of the webhook list.
    messages.success(request, sentence, extra_tags=f"{action}:{','.join(map(str, ids))}")


def redirect_back(request: HttpRequest, default: str, *args: Any) -> HttpResponse:
    """Redirect to the page the button was on, or to the view named `default`."""
    address = own_address(request, request.POST.get("next", ""))
    return redirect(address or reverse(default, args=args))
