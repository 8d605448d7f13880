"""The webhook that a form would save, without its invalid parts, and the request it would send.

Nothing is saved or sent, and the host of the URL is not resolved. Masks replace secrets, typed or
stored; only the signature is real. The delivery code builds the request, written as in the log.
"""

import copy
import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import catalogue, network, payloads
from webhooks.delivery import fan_out, requests
from webhooks.delivery.auth import Authorization, BasicAuthorization, NoAuthorization
from webhooks.delivery.plans import token_authorization
from webhooks.delivery.queue.rows import Claimed
from webhooks.delivery_log import decoded_body, filter_preview
from webhooks.filters import compile_filter
from webhooks.models import Header, Trigger, Webhook, headers_as_json
from webhooks.network import UnsafeURLError
from webhooks.payloads import MappingError
from webhooks.security import signatures
from webhooks.security.drafts import Draft
from webhooks.security.encryption import SecretUnreadableError
from webhooks.security.masker import MASK
from webhooks.ui.fields import url_problem
from webhooks.ui.webhook_form import success
from webhooks.ui.webhook_form.forms import WebhookForm
from webhooks.ui.webhook_form.headers import check_name, check_value
from webhooks.ui.webhook_form.mapping import ROWS, TEMPLATE, MappingSection

# Used while the URL is missing or invalid (RFC 6761 section 6.4).
NO_URL = "https://receiver.invalid/"
# The event type that is shown while none is chosen.
_USUAL_TYPE = "call.incoming.after"
_NEWEST_EVENT = "real"
# Showing a megabyte of body would make every keystroke slow.
_SHOWN_BYTES = 20_000
# Apache and nginx refuse request lines of about 8,190 bytes by default; some proxies sooner.
RECOMMENDED_URL_LENGTH = 8_000
_SIGNATURE = "webhook-signature"


class UnsavedForm(WebhookForm):
    """The form without the checks that resolve the URL's host or read other webhooks."""

    def __init__(
        self, data: Mapping[str, Any] | None, *, webhook: Webhook, session: Mapping[str, Any]
    ) -> None:
        instance = copy.copy(webhook)
        # Validation writes into the webhook and its own credential.
        if webhook.credential.is_shared:
            instance.own_credential = copy.copy(webhook.private_credential)
        else:
            instance.credential = copy.copy(webhook.credential)
        # A draft in a copy of the session, so that the session does not keep what is typed.
        super().__init__(data, instance=instance, draft=Draft(dict(session)))

    def check_url(self, url: str) -> None:
        # No host is looked up at every keystroke.
        network.parse_url(url)

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        try:
            self.check_url(url)
        except network.UnsafeURLError as error:
            raise forms.ValidationError(url_problem(error), code=error.code) from error
        return url

    def clean_event_types(self) -> list[str]:
        patterns: list[str] = self.cleaned_data["event_types"]
        return patterns

    def save(self, commit: bool = True) -> Webhook:
        raise TypeError("This form is never saved.")


def webhook_of(form: WebhookForm) -> tuple[Webhook, list[str]]:
    """Return the webhook as the form would save it, and a message for each part that is left out.

    An unbound form gives the stored webhook.
    """
    if form.is_bound:
        form.is_valid()
    mapping = form.mapping
    if isinstance(form, UnsavedForm):
        # A preview does not save, so no save was rejected.
        mapping.is_refused = False
    # Stored rows may have become invalid, too.
    mapping.check_typed(
        method=str(form["method"].value()), body_format=str(form["body_format"].value())
    )
    wrong_urls = _url_problems(form)
    connection = form.errors.get("connection", ()) if form.is_bound else ()
    headers, refused = _headers(form)
    webhook = copy.copy(form.instance)
    webhook.url = NO_URL if not webhook.url or wrong_urls else webhook.url
    webhook.parameters = mapping.usable_rows() if mapping.mode == ROWS else []
    webhook.body_template = mapping.template if mapping.mode == TEMPLATE else ""
    webhook.headers_json = headers_as_json(headers)
    if wrong_rule := _rule_problems(form):
        # The success rule does not change the request.
        webhook.response_rule, webhook.expired_token_errors = "", []
    problems = [*wrong_urls, *map(str, connection), *_mapping_problems(form), *refused, *wrong_rule]
    return webhook, problems


def _url_problems(form: WebhookForm) -> list[str]:
    """Return the errors of the URL; none while it is empty."""
    if not form.is_bound or not form["url"].value():
        return []
    return [str(sentence) for sentence in form.errors.get("url", [])]


