"""The form's OAuth 2.0 fields, and what fills them in: a preset, or discovery at an issuer.

Values that fill in the form are text as a browser posts it, because a script fills in the same
values at once and, without JavaScript, a round trip does. `webhooks.ui.webhook_form.authorization`
validates the fields; the facts about providers are in `webhooks.oauth.PRESETS`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import oauth
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    ClientAuthentication,
    GrantType,
    TokenPlacement,
)
from webhooks.security import pem
from webhooks.ui.fields import (
    ParametersField,
    SecretLinesField,
    StatusCodesField,
    WordsField,
    parameters_text,
)
from webhooks.ui.webhook_form.authorization import (
    ADVANCED_FIELDS,
    ADVANCED_SECRETS,
    CERTIFICATE,
    unused_fields,
)

LABELS: dict[str, Any] = {name: one.verbose_name for name, one in AUTHORIZATION_FIELDS.items()}
_YES, _NO = gettext_lazy("Yes"), gettext_lazy("No")
_LONGEST_FILL = 20_000
_SCOPES_SHOWN = 30


def text_field(
    name: str,
    help_text: Any = "",
    *,
    label: Any = None,
    widget: type[forms.TextInput] = forms.TextInput,
    **attributes: str,
) -> forms.CharField:
    """Return the text field of a column of the credential."""
    column: Any = AUTHORIZATION_FIELDS[name]
    return forms.CharField(
        label=label or column.verbose_name,
        help_text=help_text,
        max_length=column.max_length,
        required=False,
        widget=widget({"autocomplete": "off", "spellcheck": "false", **attributes}),
    )


def choice_field(name: str) -> forms.ChoiceField:
    """Return radio buttons; the stored value is kept when they are not posted."""
    column: Any = AUTHORIZATION_FIELDS[name]
    return forms.ChoiceField(
        label=column.verbose_name,
        choices=column.choices,
        required=False,
        widget=forms.RadioSelect,
    )


def _switch(
    name: str,
    help_text: Any,
    *,
    yes: Any = _YES,
    no: Any = _NO,
    label: Any = None,
) -> forms.TypedChoiceField:
    """Return two radio buttons; unlike a checkbox's, the value is kept when they are not posted."""
    choices = [(True, yes), (False, no)]
    # The standard value comes first.
    is_on = AUTHORIZATION_FIELDS[name].get_default()
    return forms.TypedChoiceField(
        label=label or LABELS[name],
        choices=choices if is_on else choices[::-1],
        coerce=lambda value: value == "True",
        empty_value=None,
        required=False,
        widget=forms.RadioSelect,
        help_text=help_text,
    )


def _provider_choices() -> list[tuple[str, Any]]:
    named = [(preset.key, preset.label) for preset in oauth.PRESETS.values()]
    return [("", _("None")), *named]


