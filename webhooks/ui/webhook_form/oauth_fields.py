"""The form's OAuth 2.0 fields: how each is drawn and what it says.

Also what the folded Advanced section says about them, and which provider is chosen. Whether what
was entered is right is `webhooks.ui.webhook_form.authorization`.
"""

from typing import Any

from django import forms
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import oauth
from webhooks.models import GrantType, TokenPlacement
from webhooks.ui.fields import ParametersField, StatusCodesField, WordsField
from webhooks.ui.webhook_form import providers
from webhooks.ui.webhook_form.authorization import ADVANCED_FIELDS, CODE_FIELDS


def text_field(label: Any, help_text: Any, *, length: int, **attributes: str) -> forms.CharField:
    widget = forms.TextInput({"autocomplete": "off", "spellcheck": "false", **attributes})
    return forms.CharField(
        label=label, help_text=help_text, max_length=length, required=False, widget=widget
    )


def choice_field(label: Any, choices: Any, help_text: Any = "") -> forms.ChoiceField:
    """Return radios that keep what is stored when they are left out."""
    return forms.ChoiceField(
        label=label,
        choices=choices,
        required=False,
        widget=forms.RadioSelect,
        help_text=help_text,
    )


def _switch(
    label: Any, *, yes: Any, no: Any, help_text: Any, is_on: bool
) -> forms.TypedChoiceField:
    """Return two radios for a boolean that is kept when they are left out, unlike a checkbox."""
    return forms.TypedChoiceField(
        label=label,
        # The standard's choice comes first.
        choices=[(True, yes), (False, no)] if is_on else [(False, no), (True, yes)],
        coerce=lambda value: value == "True",
        empty_value=None,
        required=False,
        widget=forms.RadioSelect,
        help_text=help_text,
    )


