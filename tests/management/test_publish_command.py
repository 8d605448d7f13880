"""`manage.py publish`: its output and its errors."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from webhooks.models import Delivery, Event, Webhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def payload_file(tmp_path: Path) -> Path:
    path = tmp_path / "form.json"
    path.write_text(json.dumps({"name": "Тарас"}), encoding="utf-8")
    return path


def publish(*arguments: object) -> str:
    out = io.StringIO()
    call_command("publish", *map(str, arguments), stdout=out)
    return out.getvalue()


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def make_webhook() -> Webhook:
    return Webhook.objects.create(
        name="CRM", url="https://crm.example.com/", event_types=["form.submitted"]
    )


def test_the_id_and_the_number_of_deliveries_are_printed(payload_file: Path) -> None:
    make_webhook()
    printed = publish("form.submitted", "--payload", payload_file)
    event = Event.objects.get()
    assert printed == f"{event.id}\ndeliveries: 1\n"
    assert json.loads(bytes(event.payload))["name"] == "Тарас"
    assert event.source == "manage.py publish"


def test_the_payload_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, b'\xef\xbb\xbf{"name": "Olena"}\n')
    assert "deliveries: 0" in publish("form.submitted", "--payload", "-")
    assert json.loads(bytes(Event.objects.get().payload))["name"] == "Olena"


def test_the_same_key_twice_is_one_event(payload_file: Path) -> None:
    make_webhook()
    arguments = ("form.submitted", "--payload", payload_file, "--idempotency-key", "k")
    first, second = publish(*arguments), publish(*arguments)
    assert second.splitlines() == [
        first.splitlines()[0],
        "deliveries: 1 (published before with this key)",
    ]
    assert (Event.objects.count(), Delivery.objects.count()) == (1, 1)


@pytest.mark.once
@pytest.mark.parametrize(
    ("event_type", "data", "sentence"),
    [
        ("no.such", b"{}", "There is no event type “no.such”."),
        ("webhook.test", b"{}", "webhook.test"),
        ("webhook.failing", b"{}", "made by this product only."),
        ("form.submitted", b"", "not JSON. Line 1"),
        ("form.submitted", b"{'a': 1}", "not JSON. Line 1, column 2"),
        ("form.submitted", b'{"a": 1, "a": 2}', "Line 1, column 10: “a” is in this object"),
        ("form.submitted", b"[]", "not a JSON object."),
        ("form.submitted", b"\xff", "not UTF-8."),
        ("form.submitted", b'{"a": 1e999}', "The number at “a” is too large"),
        ("form.submitted", b'{"a": "' + b"x" * 1024 * 1024 + b'"}', "larger than 1048576 bytes."),
    ],
)
def test_bad_input_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, event_type: str, data: bytes, sentence: str
) -> None:
    feed(monkeypatch, data)
    with pytest.raises(CommandError) as raised:
        publish(event_type, "--payload", "-")
    assert sentence in str(raised.value)
    assert not Event.objects.exists()


def test_a_reused_key_is_refused(payload_file: Path) -> None:
    publish("form.submitted", "--payload", payload_file, "--idempotency-key", "k")
    payload_file.write_text("{}")
    with pytest.raises(CommandError, match="other content"):
        publish("form.submitted", "--payload", payload_file, "--idempotency-key", "k")


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match=name):
        publish("form.submitted", "--payload", tmp_path / name)


def test_the_payload_is_required() -> None:
    with pytest.raises(CommandError, match="--payload"):
        publish("form.submitted")


def test_the_key_is_checked(payload_file: Path) -> None:
    arguments: list[Any] = ["form.submitted", "--payload", payload_file, "--idempotency-key", ""]
    with pytest.raises(CommandError, match="1 to 255"):
        publish(*arguments)


@pytest.mark.parametrize("part", ["type", "file", "key of a payload"])
def test_a_refusal_repeats_no_control_character(payload_file: Path, part: str) -> None:
    bad = "\x1b[31m\u202e"
    if part == "key of a payload":
        payload_file.write_text(f'{{"{bad}": 1, "{bad}": 2}}'.replace("\x1b", "\\u001b"))
    event_type = bad if part == "type" else "form.submitted"
    file = f"{payload_file}{bad if part == 'file' else ''}"
    with pytest.raises(CommandError) as refused:
        publish(event_type, "--payload", file)
    assert "\\x1b[31m\\x202e" in str(refused.value)
    assert str(refused.value).isprintable()
