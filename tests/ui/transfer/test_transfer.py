"""Webhooks as JSON: everything but secrets is exported, and imported unchanged elsewhere."""

import json
import socket
import threading
import time
from typing import Any

import pytest
from django.db import models
from django.utils import timezone

from tests.factories import make_credential, make_webhook
from webhooks import events, oauth
from webhooks.audit.versions import FIELDS, NOT_PORTABLE
from webhooks.models import AUTHORIZATION_FIELDS, Credential, Webhook
from webhooks.security.encryption import SecretField
from webhooks.ui.transfer import document, plans
from webhooks.ui.transfer.document import FileError, as_json
from webhooks.ui.transfer.plans import Change, ImportPlan

pytestmark = pytest.mark.django_db

HEADERS = [
    {"name": "X-Api-Key", "value": "key-in-a-header", "secret": True},
    {"name": "X-Team", "value": "sales", "secret": False},
]
FULL: dict[str, Any] = {
    "name": "CRM: missed calls",
    "url": "http://127.0.0.1:9/hook?a=1",
    "method": "PUT",
    "body_format": "form",
    "date_format": "sql",
    "time_zone": "Europe/Kyiv",
    "uses_older_names": True,
    "event_types": ["call.incoming.*", "form.submitted"],
    "filter": {"all": [{"variable": "disposition", "operator": "equals", "value": "x"}]},
    "parameters": [{"name": "phone", "variable": "caller_e164"}, {"name": "from", "value": "PBX"}],
    "alert_recipients": ["ops@example.com", "lead@example.com"],
    "alerts_are_muted": True,
    "alert_after_failures": 5,
    "alert_failure_percent": 20,
    "timeout_seconds": 20,
    "rate_limit": 10,
    "rate_limit_seconds": 60,
    "concurrency_limit": 2,
    "is_ordered": True,
    "retry_schedule_seconds": [5, 300, 7200],
    "authorization_type": "oauth2",
    "token_name": "CRM",
    "auth_url": "http://127.0.0.1:9/authorize",
    "token_url": "http://127.0.0.1:9/token",
    "client_id": "client",
    "scope": "read write",
    "audience": "https://api.example.com",
    "expired_status_codes": [401, 419],
    "reauthorization_words": ["token expired"],
    "authorization_parameters": {"prompt": "consent", "resource": ["a", "b"]},
    "client_secret": "secret-of-the-client",
    "basic_password": "pass-word-of-basic",
    "headers_json": json.dumps(HEADERS),
}
SECRETS = ("secret-of-the-client", "pass-word-of-basic", "key-in-a-header")


def make_full(**fields: Any) -> Webhook:
    known = {*AUTHORIZATION_FIELDS, *(field.name for field in Webhook._meta.fields)}
    given = {name: value for name, value in FULL.items() if name in known}
    return make_webhook(**{**given, **fields})


def plan(*entries: Any, may: Any = lambda permission: True, is_paused: bool = False) -> ImportPlan:
    return plans.make_plan(list(entries), may=may, is_paused=is_paused)


def bring_in(*entries: Any, **more: Any) -> list[Webhook]:
    """Import all entries and return the rows as they are stored."""
    made = plan(*entries, **more)
    assert [item.errors for item in made.items if item.errors] == []
    done = plans.carry_out(made, range(len(entries)), created_by_id=None)
    return [Webhook.objects.get(pk=item.webhook.pk) for item in done if item.webhook]


def errors(entry: Any, **more: Any) -> str:
    [item] = plan(entry, **more).items
    assert item.kind == Change.REFUSED
    return " ".join(item.errors)


def minimal(**more: Any) -> dict[str, Any]:
    entry = {"name": "CRM", "url": "http://127.0.0.1:9/hook", "event_types": ["call.*"]}
    return {**entry, **more}


