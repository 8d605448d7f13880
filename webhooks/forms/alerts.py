"""The form's Alerts section: who is told when the webhook has a problem."""

import re
from collections.abc import Sequence
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

FIELDS = ("alert_recipients", "alerts_are_muted")
MAX_RECIPIENTS = 20
# RFC 5321 section 4.5.3.1.3.
_MAX_ADDRESS = 254


class RecipientsField(forms.Field):
    """E-mail addresses, one a line or with commas between; cleans to a list without repeats."""

    widget = forms.Textarea

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[str]:
        if isinstance(value, list | tuple):
            return list(value)
        typed = [part for part in re.split(r"[\s,;]+", value or "") if part]
        # The first spelling of an address stays.
        addresses = list({part.lower(): part for part in reversed(typed)}.values())[::-1]
        if bad := next((part for part in addresses if not _is_address(part)), None):
            raise ValidationError(
                _("“%(typed)s” is not an e-mail address. Write one a line, like ops@example.com."),
                code="invalid",
                params={"typed": bad[:80]},
            )
        if len(addresses) > MAX_RECIPIENTS:
            raise ValidationError(
                _(
                    "These are %(count)d addresses; at most %(limit)d are allowed. A mailing list "
                    "reaches more people."
                ),
                code="too_many",
                params={"count": len(addresses), "limit": MAX_RECIPIENTS},
            )
        return addresses


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= _MAX_ADDRESS


class AlertFields(forms.Form):
    """The fields, and what the folded section says about them."""

    alert_recipients = RecipientsField(
        label=gettext_lazy("Recipients"),
        widget=forms.Textarea(
            {"rows": 3, "autocomplete": "off", "spellcheck": "false", "inputmode": "email"}
        ),
        help_text=gettext_lazy(
            "E-mail addresses, one a line. They are told once when deliveries keep failing, the "
            "webhook is paused or needs a new access token, reminded once a day, and told when it "
            "works again."
        ),
    )
    alerts_are_muted = forms.BooleanField(
        label=gettext_lazy("Mute alerts"),
        required=False,
        help_text=gettext_lazy("The addresses stay, and nobody of them is told."),
    )

    @property
    def has_alerts_open(self) -> bool:
        return any(self[field].errors for field in FIELDS)

    @property
    def alerts_summary(self) -> str:
        """Say in one line what the fields hold now, typed or stored."""
        try:
            addresses = self.fields["alert_recipients"].clean(self["alert_recipients"].value())
        except ValidationError:
            addresses = []
        is_muted = bool(self["alerts_are_muted"].value())
        return summary(alert_recipients=addresses, alerts_are_muted=is_muted)

    @property
    def everywhere_count(self) -> int:
        """Count the people who are told about every webhook."""
        return len(settings.WEBHOOKS_ALERT_RECIPIENTS)


def summary(*, alert_recipients: Sequence[str], alerts_are_muted: bool) -> str:
    """Say in one line who is told about a webhook's problems."""
    count = len(alert_recipients)
    if not count:
        return _("nobody of this webhook is told")
    if alerts_are_muted:
        return _("muted")
    return ngettext("%d recipient", "%d recipients", count) % count
