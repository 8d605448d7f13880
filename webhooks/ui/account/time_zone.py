"""The time zone in which times are shown: the chosen one, or the one of the browser.

Both are cookies, so nothing is stored about people who only read. Cookies are untrusted: only
names that this machine knows are used.
"""

import zoneinfo
from functools import cache

from django.http import HttpRequest

# The zone chosen on the preferences page; HttpOnly.
CHOSEN_COOKIE = "time_zone"
# The zone that `static/ui/time-zone.js` read in the browser.
BROWSER_COOKIE = "browser_time_zone"

# Chromium reports zones by the names they had when its library of names began.
_RENAMED = {
    "Africa/Asmera": "Africa/Asmara",
    "America/Buenos_Aires": "America/Argentina/Buenos_Aires",
    "America/Catamarca": "America/Argentina/Catamarca",
    "America/Cordoba": "America/Argentina/Cordoba",
    "America/Godthab": "America/Nuuk",
    "America/Indianapolis": "America/Indiana/Indianapolis",
    "America/Jujuy": "America/Argentina/Jujuy",
    "America/Louisville": "America/Kentucky/Louisville",
    "America/Mendoza": "America/Argentina/Mendoza",
    "Asia/Calcutta": "Asia/Kolkata",
    "Asia/Katmandu": "Asia/Kathmandu",
    "Asia/Rangoon": "Asia/Yangon",
    "Asia/Saigon": "Asia/Ho_Chi_Minh",
    "Atlantic/Faeroe": "Atlantic/Faroe",
    "Europe/Kiev": "Europe/Kyiv",
    "Pacific/Enderbury": "Pacific/Kanton",
    "Pacific/Ponape": "Pacific/Pohnpei",
    "Pacific/Truk": "Pacific/Chuuk",
}


def chosen(request: HttpRequest) -> str:
    return _known(request.COOKIES.get(CHOSEN_COOKIE, ""))


def of_browser(request: HttpRequest) -> str:
    return _known(request.COOKIES.get(BROWSER_COOKIE, ""))


@cache
def names() -> frozenset[str]:
    """Return the names of all time zones that this machine knows."""
    # "localtime" is this machine's own zone, which a database does not know.
    return frozenset(zoneinfo.available_timezones() - {"localtime"})


def _known(name: str) -> str:
    name = _RENAMED.get(name, name)
    return name if name in names() else ""
