"""The built-in event types with labels, variables and samples.

Data only; `webhooks.catalogue` matches patterns and adds the types of the host project.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from webhooks.catalogue.variables import VARIABLES

TEST = "webhook.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """An event type. `variables` are the names in its payload."""

    key: str
    label: str | Promise
    description: str | Promise = ""
    variables: tuple[str, ...] = ()
    # Sample values that differ from the variables' own.
    sample_values: Mapping[str, object] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def is_publishable(self) -> bool:
        """Return whether callers may publish it; the product makes the events about webhooks."""
        return self.group != "webhook"

    @property
    def is_subscribable(self) -> bool:
        """Return whether webhooks can subscribe to it; only a button sends the test event."""
        return self.key != TEST

    def sample(self) -> dict[str, object]:
        """Return a new copy of a realistic payload."""
        own = {name: VARIABLES[name].sample for name in self.variables if name in VARIABLES}
        return copy.deepcopy({**own, **self.sample_values})


@dataclass(frozen=True, slots=True, kw_only=True)
class EventGroup:
    """Event types that share a prefix and one wildcard."""

    key: str
    label: str | Promise
    types: tuple[EventType, ...]

    @property
    def wildcard(self) -> str:
        return f"{self.key}.*"


GROUP_LABELS: dict[str, str | Promise] = {
    "call.incoming": _("Incoming calls"),
    "call.outgoing": _("Outgoing calls"),
    "form": _("Website forms"),
    "dialog": _("Messenger dialogues"),
    "deal": _("Deals"),
    "recording": _("Recordings"),
    "transcript": _("Transcripts"),
    "webhook": _("The webhooks themselves"),
}

_SOURCE = (
    *("pool_name", "utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term"),
    *("client_id", "landing", "referrer", "remote_ip"),
)
_CALL = ("call_id", "call_started_at", "call_type")
_CALLER = ("caller", "caller_number", "caller_e164", "userfield", "dst", "number_alias")
_HISTORY = ("call_counter", "is_repeated")
_INCOMING = (*_CALL, "insertion_type", *_CALLER, "client_number", "company_number", *_HISTORY)
_CONNECTED = ("connected_with", "additional_number")
_FORWARDING = ("scheme_name", "step_forward")
_AGENT = ("agent_number", "employee_number", "employee_name", "department")
_RESULT = ("disposition", "duration_seconds", "talk_seconds", "wait_seconds", "is_proper")
_RECORDING = ("has_recording", "recording_url", "recording_wav_url", "call_card_url")
_RATING = ("category_number", "category_mark", "employee_mark")
_OUTGOING = (*_CALL, *_CALLER, "outbound_number", "client_number", "company_number", *_AGENT)
_RECORDED = ("call_id", "call_started_at", "client_number", *_AGENT[1:], "duration_seconds")
_DEAL = ("deal_id", "title", "status_to", "amount", "currency", "responsible", "contact_phone")
_DIALOG = ("dialog_id", "channel", "operator", "opened_at", "name", "phone", *_SOURCE)
_ABOUT = ("webhook_id", "webhook_name", "webhook_url", "message")
_FAILURE = ("failing_since_at", "last_status_code")
# In an outgoing call the agent calls and the client is dialed.
_OUTGOING_VALUES = {
    "call_type": "out",
    "caller": "104",
    "caller_number": "380509876543",
    "caller_e164": "+380509876543",
    "userfield": "out-48213",
    "dst": "380671234567",
    "number_alias": "Основний номер",
    "company_number": "380443339900",
    "connected_with": "380671234567",
}

BUILT_IN: tuple[EventType, ...] = (
    EventType(
        key="call.incoming.before",
        label=_("Incoming call: before the call"),
        description=_("Advertising source and key phrase are known, no result yet."),
        variables=(*_INCOMING, *_SOURCE),
    ),
    EventType(
        key="call.incoming.answered",
        label=_("Incoming call: at the moment of picking up"),
        description=_("Shows the responsible agent who is calling."),
        variables=(*_INCOMING, *_CONNECTED, *_AGENT, "wait_seconds", *_SOURCE),
    ),
    EventType(
        key="call.incoming.forwarded",
        label=_("Incoming call: at the moment of call forwarding"),
        description=_("Forwarding scheme and step are known."),
        variables=(*_INCOMING, *_CONNECTED, *_FORWARDING, *_SOURCE),
    ),
    EventType(
        key="call.incoming.after",
        label=_("Incoming call: after the call"),
        description=_("Everything: recording, duration, disposition, source."),
        variables=(
            *(*_INCOMING, *_CONNECTED, *_AGENT, *_RESULT, *_RECORDING, *_FORWARDING, *_SOURCE),
        ),
    ),
    EventType(
        key="call.incoming.rated",
        label=_("Incoming call: after the call rating menu"),
        description=_("Category number and mark, and the agent's mark."),
        variables=(*_INCOMING, *_CONNECTED, *_AGENT, *_RATING, *_SOURCE),
    ),
    EventType(
        key="call.outgoing.before",
        label=_("Outgoing call: before the call"),
        description=_("Who is going to call whom."),
        variables=_OUTGOING,
        sample_values={k: v for k, v in _OUTGOING_VALUES.items() if k in _OUTGOING},
    ),
    EventType(
        key="call.outgoing.after",
        label=_("Outgoing call: after the call"),
        description=_("Everything: recording, duration, disposition."),
        variables=(*_OUTGOING, *_CONNECTED, *_HISTORY, *_RESULT, *_RECORDING),
        sample_values=_OUTGOING_VALUES,
    ),
    EventType(
        key="form.submitted",
        label=_("Form sent from the website"),
        variables=("form_name", "form_url", "name", "phone", "email", "fields", *_SOURCE),
    ),
    EventType(
        key="dialog.opened",
        label=_("Start of a dialogue in the messenger"),
        variables=_DIALOG,
    ),
    EventType(
        key="dialog.closed",
        label=_("End of a dialogue in the messenger"),
        variables=(*_DIALOG, "closed_at", "message_count"),
    ),
    EventType(
        key="deal.created",
        label=_("Deal created"),
        variables=_DEAL,
        sample_values={"status_to": "Новий"},
    ),
    EventType(
        key="deal.status_changed",
        label=_("Deal: its status updated"),
        variables=(*_DEAL, "status_from"),
    ),
    EventType(
        key="recording.ready",
        label=_("Recording ready"),
        variables=(*_RECORDED, *_RECORDING),
    ),
    EventType(
        key="transcript.ready",
        label=_("Transcript ready"),
        variables=(*_RECORDED, *_RECORDING, "transcript_text", "transcript_language"),
    ),
    EventType(
        key=TEST,
        label=_("Test event"),
        description=_("Sent by the “Send test” button only."),
        variables=_ABOUT,
        sample_values={"message": "This is a test event. Це тестова подія."},
    ),
    EventType(
        key="webhook.failing",
        label=_("A webhook is failing"),
        variables=(*_ABOUT, *_FAILURE),
    ),
    EventType(
        key="webhook.disabled",
        label=_("A webhook was paused because it kept failing"),
        variables=(*_ABOUT, *_FAILURE),
        sample_values={"message": "No delivery succeeded for days.", "last_status_code": 410},
    ),
    EventType(
        key="webhook.recovered",
        label=_("A webhook works again"),
        variables=(*_ABOUT, "last_status_code"),
        sample_values={"message": "The receiver accepts events again.", "last_status_code": 200},
    ),
    EventType(
        key="webhook.reauthorization_required",
        label=_("A webhook needs re-authorization"),
        variables=_ABOUT,
        sample_values={
            "message": "The provider no longer accepts the refresh token. "
            "Press Get new access token."
        },
    ),
)
