"""The form of a connection: a named credential, and the hosts it is bound to."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import network
from webhooks.models import (
    AuthorizationType,
    Credential,
    host_entry,
    host_origin,
    is_plain_http,
)
from webhooks.security.drafts import Draft
from webhooks.ui.fields import ListField, require_visible
from webhooks.ui.webhook_form.credential_form import CREDENTIAL_FIELDS, CredentialForm
from webhooks.ui.webhook_form.sections import ALERT_FIELDS

MAX_HOSTS = 50


class HostsField(ListField):
    """Hosts or origins, one per line; cleans to a list for `Credential.allowed_hosts`."""

    separators = r"[\s,]+"
    limit = MAX_HOSTS
    too_many = gettext_lazy("%(count)d hosts are too many; the limit is %(limit)d.")

    def read(self, typed: list[str]) -> list[str]:
        return list(dict.fromkeys(map(_host, typed)))


def _host(typed: str) -> str:
    """Return a line in the form that is compared with the origin of a URL. Raises ValidationError.

    A host without a scheme means https on the default port.
    """
    text = f"[{typed}]" if typed.count(":") > 1 and "/" not in typed and "[" not in typed else typed
    is_url = "://" in text
    try:
        target = network.parse_url(text if is_url else f"https://{text}")
    except network.UnsafeURLError as error:
        raise ValidationError(
            _(
                "“%(typed)s” is not a host. Enter one per line, like crm.example.com or "
                "http://crm.example.com:8080."
            ),
            code="invalid",
            params={"typed": typed[:80]},
        ) from error
    if target.url != f"{target.origin}/" or "#" in text or text.endswith("/"):
        raise ValidationError(
            _("“%(typed)s” is more than a host. Enter only %(host)s."),
            code="not_alone",
            params={"typed": typed[:80], "host": host_entry(target.origin)},
        )
    return host_entry(target.origin)


class ConnectionForm(CredentialForm):
    """Create or edit a connection."""

    allowed_hosts = HostsField(
        label=gettext_lazy("Hosts"),
        required=True,
        widget=forms.Textarea(
            {"rows": 2, "class": "mono", "autocomplete": "off", "spellcheck": "false"}
        ),
        help_text=gettext_lazy(
            "One per line, for example “crm.example.com” for https on port 443, or "
            "“https://crm.example.com:8443”. The credentials are sent nowhere else."
        ),
        error_messages={
            "required": gettext_lazy("Enter at least one host, for example “crm.example.com”.")
        },
    )
    # A connection sends no deliveries that could fail.
    alert_after_failures = None  # type: ignore[assignment]
    alert_failure_percent = None  # type: ignore[assignment]

    class Meta:
        model = Credential
        fields = ["name", "allowed_hosts", "accepts_plain_http", *ALERT_FIELDS]

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        instance: Credential,
        draft: Draft,
        is_checked: bool = True,
    ) -> None:
        super().__init__(
            data, instance=instance, credential=instance, draft=draft, is_checked=is_checked
        )
        self.fields["alert_recipients"].help_text = _(
            "One email address per line. They and the recipients of its webhooks are "
            "notified when the access token is lost, daily until it is replaced, and when "
            "it works again."
        )
        self.fields["name"].required = True
        self.fields["name"].validators.append(require_visible)
        self.fields["name"].help_text = _("For example “CRM login”.")
        self.fields["name"].error_messages["required"] = _("Enter a name.")
        kind: Any = self.fields["authorization_type"]
        kind.choices = [choice for choice in kind.choices if choice[0] != AuthorizationType.NONE]
        kind.required = True

    @property
    def alerts_summary(self) -> str:
        if self["alert_recipients"].value():
            return super().alerts_summary
        return _("only the recipients of its webhooks")

    def plain_http_origins(self) -> list[str]:
        try:
            hosts = HostsField().to_python(self["allowed_hosts"].value())
        except ValidationError:
            return []
        return [origin for host in hosts if is_plain_http(origin := host_origin(host))]

    @property
    def has_new_receivers(self) -> bool:
        return bool({*self.instance.allowed_hosts} - {*self._stored["allowed_hosts"]})

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        others = Credential.objects.shared().exclude(pk=self.instance.pk)
        if others.filter(name__iexact=name).exists():
            raise ValidationError(
                _("Another connection has this name."),
                code="taken",
            )
        return name

    def save(self, commit: bool = True) -> Credential:
        """Save in one transaction; deliveries held for other credentials or hosts are retried."""
        connection: Credential = self.instance
        is_new = connection.pk is None
        fields = {*(self._meta.fields or ()), *CREDENTIAL_FIELDS, *self.set_secrets()}
        with transaction.atomic():
            connection.save(**({} if is_new else {"update_fields": fields}))
            if not is_new:
                self.correct_authorization(
                    has_other_changes=self.differs_from_stored("allowed_hosts")
                )
        self.draft.discard()
        return connection