def test_every_column_is_portable_secret_or_of_this_site_alone() -> None:
    every = {**AUTHORIZATION_FIELDS, **{field.name: field for field in Webhook._meta.fields}}
    secret = {name for name, field in every.items() if isinstance(field, SecretField)}
    assert {*FIELDS, *NOT_PORTABLE, *secret} == every.keys()
    assert not FIELDS.keys() & secret
    assert not any(isinstance(field, models.ForeignKey) for field in FIELDS.values())


def test_no_secret_leaves_and_the_file_names_what_is_missing() -> None:
    webhook = make_full()
    text = json.dumps(document.document([webhook]))
    for secret in (*SECRETS, webhook.signing_secret, webhook.signing_secret.removeprefix("whsec_")):
        assert secret not in text
    entry = as_json(webhook)
    assert entry["secrets"] == ["basic_password", "client_secret", "headers.X-Api-Key"]
    assert entry["headers"] == [
        {"name": "X-Api-Key", "secret": True},
        {"name": "X-Team", "value": "sales"},
    ]


def test_an_exported_webhook_comes_back_the_same_on_another_site() -> None:
    webhook = make_full(callback_url=oauth.default_callback_url())
    entry = json.loads(json.dumps(as_json(webhook)))
    Webhook.objects.all().delete()
    [copy] = bring_in(entry)
    left_out = {"id", "version", "created_at", "updated_at", "secrets_changed_at", "credential"}
    for field in Webhook._meta.fields:
        if field.name not in left_out and not isinstance(field, SecretField):
            assert getattr(copy, field.name) == getattr(webhook, field.name), field.name
    for name, column in AUTHORIZATION_FIELDS.items():
        if not isinstance(column, SecretField):
            assert getattr(copy.credential, name) == getattr(webhook.credential, name), name
    assert not copy.credential.has_secret("client_secret")
    assert copy.signing_secret not in ("", webhook.signing_secret)
    assert [(row.name, row.value) for row in copy.read_headers()] == [
        ("X-Api-Key", ""),
        ("X-Team", "sales"),
    ]


def test_a_mute_for_some_hours_stays_here() -> None:
    webhook = make_full(alerts_muted_until=timezone.now())
    entry = json.loads(json.dumps(as_json(webhook)))
    Webhook.objects.all().delete()
    [copy] = bring_in(entry)
    assert (copy.alerts_are_muted, copy.alerts_muted_until) == (False, None)


def test_the_address_of_this_site_stays_here() -> None:
    own = make_webhook(name="Own", callback_url=oauth.default_callback_url())
    other = make_webhook(name="Other", callback_url="https://other.example/callback/")
    assert as_json(own)["callback_url"] == ""
    assert as_json(other)["callback_url"] == "https://other.example/callback/"


def test_a_file_with_three_settings_is_enough() -> None:
    [webhook] = bring_in(minimal())
    assert (webhook.method, webhook.timeout_seconds, webhook.is_active) == ("POST", 15, True)


def test_new_webhooks_can_start_paused() -> None:
    [webhook] = bring_in(minimal(is_active=True), is_paused=True)
    assert (webhook.is_active, webhook.pause_reason) == (False, "person")


def test_what_is_the_same_here_is_skipped() -> None:
    entry = as_json(make_full())
    [item] = plan(entry).items
    assert (item.kind, item.changes) == (Change.SAME, [])
    assert plan(entry).doable == []


def test_a_change_says_what_becomes_different_and_keeps_secrets() -> None:
    webhook = make_full()
    entry = {**as_json(webhook), "timeout_seconds": 30, "url": "http://127.0.0.1:9/other"}
    [item] = plan(entry).items
    assert item.kind == Change.CHANGE
    assert sorted(item.changes) == ["Timeout (seconds)", "URL"]
    [changed] = bring_in(entry)
    assert changed.pk == webhook.pk
    assert (changed.timeout_seconds, changed.url) == (30, "http://127.0.0.1:9/other")
    assert changed.credential.client_secret == "secret-of-the-client"
    assert changed.credential.basic_password == "pass-word-of-basic"
    assert changed.read_headers()[0].value == "key-in-a-header"
    assert changed.signing_secret == webhook.signing_secret


