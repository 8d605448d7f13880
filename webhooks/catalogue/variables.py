"""The variables of events: names, older names, types, labels and samples.

Data only. Source: the platform's event catalogue.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class VariableType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    URL = "url"
    CHOICE = "choice"
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One value of an event; `older_name` is the platform's older name for the same value."""

    name: str
    type: VariableType
    label: str | Promise
    description: str | Promise = ""
    older_name: str | None = None
    sample: object = ""
    choices: tuple[str, ...] = ()
    # Filters compare only the digits.
    is_phone: bool = False


# The format of times in event documents: ISO 8601 in UTC. Other senders write up to nanoseconds.
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", re.ASCII)

_Row = tuple[str, VariableType, str | Promise, object]

STRING, INTEGER, NUMBER = VariableType.STRING, VariableType.INTEGER, VariableType.NUMBER
BOOLEAN, DATETIME, URL = VariableType.BOOLEAN, VariableType.DATETIME, VariableType.URL
CHOICE, OBJECT = VariableType.CHOICE, VariableType.OBJECT

OLDER_NAMES: Mapping[str, str] = {
    "call_id": "uniqueid",
    "call_started_at": "calldate",
    "caller_e164": "E164",
    "number_alias": "n_alias",
    "duration_seconds": "duration",
    "talk_seconds": "billsec",
    "wait_seconds": "waittime",
    "recording_url": "recording",
    "recording_wav_url": "recording_wav",
    "call_card_url": "call_card",
    "employee_name": "employee_fio",
    "is_repeated": "repeated_flag",
    "is_proper": "proper_flag",
    "referrer": "refferrer",
}

CHOICES: Mapping[str, tuple[str, ...]] = {
    "call_type": ("in", "out", "callback"),
    "insertion_type": ("dynamic", "static", "callback"),
    "disposition": ("ANSWERED", "NO ANSWER", "BUSY", "FAILED", "VOICEMAIL", "PROPER"),
}

# Extensions and raw fields of the call record are not phone numbers.
PHONES = frozenset(
    {
        *("caller", "caller_number", "caller_e164", "dst", "connected_with", "outbound_number"),
        *("client_number", "company_number", "agent_number", "phone", "contact_phone"),
    }
)
_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)

DESCRIPTIONS: Mapping[str, str | Promise] = {
    "event": _("The key of the event type, for example call.incoming.after."),
    "event_id": _("The same on every attempt: use it to recognize a repeated delivery."),
    "occurred_at": _("With six digits after the second, or none: do not sort it as text."),
    "attempt": _("1 for the first request of a delivery, then counting up."),
    "insertion_type": _("How the tracking number got onto the page."),
    "caller": _("As the network sent it; may hold letters or nothing at all."),
    "userfield": _("The raw user field of the call record."),
    "dst": _("The tracking number that the client dialed."),
    "client_number": _("The client's number, whatever the direction of the call."),
    "company_number": _("The company's number, whatever the direction of the call."),
    "agent_number": _("The agent's number, whatever the direction of the call."),
    "disposition": _("How the call ended."),
    "duration_seconds": _("The whole call, waiting included."),
    "call_counter": _("1 when this number called for the first time."),
    "is_proper": _("The call met the rules of a target call."),
    "pool_name": _("The number pool, that is the traffic channel."),
    "client_id": _("The visitor id of web analytics."),
    "fields": _("Every field of the form by its name; a filter reaches one as fields.city."),
    "webhook_url": _("Scheme, host and port only, as the rest may contain a secret."),
}

_ALWAYS: tuple[_Row, ...] = (
    ("event", STRING, _("Event type"), "call.incoming.after"),
    ("event_id", STRING, _("Event id"), "evt_01K9XJ5Q0T3M7V8W2B4C6D8E9F"),
    ("occurred_at", DATETIME, _("Occurred at"), "2026-05-14T09:28:49Z"),
    ("attempt", INTEGER, _("Number of this attempt"), 1),
    ("project_id", STRING, _("Project"), "default"),
)

