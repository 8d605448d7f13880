"""What a person sets for themselves: the time zone they read times in."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.ui.account import time_zone

# Names that say nothing about a place, or say it a second time.
_OTHER = ("Etc/", "SystemV/", "US/", "posix/", "right/")


class TimeZoneForm(forms.Form):
    time_zone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        required=False,
        help_text=gettext_lazy(
            "Every time on the screens is shown in this zone, for example Europe/Kyiv. What is "
            "sent to receivers follows the settings of each webhook."
        ),
    )

    def __init__(self, *args: Any, browser_zone: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["time_zone"]
        field.choices = [("", _as_browser(browser_zone)), *_choices(datetime.now(UTC))]


def _as_browser(browser_zone: str) -> str:
    if browser_zone:
        return _("As the browser: %(zone)s") % {"zone": browser_zone}
    return _("As the browser")


def _choices(now: datetime) -> list[tuple[str, str]]:
    """Return places by name with what they are ahead of UTC, without abbreviations such as EST."""
    places = sorted(
        name for name in time_zone.names() if "/" in name and not name.startswith(_OTHER)
    )
    return [("UTC", "UTC"), *((name, f"{name} ({_ahead(name, now)})") for name in places)]


def _ahead(name: str, now: datetime) -> str:
    written = f"{now.astimezone(ZoneInfo(name)):%z}"
    return f"{written[:3]}:{written[3:5]}"