class OAuthFields(forms.Form):
    """The OAuth 2.0 fields beyond those that every provider needs."""

    grant_type = choice_field("grant_type")
    provider = forms.ChoiceField(
        label=gettext_lazy("Provider preset"),
        choices=_provider_choices,
        required=False,
        widget=forms.Select({"data-provider": True}),
    )
    issuer = text_field(
        "issuer",
        gettext_lazy(
            "For example “https://accounts.google.com”. Responses from any other issuer are "
            "rejected."
        ),
        inputmode="url",
    )
    uses_pkce = _switch("uses_pkce", gettext_lazy("Turn off only if the provider rejects it."))
    requires_issuer = _switch(
        "requires_issuer",
        gettext_lazy(
            "Yes if the provider supports it (RFC 9207). Responses without it are then rejected."
        ),
    )
    scope_separator = choice_field("scope_separator")
    audience = text_field(
        "audience",
        gettext_lazy(
            "Sent as “audience”, for example “https://api.example.com”. Separate several "
            "with spaces. Auth0 requires it."
        ),
    )
    resource = text_field(
        "resource",
        gettext_lazy(
            "Sent as “resource” (RFC 8707), for example “https://api.example.com”. "
            "Separate several with spaces."
        ),
        inputmode="url",
    )
    authorization_parameters = ParametersField(
        label=LABELS["authorization_parameters"],
        reserved=oauth.RESERVED_IN_AUTHORIZATION,
        help_text=gettext_lazy("One per line, for example “prompt=consent”."),
    )
    token_parameters = ParametersField(
        label=LABELS["token_parameters"],
        # The reserved names depend on the grant type and are checked together with it.
        reserved=(),
        help_text=gettext_lazy(
            "Sent when the code is exchanged for a token. One per line, for example “tenant=42”. "
            "“device_id={callback.device_id}” sends what the provider sent back as device_id."
        ),
    )
    refresh_parameters = ParametersField(
        label=LABELS["refresh_parameters"],
        reserved=oauth.RESERVED_IN_REFRESH,
        help_text=gettext_lazy(
            "Sent when a token is refreshed. One per line, for example “tenant=42”."
        ),
    )
    client_key = SecretLinesField(
        label=LABELS["client_key"],
        check=pem.private_key,
        help_text=gettext_lazy(
            "Signs the JWT: PEM, or the JSON file of a Google service account. Leave "
            "empty to create a key when you save."
        ),
    )
    assertion_claims = ParametersField(
        label=LABELS["assertion_claims"],
        reserved=oauth.RESERVED_CLAIMS,
        help_text=gettext_lazy(
            "One per line, for example “sub=integration@example.com”. Defaults: iss and "
            "sub are the client ID, aud is Access token URL. Also “kid”, “alg”, “x5t”."
        ),
    )
    client_certificate = SecretLinesField(
        label=LABELS["client_certificate"],
        check=pem.check_certificate,
        help_text=gettext_lazy(
            "The certificate and its private key as PEM, for a provider or receiver that "
            "requires mutual TLS."
        ),
    )
    token_headers = SecretLinesField(
        label=LABELS["token_headers"],
        check=oauth.check_headers,
        help_text=gettext_lazy("One per line, for example “X-Tenant: 42”."),
    )
    uses_json_token_request = _switch(
        "uses_json_token_request",
        gettext_lazy("Form is the standard."),
        yes=gettext_lazy("JSON"),
        no=gettext_lazy("Form"),
        label=gettext_lazy("Token request as"),
    )
    refresh_url = text_field(
        "refresh_url",
        gettext_lazy(
            "Only if refreshing has its own URL, for example "
            "“https://provider.example/oauth/refresh”."
        ),
        inputmode="url",
    )
    revocation_url = text_field(
        "revocation_url",
        gettext_lazy(
            "Called when a token is cleared or the webhook is deleted, for example "
            "“https://provider.example/oauth/revoke”."
        ),
        inputmode="url",
    )
    token_path = text_field(
        "token_path",
        gettext_lazy("For example “authed_user.access_token”. Default: “access_token”."),
    )
    token_placement = choice_field("token_placement")
    token_header = text_field(
        "token_header",
        gettext_lazy("“Authorization” is the standard. Some receivers ask for another one."),
    )
    header_prefix = text_field(
        "header_prefix",
        gettext_lazy(
            "The word before the token, usually “Bearer”. Leave empty to send the token alone."
        ),
        list="header-prefixes",
    )
    token_query_parameter = text_field(
        "token_query_parameter",
        gettext_lazy("For example “auth”."),
        label=gettext_lazy("Parameter name"),
    )
    expired_status_codes = StatusCodesField(
        label=LABELS["expired_status_codes"],
        help_text=gettext_lazy(
            "The token is then refreshed once. For example “401, 419”. Default: 401."
        ),
    )
    reauthorization_words = WordsField(
        label=LABELS["reauthorization_words"],
        help_text=gettext_lazy(
            "One per line, for example “token expired”. If the token endpoint answers "
            "with one of them, a person has to authorize again."
        ),
    )

    @property
    def chosen_grant(self) -> str:
        value = str(self["grant_type"].value())
        return value if value in GrantType.values else GrantType.AUTHORIZATION_CODE

    @property
    def unused(self) -> frozenset[str]:
        """Return the fields that the chosen grant type does not use."""
        return unused_fields(self.chosen_grant)

    @property
    def signs_with_key(self) -> bool:
        return self.chosen_grant == GrantType.JWT_BEARER or (
            self["client_authentication"].value() == ClientAuthentication.KEY_JWT
        )

    @property
    def sends_token_in_query(self) -> bool:
        return bool(self["token_placement"].value() == TokenPlacement.QUERY)

    @property
    def preset_label(self) -> str:
        """Return the label of the chosen preset if it has known URLs, else ""."""
        preset = oauth.PRESETS.get(str(self["provider"].value() or ""))
        return str(preset.label) if preset and "token_url" in preset.fields else ""

    @property
    def sent_as_label(self) -> str:
        return str(
            dict(ClientAuthentication.choices).get(self["client_authentication"].value(), "")
        )

    @property
    def has_address_errors(self) -> bool:
        return any(
            self[name].errors for name in ("token_name", "callback_url", "auth_url", "token_url")
        )

    @property
    def callback_to_register(self) -> str:
        return self["callback_url"].value() or oauth.default_callback_url()

    @property
    def guides(self) -> list[dict[str, Any]]:
        """Return what to register at each provider, and what its preset asks for and fills in."""
        chosen = self["provider"].value() or ""
        data: Mapping[str, Any] = self.data if self.is_bound else {}
        addresses = {name: self[name].value() or "" for name in _TEMPLATED_FIELDS}
        return [
            {
                "preset": preset,
                "is_chosen": preset.key == chosen,
                "asks": _questions(preset, addresses if preset.key == chosen else {}, data),
                # JSON of field names and values; a value may contain `{question}`.
                "filling": json.dumps(_RESET | as_text({**preset.fields, "provider": preset.key})),
                # Why the fields could not be filled in.
                "problem": _problem(preset.key, data) if preset.key == chosen else "",
            }
            for preset in oauth.PRESETS.values()
        ]

    @cached_property
    def endpoints(self) -> dict[str, Any] | None:
        """Run discovery at the issuer if its button was pressed, else return None."""
        is_asked = self.is_bound and self.data.get("action") == "find_endpoints"
        return find_endpoints(self.data) if is_asked else None

    @property
    def compared_fields(self) -> str:
        return ",".join(("issuer", "grant_type", *_DISCOVERED_FIELDS))

    @property
    def has_issuer_open(self) -> bool:
        is_openid = self["provider"].value() == "openid"
        return bool(self["issuer"].errors) or is_openid or self.endpoints is not None

    @property
    def has_advanced_open(self) -> bool:
        names = (*ADVANCED_FIELDS, *ADVANCED_SECRETS, CERTIFICATE)
        return any(self[field].errors for field in names)

    @property
    def differences(self) -> list[str]:
        """Return a few words about each setting that differs from the standard."""
        differing = [words for words in map(self._difference, ADVANCED_FIELDS) if words]
        stored = (self[name] for name in ADVANCED_SECRETS if self[name].field.widget.is_set)
        return [*differing, *(str(field.label).lower() for field in stored)]

    def _difference(self, field: str) -> str:
        """Return a few words about a field that differs from the standard, else ""."""
        value = str(self[field].value() if self[field].value() is not None else "")
        # Other spellings of the standard value: an empty list of status codes means 401.
        standards = {"expired_status_codes": ["401"], "token_header": ["", "authorization"]}
        if (
            value.strip().lower() in standards.get(field, [])
            or value == _STANDARD[field]
            or not self._is_used(field)
        ):
            return ""
        if field == "header_prefix":
            return _("header prefix “%s”") % value[:30] if value else _("no header prefix")
        if field == "assertion_claims":
            return _("claims of the JWT") if value.strip() else ""
        if field.endswith("_parameters"):
            count = len([line for line in value.splitlines() if line.strip()])
            texts = {
                "authorization_parameters": ngettext(
                    "%d authorization parameter", "%d authorization parameters", count
                ),
                "token_parameters": ngettext("%d token parameter", "%d token parameters", count),
                "refresh_parameters": ngettext(
                    "%d refresh parameter", "%d refresh parameters", count
                ),
            }
            return texts[field] % count if count else ""
        return str(_DIFFERENCES[field]) % {"value": value[:40]}

    def _is_used(self, field: str) -> bool:
        if field == "token_query_parameter":
            return False
        if field in ("token_header", "header_prefix"):
            return not self.sends_token_in_query
        return field not in self.unused


