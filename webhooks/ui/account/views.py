"""A person's preferences: the time zone of displayed times. Language: `set_language`."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.ui.account import time_zone as time_zone_
from webhooks.ui.expired_session import is_shown_again, keeps_typed
from webhooks.ui.requests import own_address, page

# Prefixes of names that are not places, or are duplicates.
_OTHER = ("Etc/", "SystemV/", "US/", "posix/", "right/")


class TimeZoneForm(forms.Form):
    time_zone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        required=False,
        help_text=gettext_lazy(
            "Times on screens use this zone, for example Europe/Kyiv. Requests use the "
            "settings of each webhook."
        ),
    )

    def __init__(self, *args: Any, browser_zone: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["time_zone"]
        field.choices = [("", _as_browser(browser_zone)), *_choices(datetime.now(UTC))]


def _as_browser(browser_zone: str) -> str:
    if browser_zone:
        return _("Same as browser (%(zone)s)") % {"zone": browser_zone}
    return _("Same as browser")


def _choices(now: datetime) -> list[tuple[str, str]]:
    """Return places with their offset from UTC, by name, without abbreviations such as EST."""
    places = sorted(
        name for name in time_zone_.names() if "/" in name and not name.startswith(_OTHER)
    )
    return [("UTC", "UTC"), *((name, f"{name} ({_ahead(name, now)})") for name in places)]


def _ahead(name: str, now: datetime) -> str:
    written = f"{now.astimezone(ZoneInfo(name)):%z}"
    return f"{written[:3]}:{written[3:5]}"


@page(has_form=True, guard=keeps_typed)
def time_zone(request: HttpRequest) -> HttpResponse:
    browser_zone = time_zone_.of_browser(request)
    next_url = own_address(request, request.POST.get("next") or request.GET.get("next", ""))
    form = TimeZoneForm(
        request.POST if request.method == "POST" else None,
        browser_zone=browser_zone,
        initial={"time_zone": time_zone_.chosen(request)},
    )
    if not form.is_valid() or is_shown_again(request):
        context = {"form": form, "next": next_url}
        status = 422 if form.errors else 200
        return render(request, "webhooks/account/time_zone.html", context, status=status)
    answer = redirect(next_url or "home")
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