def test_a_changed_address_of_a_provider_is_written() -> None:
    webhook = make_full()
    moved = {
        name: f"https://other.example/{name}"
        for name in ("auth_url", "token_url", "refresh_url", "revocation_url")
    }
    [changed] = bring_in({**as_json(webhook), **moved, "authorization_type": "oauth2"})
    stored = Credential.objects.get(pk=changed.credential_id)
    assert {name: getattr(stored, name) for name in moved} == moved


@pytest.mark.parametrize("name", ["filter", "parameters", "body_template", "headers"])
def test_what_has_a_grammar_of_its_own_is_changed_too(name: str) -> None:
    webhook = make_webhook(headers_json=json.dumps(HEADERS))
    values = {
        "filter": FULL["filter"],
        "parameters": FULL["parameters"],
        "body_template": '{"phone": "{{ caller_e164 }}"}',
        "headers": [{"name": "X-Api-Key", "secret": True}, {"name": "X-New", "value": "1"}],
    }
    [changed] = bring_in({**as_json(webhook), name: values[name]})
    again = as_json(changed)
    assert again[name] == values[name]
    assert changed.read_headers()[0].value == "key-in-a-header"


def test_an_entry_without_a_setting_leaves_it_as_it_is() -> None:
    webhook = make_full()
    [changed] = bring_in({"name": webhook.name, "uid": webhook.uid, "timeout_seconds": 3})
    assert (changed.timeout_seconds, changed.credential.scope) == (3, "read write")
    assert changed.read_headers()[0].value == "key-in-a-header"


def test_a_file_neither_stops_nor_starts_what_is_here() -> None:
    webhook = make_full()
    [changed] = bring_in({**as_json(webhook), "is_active": False, "method": "POST"})
    assert changed.is_active


def test_a_webhook_is_known_by_its_uid_or_by_its_only_name() -> None:
    webhook = make_webhook(name="CRM")
    assert plan(minimal(name="Renamed", uid=webhook.uid)).items[0].webhook == webhook
    assert plan(minimal(name=" crm ")).items[0].webhook == webhook
    make_webhook(name="CRM")
    assert "2 webhooks have this name here" in errors(minimal())


def test_a_deleted_webhook_is_created_again_with_another_uid() -> None:
    webhook = make_full()
    entry = as_json(webhook)
    events.delete(webhook)
    [copy] = bring_in(entry)
    assert copy.pk != webhook.pk
    assert copy.uid != webhook.uid


def test_a_connection_is_found_by_its_name() -> None:
    shared = make_credential(name="Shared")
    webhook = make_webhook(name="CRM", credential=shared)
    entry = as_json(webhook)
    assert entry["connection"] == "Shared"
    assert "secrets" in entry
    webhook.delete()
    [copy] = bring_in(entry)
    assert copy.credential_id == shared.pk
    assert "There is no connection “Other” here" in errors({**entry, "connection": "Other"})
    refuse = errors(
        {**entry, "name": "New", "uid": "whk_1"}, may=lambda permission: "add" in permission
    )
    assert "You have no permission to use connections." in refuse


def test_an_entry_above_that_is_the_same_webhook_is_refused() -> None:
    items = plan(minimal(), minimal(name="CRM ")).items
    assert [item.kind for item in items] == [Change.CREATE, Change.REFUSED]


def test_two_webhooks_of_one_name_come_back_as_two() -> None:
    entries = [as_json(make_webhook(name="CRM", url=f"http://127.0.0.1:9/{n}")) for n in range(2)]
    Webhook.objects.all().delete()
    assert [one.url for one in bring_in(*entries)] == [one["url"] for one in entries]
    assert [item.kind for item in plan(*entries).items] == [Change.SAME, Change.SAME]
    Webhook.objects.all().delete()
    twice = plan(entries[0], entries[0]).items
    assert [item.kind for item in twice] == [Change.CREATE, Change.REFUSED]


