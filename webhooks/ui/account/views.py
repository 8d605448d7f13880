"""A person's own preferences: the time zone of the times they read. Language: `set_language`."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from webhooks.ui.account import time_zone as time_zone_
from webhooks.ui.account.forms import TimeZoneForm


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def time_zone(request: HttpRequest) -> HttpResponse:
    browser_zone = time_zone_.of_browser(request)
    next_url = _safe(request, request.POST.get("next") or request.GET.get("next", ""))
    if request.method != "POST":
        form = TimeZoneForm(
            browser_zone=browser_zone, initial={"time_zone": time_zone_.chosen(request)}
        )
        return render(request, "webhooks/account/time_zone.html", {"form": form, "next": next_url})
    form = TimeZoneForm(request.POST, browser_zone=browser_zone)
    if not form.is_valid():
        context = {"form": form, "next": next_url}
        return render(request, "webhooks/account/time_zone.html", context, status=422)
    answer = redirect(next_url or "webhooks:list")
    if name := form.cleaned_data["time_zone"]:
        answer.set_cookie(
            time_zone_.CHOSEN_COOKIE,
            name,
            max_age=settings.LANGUAGE_COOKIE_AGE,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
    else:
        answer.delete_cookie(time_zone_.CHOSEN_COOKIE, samesite="Lax")
    return answer


def _safe(request: HttpRequest, address: str) -> str:
    """Return an address of this site, or nothing."""
    is_ours = url_has_allowed_host_and_scheme(
        address, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return address if is_ours else ""
