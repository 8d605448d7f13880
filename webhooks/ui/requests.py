"""What every view asks of a request: who may see a page or press a button, and the way back.

`LoginRequiredMiddleware` has asked for a login before.
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
# The names of addresses that have a page to press a button on.
_PAGES = {
    "detail",
    "delivery",
    "deliveries",
    "resend",
    "connection",
    "connections",
    "credential",
    "list",
}


# A number of up to 18 digits fits every column. No row has a longer one: SQLite fails on them, and
# Python refuses to read thousands of digits.
_NUMBER = re.compile("[0-9]{1,18}")


def whole_number(text: str) -> int:
    """Return a number that came with a request; 0 for everything else."""
    return int(text) if _NUMBER.fullmatch(text) else 0


class RowIdConverter:
    """The key of a row in an address, `<row:pk>`; an address with one that no row has is none."""

    regex = _NUMBER.pattern

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(RowIdConverter, "row")


class HtmxRequest(HttpRequest):
    """A request as `HtmxMiddleware` hands it on; `htmx` is true for one that htmx sent."""

    htmx: HtmxDetails


def page(
    *permissions: str,
    has_form: bool = False,
    guard: Callable[[View], View] | None = None,
) -> Callable[[View], View]:
    """Show a page to who has every permission; a form is posted to the page that shows it.

    `guard` decorates the check of permissions. Browsers keep no copy.
    """

    def decorate(view: View) -> View:
        guarded = permission_required(permissions, raise_exception=True)(view)
        guarded = guard(guarded) if guard else guarded
        methods = ["GET", "HEAD", "POST"] if has_form else ["GET", "HEAD"]
        return require_http_methods(methods)(never_cache(guarded))

    return decorate


def button(*permissions: str) -> Callable[[View], View]:
    """Accept POST alone, from who has every permission.

    A browser's GET is redirected to the page that has the button: a login leads to such an address
    when the session had ended before the button was pressed.
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
            return redirect(_page_above(request.path))

        return guarded

    return decorate


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


def own_address(request: HttpRequest, address: str) -> str:
    """Return an address of this site, or an empty text for any other."""
    is_own = url_has_allowed_host_and_scheme(
        address, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    # A word without a slash would be taken for the name of a view.
    return address if is_own and address.startswith("/") else ""


def offer_undo(request: HttpRequest, sentence: str, action: str, ids: list[int]) -> None:
    """Say what was done, with a button that does one of the bulk actions to take it back."""
    # `ui/_messages.html` posts it to the list as it is.
    messages.success(request, sentence, extra_tags=f"{action}:{','.join(map(str, ids))}")


def redirect_back(request: HttpRequest, default: str, *args: Any) -> HttpResponse:
    """Return to the page the button was on, or to the one whose name is given."""
    address = own_address(request, request.POST.get("next", ""))
    return redirect(address or reverse(default, args=args))