def test_permissions_are_asked_entry_by_entry() -> None:
    make_webhook(name="Old")
    items = plan(minimal(), minimal(name="Old"), may=lambda one: one == "webhooks.add_webhook")
    assert [item.kind for item in items.items] == [Change.CREATE, Change.REFUSED]
    assert items.items[1].errors == ["You have no permission to change it."]


def test_the_limit_of_an_event_type_counts_the_entries_above(settings: Any) -> None:
    settings.WEBHOOKS_MAX_PER_EVENT_TYPE = 3
    old = make_webhook(name="Old", event_types=["form.submitted"])
    entries = [minimal(name=f"New {number}", event_types=["form.*"]) for number in range(3)]
    kept = {"name": "Old", "uid": old.uid, "timeout_seconds": 3}
    kinds = [item.kind for item in plan(*entries, kept).items]
    assert kinds == [Change.CREATE, Change.CREATE, Change.REFUSED, Change.CHANGE]


@pytest.mark.once
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"name": ""}, "It has no name."),
        ({"name": None}, "It has no name."),
        ({"nonsense": 1}, "There is no setting “nonsense”."),
        ({"client_secret": "s"}, "secrets are not imported"),
        ({"signing_secret": "s"}, "secrets are not imported"),
        ({"uid": "../etc"}, "“uid” is not one of a webhook"),
        ({"url": 5}, "URL:"),
        ({"alert_recipients": "a@example.com"}, "“alert_recipients” must be written as ["),
        ({"url": "ftp://example.com/"}, "URL:"),
        ({"url": "http://169.254.169.254/"}, "URL:"),
        ({"method": "BREW"}, "Method:"),
        ({"timeout_seconds": 1000}, "Timeout (seconds):"),
        ({"timeout_seconds": True}, "a whole number"),
        ({"timeout_seconds": None}, "a whole number"),
        ({"timeout_seconds": "15"}, "“timeout_seconds” must be written as 15."),
        ({"is_ordered": "yes"}, "“is_ordered” must be written as true."),
        ({"event_types": "call.*"}, "Events:"),
        ({"event_types": 5}, "“event_types” has a value of the wrong type."),
        (
            {"retry_schedule_seconds": ["5s"]},
            "“retry_schedule_seconds” has a value of the wrong type.",
        ),
        ({"event_types": ["no.such"]}, "Events:"),
        ({"event_types": []}, "Events:"),
        ({"time_zone": "Mars/Olympus"}, "Time zone"),
        ({"filter": {"nonsense": 1}}, "Filter:"),
        ({"filter": []}, "“filter” has a value of the wrong type."),
        ({"parameters": [{"name": "a", "variable": "no_such"}]}, "Parameters:"),
        ({"body_template": "{"}, "JSON body:"),
        ({"alert_recipients": ["nobody"]}, "is not an email address"),
        ({"headers": [{"name": "Host", "value": "x"}]}, "is set automatically"),
        ({"headers": [{"name": "X-A"}]}, "has no value"),
        ({"headers": [{"name": "X-A", "value": "1\r\nX-B: 2"}]}, "X-A:"),
        ({"headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]}, "twice"),
        ({"headers": {"X-A": "1"}}, "“headers” must be a list"),
        ({"authorization_type": "oauth2", "token_url": "x"}, ":"),
        # Fields of an authorization type that is not chosen.
        ({"token_url": [1]}, "“token_url” has a value of the wrong type."),
        ({"client_id": 5}, "“client_id” has a value of the wrong type."),
        ({"scope": False}, "“scope” has a value of the wrong type."),
        ({"retry_schedule_seconds": 0}, "“retry_schedule_seconds” must be written as []."),
        ({"uses_pkce": "no"}, "“uses_pkce” has a value of the wrong type."),
        ({"authorization_parameters": "a"}, "“authorization_parameters” has a value of the wrong"),
    ],
)
def test_a_mistake_is_refused_with_a_sentence(more: dict[str, Any], sentence: str) -> None:
    assert sentence in errors(minimal(**more))
    assert not Webhook.objects.exists()


@pytest.mark.once
@pytest.mark.parametrize("entry", [1, "text", None, []])
def test_an_entry_that_is_no_object_is_refused(entry: Any) -> None:
    assert errors(entry)


