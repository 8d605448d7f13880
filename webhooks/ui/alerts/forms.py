"""The form of an alert channel, with the fields of its kind. Stored URLs and tokens stay hidden."""

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks import network
from webhooks.models import AlertChannel, ChannelKind, Webhook, is_plain_http, origin_of
from webhooks.ui.fields import (
    PLAIN_HTTP_HELP,
    RowsField,
    SecretInput,
    plain_http_refusal,
    require_visible,
)

_BOT_TOKEN = re.compile(r"[0-9]{5,20}:[A-Za-z0-9_-]{20,100}")
_CHAT_ID = re.compile(r"-?[0-9]{1,20}|@[A-Za-z0-9_]{3,64}")
_HINTS = {
    ChannelKind.SLACK: _(
        "The URL of an incoming webhook of your workspace: https://hooks.slack.com/services/…"
    ),
    ChannelKind.TEAMS: _(
        "The URL that the workflow “Post to a channel when a webhook request is received” shows."
    ),
    ChannelKind.WEBHOOK: _("Gets a POST with JSON: title, text, link, kind, opened_at, …"),
}

_MISSING = {
    "name": _("Enter a name."),
    "secret": _("Enter it. Alerts cannot be sent without it."),
    "recipient": _("Enter where alerts are sent."),
}


class WebhooksInput(forms.CheckboxSelectMultiple):
    """Checkboxes, drawn without a template for each."""

    template_name = "webhooks/alerts/_webhooks.html"


class _ReplacedSecretInput(SecretInput):
    """A secret that can be shown while it is typed, and replaced but not cleared."""

    def value_from_datadict(
        self, data: Mapping[str, Any], files: MultiValueDict[str, Any], name: str
    ) -> Any:
        return data.get(name)


class WebhooksField(RowsField):
    """The webhooks of a channel; a deleted one says so."""

    def label_from_instance(self, obj: Webhook) -> str:
        return gettext("%s (deleted)") % obj if obj.deleted_at else str(obj)


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg]
    """Edit a channel, new or stored; an empty secret keeps the stored one."""

    secret = forms.CharField(required=False, max_length=2048, strip=True)

    field_order = ("name", "secret", "accepts_plain_http", "recipient", "webhooks")

    class Meta:
        model = AlertChannel
        fields = ("name", "accepts_plain_http", "recipient", "webhooks")
        widgets = {"webhooks": WebhooksInput}
        field_classes = {"webhooks": WebhooksField}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = ChannelKind(self.instance.kind)
        secret, recipient = self.fields["secret"], self.fields["recipient"]
        if kind == ChannelKind.EMAIL:
            del self.fields["name"], self.fields["secret"]
            self.fields["recipient"] = forms.EmailField(
                label=_("Email address"),
                max_length=100,
                error_messages={"invalid": _("Enter an email address, like ops@example.com.")},
            )
        elif kind == ChannelKind.TELEGRAM:
            secret.label, recipient.label = _("Bot token"), _("Chat ID")
            secret.help_text = _("From BotFather: 123456789:AAE…")
            recipient.help_text = _(
                "A number such as -1001234567890, or @channel. Add the bot to the chat."
            )
            recipient.required = True
        else:
            del self.fields["recipient"]
            secret.label, secret.help_text = _("URL"), _HINTS[kind]
        if "secret" in self.fields:
            is_set = bool(self.instance.pk)
            secret.required = not is_set
            secret.widget = _ReplacedSecretInput(attrs={"autocomplete": "off"})
            if is_set:
                secret.widget.attrs["placeholder"] = _("Stored. Type a new one to replace it.")
        if self._plain_origin():
            self.fields["accepts_plain_http"].help_text = PLAIN_HTTP_HELP
        else:
            del self.fields["accepts_plain_http"]
        if "name" in self.fields:
            self.fields["name"].validators.append(require_visible)
        for name, missing in _MISSING.items():
            if name in self.fields:
                self.fields[name].error_messages["required"] = missing
        chosen = self.fields["webhooks"]
        assert isinstance(chosen, forms.ModelMultipleChoiceField)
        choices = Webhook.objects.filter(Q(deleted_at=None) | Q(pk__in=self._chosen()))
        chosen.queryset = choices.only("name", "deleted_at").order_by("name", "pk")
        chosen.label = _("Webhooks")
        chosen.help_text = _("Leave empty for every webhook.")

    def _chosen(self) -> list[int]:
        """Return the webhooks of a stored channel, also those in the trash.

        Without the latter, a save would remove them, and a channel without webhooks is for all.
        """
        if not self.instance.pk:
            return []
        return list(self.instance.webhooks.values_list("pk", flat=True))

    def _plain_origin(self) -> str:
        """Return the origin of the typed or stored URL if it uses plain http, else "".

        Anyone who can read the URL in transit can also post to it.
        """
        if self.instance.kind in (ChannelKind.EMAIL, ChannelKind.TELEGRAM):
            return ""
        typed = str(self.data.get(self.add_prefix("secret"), "")).strip()
        url = typed or self.instance.recipient
        return origin_of(url) if is_plain_http(url) else ""

    def clean_accepts_plain_http(self) -> bool:
        is_accepted: bool = self.cleaned_data["accepts_plain_http"]
        if not is_accepted:
            raise ValidationError(plain_http_refusal(self._plain_origin()))
        return is_accepted

    def clean_recipient(self) -> str:
        recipient: str = self.cleaned_data["recipient"]
        if self.instance.kind == ChannelKind.TELEGRAM and not _CHAT_ID.fullmatch(recipient):
            raise ValidationError(_("Enter a chat number or a name like @channel."))
        return recipient

    def clean_secret(self) -> str:
        """Return the typed URL or token; empty keeps the stored one."""
        typed: str = self.cleaned_data["secret"]
        if not typed:
            return ""
        if self.instance.kind == ChannelKind.TELEGRAM:
            if not _BOT_TOKEN.fullmatch(typed):
                raise ValidationError(_("A bot token looks like 123456789:AAE…"))
            return typed
        try:
            return network.check_url(typed).url
        except network.NetworkError as error:
            raise ValidationError(error.reason) from error

    def save(self, commit: bool = True) -> AlertChannel:
        channel: AlertChannel = self.instance
        if {"secret", "recipient"}.intersection(self.changed_data):
            # The error was about the earlier destination.
            channel.last_error = ""
        if typed := self.cleaned_data.get("secret"):
            channel.secret = typed
            if channel.kind != ChannelKind.TELEGRAM:
                # The origin is shown to people; the rest of the URL is the secret.
                channel.recipient = origin_of(typed)[:254]
        channel.accepts_plain_http = "accepts_plain_http" in self.fields
        if channel.kind == ChannelKind.EMAIL:
            channel.name = channel.recipient
        saved: AlertChannel = super().save(commit)
        return saved
