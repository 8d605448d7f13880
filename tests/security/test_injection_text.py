"""Hostile texts outside pages: requests, headers, URLs, CSV, log lines, mails, commands."""

import csv
import io
import json
import logging
import re
import shutil
import subprocess
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.core import mail
from django.utils import timezone

from tests.factories import deliver_all, make_webhook
from tests.security.hostile import answering, asked
from tests.security.injections import CORPUS, STORABLE, chunks
from tests.ui.webhook_form.test_forms import header_fields, multi_value, posted
from tests.ui.webhook_form.test_views import logged_in
from webhooks import events, payloads
from webhooks.alerts import notifications
from webhooks.curl import CurlError, writer
from webhooks.delivery.auth import BearerAuthorization, NoAuthorization
from webhooks.delivery.requests import RequestPlan, make_plan
from webhooks.models import Delivery, Event, OAuthToken, Outcome, Status, Webhook
from webhooks.payloads import MappingError
from webhooks.security.drafts import Draft
from webhooks.security.log_redaction import LineFormatter
from webhooks.ui.deliveries.export import cell
from webhooks.ui.webhook_form.headers import header_rows

# The only characters allowed in a log line, header or URL.
PRINTABLE = re.compile(r"[\x20-\x7e]*")
SEES_NOTHING = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
BASH = shutil.which("bash") or "bash"
URL = "http://127.0.0.1:9/hook"


def everything(**fields: Any) -> bytes:
    """Return the frozen document of an event that holds every string."""
    payload = {"call_id": "call-1", "fields": {text: text for text in CORPUS}, **fields}
    return payloads.build_document("call.incoming.after", "evt_1", timezone.now(), "1", payload)


# ---- Requests --------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", list(chunks(60, STORABLE)), ids=lambda texts: texts[0][:20])
def test_a_static_value_is_sent_as_it_was_typed(texts: list[str]) -> None:
    rows = [{"name": f"n{number}", "value": text} for number, text in enumerate(texts)]
    webhook = Webhook(url=URL, parameters=rows)
    render = payloads.compile_request(webhook, URL)
    assert render is not None
    sent = json.loads(render(everything(), 1).body)
    assert list(sent.values()) == texts


def test_a_value_of_an_event_is_never_read_as_a_template() -> None:
    template = json.dumps({"all": "{{ fields }}", "id": "{{ call_id }}"})
    for text in STORABLE:
        render = payloads.compile_request(Webhook(url=URL, body_template=template), URL)
        assert render is not None
        sent = json.loads(render(everything(call_id=text, fields={text: text}), 1).body)
        assert sent == {"all": {text: text}, "id": text}


def test_a_json_body_is_no_template_language() -> None:
    literal = {text: [text] for text in CORPUS if "{{" not in text}
    webhook = Webhook(url=URL, body_template=json.dumps(literal))
    render = payloads.compile_request(webhook, URL)
    assert render is not None
    assert json.loads(render(everything(), 1).body) == literal


@pytest.mark.parametrize("text", [text for text in CORPUS if "{{" in text])
def test_a_place_is_looked_up_and_never_evaluated(text: str) -> None:
    webhook = Webhook(url=URL, body_template=json.dumps({"a": text}))
    try:
        render = payloads.compile_request(webhook, URL)
    except MappingError:
        return
    assert render is not None
    sent = json.loads(render(everything(), 1).body)["a"]
    # A placeholder for something that no event has becomes empty.
    known = text.replace("{{ call_id }}", "call-1")
    assert sent is None or sent == re.sub(r"\{\{.*?\}\}", "", known)


@pytest.mark.parametrize("texts", list(chunks(60, STORABLE)), ids=lambda texts: texts[0][:20])
def test_a_rendered_address_is_printable_and_says_the_same(texts: list[str]) -> None:
    rows = [{"name": f"n{number}", "value": text} for number, text in enumerate(texts)]
    webhook = Webhook(url=f"{URL}?own=1", method="GET", body_format="query", parameters=rows)
    render = payloads.compile_request(webhook, webhook.url)
    assert render is not None
    address = render(everything(), 1).url
    assert re.fullmatch(r"[\x21-\x7e]+", address)
    parts = urlsplit(address)
    assert (parts.netloc, parts.path, parts.fragment) == ("127.0.0.1:9", "/hook", "")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    assert [value for name, value in pairs if name != "own"] == texts


@pytest.mark.parametrize("part", ["name", "value"])
def test_a_header_of_the_form_is_one_line_or_refused(part: str) -> None:
    kept = []
    for text in CORPUS:
        row = {"name": "X-Key", "value": "value", part: text}
        data = multi_value(posted(**header_fields(row)))
        rows = header_rows(Webhook(), draft=Draft({}, form_key="new"), data=data)
        for header in rows.headers() if rows.is_valid() else ():
            kept.append(text)
            assert NAME.fullmatch(header.name)
            assert re.fullmatch(r"[\t\x20-\x7e]*", header.value)
    assert 0 < len(kept) < len(CORPUS) - 60


def can_be_sent(name: str, value: str) -> bool:
    return bool(NAME.fullmatch(name)) and not re.search("[\r\n\0]", value)