@pytest.mark.once
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The text ends here, but a value is missing"),
        (b'{"version": 1,\n "webhooks": [}', "Line 2, column 15"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "nested more than 32 levels deep"),
        (b'{"version": 1, "webhooks": [NaN]}', "NaN is not JSON"),
        (b'{"version": 1, "version": 1, "webhooks": [{}]}', "“version” is in this object already"),
        (b"[]", "an object with a list"),
        (b'{"version": 2, "webhooks": [{}]}', "file is 2; this site reads version 1"),
        (b'{"version": "1", "webhooks": [{}]}', 'file is "1"; this site reads version 1'),
        (b'{"version": true, "webhooks": [{}]}', "file is true; this site reads version 1"),
        (b'{"version": null, "webhooks": [{}]}', "file is null; this site reads version 1"),
        (b'{"webhooks": [{}]}', "an object with a list"),
        (b'{"version": 1, "webhooks": []}', "no webhook in the file"),
        (b'{"version": 1, "webhooks": [{"name": "\\u0000"}]}', "such as NUL"),
        (b'{"version": 1, "webhooks": [{"name": "\\ud800"}]}', "such as NUL"),
        (b'{"version": 1, "webhooks": [{"parameters": [{"value": 1e999}]}]}', "such as 1e999"),
        (b'{"version": 1, "webhooks": [{"filter": {"value": [-1e999]}}]}', "such as 1e999"),
        (b'{"version": 1, "webhooks": ' + json.dumps([{}] * 501).encode() + b"}", "at most 500"),
        (b" " * (2 * 1024 * 1024 + 1), "larger than 2 MB"),
    ],
)
def test_a_file_that_is_none_is_refused_with_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(FileError, match=sentence):
        document.read(content)


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    assert document.read(b'\xef\xbb\xbf{"version": 1, "webhooks": [{}]}') == [{}]


def test_secrets_that_requests_need_are_named() -> None:
    [item] = plan({**as_json(make_full()), "name": "New", "uid": "whk_new"}).items
    assert item.kind == Change.CREATE
    assert item.missing == ["the client secret", "the value of the header X-Api-Key"]
    basic = minimal(authorization_type="basic", basic_login="demo")
    assert plan(basic).items[0].missing == ["the password"]
    grant = {"grant_type": "client_credentials", "token_url": "http://127.0.0.1:9/token"}
    machine = minimal(authorization_type="oauth2", client_id="a", **grant)
    assert plan(machine).items[0].missing == ["the client secret"]


def test_a_client_secret_that_the_file_names_is_missing_before_and_after_the_import() -> None:
    grant = {"auth_url": "http://127.0.0.1:9/auth", "token_url": "http://127.0.0.1:9/token"}
    person = minimal(authorization_type="oauth2", client_id="a", **grant)
    assert plan(person).items[0].missing == []
    made = plan({**person, "secrets": ["client_secret"]})
    assert made.items[0].missing == ["the client secret"]
    [done] = plans.carry_out(made, {0}, created_by_id=None)
    assert done.missing == ["the client secret"]


def test_secrets_of_an_authorization_that_is_not_used_need_not_be_entered() -> None:
    assert plan(minimal(secrets=["client_secret", "basic_password"])).items[0].missing == []


def test_headers_that_the_other_site_could_not_read_are_named() -> None:
    [missing] = plan(minimal(secrets=["headers"])).items[0].missing
    assert missing.startswith("the headers")


@pytest.mark.once
@pytest.mark.parametrize("listed", [None, "client_secret", {"client_secret": 1}, [["x"], 5]])
def test_a_list_of_secrets_that_is_none_says_nothing(listed: Any) -> None:
    assert plan(minimal(secrets=listed)).items[0].missing == []


PLACES = '{"id": "{{ call_id }}"}'
NOT_JSON = "A JSON body needs the body format JSON and a method other than GET."