def _rule_problems(form: WebhookForm) -> list[str]:
    errors = form.errors if form.is_bound else {}
    wrong = [sentence for name in success.FIELDS for sentence in errors.get(name, ())]
    return [_("Success rule: %s") % sentence for sentence in wrong]


def _mapping_problems(form: WebhookForm) -> list[str]:
    mapping = form.mapping
    if mapping.template_problems:
        return [_("The JSON body has an error, so there is no request to show.")]
    wrong = sum(bool(row.problems) for row in mapping.rows)
    if not wrong:
        return [problem.sentence for problem in mapping.own_problems]
    if not mapping.usable_rows():
        return [_("Every parameter has an error, so there is no request to show.")]
    return [
        ngettext(
            "%d parameter has an error and is left out.",
            "%d parameters have errors and are left out.",
            wrong,
        )
        % wrong
    ]


def _is_sendable(mapping: MappingSection) -> bool:
    """Return whether the chosen parameters or JSON body can be sent."""
    if mapping.mode == ROWS:
        return bool(mapping.usable_rows())
    return mapping.mode != TEMPLATE or not (mapping.problems or mapping.is_untouched)


def _hint(mapping: MappingSection) -> str:
    """Return what to fill in first, while there is neither content nor an error."""
    if not mapping.is_untouched or mapping.problems:
        return ""
    if mapping.mode == ROWS:
        return _("Fill in the first parameter, or choose a variable.")
    return _("Enter the JSON, or press “Start from the parameters”.")


def _headers(form: WebhookForm) -> tuple[list[Header], list[str]]:
    """Return the valid headers, secret values masked, and the errors of the others."""
    headers, problems = [], []
    for row in form.headers.forms:
        name = str(row["name"].value() or "").strip(" \t")
        if not name or row["is_removed"].value():
            continue
        is_secret = bool(row["is_secret"].value())
        value = MASK if is_secret else str(row["value"].value() or "").strip(" \t")
        try:
            check_name(name)
            check_value(value)
        except ValidationError as error:
            problems.append(f"{name[:60]}: {' '.join(error.messages)}")
        else:
            headers.append(Header(name, value, is_secret))
    return headers, problems


# ---- The request: an event, and the request made from it --------------------------------------