_DIFFERENCES = {
    "uses_pkce": gettext_lazy("no PKCE"),
    "requires_issuer": gettext_lazy("responses name the issuer"),
    "scope_separator": gettext_lazy("scopes with commas"),
    "audience": gettext_lazy("audience"),
    "resource": gettext_lazy("resource"),
    "uses_json_token_request": gettext_lazy("JSON token request"),
    "refresh_url": gettext_lazy("refresh URL"),
    "revocation_url": gettext_lazy("revocation URL"),
    "token_path": gettext_lazy("token at “%(value)s”"),
    "token_placement": gettext_lazy("token in the address"),
    "token_header": gettext_lazy("token in the header “%(value)s”"),
    "expired_status_codes": gettext_lazy("expired at %(value)s"),
    "reauthorization_words": gettext_lazy("words that mean re-authorize"),
}


# ---- What a preset or an issuer fills in ------------------------------------------------------


def _text(value: Any) -> str:
    """Return a value of a column as a browser would post it."""
    if isinstance(value, Mapping):
        return parameters_text(value)
    if isinstance(value, list | tuple):
        return ("\n" if any(isinstance(one, str) for one in value) else ", ").join(map(str, value))
    return str(value)


# The standard values; a preset resets the fields to them first.
_STANDARD = {name: _text(AUTHORIZATION_FIELDS[name].get_default()) for name in ADVANCED_FIELDS}
_RESET = {**_STANDARD, "issuer": "", "client_authentication": "basic_header"}
# Fields from which the answers to a preset's questions can be recovered.
_TEMPLATED_FIELDS = ("auth_url", "token_url", "assertion_claims")
# Fields that a button may fill in: no secrets, and none outside this section.
FILLABLE = frozenset({*_RESET, "provider", "grant_type", "auth_url", "token_url", "scope"})