@pytest.mark.once
@pytest.mark.django_db
@pytest.mark.parametrize("part", ["name", "value"])
def test_a_header_of_two_lines_makes_no_request_even_past_the_form(part: str) -> None:
    webhook = make_webhook()
    for text in CORPUS:
        row = {"name": "X-Key", "value": "value", part: text, "secret": False}
        webhook.headers_json = json.dumps([row])
        if can_be_sent(str(row["name"]), str(row["value"])):
            assert f"\n{row['name']}: {row['value']}" in plan_of(webhook).logged_headers
        else:
            with pytest.raises(MappingError, match="more than one line"):
                plan_of(webhook)


def plan_of(webhook: Webhook) -> RequestPlan:
    return make_plan(webhook, NoAuthorization())


@pytest.mark.django_db
@pytest.mark.parametrize("token", ["a\r\nX-Injected: 1", "a\nb", "a\0b"])
def test_a_token_of_two_lines_makes_no_request(token: str) -> None:
    with pytest.raises(MappingError, match="Authorization"):
        make_plan(make_webhook(), BearerAuthorization(token, "Bearer"))


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_hostile_header_adds_no_other_on_the_wire() -> None:
    values = [text for text in STORABLE if can_be_sent("X-Key", text)]
    # This server closes after each response and says so, as a sender could not know otherwise.
    ok = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with answering({f"/{number}": ok for number in range(len(values))}) as address:
        for number, text in enumerate(values):
            row = {"name": "X-Key", "value": text, "secret": False}
            make_webhook(
                url=f"{address}/{number}", headers_json=json.dumps([row]), timeout_seconds=60
            )
        events.publish("call.incoming.after", {"call_id": "call-1"})
        deliver_all(seconds=100)
    requests = asked(address)
    # libcurl refuses a few more; no other reason may keep a request from being sent.
    unsent = Delivery.objects.exclude(status=Status.SUCCEEDED)
    assert set(unsent.values_list("outcome", flat=True)) <= {Outcome.REFUSED}
    assert len(values) - 10 < len(requests) == Delivery.objects.count() - unsent.count()
    for head in requests:
        names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        assert b"x-injected" not in names
        assert not {b"set-cookie", b"transfer-encoding"} & set(names)
        assert names.count(b"host") == names.count(b"content-length") == 1
        assert b"\n" not in head.replace(b"\r\n", b"")
        assert b"\r" not in head.replace(b"\r\n", b"")


# ---- CSV -------------------------------------------------------------------------------------


def test_a_cell_is_text_to_every_spreadsheet() -> None:
    made = [cell(text) for text in CORPUS]
    assert [one for one in made if one.startswith(FORMULA) or not one.isprintable()] == []


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.django_db
def test_an_export_keeps_its_rows_and_columns() -> None:
    for text in STORABLE:
        webhook = make_webhook(name=text[:100])
        event = Event.objects.create(
            type="call.incoming.after",
            payload=json.dumps({"text": text}).encode(),
            occurred_at=timezone.now(),
            call_id=text,
        )
        Delivery.objects.create(
            event=event, webhook=webhook, status="succeeded", next_attempt_at=None
        )
    answer = logged_in(is_superuser=True).get(
        "/integrations/webhooks/deliveries/export.csv", {"payload": "1"}
    )
    content = b"".join(answer.streaming_content).decode("utf-8-sig")  # type: ignore[attr-defined]
    header, *rows = csv.reader(io.StringIO(content))
    assert len(rows) == len(STORABLE)
    assert {len(row) for row in rows} == {len(header)}
    assert not [text for row in rows for text in row if text.startswith(FORMULA)]
    assert not [text for row in rows for text in row if not text.isprintable()]


# ---- Log lines, mails, commands --------------------------------------------------------------


def test_a_log_record_stays_one_line() -> None:
    for text in CORPUS:
        record = logging.LogRecord("webhooks", logging.INFO, "", 0, "event name=%s", (text,), None)
        line = LineFormatter("%(levelname)s %(message)s").format(record)
        assert not SEES_NOTHING.search(line), text


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.django_db
def test_a_mail_about_a_hostile_webhook_is_one_mail_with_its_own_headers() -> None:
    for text in STORABLE:
        webhook = make_webhook(
            name=text[:100], authorization_type="oauth2", alert_recipients=["ops@example.com"]
        )
        OAuthToken.objects.create(
            credential=webhook.credential,
            state="needs_reauthorization",
            last_error=f"It said: {text}",
        )
    while notifications.run():
        # One look works for some seconds; the next one continues.
        pass
    assert len(mail.outbox) == len(STORABLE)
    for message in mail.outbox:
        assert message.to == ["ops@example.com"]
        sent = message.message()
        assert "X-Injected" not in sent
        # A long header is folded: its other lines begin with a space.
        assert PRINTABLE.fullmatch(str(sent["Subject"]).replace("\n ", " "))
        assert not SEES_NOTHING.search(message.body.replace("\n", ""))
        assert not SEES_NOTHING.search(message.subject)


@pytest.mark.parametrize("texts", list(chunks(90, CORPUS)), ids=lambda texts: texts[0][:20])
def test_a_copied_command_runs_curl_and_nothing_else(texts: list[str]) -> None:
    for text in texts:
        headers = [("X-Key", text), (text, "value")]
        try:
            command = writer.build(f"POST {URL}?q={text}", headers, text.encode())
        except CurlError:
            continue
        assert PRINTABLE.fullmatch(command.text.replace("\n", ""))
        script = "curl() { printf '%s\\0' \"$@\"; }\n" + command.text
        ran = subprocess.run(
            [BASH, "-c", script], capture_output=True, check=True, env={"PATH": "/nowhere"}
        )
        assert ran.stderr == b""
        assert ran.stdout.endswith(b"\0")