_EVENT_VARIABLES: tuple[_Row, ...] = (
    # Calls, their recordings and transcripts.
    ("call_id", STRING, _("Call id"), "1778750791.48213"),
    ("call_started_at", DATETIME, _("Call started at"), "2026-05-14T09:26:31Z"),
    ("client_number", STRING, _("Client's number"), "380671234567"),
    ("employee_number", STRING, _("Employee's number"), "104"),
    ("employee_name", STRING, _("Employee"), "Олена Коваленко"),
    ("department", STRING, _("Department"), "Відділ продажу"),
    ("duration_seconds", INTEGER, _("Duration, seconds"), 138),
    ("has_recording", BOOLEAN, _("Has a recording"), True),
    ("recording_url", URL, _("Recording"), "https://calls.example.com/rec/48213.mp3"),
    ("recording_wav_url", URL, _("Recording as WAV"), "https://calls.example.com/rec/48213.wav"),
    ("call_card_url", URL, _("Call card"), "https://calls.example.com/calls/48213"),
    # Calls.
    ("call_type", CHOICE, _("Call type"), "in"),
    ("caller", STRING, _("Caller, raw"), "+38 (067) 123-45-67"),
    ("caller_number", STRING, _("Caller's number"), "380671234567"),
    ("caller_e164", STRING, _("Caller's number, E.164"), "+380671234567"),
    ("userfield", STRING, _("User field"), "in-48213"),
    ("dst", STRING, _("Dialed number"), "380443339912"),
    ("number_alias", STRING, _("Alias of the dialed number"), "Google Ads Київ"),
    ("connected_with", STRING, _("Connected with"), "380509876543"),
    ("additional_number", STRING, _("Extension dialed"), "12"),
    ("company_number", STRING, _("Company's number"), "380443339912"),
    ("agent_number", STRING, _("Agent's number"), "380509876543"),
    ("disposition", CHOICE, _("Disposition"), "ANSWERED"),
    ("talk_seconds", INTEGER, _("Talk, seconds"), 121),
    ("wait_seconds", INTEGER, _("Wait, seconds"), 17),
    ("call_counter", INTEGER, _("Call number of this client"), 3),
    ("is_repeated", BOOLEAN, _("Repeated call"), True),
    ("is_proper", BOOLEAN, _("Target call"), True),
    # Incoming calls.
    ("insertion_type", CHOICE, _("Insertion type"), "dynamic"),
    ("category_number", STRING, _("Rating category"), "2"),
    ("category_mark", INTEGER, _("Mark in the category"), 5),
    ("employee_mark", INTEGER, _("Mark of the employee"), 4),
    ("scheme_name", STRING, _("Forwarding scheme"), "Робочі години"),
    ("step_forward", STRING, _("Forwarding step"), "2"),
    # Outgoing calls.
    ("outbound_number", STRING, _("Outgoing number"), "380443339900"),
    # Events that a visit of the site led to: incoming calls, forms, dialogues.
    ("pool_name", STRING, _("Number pool"), "Google Ads"),
    ("utm_source", STRING, _("UTM source"), "google"),
    ("utm_medium", STRING, _("UTM medium"), "cpc"),
    ("utm_campaign", STRING, _("UTM campaign"), "vikna_kyiv_2026"),
    ("utm_content", STRING, _("UTM content"), "banner-2"),
    ("utm_term", STRING, _("UTM term"), "пластикові вікна ціна"),
    ("client_id", STRING, _("Visitor id"), "1429857301.1778750412"),
    ("landing", URL, _("Landing page"), "https://vikna.example.com/kyiv?utm_source=google"),
    ("referrer", URL, _("Referrer"), "https://www.google.com/"),
    ("remote_ip", STRING, _("Visitor's address"), "203.0.113.57"),
    # Forms.
    ("form_name", STRING, _("Form"), "Замовити замір"),
    ("form_url", URL, _("Page of the form"), "https://vikna.example.com/kyiv/zamir"),
    ("email", STRING, _("Email"), "taras.melnyk@example.com"),
    ("fields", OBJECT, _("All fields"), {"city": "Київ", "windows": 3, "comment": "Після 18:00"}),
    # Forms and dialogues.
    ("name", STRING, _("Name"), "Тарас Мельник"),
    ("phone", STRING, _("Phone"), "+380631112233"),
    # Dialogues.
    ("dialog_id", STRING, _("Dialogue id"), "dlg-90417"),
    ("channel", STRING, _("Channel"), "telegram"),
    ("operator", STRING, _("Operator"), "Ірина Шевчук"),
    ("opened_at", DATETIME, _("Opened at"), "2026-05-14T09:12:05Z"),
    ("closed_at", DATETIME, _("Closed at"), "2026-05-14T09:28:40Z"),
    ("message_count", INTEGER, _("Messages"), 14),
    # Deals.
    ("deal_id", STRING, _("Deal id"), "D-20417"),
    ("title", STRING, _("Title"), "Вікна для квартири, 3 шт."),
    ("status_from", STRING, _("Previous status"), "Новий"),
    ("status_to", STRING, _("Status"), "В роботі"),
    ("amount", NUMBER, _("Amount"), 48500.5),
    ("currency", STRING, _("Currency"), "UAH"),
    ("responsible", STRING, _("Responsible"), "Андрій Бондар"),
    ("contact_phone", STRING, _("Contact's phone"), "+380671234567"),
    # Transcripts.
    ("transcript_text", STRING, _("Transcript"), "Добрий день, компанія «Вікна», слухаю вас."),
    ("transcript_language", STRING, _("Language"), "uk"),
    # The webhooks themselves.
    ("webhook_id", STRING, _("Webhook id"), "whk_01K9XJ5Q0T3M7V8W2B4C6D8E9F"),
    ("webhook_name", STRING, _("Webhook"), "CRM"),
    ("webhook_url", URL, _("URL of the webhook"), "https://crm.example.com"),
    ("message", STRING, _("Message"), "The receiver answered 503 to the last 12 requests."),
    ("failing_since_at", DATETIME, _("Failing since"), "2026-05-14T08:41:00Z"),
    ("last_status_code", INTEGER, _("Last response code"), 503),
)

VARIABLES: dict[str, Variable] = {
    name: Variable(
        name=name,
        type=kind,
        label=label,
        description=DESCRIPTIONS.get(name, ""),
        older_name=OLDER_NAMES.get(name),
        sample=sample,
        choices=CHOICES.get(name, ()),
        is_phone=name in PHONES,
    )
    for name, kind, label, sample in (*_ALWAYS, *_EVENT_VARIABLES)
}
ALWAYS = tuple(row[0] for row in _ALWAYS)
# Older name -> name, to read filters and mappings that use either.
CURRENT_NAMES: Mapping[str, str] = {older: name for name, older in OLDER_NAMES.items()}


def infer(name: str, sample: object) -> Variable:
    """Return the variable for a field of a host project, inferred from its sample value."""
    kinds: tuple[tuple[type, VariableType], ...] = (
        (bool, BOOLEAN),
        (int, INTEGER),
        (float, NUMBER),
        (dict, OBJECT),
        (list, OBJECT),
    )
    kind = next((kind for type_, kind in kinds if isinstance(sample, type_)), STRING)
    if isinstance(sample, str) and INSTANT.fullmatch(sample):
        kind = DATETIME
    is_phone = isinstance(sample, str) and _E164.fullmatch(sample) is not None
    return Variable(name=name, type=kind, label=name, sample=sample, is_phone=is_phone)
