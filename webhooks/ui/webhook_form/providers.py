"""What a provider's preset or its issuer fills into the form, and what to register where.

Values are text as a browser posts them, because the same ones are filled in by a script at once
and, without JavaScript, by a round trip. The facts themselves are `webhooks.oauth.PRESETS`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import oauth
from webhooks.models import ClientAuthentication
from webhooks.ui.fields import parameters_text

# The standard's values, as text; a preset starts from them, whatever was there before.
STANDARD = {
    "uses_pkce": "True",
    "requires_issuer": "False",
    "scope_separator": " ",
    "audience": "",
    "resource": "",
    "authorization_parameters": "",
    "token_parameters": "",
    "refresh_parameters": "",
    "uses_json_token_request": "False",
    "refresh_url": "",
    "revocation_url": "",
    "token_path": "",
    "token_placement": "header",
    "header_prefix": "Bearer",
    "token_query_parameter": "access_token",
    "expired_status_codes": "",
    "reauthorization_words": "",
}
_RESET = {**STANDARD, "issuer": "", "client_authentication": "basic_header"}
# What a button may fill in; never a secret, and nothing outside of this section.
FILLABLE = frozenset({*_RESET, "provider", "auth_url", "token_url", "scope"})
_LONGEST_FILL = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question of a preset, as an input of the page."""

    name: str
    input_name: str
    label: Any
    value: str
    example: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """What the form says about one provider."""

    preset: oauth.ProviderPreset
    is_chosen: bool
    asks: tuple[Ask, ...]
    # JSON of field names and texts that may hold `{question}`.
    values: str
    # Why the fields could not be filled in.
    problem: str


def choices() -> list[tuple[str, Any]]:
    named = [(preset.key, preset.label) for preset in oauth.PRESETS.values()]
    return [("", _("Another provider")), *named]


def guides(chosen: str, *, addresses: Mapping[str, str], data: Mapping[str, Any]) -> list[Guide]:
    return [
        Guide(
            preset=preset,
            is_chosen=preset.key == chosen,
            asks=_asks(preset, addresses if preset.key == chosen else {}, data),
            values=json.dumps(_RESET | as_text({**preset.fields, "provider": preset.key})),
            problem=_problem(preset.key, data) if preset.key == chosen else "",
        )
        for preset in oauth.PRESETS.values()
    ]


def as_text(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return values of our fields as a browser would post them."""
    return {name: _text(value) for name, value in fields.items() if name in FILLABLE}


def fill_in(data: QueryDict) -> None:
    """Change what was posted as the pressed button says: a preset, or values of its own."""
    if data.get("action") == "use_preset":
        try:
            preset = as_text(oauth.fill(data.get("provider", ""), _answers(data)))
        except oauth.MisconfiguredError:
            return
        values = _RESET | preset | _scope(preset, str(data.get("scope", "")).strip())
    else:
        values = _given(data.get("fill", ""))
    for name, value in values.items():
        data[name] = value


def _scope(preset: Mapping[str, str], typed: str) -> dict[str, str]:
    """Return the scope: one that somebody typed is kept, one of a provider goes with it."""
    of_providers = {str(one.fields.get("scope", "")) for one in oauth.PRESETS.values()}
    return {"scope": preset.get("scope", "") if typed in of_providers | {""} else typed}


def _given(text: str) -> dict[str, str]:
    try:
        values = json.loads(text[:_LONGEST_FILL])
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {name: str(one) for name, one in values.items() if name in FILLABLE}


def _problem(key: str, data: Mapping[str, Any]) -> str:
    if data.get("action") != "use_preset":
        return ""
    try:
        oauth.fill(key, _answers(data))
    except oauth.MisconfiguredError as error:
        return str(error)
    return ""


def _answers(data: Mapping[str, Any]) -> dict[str, str]:
    preset = oauth.PRESETS.get(str(data.get("provider", "")))
    if preset is None:
        return {}
    return {
        question.name: str(data.get(_input_name(preset, question.name), ""))
        for question in preset.questions
    }


def _asks(
    preset: oauth.ProviderPreset, addresses: Mapping[str, str], data: Mapping[str, Any]
) -> tuple[Ask, ...]:
    return tuple(
        Ask(
            name=question.name,
            input_name=_input_name(preset, question.name),
            label=question.label,
            value=data.get(_input_name(preset, question.name))
            or _read_back(preset, question.name, addresses)
            or question.default,
            example=question.example,
            choices=question.choices,
        )
        for question in preset.questions
    )


def _input_name(preset: oauth.ProviderPreset, question: str) -> str:
    return f"preset-{preset.key}-{question}"


def _read_back(preset: oauth.ProviderPreset, question: str, addresses: Mapping[str, str]) -> str:
    """Return the answer that led to the addresses that are there now, or nothing."""
    for field, address in addresses.items():
        template = re.escape(str(preset.fields.get(field, "")))
        pattern = template.replace(re.escape(f"{{{question}}}"), "([A-Za-z0-9.-]+)", 1)
        if pattern != template and (found := re.fullmatch(pattern, address)):
            return found[1]
    return ""


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return parameters_text(value)
    if isinstance(value, list | tuple):
        return ("\n" if any(isinstance(one, str) for one in value) else ", ").join(map(str, value))
    return str(value)


# ---- What an issuer tells ---------------------------------------------------------------------

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
class Endpoints:
    """What came of asking an issuer: rows to use, or a sentence."""

    problem: str = ""
    # One for each field: what was found, and what it holds now.
    rows: tuple[dict[str, Any], ...] = ()
    # JSON of field names and texts, for the button that fills them in.
    values: str = ""
    notes: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        return all(row["is_same"] for row in self.rows)


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
    values = as_text(discovered.fields)
    rows = tuple(
        {
            "label": label,
            "found": _shown(field, values[field]),
            "now": _shown(field, str(data.get(field, "")).strip()),
            "is_same": values[field] == str(data.get(field, "")).strip(),
        }
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
