"""The webhook form filled from a file, and settings for which the page has no plain field."""

import json
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from webhooks import filters, payloads
from webhooks.audit.versions import FIELDS, connection_of, portable_headers
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    Credential,
    Header,
    Webhook,
    headers_as_json,
    may_be_sent_to,
)
from webhooks.payloads.variables import is_empty
from webhooks.security.drafts import Draft
from webhooks.ui.trail import field_label
from webhooks.ui.transfer.document import settings_of
from webhooks.ui.webhook_form import authorization
from webhooks.ui.webhook_form.forms import WebhookForm
from webhooks.ui.webhook_form.headers import MAX_ROWS, check_name, check_value
from webhooks.ui.webhook_form.mapping import other_names, template_violations

# Keys that are ignored for a webhook that already exists here.
_LEFT_ALONE = {"uid", "secrets", "is_active"}
URL_FIELDS = ("url", "auth_url", "token_url", "refresh_url", "revocation_url")


class ImportForm(WebhookForm):
    """Validates one entry. A missing secret is not an error: the webhook's page reports it later.

    `counts` is the number of webhooks per event type, including those of preceding entries.
    """

    def __init__(
        self,
        entry: Mapping[str, Any],
        *,
        webhook: Webhook,
        counts: Mapping[str, int],
        may_connect: bool = True,
    ) -> None:
        self._may_connect = may_connect
        self._counts = counts
        self._errors_of_entry: list[str] = []
        given = {name: entry[name] for name in FIELDS if name in entry}
        # A file neither pauses nor resumes an existing webhook.
        if webhook.pk:
            given.pop("is_active", None)
        chosen_id = self._connection_id(entry, webhook)
        values = {**settings_of(webhook), **given}
        self._set_fieldless_settings(webhook, values)
        headers = _headers(entry, webhook, str(values["url"]), self._errors_of_entry)
        shown = {name: self._as_typed(name, value) for name, value in values.items()}
        shown["alerts_muted_until"] = webhook.alerts_muted_until or ""
        shown |= {"connection": chosen_id or "", "initial-is_active": values["is_active"]}
        super().__init__(shown, instance=webhook, draft=Draft({}))
        # Secrets that the file would send to other hosts; people have to enter them again.
        self.dropped: set[str] = set()
        self.trusted_addresses = {name: values[name] for name in URL_FIELDS}
        self._headers_json = headers
        self._given = given

    def start_paused(self) -> None:
        """Make a new webhook start paused."""
        self._given.pop("is_active", None)
        self.data["is_active"] = self.data["initial-is_active"] = False  # type: ignore[index]

    def secret_is_set(self, field: str) -> bool:
        return True

    def refuse_secret(self, field: str, sentence: str) -> None:
        self.dropped.add(field)
        self.credential.set_secret(field, "")

    def set_secrets(self) -> set[str]:
        dropped = {*self.dropped, "secrets_changed_at"} if self.dropped else set()
        return super().set_secrets() | dropped

    def has_secret_header(self) -> bool:
        return '"secret": true' in self._headers_json

    def sentences(self) -> list[str]:
        """Return all errors as sentences, each with its setting."""
        found = list(self._errors_of_entry)
        if not self.is_valid():
            found += [f"{one['label']}: {one['sentence']}" for one in self.problems()]
            # Errors without a field on the page are not among the page's problems.
            if not found:
                found += [str(one) for ones in self.errors.values() for one in ones]
        found += self._misread()
        found += _mapping_sentences(self.instance)
        is_bound = may_be_sent_to(self.instance, self.instance.url, "headers_json")
        if (self._headers_json != self.instance.headers_json or not is_bound) and not found:
            self.instance.set_secret("headers_json", self._headers_json)
        return found

    def _as_typed(self, name: str, value: Any) -> Any:
        """Return a value as the page shows it; a value of the wrong type adds an error."""
        field = self.base_fields.get(name)
        try:
            if name == "event_types":
                return list(map(str, value))
            return "" if field is None or value is None else field.prepare_value(value)
        except (TypeError, ValueError, AttributeError, StopIteration):
            self._errors_of_entry.append(_("“%s” has a value of the wrong type.") % name)
            return ""

    def _misread(self) -> list[str]:
        """Return a sentence for each value that the form reads differently, such as "15" as 15.

        So a file has the values that an export writes, and no list item that the page would split.
        """
        chosen = self.cleaned_data.get("authorization_type", "")
        unused = authorization.unchosen_fields(chosen, self.cleaned_data.get("grant_type", ""))
        # Fields that the chosen authorization does not use are kept as text, only types checked.
        return [
            _("“%s” has a value of the wrong type.") % name
            for name, value in self._given.items()
            if not is_empty(value) and name in unused and not _is_of_kind(name, value)
        ] + [
            _("“%(key)s” must be written as %(value)s.") % {"key": name, "value": read[:200]}
            for name, value in self._given.items()
            # An empty value is the form's default; event types are merged into wildcards.
            if not is_empty(value)
            if name in self.cleaned_data and name not in {*unused, "event_types"}
            if (read := _as_json(self.cleaned_data[name])) != _as_json(value)
        ]

    def save(self, commit: bool = True) -> Webhook:
        is_new = self.instance.pk is None
        with transaction.atomic():
            webhook = super().save(commit)
            if not is_new:
                others = self._without_field()
                webhook.save(update_fields={*others, "headers_json", "secrets_changed_at"})
        return webhook

    def _webhook_counts(self) -> Mapping[str, int]:
        return self._counts

    def _connection_id(self, entry: Mapping[str, Any], webhook: Webhook) -> int | None:
        """Return the id of the entry's connection; None for the webhook's own credentials."""
        if "connection" not in entry:
            return connection_id(webhook)
        name = entry["connection"]
        if not name or (webhook.credential.is_shared and name == webhook.credential.name):
            return connection_id(webhook) if name else None
        if not self._may_connect:
            self._errors_of_entry.append(_("You have no permission to use connections."))
            return None
        found = list(Credential.objects.shared().filter(name__iexact=name)[:2])
        if len(found) == 1:
            return found[0].pk
        sentence = (
            _("Several connections are called “%s”.")
            if found
            else _("There is no connection “%s” here. Create it first.")
        )
        self._errors_of_entry.append(sentence % name[:100])
        return None

    def _set_fieldless_settings(self, webhook: Webhook, values: Mapping[str, Any]) -> None:
        for name in self._without_field():
            rows = values[name] if name == "parameters" else []
            is_right = isinstance(values[name], type(FIELDS[name].get_default()))
            if is_right and all(isinstance(row, dict) for row in rows):
                setattr(webhook, name, values[name])
            else:
                self._errors_of_entry.append(_("“%s” has a value of the wrong type.") % name)

    def _without_field(self) -> list[str]:
        """Return the settings that have no plain field on the page."""
        on_page = {*(self._meta.fields or ()), *AUTHORIZATION_FIELDS, "is_active"}
        return [name for name in FIELDS if name not in on_page]