class PreviewError(Exception):
    """No request can be built from these settings; the message says why."""

    permanent = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The event that a preview shows; `created_at` is None for a sample."""

    type: str
    event_id: str
    document: bytes
    created_at: dt.datetime | None = None

    @property
    def label(self) -> Any:
        return catalogue.label_of(self.type)

    def values(self) -> dict[str, Any]:
        """Return the event's values, as a filter reads them."""
        return payloads.read_document(self.document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A request as it would go over the wire, secrets masked."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def request_line(self) -> str:
        return f"{self.method} /{self.url.split('/', 3)[3]} HTTP/1.1"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return the decoded pairs of the query string or form; empty for JSON."""
        kinds = [value for name, value in self.headers if name == "Content-Type"]
        if "application/x-www-form-urlencoded" in kinds:
            return parse_qsl(self.body.decode(), keep_blank_values=True)
        return [] if self.body else parse_qsl(urlsplit(self.url).query, keep_blank_values=True)

    @property
    def is_url_too_long(self) -> bool:
        return len(self.url) > RECOMMENDED_URL_LENGTH


def sample(webhook: Webhook, event_type: str) -> Source:
    """Return the sample that Send test would send; a sample about a webhook is about this one."""
    payload = fan_out.sample_payload(webhook, event_type)
    event_id = str(payload["event_id"])
    occurred_at = dt.datetime.fromisoformat(str(payload["occurred_at"]))
    document = payloads.build_document(
        event_type, event_id, occurred_at, settings.WEBHOOKS_PROJECT_ID, payload
    )
    return Source(type=event_type, event_id=event_id, document=document)


def newest(event_types: Sequence[str]) -> Source | None:
    """Return the newest real event of these types."""
    event = filter_preview.newest_event(event_types)
    if event is None:
        return None
    return Source(
        type=event.type,
        event_id=event.pk,
        document=bytes(event.payload),
        created_at=event.created_at,
    )


def build(webhook: Webhook, source: Source, *, now: float, is_signed: bool = True) -> Preview:
    """Build the request of the first attempt; `now` is Unix time in seconds.

    An unsaved webhook has no signing secret, so its signature is masked, as it is when
    `is_signed` is false. Raises PreviewError.
    """
    claim = Claimed(
        id="",
        webhook_id=webhook.pk or 0,
        event_id=source.event_id,
        number=1,
        failure_count=0,
        trigger=Trigger.EVENT,
        payload=source.document,
    )
    try:
        if is_new := not webhook.signing_secret:
            webhook.signing_secret = signatures.new_secret()
        plan = requests.make_plan(webhook, _masked_authorization(webhook))
        request = requests.prepare(claim, plan, now)
    except (SecretUnreadableError, UnsafeURLError, MappingError) as error:
        raise PreviewError(str(error)) from error
    lines = [line.partition(": ") for line in request.logged_headers.split("\n")]
    headers = [(name, value) for name, _colon, value in lines]
    # A large body has it already.
    if webhook.method != "GET" and "Content-Length" not in dict(headers):
        headers.append(("Content-Length", str(len(request.body))))
    if is_new or not is_signed:
        headers = [(name, MASK if name == _SIGNATURE else value) for name, value in headers]
    return Preview(
        method=webhook.method,
        url=requests.logged_url(request),
        headers=tuple(headers),
        body=request.body,
    )


def _masked_authorization(webhook: Webhook) -> Authorization:
    """Return how the webhook authorizes its requests, with a mask for the secret."""
    credential = webhook.credential
    if credential.is_basic:
        return BasicAuthorization(credential.basic_login, MASK)
    if credential.is_oauth:
        return token_authorization(credential, MASK)
    return NoAuthorization()


# ---- The panel --------------------------------------------------------------------------------


def preview_context(request: HttpRequest, form: WebhookForm) -> dict[str, Any]:
    """Return the context of the preview panel for a form, bound or unbound."""
    webhook, problems = webhook_of(form)
    types = catalogue.types_for(form.mapping.event_types) or [_USUAL_TYPE]
    may_see = request.user.has_perm("webhooks.view_payload")
    wanted = request.POST.get("preview_event", "")
    source, note = _source(webhook, types, wanted, may_see=may_see)
    _note_absent(form, source)
    made = None
    try:
        may_sign = request.user.has_perm("webhooks.test_webhook")
        if _is_sendable(form.mapping):
            made = build(webhook, source, now=time.time(), is_signed=may_sign)
    except PreviewError as error:
        problems.append(str(error))
    refusals = compile_filter(form.conditions.usable_tree).explain(source.values())
    return {
        "preview": made,
        "preview_body": decoded_body.read(made.body[:_SHOWN_BYTES]) if made else None,
        "is_cut": bool(made and len(made.body) > _SHOWN_BYTES),
        "shown_bytes": _SHOWN_BYTES,
        "preview_problems": problems,
        "preview_hint": _hint(form.mapping),
        "preview_note": note,
        "is_refused": bool(list(refusals)),
        "source": source,
        "wanted": wanted if wanted in types or wanted == _NEWEST_EVENT else types[0],
        "sample_types": [catalogue.EVENT_TYPES[key] for key in types],
        "may_see_payload": may_see,
        "recommended_url_length": RECOMMENDED_URL_LENGTH,
    }


def _source(
    webhook: Webhook, types: list[str], wanted: str, *, may_see: bool
) -> tuple[Source, str]:
    """Return the requested event or sample, and a note if a sample replaces a missing event."""
    if wanted == _NEWEST_EVENT and may_see:
        if found := newest(types):
            return found, ""
        note = _("No such event yet. This is a sample.")
        return sample(webhook, types[0]), note
    return sample(webhook, wanted if wanted in types else types[0]), ""


def _note_absent(form: WebhookForm, source: Source) -> None:
    """Note at each row whose variable is missing in the shown event what is sent instead."""
    fields = {**source.values(), "attempt": 1}
    is_json = payloads.sent_as(_value(form, "method"), _value(form, "body_format")) == "json"
    for row in form.mapping.rows:
        name = row.value("content").strip()
        if not row.is_variable or not name or row.problems or name == payloads.WHOLE_EVENT:
            continue
        if payloads.finder(name)(fields) is not None:
            continue
        if row.value("default"):
            sentence = _("This event has no “%s”. The value set under Options is sent.")
        elif row["is_omitted"].value():
            sentence = _("This event has no “%s”. It is left out.")
        elif is_json:
            sentence = _("This event has no “%s”. Null is sent.")
        else:
            sentence = _("This event has no “%s”. An empty text is sent.")
        row.note = sentence % name[:100]


def _value(form: WebhookForm, field: str) -> str:
    return str(form[field].value())
