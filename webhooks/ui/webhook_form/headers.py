"""Custom headers: the rows of the form, and the rules of RFC 9110."""

import re
from collections.abc import Mapping
from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from django.forms.utils import ErrorDict
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from webhooks import payloads
from webhooks.models import Header, Webhook
from webhooks.network import HEADER_NAME
from webhooks.security.drafts import Draft
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui import shared_credentials

# Visible ASCII, space and tab, which every receiver reads the same way (RFC 9110 section 5.5).
_VALUE = re.compile(r"[\t\x20-\x7e]*")
MAX_ROWS = 50
# Rows above the limit stay on the page, but a forged count cannot create thousands of them.
MAX_POSTED_ROWS = 2 * MAX_ROWS
_SPARE_ROWS = 1
# Header names in the summary of the closed section.
_MAX_NAMES = 3

_TOO_MANY = ngettext_lazy(
    "At most %(num)d header can be set.", "At most %(num)d headers can be set.", "num"
)
NO_VARIABLES = _("“%s” is sent with its braces: headers have no variables.")
_BY_THE_REQUEST = _("%(name)s is set automatically and cannot be a custom header.")
_BY_SIGNING = _("%(name)s is part of the signature and is set automatically.")
# Header names that are rejected, each with a message that says what to do instead.
RESERVED = {
    **dict.fromkeys(
        (
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "upgrade",
            "te",
            "trailer",
            "expect",
            "proxy-authorization",
            "proxy-connection",
            "webhook-test",
        ),
        _BY_THE_REQUEST,
    ),
    **dict.fromkeys(
        ("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-attempt"), _BY_SIGNING
    ),
    "content-type": _("Content-Type is set by the body format."),
    "authorization": _(
        "Authorization cannot be a custom header. Choose an authorization type instead."
    ),
    "cookie": _(
        "Cookie cannot be a custom header: sessions expire. Choose an authorization type, "
        "or send a key in another header."
    ),
}


def check_name(name: str) -> None:
    """Raise ValidationError, which says what to change, unless the name can be sent."""
    if not HEADER_NAME.fullmatch(name):
        raise ValidationError(
            _(
                "A header name has only letters, digits and hyphens, without spaces or line "
                "breaks, for example “X-Api-Key”."
            ),
            code="invalid_name",
        )
    if sentence := RESERVED.get(name.lower()):
        raise ValidationError(sentence, code="reserved", params={"name": name})


def check_value(value: str) -> None:
    if not _VALUE.fullmatch(value):
        raise ValidationError(
            _(
                "A header value is one line of plain ASCII, without line breaks or control "
                "characters. Percent-encode other letters."
            ),
            code="invalid_value",
        )


