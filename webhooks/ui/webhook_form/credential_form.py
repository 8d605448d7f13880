"""What the forms of a webhook and of a connection share: the credential and the alerts.

Typed secrets are kept in a `Draft` while the form is shown again.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.models import construct_instance, model_to_dict
from django.forms.utils import ErrorDict
from django.utils.translation import gettext_lazy as _

from webhooks import events, network, oauth
from webhooks.models import (
    CREDENTIAL_SECRETS,
    AuditEntry,
    AuthorizationType,
    Credential,
    OAuthToken,
    TokenState,
    Webhook,
)
from webhooks.security.drafts import Draft
from webhooks.ui import shared_credentials
from webhooks.ui.fields import (
    CLEAR,
    PLAIN_HTTP_HELP,
    CopyInput,
    SecretFormField,
    plain_http_refusal,
)
from webhooks.ui.webhook_form import authorization
from webhooks.ui.webhook_form.oauth_fields import OAuthFields, choice_field, text_field
from webhooks.ui.webhook_form.pasted_curl import Pasted
from webhooks.ui.webhook_form.sections import ALERT_FIELDS, AlertFields, mute_shown

# The columns of the credential that the page shows; secrets are never among them.
CREDENTIAL_FIELDS = (
    *("authorization_type", "basic_login"),
    *(name for name in authorization.OAUTH_FIELDS if name not in CREDENTIAL_SECRETS),
)
# The address guard checks these as typed: surrounding spaces are rejected here as elsewhere.
_ADDRESSES = ("url", "issuer", "auth_url", "token_url", "refresh_url", "revocation_url")
_PAGE_ORDER = (
    *("is_active", "held", "name", "allowed_hosts", "method", "url"),
    *("accepts_secret_in_url", "accepts_plain_http", "event_types"),
    *("connection", "authorization_type"),
    *authorization.BASIC_FIELDS,
    *authorization.OAUTH_FIELDS,
    authorization.CERTIFICATE,
)


class CredentialForm(OAuthFields, AlertFields, forms.ModelForm):  # type: ignore[type-arg]
    """Validate the authorization of a webhook or a connection, and save it with the instance.

    `is_checked=False` shows the posted data again without validation, for buttons that only change
    the form, such as another authorization type or one more header.
    """

    use_required_attribute = False

    authorization_type = choice_field("authorization_type")
    basic_login = text_field("basic_login")
    basic_password = SecretFormField(label=_("Password"))
    token_name = text_field("token_name")
    callback_url = text_field(
        "callback_url",
        _(
            "Register exactly this URL at the provider. After you approve, it sends you "
            "back here with a code."
        ),
        widget=CopyInput,
        inputmode="url",
    )
    auth_url = text_field(
        "auth_url", inputmode="url", placeholder="https://provider.example/oauth/authorize"
    )
    token_url = text_field(
        "token_url", inputmode="url", placeholder="https://provider.example/oauth/token"
    )
    client_id = text_field("client_id")
    client_secret = SecretFormField(
        label=_("Client secret"),
        strip=True,
        help_text=_("This app's password at the provider."),
    )
    scope = text_field("scope", placeholder="read write")
    client_authentication = choice_field("client_authentication")

    # Fields that follow those of `_PAGE_ORDER` on the page.
    page_end: tuple[str, ...] = ALERT_FIELDS

    def __init__(
        self,
        data: Mapping[str, Any] | None,
        *,
        instance: Webhook | Credential,
        credential: Credential,
        draft: Draft,
        is_checked: bool,
        **initial: Any,
    ) -> None:
        shown = {
            **model_to_dict(credential, CREDENTIAL_FIELDS),
            "callback_url": credential.callback_url or oauth.default_callback_url(),
            **mute_shown(instance),
            **initial,
        }
        super().__init__(data, instance=instance, initial=shown)
        self.fields["accepts_plain_http"].help_text = PLAIN_HTTP_HELP
        for name in _ADDRESSES:
            if name in self.fields:
                address: Any = self.fields[name]
                address.strip = False
        self.credential = credential
        self.draft = draft
        self.is_checked = is_checked
        # The newest audit entry that the values include, and the conflicting entries after it.
        self.seen = ""
        self.conflicts: list[AuditEntry] = []
        # The stored client secret that this save replaces.
        self._replaced_secret = ""
        self._replaced_origins: list[str] = []
        # What a pasted cURL command filled in, if there was one.
        self.pasted: Pasted | None = None
        # Values from before validation, which writes into the instances.
        self._fingerprint = oauth.fingerprint(credential, self.receiver_url)
        self._stored = {
            **{name: getattr(instance, name) for name in self._meta.fields or ()},
            **{name: getattr(credential, name) for name in CREDENTIAL_FIELDS},
        }
        # Accepted even if DNS cannot resolve them: the name server may be down for a moment.
        self.trusted_addresses = {name: self._stored.get(name) for name in _ADDRESSES}
        for field in CREDENTIAL_SECRETS:
            self._keep_typed(field)

    @property
    def receiver_url(self) -> str:
        """Return the URL of the webhook that owns the credential; empty for a connection."""
        return self.instance.url if isinstance(self.instance, Webhook) else ""

    @property
    def public_keys_url(self) -> str:
        return oauth.public_keys_url(self.credential)

    @property
    def chosen_type(self) -> str:
        """Return the authorization type whose fields are shown."""
        value = str(self["authorization_type"].value())
        return value if value in AuthorizationType.values else AuthorizationType.NONE

    @property
    def advanced_summary(self) -> str:
        """Return one line about the settings in the closed Advanced section."""
        certificate: Any = self.fields[authorization.CERTIFICATE]
        parts = self.differences if self.chosen_type == AuthorizationType.OAUTH2 else []
        if certificate.widget.is_set:
            parts = [*parts, str(certificate.label)]
        words = ", ".join(parts) or _("Default settings")
        return words[:1].upper() + words[1:]

    def mark(self, fields: Iterable[str]) -> None:
        """Mark the fields that the provider's error is about; the token panel shows the error."""
        for field in fields:
            if field in self.fields and not self.is_bound:
                self.fields[field].widget.attrs |= {
                    "aria-invalid": "true",
                    "aria-describedby": "token-error",
                }

    def problems(self) -> list[dict[str, Any]]:
        """Return every error with its field's label and id, in the order of the page."""
        first, last = (
            field_errors(self[name] for name in names if name in self.fields)
            for names in (_PAGE_ORDER, self.page_end)
        )
        return [*first, *self.part_problems(), *last]

    def part_problems(self) -> list[dict[str, Any]]:
        """Return the errors of parts that come before the fields of `page_end` on the page."""
        return []

    def full_clean(self) -> None:
        if self.is_checked:
            super().full_clean()
            return
        self._errors, self.cleaned_data = ErrorDict(), {}

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        construct_instance(self, self.credential, CREDENTIAL_FIELDS)
        if self.sends_own_credential:
            self._check_secret_origins()

    @property
    def sends_own_credential(self) -> bool:
        """Return whether requests are authorized with the credential of this form."""
        return True

    def _check_secret_origins(self) -> None:
        """Reject stored secrets that would be sent to an origin they were not entered for."""
        for field in self.credential.secrets_used:
            if self.cleaned_data.get(field) or not self.credential.has_secret(field):
                continue
            for origin in self.credential.secret_destinations(field, self.receiver_url):
                if sentence := shared_credentials.bound_elsewhere(self.credential, field, origin):
                    self.refuse_secret(field, sentence)
                    break

    def refuse_secret(self, field: str, sentence: str) -> None:
        """Require that a stored secret is entered again; `sentence` is the error message."""
        if field not in self.errors:
            self.add_error(field, sentence)

    def clean_callback_url(self) -> str:
        url: str = self.cleaned_data["callback_url"] or oauth.default_callback_url()
        # The page shows the default if none is stored; posting it back is not a change.
        was_empty = self.instance.pk and not self._stored["callback_url"]
        return "" if was_empty and url == oauth.default_callback_url() else url

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        for field in CREDENTIAL_SECRETS:
            if field in values and not values[field]:
                # If nothing was typed now, take what was typed when the form was shown before. It
                # may have been refused then.
                try:
                    values[field] = self.fields[field].clean(self.draft.get(field))
                except ValidationError as error:
                    self.add_error(field, error)
        # Radio buttons that are not posted keep the stored value.
        for field in (
            "authorization_type",
            "grant_type",
            "client_authentication",
            "token_placement",
        ):
            values[field] = values.get(field) or self._stored[field]
        self._check_authorization(values)
        self._check_plain_http(values)
        return values

    def check_url(self, url: str) -> None:
        """Parse a URL and look up its host. Errors: UnsafeURLError, NameNotResolvedError."""
        network.check_url(url)

    def _check_authorization(self, values: dict[str, Any]) -> None:
        """Validate the fields of the chosen type; drop the errors of the others."""
        chosen = values["authorization_type"]
        self._drop_errors(authorization.unchosen_fields(chosen, values["grant_type"]))
        errors: dict[str, Any] = {}
        if chosen == AuthorizationType.BASIC:
            errors = authorization.basic_errors(
                values, has_password=self.secret_is_set("basic_password")
            )
        elif chosen == AuthorizationType.OAUTH2:
            errors = authorization.oauth_errors(
                values,
                trusted=self.trusted_addresses,
                secrets={name for name in CREDENTIAL_SECRETS if self.secret_is_set(name)},
                check_url=self.check_url,
            )
        for field, sentence in errors.items():
            if field not in self.errors:
                self.add_error(field, sentence)

    @property
    def asks_plain_http(self) -> bool:
        """Return whether the page shows the checkbox for plain http."""
        field = self["accepts_plain_http"]
        return bool(field.errors or field.value() or self.plain_http_origins())

    def plain_http_origins(self) -> list[str]:
        """Return the origins of the typed receivers that use plain http."""
        raise NotImplementedError

    def sends_secrets(self) -> bool:
        """Return whether requests carry something that only the receiver may read."""
        return self.sends_own_credential and self.cleaned_data.get("authorization_type") in (
            AuthorizationType.BASIC,
            AuthorizationType.OAUTH2,
        )

    def _check_plain_http(self, values: dict[str, Any]) -> None:
        if values.get("accepts_plain_http") or not self.sends_secrets():
            return
        if origins := self.plain_http_origins():
            self.add_error("accepts_plain_http", plain_http_refusal(origins[0]))

    def secret_is_set(self, field: str) -> bool:
        """Return whether the credential will have this secret after saving."""
        typed = self.cleaned_data.get(field)
        if typed is CLEAR:
            return False
        return bool(typed or self.credential.has_secret(field))

    def differs_from_stored(self, *names: str) -> bool:
        """Return whether one of these fields differs from its stored value."""
        return any(
            getattr(self.credential if name in CREDENTIAL_FIELDS else self.instance, name)
            != self._stored[name]
            for name in names
        )

    def set_secrets(self) -> set[str]:
        """Set typed and cleared secrets on the credential; return the names of changed columns."""
        written = set()
        if self.cleaned_data.get("client_secret") and self.credential.has_secret("client_secret"):
            self._replaced_secret = self.credential.client_secret
            self._replaced_origins = self.credential.secret_origins.get("client_secret", [])
        for field in CREDENTIAL_SECRETS:
            typed = self.cleaned_data.get(field)
            if typed:
                self.credential.set_secret(field, "" if typed is CLEAR else typed)
                written |= {field, "secrets_changed_at"}
        if self.credential.signs_with_key and not self.credential.has_secret("client_key"):
            self.credential.set_secret("client_key", oauth.make_key())
            written |= {"client_key", "secrets_changed_at"}
        return written

    def save_credential(self) -> None:
        """Save a new credential, or the changed columns of a stored one."""
        secrets = self.set_secrets()
        # The stored row of the webhook does not have the new URL yet: it is saved afterwards.
        self.credential.bind_secrets(self.receiver_url)
        changed = {name for name in CREDENTIAL_FIELDS if self.differs_from_stored(name)}
        if self.credential.pk is None:
            self.credential.save()
        elif changed or secrets:
            self.credential.save(update_fields=changed | secrets)

    def correct_authorization(self, *, has_other_changes: bool) -> None:
        """Drop tokens of another client, and release the deliveries held for the old settings.

        Those that still cannot be sent are held again. `has_other_changes` says that a setting
        outside the credential was changed that a delivery may be held for.
        """
        misconfigured = OAuthToken.objects.filter(
            credential=self.credential, state=TokenState.MISCONFIGURED
        )
        was_misconfigured = misconfigured.exists()
        fingerprint = "" if self.has_new_receivers else self._fingerprint
        oauth.drop_if_changed(fingerprint, self.credential, self.receiver_url)
        if self._replaced_secret:
            oauth.keep_replaced_secret(
                self.credential.pk,
                old=self._replaced_secret,
                origins=self._replaced_origins,
                new=self.credential.client_secret,
            )
        if was_misconfigured or has_other_changes or self.differs_from_stored(*CREDENTIAL_FIELDS):
            events.release_held(self.credential)

    @property
    def has_new_receivers(self) -> bool:
        """Return whether a stored token would be sent to receivers it was not granted for."""
        return False

    def _drop_errors(self, fields: set[str]) -> None:
        """Drop the errors of fields that are not used; those keep their stored values."""
        for field in fields & self.errors.keys():
            del self.errors[field]
            if field not in CREDENTIAL_SECRETS:
                self.cleaned_data[field] = self._stored[field]

    def _keep_typed(self, field: str) -> None:
        """Move a typed secret into the draft, and set what the widget shows about it."""
        widget: Any = self.fields[field].widget
        value = self[field].data if self.is_bound else ""
        widget.is_cleared = value is CLEAR or isinstance(value, tuple)
        if isinstance(value, tuple):
            value = value[1]
        if value is CLEAR:
            self.draft.keep(field, "")
        elif value:
            self.draft.keep(field, value)
        widget.is_typed = bool(self.draft.get(field))
        widget.is_set = self.credential.has_secret(field)
        widget.changed_at = self.credential.secrets_changed_at.get(field, "")


def field_errors(fields: Iterable[forms.BoundField]) -> list[dict[str, Any]]:
    """Return every error of bound fields with its field's label and id."""
    return [
        {"target": field.auto_id, "label": field.label, "sentence": sentence}
        for field in fields
        for sentence in field.errors
    ]