def as_text(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of fillable fields as a browser would post them."""
    return {name: _text(value) for name, value in fields.items() if name in FILLABLE}


def fill_in(data: QueryDict) -> None:
    """Fill in the posted data from the chosen preset, or from the values the button carries."""
    if data.get("action") == "use_preset":
        try:
            preset = as_text(oauth.fill(data.get("provider", ""), _answers(data)))
        except oauth.MisconfiguredError:
            return
        values = (
            _RESET
            | _grant(str(data.get("grant_type", "")))
            | preset
            | _scope(preset, str(data.get("scope", "")).strip())
        )
    else:
        values = _carried_values(data.get("fill", ""))
    for name, value in values.items():
        data[name] = value


def _grant(chosen: str) -> dict[str, str]:
    """Reset a grant type that a preset may have filled in; keep any other."""
    of_presets = {one.fields.get("grant_type") for one in oauth.PRESETS.values()}
    return {"grant_type": GrantType.AUTHORIZATION_CODE.value} if chosen in of_presets else {}


def _scope(preset: Mapping[str, str], typed: str) -> dict[str, str]:
    """Return the scope: a typed one is kept, one that a preset filled in is replaced."""
    of_providers = {str(one.fields.get("scope", "")) for one in oauth.PRESETS.values()}
    return {"scope": preset.get("scope", "") if typed in of_providers | {""} else typed}


def _carried_values(text: str) -> dict[str, str]:
    try:
        values = json.loads(text[:_LONGEST_FILL])
    except (ValueError, RecursionError):
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


def _questions(
    preset: oauth.ProviderPreset, addresses: Mapping[str, str], data: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the questions of a preset, each with the name and value of its input."""
    return [
        {
            "question": question,
            "input_name": (name := _input_name(preset, question.name)),
            "value": data.get(name)
            or _read_back(preset, question.name, addresses)
            or question.default,
        }
        for question in preset.questions
    ]


def _input_name(preset: oauth.ProviderPreset, question: str) -> str:
    return f"preset-{preset.key}-{question}"


def _read_back(preset: oauth.ProviderPreset, question: str, addresses: Mapping[str, str]) -> str:
    """Return the answer that the current addresses were filled in with, or ""."""
    others = [f"{{{one.name}}}" for one in preset.questions if one.name != question]
    for field, address in addresses.items():
        template = re.escape(_text(preset.fields.get(field, "")))
        pattern = template.replace(re.escape(f"{{{question}}}"), "([A-Za-z0-9.-]+)", 1)
        is_asked = pattern != template
        for other in others:
            pattern = pattern.replace(re.escape(other), "[A-Za-z0-9.-]+")
        if is_asked and (found := re.fullmatch(pattern, "\n".join(address.splitlines()))):
            return found[1]
    return ""


# ---- Discovery at an issuer -------------------------------------------------------------------

# Fields that are compared with the discovered values, in the order of the page.
_DISCOVERED_FIELDS = (
    *("auth_url", "token_url", "revocation_url", "client_authentication"),
    *("uses_pkce", "requires_issuer"),
)


def find_endpoints(data: Mapping[str, Any]) -> dict[str, Any]:
    """Run discovery at the posted issuer; `problem` says why it failed. Takes up to 10 s."""
    issuer = str(data.get("issuer", "")).strip()
    if not issuer:
        return {"problem": _("Enter the issuer, for example “https://accounts.google.com”.")}
    grant = str(data.get("grant_type", ""))
    try:
        discovered = oauth.discover(
            issuer,
            grant=GrantType(grant) if grant in GrantType.values else GrantType.AUTHORIZATION_CODE,
            authentication=str(data.get("client_authentication", "")),
        )
    except oauth.MisconfiguredError as error:
        return {"problem": str(error)}
    values = as_text(discovered.fields)
    # For each field, the discovered value and the current one.
    rows = [
        {
            "label": LABELS[field],
            "found": _display_value(field, values[field]),
            "now": _display_value(field, now := str(data.get(field, "")).strip()),
            "is_same": values[field] == now,
        }
        for field in _DISCOVERED_FIELDS
        if field in values
    ]
    return {
        "rows": rows,
        "is_same": all(row["is_same"] for row in rows),
        # JSON of field names and values, for the button that fills them in.
        "filling": json.dumps(values),
        "notes": discovered.notes,
        "scopes": discovered.scopes[:_SCOPES_SHOWN],
    }


def _display_value(field: str, value: str) -> str:
    if field == "client_authentication":
        return str(dict(ClientAuthentication.choices).get(value, value))
    if field in ("uses_pkce", "requires_issuer"):
        return {"True": str(_YES), "False": str(_NO)}.get(value, value)
    return value