class OAuthFields(forms.Form):
    """The fields beyond those every provider needs."""

    grant_type = choice_field(gettext_lazy("Grant type"), GrantType.choices)
    provider = forms.ChoiceField(
        label=gettext_lazy("Provider"),
        choices=providers.choices,
        required=False,
        widget=forms.Select({"data-provider": True}),
        help_text=gettext_lazy("Choosing one fills in what is the same for everybody."),
    )
    issuer = text_field(
        gettext_lazy("Issuer"),
        gettext_lazy(
            "The provider's own name, for example “https://accounts.google.com”. It finds the "
            "addresses, and answers of any other issuer are refused."
        ),
        length=2048,
        inputmode="url",
    )
    uses_pkce = _switch(
        gettext_lazy("Use PKCE"),
        yes=gettext_lazy("Yes"),
        no=gettext_lazy("No"),
        help_text=gettext_lazy("Off only for a provider that refuses it."),
        is_on=True,
    )
    requires_issuer = _switch(
        gettext_lazy("Answers name the issuer"),
        yes=gettext_lazy("Yes"),
        no=gettext_lazy("No"),
        help_text=gettext_lazy(
            "Yes when the provider promises it (RFC 9207); an answer without it is then refused."
        ),
        is_on=False,
    )
    scope_separator = choice_field(
        gettext_lazy("Scope separator"),
        [(" ", gettext_lazy("Space")), (",", gettext_lazy("Comma"))],
    )
    audience = text_field(
        gettext_lazy("Audience"),
        gettext_lazy(
            "Sent as “audience”, for example “https://api.example.com”; several with spaces "
            "between. Auth0 asks for it."
        ),
        length=2048,
    )
    resource = text_field(
        gettext_lazy("Resource"),
        gettext_lazy(
            "Sent as “resource” (RFC 8707): addresses with spaces between, for example "
            "“https://api.example.com”."
        ),
        length=2048,
        inputmode="url",
    )
    authorization_parameters = ParametersField(
        label=gettext_lazy("Extra authorization parameters"),
        reserved=oauth.RESERVED_IN_AUTHORIZATION,
        help_text=gettext_lazy("One a line, for example “prompt=consent”."),
    )
    token_parameters = ParametersField(
        label=gettext_lazy("Extra token parameters"),
        reserved=oauth.RESERVED_IN_TOKEN_REQUEST,
        help_text=gettext_lazy(
            "Sent when an approval becomes a token, one a line, for example “tenant=42”."
        ),
    )
    refresh_parameters = ParametersField(
        label=gettext_lazy("Extra refresh parameters"),
        reserved=oauth.RESERVED_IN_TOKEN_REQUEST,
        help_text=gettext_lazy(
            "Sent when a token is refreshed, one a line, for example “tenant=42”."
        ),
    )
    uses_json_token_request = _switch(
        gettext_lazy("Token request as"),
        yes=gettext_lazy("JSON"),
        no=gettext_lazy("Form"),
        help_text=gettext_lazy("The standard is a form."),
        is_on=False,
    )
    refresh_url = text_field(
        gettext_lazy("Refresh URL"),
        gettext_lazy(
            "Only when refreshing has an address of its own, for example "
            "“https://provider.example/oauth/refresh”."
        ),
        length=2048,
        inputmode="url",
    )
    revocation_url = text_field(
        gettext_lazy("Revocation URL"),
        gettext_lazy(
            "Told when a token is cleared or the webhook is deleted, for example "
            "“https://provider.example/oauth/revoke”."
        ),
        length=2048,
        inputmode="url",
    )
    token_path = text_field(
        gettext_lazy("Path of the token in the answer"),
        gettext_lazy("For example “authed_user.access_token”. Empty: “access_token”."),
        length=200,
    )
    token_placement = choice_field(gettext_lazy("Send the token in"), TokenPlacement.choices)
    header_prefix = text_field(
        gettext_lazy("Header prefix"),
        gettext_lazy("The word before the token, normally “Bearer”. Empty: the token alone."),
        length=64,
        list="header-prefixes",
    )
    token_query_parameter = text_field(
        gettext_lazy("Name of the parameter"),
        gettext_lazy("What stands before the token in the address, for example “auth”."),
        length=64,
    )
    expired_status_codes = StatusCodesField(
        label=gettext_lazy("Status codes that mean the token expired"),
        help_text=gettext_lazy(
            "The token is then refreshed, once. For example “401, 419”; empty: 401."
        ),
    )
    reauthorization_words = WordsField(
        label=gettext_lazy("Words that mean re-authorize"),
        help_text=gettext_lazy(
            "One a line, for example “token expired”. A refusal of the token endpoint with one of "
            "them ends the grant."
        ),
    )

    @property
    def chosen_grant(self) -> str:
        value = str(self["grant_type"].value())
        return value if value in GrantType.values else GrantType.AUTHORIZATION_CODE

    @property
    def sends_token_in_query(self) -> bool:
        return bool(self["token_placement"].value() == TokenPlacement.QUERY)

    @property
    def callback_to_register(self) -> str:
        return self["callback_url"].value() or oauth.default_callback_url()

    @property
    def guides(self) -> list[providers.Guide]:
        """Return what to register at each provider."""
        chosen = self["provider"].value() or ""
        data = self.data if self.is_bound else {}
        addresses = {name: self[name].value() or "" for name in ("auth_url", "token_url")}
        return providers.guides(chosen, addresses=addresses, data=data)

    @cached_property
    def endpoints(self) -> providers.Endpoints | None:
        """Ask the issuer when its button was pressed; None when it was not."""
        is_asked = self.is_bound and self.data.get("action") == "find_endpoints"
        return providers.find(self.data) if is_asked else None

    @property
    def compared_fields(self) -> str:
        return ",".join(providers.COMPARED)

    @property
    def has_issuer_open(self) -> bool:
        is_openid = self["provider"].value() == "openid"
        return bool(self["issuer"].errors) or is_openid or self.endpoints is not None

    @property
    def has_advanced_open(self) -> bool:
        return any(self[field].errors for field in ADVANCED_FIELDS)

    @property
    def advanced_summary(self) -> str:
        """Return one line about what differs from the standard."""
        differing = [words for words in map(self._difference, ADVANCED_FIELDS) if words]
        return ", ".join(differing) or _("as the standard says")

    def _difference(self, field: str) -> str:
        """Return a few words about a field that is not as it normally is."""
        value = str(self[field].value() if self[field].value() is not None else "")
        # An empty list of status codes means 401.
        is_default = field == "expired_status_codes" and value.strip() == "401"
        if is_default or value == providers.STANDARD[field] or not self._is_used(field):
            return ""
        if field == "header_prefix":
            return _("header prefix “%s”") % value[:30] if value else _("no header prefix")
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
        if field == "header_prefix":
            return not self.sends_token_in_query
        return field not in CODE_FIELDS or self.chosen_grant != "client_credentials"


_DIFFERENCES = {
    "uses_pkce": gettext_lazy("no PKCE"),
    "requires_issuer": gettext_lazy("answers name the issuer"),
    "scope_separator": gettext_lazy("scopes with commas"),
    "audience": gettext_lazy("audience"),
    "resource": gettext_lazy("resource"),
    "uses_json_token_request": gettext_lazy("JSON token request"),
    "refresh_url": gettext_lazy("refresh URL"),
    "revocation_url": gettext_lazy("revocation URL"),
    "token_path": gettext_lazy("token at “%(value)s”"),
    "token_placement": gettext_lazy("token in the address"),
    "expired_status_codes": gettext_lazy("expired at %(value)s"),
    "reauthorization_words": gettext_lazy("words that end the grant"),
}