class HeaderRow(forms.Form):
    """One header. A blank row is ignored; a secret value is never shown."""

    name = forms.CharField(label=_("Header name"), required=False, strip=False, max_length=200)
    value = forms.CharField(label=_("Header value"), required=False, strip=False, max_length=8192)
    is_secret = forms.BooleanField(label=_("Secret"), required=False)
    is_removed = forms.BooleanField(label=_("Remove"), required=False)
    # Name of the stored header this row came from, so that its secret value can be kept.
    stored_name = forms.Field(required=False, widget=forms.HiddenInput)

    use_required_attribute = False

    def __init__(
        self,
        *args: Any,
        draft: Draft,
        stored: Mapping[str, Header],
        origin_problem: str = "",
        is_checked: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # Why stored secret values are not sent to the origin of the URL; empty when they are.
        self._origin_problem = origin_problem
        self._draft = draft
        self._stored = stored
        self._is_checked = is_checked
        self.fields["name"].widget.attrs.update(placeholder="X-Api-Key", spellcheck="false")
        if not self["is_secret"].value():
            self.fields["value"].widget.attrs.update(spellcheck="false")
            return
        self.fields["value"].widget = forms.PasswordInput(
            {"autocomplete": "new-password", "placeholder": self._secret_state()}
        )
        if self.is_bound and (typed := self["value"].data):
            draft.keep(str(self.prefix), typed)
            self.fields["value"].widget.attrs["placeholder"] = self._secret_state()

    def full_clean(self) -> None:
        if self._is_checked:
            super().full_clean()
            return
        self._errors, self.cleaned_data = ErrorDict(), {}

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip(" \t")
        if name:
            check_name(name)
        return name

    def clean_value(self) -> str:
        value: str = self.cleaned_data["value"].strip(" \t")
        check_value(value)
        return value

    def clean(self) -> dict[str, Any]:
        row = self.cleaned_data
        if self._errors or row["is_removed"]:
            return row
        if row["value"] and not row["name"]:
            self.add_error("name", _("Give this header a name, for example “X-Api-Key”."))
        elif row["name"] and not row["value"]:
            row["value"] = self._earlier_secret()
        return row

    def header(self) -> Header | None:
        """Return the header of a valid row, or None when it is blank or removed."""
        row = self.cleaned_data
        if not row.get("name") or row["is_removed"]:
            return None
        return Header(name=row["name"], value=row["value"], is_secret=row["is_secret"])

    def _earlier_secret(self) -> str:
        """Return the secret typed or stored before, or add an error that says why there is none."""
        kept = self._kept().strip(" \t")
        if not kept and self._stored_value():
            self.add_error("value", self._origin_problem)
            return ""
        try:
            self.fields["value"].clean(kept)
            check_value(kept)
        except ValidationError as error:
            self.add_error("value", error)
        if not kept:
            self.add_error("value", _("Enter a value, or clear the name to remove the header."))
        elif not self.cleaned_data["is_secret"]:
            self.add_error("value", _("Enter the value again: a stored secret is not shown."))
        return kept

    def _kept(self) -> str:
        if typed := self._draft.get(str(self.prefix)):
            return typed
        return "" if self._origin_problem else self._stored_value()

    def _stored_value(self) -> str:
        stored = self._stored.get((self["stored_name"].value() or "").lower())
        return stored.value if stored and stored.is_secret else ""

    def _secret_state(self) -> str:
        if self._draft.get(str(self.prefix)):
            return str(_("entered, not saved yet"))
        return str(_("set; leave empty to keep")) if self._kept() else ""


class HeaderRows(forms.BaseFormSet):  # type: ignore[type-arg]
    """All rows; names are unique, ignoring case. Blank and removed rows do not count."""

    # Whether headers are stored that no encryption key decrypts.
    is_unreadable = False

    def clean(self) -> None:
        seen: set[str] = set()
        for row in self.forms:
            header = row.header() if row.is_valid() else None
            if header is None:
                continue
            if header.name.lower() in seen:
                row.add_error("name", _("This header appears twice. Keep one of them."))
            seen.add(header.name.lower())
        if len(seen) > MAX_ROWS:
            raise ValidationError(_TOO_MANY % {"num": MAX_ROWS}, code="too_many")

    @property
    def is_open(self) -> bool:
        """Return whether a header is set, wrong or being added, so that the section is open."""
        is_wrong = self.is_bound and (
            bool(self.non_form_errors()) or any(row.errors for row in self.forms)
        )
        is_shown = self.is_unreadable or is_wrong
        return bool(self._named) or is_shown or len(self.forms) > _SPARE_ROWS

    @property
    def summary(self) -> str:
        """Return one line with the names of the headers that are set."""
        names = self._named
        return ", ".join(names[:_MAX_NAMES]) + ("…" if names[_MAX_NAMES:] else "") or str(_("None"))

    @property
    def placeholder_warnings(self) -> list[str]:
        """Return a warning for each value with a placeholder: headers are sent as typed."""
        typed = [(row["name"].value() or "", row["value"].value() or "") for row in self.forms]
        found = [name for name, value in typed if name and payloads.has_placeholder(value)]
        return [NO_VARIABLES % name[:60] for name in found]

    @property
    def _named(self) -> list[str]:
        return [name for row in self.forms if (name := str(row["name"].value() or "").strip())]

    def headers(self) -> list[Header]:
        return [header for row in self.forms if (header := row.header())]


_RowsFormSet = forms.formset_factory(
    HeaderRow,
    formset=HeaderRows,
    extra=_SPARE_ROWS,
    max_num=MAX_ROWS,
    absolute_max=MAX_POSTED_ROWS,
)


def header_rows(
    webhook: Webhook, *, draft: Draft, data: Any = None, is_checked: bool = True
) -> HeaderRows:
    """Return the rows of the posted headers, or of the stored ones if none were posted."""
    try:
        stored, is_unreadable = webhook.read_headers(), False
    except SecretUnreadableError:
        stored, is_unreadable = [], True
    initial = [
        {
            "name": row.name,
            "value": "" if row.is_secret else row.value,
            "is_secret": row.is_secret,
            "stored_name": row.name,
        }
        for row in stored
    ]
    is_posted = bool(data) and "headers-TOTAL_FORMS" in data
    url = shared_credentials.known_origin(data.get("url") if is_posted else webhook.url)
    rows = _RowsFormSet(
        data if is_posted else None,
        prefix="headers",
        initial=None if is_posted else initial,
        form_kwargs={
            "draft": draft,
            "stored": {row.name.lower(): row for row in stored},
            "origin_problem": shared_credentials.bound_elsewhere(webhook, "headers_json", url)
            if url
            else "",
            "is_checked": is_checked,
        },
        error_messages={"too_many_forms": cast(str, _TOO_MANY)},
    )
    made = cast(HeaderRows, rows)
    made.is_unreadable = is_unreadable
    return made
