"""The catalogue: every type and variable, what patterns match, and additions of a host project."""

import json
import re
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.core.exceptions import ImproperlyConfigured

from webhooks import catalogue, payloads
from webhooks.catalogue import EVENT_TYPES, VARIABLES, VariableType

PUBLISHED_TYPES = """
    call.incoming.before call.incoming.answered call.incoming.forwarded call.incoming.after
    call.incoming.rated call.outgoing.before call.outgoing.after form.submitted dialog.opened
    dialog.closed deal.created deal.status_changed recording.ready transcript.ready webhook.test
    webhook.failing webhook.disabled webhook.recovered webhook.reauthorization_required
""".split()  # noqa: SIM905 - readable as one block

PUBLISHED_VARIABLES = """
    event event_id occurred_at attempt project_id call_id call_started_at call_type
    insertion_type caller caller_number caller_e164 userfield dst number_alias outbound_number
    connected_with additional_number client_number company_number agent_number disposition
    duration_seconds talk_seconds wait_seconds has_recording recording_url recording_wav_url
    call_card_url employee_number employee_name department category_number category_mark
    employee_mark call_counter is_repeated is_proper scheme_name step_forward pool_name
    utm_source utm_medium utm_campaign utm_content utm_term client_id landing referrer remote_ip
    form_name form_url name phone email fields dialog_id channel operator opened_at closed_at
    message_count deal_id title status_from status_to amount currency responsible contact_phone
""".split()  # noqa: SIM905 - readable as one block

HOST_TYPES = {
    "order.paid": {
        "label": "Order paid",
        "sample": {
            "total": 10.5,
            "lines": [1],
            "gift": False,
            "paid_at": "2026-05-14T09:28:49Z",
            "buyer": "+12025550100",
        },
    },
    "order.lost": "Order lost",
}


def test_every_type_and_variable_of_the_fact_sheet_is_there_with_a_label() -> None:
    assert [key for key in PUBLISHED_TYPES if not str(EVENT_TYPES[key].label)] == []
    assert [name for name in PUBLISHED_VARIABLES if not str(VARIABLES[name].label)] == []