@pytest.mark.once
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"body_template": PLACES, "method": "GET"}, NOT_JSON),
        ({"body_template": PLACES, "body_format": "form"}, NOT_JSON),
        ({"body_template": '["{{ call_id }}"]', "body_format": "form"}, NOT_JSON),
        (
            {"body_template": PLACES, "parameters": [{"name": "id", "variable": "call_id"}]},
            "either parameters or a JSON body",
        ),
        ({"alert_recipients": ["a@example.com\u2028b@example.com"]}, "must be written as ["),
    ],
)
def test_what_a_page_refuses_is_refused_in_a_file(more: dict[str, Any], sentence: str) -> None:
    assert sentence in errors(minimal(**more))


@pytest.mark.once
@pytest.mark.parametrize(
    "more",
    [
        {"reauthorization_words": ["expired\ninvalid"]},
        {"authorization_parameters": {"prompt": "consent\naudience=x"}},
        {"authorization_parameters": {"prompt": ["a", "b\r\nc=d"]}},
        {"authorization_parameters": {"a=b\nprompt": "x"}},
    ],
)
def test_a_text_that_a_page_takes_for_two_is_refused_in_a_file(more: dict[str, Any]) -> None:
    oauth2 = {
        key: FULL[key] for key in ("authorization_type", "auth_url", "token_url", "client_id")
    }
    assert "must be written as" in errors(minimal(**oauth2, **more))


@pytest.mark.parametrize(
    "value", [5, -5.5, True, None, "x", [5], [0.5], [["x"]], [{"a": 1}], {"a": [{}]}, {"a": None}]
)
def test_a_value_of_another_kind_breaks_no_import(value: Any) -> None:
    entry = {**minimal(), **dict.fromkeys(FIELDS.keys() - {"name"}, value)}
    [item] = plan(entry).items
    assert item.kind == Change.REFUSED
    assert all(item.errors)


def test_names_of_a_request_without_json_are_no_paths() -> None:
    rows = [{"name": "a..b", "variable": "call_id"}, {"name": "a", "variable": "call_id"}]
    [webhook] = bring_in(minimal(method="GET", parameters=rows))
    assert webhook.parameters == rows


def test_a_field_that_was_seen_in_an_event_is_a_variable_of_a_file() -> None:
    events.publish("form.submitted", {"lead_score": 5})
    entry = minimal(event_types=["form.*"])
    rows = [{"name": "score", "variable": "lead_score"}]
    assert bring_in({**entry, "name": "A", "parameters": rows})
    assert bring_in({**entry, "name": "B", "body_template": '{"score": "{{ lead_score }}"}'})
    assert "no variable" in errors(
        {**entry, "name": "C", "parameters": [{"name": "x", "variable": "lead"}]}
    )


# ---- Names are looked up together ---------------------------------------------------------------


@pytest.mark.slow
def test_a_file_asks_about_all_its_names_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up one after another, 500 names of a slow name server took 42 minutes."""
    asked = []
    # Opens when half of the names are looked up at the same time.
    together = threading.Barrier(20, timeout=plans.LOOKUP_SECONDS / 2)

    def answer(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        together.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    names = [f"n{number}.example.com" for number in range(40)]
    entries = [minimal(name=name, url=f"https://{name}/") for name in names]
    plan = plans.make_plan(entries, may=lambda _: True, is_paused=True)
    assert len(plan.of(Change.CREATE)) == len(entries)
    assert sorted(asked) == sorted(names)
    assert not together.broken


@pytest.mark.slow
def test_a_name_server_that_does_not_answer_holds_a_file_up_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_over = threading.Event()

    def silent(*_: object, **__: object) -> None:
        is_over.wait(60)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(plans, "LOOKUP_SECONDS", 1.0)
    entries = [minimal(name=f"W{one}", url=f"https://n{one}.example.com/") for one in range(8)]
    began = time.monotonic()
    plan = plans.make_plan(entries, may=lambda _: True, is_paused=True)
    is_over.set()
    assert time.monotonic() - began < 20
    assert len(plan.of(Change.CREATE)) == 8