def values_of(webhook: Webhook) -> dict[str, Any]:
    """Return values to compare before and after: settings, headers, and the connection."""
    return {
        **settings_of(webhook),
        "headers": portable_headers(webhook),
        "connection": connection_id(webhook),
    }


def equals_export(entry: Mapping[str, Any], webhook: Webhook, values: Mapping[str, Any]) -> bool:
    """Return whether an entry equals an export of the webhook; `values` is `values_of(webhook)`.

    False when in doubt: then the form decides whether anything changes.
    """
    stored = {**values, "connection": connection_of(webhook)}
    given = {name: entry[name] for name in entry.keys() - _LEFT_ALONE}
    # Compared as text, in which 1, 1.0 and true differ.
    return _sorted_json(given) == _sorted_json({name: stored[name] for name in given})


def _sorted_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, default=str, sort_keys=True)


def connection_id(webhook: Webhook) -> int | None:
    """Return the id of the connection that a webhook uses; None for its own credential."""
    return webhook.credential_id if webhook.credential.is_shared else None


def _is_of_kind(name: str, value: Any) -> bool:
    default = FIELDS[name].get_default()
    # Some defaults are members of a text enumeration.
    kind = str if isinstance(default, str) else type(default)
    return default is None or isinstance(value, kind)


def _as_json(value: Any) -> str:
    text = value.strip() if isinstance(value, str) else value
    return json.dumps(text, ensure_ascii=False, default=str)


def _headers(entry: Mapping[str, Any], webhook: Webhook, url: str, errors: list[str]) -> str:
    """Return the new value of `headers_json`.

    A secret header keeps its stored value unless it would go to a host it was not entered for.
    """
    here = webhook.read_headers() if webhook.pk else []
    if not may_be_sent_to(webhook, url, "headers_json"):
        here = [one._replace(value="") if one.is_secret else one for one in here]
    if "headers" not in entry:
        return headers_as_json(here)
    known = {row.name.lower(): row for row in here}
    rows: list[Header] = []
    for given in entry["headers"]:
        name, is_secret = given["name"].strip(), given.get("secret", False)
        kept = known.get(name.lower())
        stored = kept.value if kept and kept.is_secret and is_secret else ""
        rows.append(Header(name=name, value=given.get("value") or stored, is_secret=is_secret))
    for row in rows:
        try:
            check_name(row.name)
            check_value(row.value)
        except ValidationError as error:
            errors.append(f"{row.name[:60]}: {' '.join(error.messages)}")
        if not row.is_secret and not row.value:
            errors.append(_("The header %s has no value.") % row.name[:60])
    if len({row.name.lower() for row in rows}) < len(rows):
        errors.append(_("A header appears twice. Keep one of them."))
    if len(rows) > MAX_ROWS:
        errors.append(_("There are more than %d headers.") % MAX_ROWS)
    return headers_as_json(rows)


def _mapping_sentences(webhook: Webhook) -> list[str]:
    """Validate the filter, the parameters and the JSON body, which have their own grammars."""
    found: list[str] = []
    try:
        filters.compile_filter(webhook.filter)
    except filters.FilterError as error:
        found.append(f"{field_label('filter')}: {error}")
    if webhook.parameters and webhook.body_template:
        sentence = _("A webhook has either parameters or a JSON body. Remove one of them.")
        return [*found, f"{field_label('body_template')}: {sentence}"]
    name = "body_template" if webhook.body_template else "parameters"
    known = payloads.known_names()
    problems = _mapping_problems(webhook, known)
    if problems:
        stored = Webhook.objects.filter(pk=webhook.pk).first() or Webhook()
        problems = _mapping_problems(webhook, known | other_names(webhook.event_types, stored))
    return found + [f"{field_label(name)}: {problem}" for problem in problems]


def _mapping_problems(webhook: Webhook, known: set[str]) -> list[payloads.Violation]:
    """Validate the mapping of the file; the page's section reads only rows that it wrote."""
    kind = payloads.sent_as(webhook.method, webhook.body_format)
    if webhook.body_template:
        return template_violations(webhook.body_template, kind, known)
    return payloads.rows_problems(webhook.parameters, body_format=kind, known=known)
