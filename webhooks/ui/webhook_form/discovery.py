"""What a provider's issuer tells about it, laid beside what the form holds, before it is used."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import oauth
from webhooks.models import ClientAuthentication
from webhooks.ui.webhook_form import providers

# Field -> its label, in the order they are shown.
_ROWS = {
    "auth_url": gettext_lazy("Auth URL"),
    "token_url": gettext_lazy("Access token URL"),
    "revocation_url": gettext_lazy("Revocation URL"),
    "client_authentication": gettext_lazy("Send credentials as"),
    "uses_pkce": gettext_lazy("Use PKCE"),
    "requires_issuer": gettext_lazy("Answers name the issuer"),
}
# The button sends these along, so that what is there can be shown beside what was found.
COMPARED = ("issuer", *_ROWS)
_SCOPES_SHOWN = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field: what was found, and what it holds now."""

    label: Any
    found: str
    now: str
    is_same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What came of asking an issuer: rows to use, or a sentence."""

    problem: str = ""
    rows: tuple[Row, ...] = ()
    # JSON of field names and texts, for the button that fills them in.
    values: str = ""
    notes: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        return all(row.is_same for row in self.rows)


def find(data: Mapping[str, Any]) -> Endpoints:
    """Ask the issuer that was posted. Blocks for up to 10 seconds."""
    issuer = str(data.get("issuer", "")).strip()
    if not issuer:
        return Endpoints(
            problem=_("Enter the issuer first, for example “https://accounts.google.com”.")
        )
    try:
        discovered = oauth.discover(issuer)
    except oauth.MisconfiguredError as error:
        return Endpoints(problem=str(error))
    values = providers.as_text(discovered.fields)
    rows = tuple(
        Row(
            label=label,
            found=_shown(field, values[field]),
            now=_shown(field, str(data.get(field, "")).strip()),
            is_same=values[field] == str(data.get(field, "")).strip(),
        )
        for field, label in _ROWS.items()
        if field in values
    )
    return Endpoints(
        rows=rows,
        values=json.dumps(values),
        notes=discovered.notes,
        scopes=discovered.scopes[:_SCOPES_SHOWN],
    )


def _shown(field: str, value: str) -> str:
    if field == "client_authentication":
        return str(dict(ClientAuthentication.choices).get(value, value))
    if field in ("uses_pkce", "requires_issuer"):
        return {"True": _("Yes"), "False": _("No")}.get(value, value)
    return value