def test_older_names_are_the_platforms() -> None:
    assert {v.name: v.older_name for v in VARIABLES.values() if v.older_name} == {
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


def test_no_older_name_is_also_a_name() -> None:
    assert not set(catalogue.CURRENT_NAMES) & set(VARIABLES)


@pytest.mark.parametrize("key", PUBLISHED_TYPES)
def test_a_sample_holds_the_variables_of_its_type_and_can_be_sent(key: str) -> None:
    event = catalogue.sample_event(key)
    assert event["event"] == key
    assert list(event) == [v.name for v in catalogue.variables_for(key) if v.name != "attempt"]
    json.dumps(event, allow_nan=False)


def test_every_variable_occurs_in_an_event() -> None:
    carried = {name for kind in EVENT_TYPES.values() for name in kind.variables}
    assert carried | set(catalogue.ALWAYS) == set(VARIABLES)


def test_a_sample_is_of_its_variables_type() -> None:
    types = {
        VariableType.INTEGER: int,
        VariableType.NUMBER: float,
        VariableType.BOOLEAN: bool,
        VariableType.OBJECT: dict,
    }
    for variable in VARIABLES.values():
        assert type(variable.sample) is types.get(variable.type, str), variable.name
        if variable.type is VariableType.DATETIME:
            assert catalogue.INSTANT.fullmatch(str(variable.sample))
        if variable.choices:
            assert variable.sample in variable.choices


def test_a_sample_may_be_changed_without_harm() -> None:
    first = EVENT_TYPES["form.submitted"].sample()
    first["fields"]["city"] = "changed"  # type: ignore[index]
    assert EVENT_TYPES["form.submitted"].sample() != first


def test_an_outgoing_call_says_so() -> None:
    sample = EVENT_TYPES["call.outgoing.after"].sample()
    assert sample["call_type"] == "out"
    assert sample["dst"] == sample["client_number"]


def test_groups_have_a_wildcard_and_leave_out_the_test_event() -> None:
    groups = {group.key: group for group in catalogue.groups()}
    assert groups["call.incoming"].wildcard == "call.incoming.*"
    assert [t.key for t in groups["deal"].types] == ["deal.created", "deal.status_changed"]
    assert "webhook.test" not in {t.key for t in groups["webhook"].types}
    assert all(str(group.label) != group.key for group in groups.values())


def test_patterns_are_the_type_and_its_wildcards() -> None:
    assert catalogue.patterns_for("call.incoming.before") == (
        "call.incoming.before",
        "call.incoming.*",
        "call.*",
    )
    assert catalogue.patterns_for("webhook.test") == ()
    assert catalogue.patterns_for("no.such") == ()


def test_a_type_that_is_not_there_takes_no_memory() -> None:
    tracemalloc.start()
    for number in range(20):
        catalogue.patterns_for(f"{number}{'x' * 1_000_000}")
    kept_bytes, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 5_000_000


@pytest.mark.parametrize(
    ("pattern", "event_type", "is_match"),
    [
        ("call.incoming.after", "call.incoming.after", True),
        ("call.incoming.*", "call.incoming.after", True),
        ("call.*", "call.outgoing.after", True),
        ("call.outgoing.*", "call.incoming.after", False),
        ("call.incoming", "call.incoming.after", False),
        ("*", "call.incoming.after", False),
        ("webhook.*", "webhook.failing", True),
        ("webhook.*", "webhook.test", False),
        ("webhook.test", "webhook.test", False),
        ("form.*", "form.unknown", False),
    ],
)
def test_a_pattern_matches_what_it_covers(pattern: str, event_type: str, is_match: bool) -> None:
    assert (pattern in catalogue.patterns_for(event_type)) is is_match


def test_valid_patterns_come_back_without_repetitions() -> None:
    patterns = ["call.*", "form.submitted", "call.*", "webhook.*", "webhook.failing"]
    assert catalogue.validate_patterns(patterns) == [
        "call.*",
        "form.submitted",
        "webhook.*",
        "webhook.failing",
    ]


@pytest.mark.parametrize(
    "patterns", [["webhook.test"], ["call"], ["*"], ["call.*.after"], [""], [3], [["a"]], "call.*"]
)
def test_a_pattern_that_means_nothing_is_refused(patterns: list[object]) -> None:
    with pytest.raises(catalogue.PatternError):
        catalogue.validate_patterns(patterns)


def test_only_the_test_event_cannot_be_subscribed_to() -> None:
    assert [t.key for t in EVENT_TYPES.values() if not t.is_subscribable] == ["webhook.test"]


def test_events_about_webhooks_are_not_published_by_others() -> None:
    reserved = [t.key for t in EVENT_TYPES.values() if not t.is_publishable]
    assert reserved == [key for key in PUBLISHED_TYPES if key.startswith("webhook.")]


def test_labels_wait_for_the_language_of_the_reader() -> None:
    assert all(type(t.label) is not str for t in EVENT_TYPES.values())
    assert all(type(v.label) is not str for v in VARIABLES.values())


def test_a_host_project_adds_its_types() -> None:
    types = catalogue.host_types(HOST_TYPES)
    assert types["order.paid"].sample() == HOST_TYPES["order.paid"]["sample"]  # type: ignore[index]
    assert types["order.lost"].label == "Order lost"
    assert types["order.paid"].group == "order"


def test_a_host_project_names_its_types_by_a_path() -> None:
    assert (
        catalogue.host_types("tests.catalogue.test_catalogue.HOST_TYPES").keys()
        == HOST_TYPES.keys()
    )


def test_the_variables_of_a_host_type_are_read_off_its_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key, event_type in catalogue.host_types(HOST_TYPES).items():
        monkeypatch.setitem(EVENT_TYPES, key, event_type)
    kinds = {v.name: v.type for v in catalogue.variables_for("order.paid")}
    assert {name: kinds[name] for name in ("total", "lines", "gift", "paid_at")} == {
        "total": VariableType.NUMBER,
        "lines": VariableType.OBJECT,
        "gift": VariableType.BOOLEAN,
        "paid_at": VariableType.DATETIME,
    }
    assert [v.name for v in catalogue.variables_for("order.paid") if v.is_phone] == ["buyer"]


def test_the_schema_of_a_host_type_fits_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = {"lines": [1], "amount": {"value": 10.5}, "title": [], "coupon": None, "name": "A"}
    types = catalogue.host_types({"order.paid": {"label": "Order paid", "sample": sample}})
    monkeypatch.setitem(EVENT_TYPES, "order.paid", types["order.paid"])
    found = catalogue.schema("order.paid")["properties"]
    said = {name: found[name].get("type") for name in sample}
    assert said == {
        "lines": "array", "amount": "object", "title": "array", "coupon": None, "name": "string",
    }  # fmt: skip
    # Other types have a number there.
    assert catalogue.schema("deal.created")["properties"]["amount"]["type"] == "number"


def test_a_sample_has_the_fields_of_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = {"attempt": 2, "project_id": 5, "event": "x", "total": 1}
    types = catalogue.host_types({"order.paid": {"label": "Order paid", "sample": sample}})
    monkeypatch.setitem(EVENT_TYPES, "order.paid", types["order.paid"])
    moment = datetime(2026, 5, 14, tzinfo=UTC)
    document = json.loads(payloads.build_document("order.paid", "evt_1", moment, "default", sample))
    shown = catalogue.sample_event("order.paid")
    assert list(shown) == list(document)
    assert (shown["event"], shown["project_id"]) == ("order.paid", "default")


@pytest.mark.parametrize(
    ("paid_at", "sample", "kind"),
    [
        (datetime(2026, 5, 14, 9, 28, 49, tzinfo=UTC), "2026-05-14T09:28:49Z", "datetime"),
        (datetime(2026, 5, 14, 9, 28, 49), "2026-05-14T09:28:49Z", "datetime"),
        ("2026-05-14 12:28:49.5+0300", "2026-05-14T09:28:49.500000Z", "datetime"),
        ("2026-05-14 12:28:49", "2026-05-14 12:28:49", "string"),
        ("2026-15-14T12:28:49+03:00", "2026-15-14T12:28:49+03:00", "string"),
    ],
)
def test_a_moment_in_a_sample_shows_that_it_is_one_however_it_is_written(
    paid_at: object, sample: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = {"order.paid": {"label": "Order paid", "sample": {"paid_at": paid_at}}}
    event_type = catalogue.host_types(setting)["order.paid"]
    assert event_type.sample() == {"paid_at": sample}
    monkeypatch.setitem(EVENT_TYPES, "order.paid", event_type)
    assert catalogue.variables_for("order.paid")[-1].type == kind


@pytest.mark.parametrize(
    "setting",
    [
        ["order.paid"],
        {"order": "No dot"},
        {"Order.Paid": "Capital letters"},
        {"order." + "x" * 100: "Too long"},
        {"webhook.mine": "The product's prefix"},
        {"form.submitted": "Known already"},
        {3: "No text"},
        {"order.paid": ""},
        {"order.paid": {"sample": {}}},
        {"order.paid": {"label": "Order paid", "sampel": {}}},
        {"order.paid": {"label": "Order paid", "sample": []}},
        {"order.paid": {"label": "Order paid", "sample": {"total": Decimal("10.5")}}},
        {"order.paid": {"label": "Order paid", "sample": {"total": float("nan")}}},
    ],
)
def test_a_wrong_host_type_stops_the_start(setting: object) -> None:
    with pytest.raises(ImproperlyConfigured, match="WEBHOOKS_EVENT_TYPES"):
        catalogue.host_types(setting)  # type: ignore[arg-type]


def test_every_text_of_a_sample_survives_a_document() -> None:
    for key, event_type in EVENT_TYPES.items():
        document = payloads.build_document(
            key, "evt_1", datetime(2026, 5, 14, tzinfo=UTC), "default", event_type.sample()
        )
        assert json.loads(document).items() >= event_type.sample().items()


def test_keys_are_lower_case_words_joined_by_dots() -> None:
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_]+){1,2}", key) for key in EVENT_TYPES)
