"""Which credential a webhook sends: its own, or a connection bound to its receiver."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import network
from webhooks.models import (
    CREDENTIAL_SECRETS,
    Credential,
    EditedRow,
    may_be_sent_to,
    origin_of,
)

if TYPE_CHECKING:
    _ModelChoiceField = forms.ModelChoiceField[Credential]
else:
    _ModelChoiceField = forms.ModelChoiceField

# What the form shows in place of an authorization type while a connection is chosen.
CONNECTION = "connection"
# Of a connection for many hosts the first few are named.
_HOSTS_SHOWN = 2


def known_origin(url: object) -> str:
    """Return the origin of an address as connections spell it; empty while it is not one."""
    try:
        return network.parse_url(str(url or "").strip()).origin
    except network.UnsafeURLError:
        return ""


def connections() -> QuerySet[Credential]:
    """Return every connection with its token, and without its secrets."""
    found = Credential.objects.shared().select_related("token")
    return found.defer(*CREDENTIAL_SECRETS, "token__access_token", "token__refresh_token")


class ConnectionSelect(forms.Select):
    """A select whose connections for other receivers cannot be chosen; the chosen one can."""

    origin = ""

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option: dict[str, Any] = super().create_option(name, value, *args, **kwargs)
        connection = getattr(value, "instance", None)
        if connection is not None:
            option["attrs"]["data-origins"] = " ".join(connection.receiver_origins)
            is_allowed = not self.origin or may_be_sent_to(connection, self.origin)
            if not is_allowed and not option["selected"]:
                option["attrs"]["disabled"] = True
        return option


class ConnectionField(_ModelChoiceField):
    """One of the connections, or none for the webhook's own credentials."""

    widget = ConnectionSelect

    def label_from_instance(self, connection: Any) -> str:
        hosts = ", ".join(connection.allowed_hosts[:_HOSTS_SHOWN])
        if len(connection.allowed_hosts) > _HOSTS_SHOWN:
            hosts += ", …"
        return _("%(name)s (%(type)s, only for %(hosts)s)") % {
            "name": connection.name,
            "type": connection.get_authorization_type_display(),
            "hosts": hosts,
        }


class ConnectionChoice(forms.Form):
    """The choice, and what follows from it."""

    connection = ConnectionField(
        label=gettext_lazy("Credentials"),
        queryset=Credential.objects.none(),
        required=False,
        empty_label=gettext_lazy("This webhook's own"),
        widget=ConnectionSelect({"data-connection": True}),
        help_text=gettext_lazy(
            "A connection is a login or an access token that several webhooks use. It can be "
            "chosen when the URL leads to one of its hosts."
        ),
        error_messages={
            "invalid_choice": gettext_lazy(
                "This connection does not exist any more. Choose another one."
            )
        },
    )

    def offer_connections(self, found: QuerySet[Credential]) -> None:
        field: Any = self.fields["connection"]
        field.queryset = found
        field.widget.origin = known_origin(self["url"].value())
        field.widget.attrs |= {
            "hx-get": reverse("webhooks:connection_panel"),
            "hx-target": "#connection-panel",
        }

    def keep_connection(self) -> None:
        """Offer only what is used already, to somebody who may not see the others."""
        current: Any = self.initial.get("connection")
        self.offer_connections(connections().filter(pk=current))

    @property
    def has_connections(self) -> bool:
        """Return whether there is anything to choose; most sites never need a connection."""
        field: Any = self.fields["connection"]
        return len(field.choices) > 1

    @property
    def chosen_connection(self) -> Credential | None:
        try:
            found: Credential | None = self.fields["connection"].clean(self["connection"].value())
        except ValidationError:
            return None
        return found


def check_receiver(credential: Credential, url: str) -> None:
    """Refuse a credential for an address it may not be sent to. Raises ValidationError."""
    origin = known_origin(url)
    if origin and not may_be_sent_to(credential, origin):
        raise ValidationError(
            _(
                "“%(name)s” may not be sent to %(origin)s. Add it to the hosts of the connection, "
                "or choose another one."
            ),
            code="host",
            params={"name": credential.name, "origin": origin},
        )


def bound_elsewhere(owner: EditedRow, field: str, url: str) -> str:
    """Return why a stored secret has to be entered again for an address; empty when it has not."""
    if may_be_sent_to(owner, url, field):
        return ""
    known = owner.secret_origins.get(field, [])
    if not known:
        sentence = _("Enter it again: it was not entered for %(origin)s.")
    else:
        sentence = _(
            "Enter it again to send it to %(origin)s: it was entered for %(known)s and goes "
            "nowhere else."
        )
    return sentence % {"origin": origin_of(url), "known": ", ".join(known)}
