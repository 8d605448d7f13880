"""The three steps of one delivery: plan, prepare, classify."""

import base64
import datetime as dt
import gzip
import json
import math
import zlib

import pytest
from pytest_django import Settings
from standardwebhooks.webhooks import Webhook as Verifier

from tests.factories import fill, make_webhook
from webhooks.delivery.auth import BasicAuthorization, BearerAuthorization, NoAuthorization
from webhooks.delivery.queue.rows import ATTEMPT_COLUMNS, Claimed
from webhooks.delivery.requests import (
    RETRY_SCHEDULE_SECONDS,
    SHORT_RETRY_LIMIT,
    RequestPlan,
    Response,
    challenge_error,
    classify,
    make_plan,
    next_step,
    prepare,
    printable,
    result,
    retry_after_seconds,
)
from webhooks.models import AUTHORIZATION_FIELDS, Outcome, Status, Trigger, Webhook
from webhooks.security import signatures

NOW = 1_700_000_000.0


def a_webhook(**fields: object) -> Webhook:
    fields = {"url": "https://receiver.example.com/hook", **fields}
    own = {name: fields.pop(name) for name in AUTHORIZATION_FIELDS.keys() & fields.keys()}
    webhook = Webhook(name="CRM", **fields)
    fill(webhook.credential, **own)
    webhook.set_secret("signing_secret", signatures.new_secret())
    return webhook


def a_claim(**fields: object) -> Claimed:
    values: dict[str, object] = {
        "id": "dlv_1",
        "webhook_id": 1,
        "event_id": "evt_1",
        "number": 1,
        "failure_count": 0,
        "trigger": "event",
        "payload": b'{"event":"call.incoming.after"}',
        **fields,
    }
    return Claimed(**values)  # type: ignore[arg-type]


def an_answer(status: int = 204, **fields: object) -> Response:
    values: dict[str, object] = {
        "error": None,
        "message": None,
        "status_code": status,
        "headers": b"",
        "body": b"",
        "size": 0,
        "address": "192.0.2.7",
        "dns_ms": 1.0,
        "connect_ms": 2.0,
        "tls_ms": None,
        "first_byte_ms": 3.0,
        "total_ms": 4.0,
        **fields,
    }
    return Response(**values)  # type: ignore[arg-type]


def a_plan(**fields: object) -> RequestPlan:
    return make_plan(a_webhook(**fields), NoAuthorization())


def attempt_of(answer: Response, plan: RequestPlan) -> dict[str, object]:
    request = prepare(a_claim(), plan, NOW)
    outcome = classify(answer)
    step = next_step(outcome, request.claim, plan, retry_after=None)
    row = result(request, answer, outcome, step)
    return dict(zip(ATTEMPT_COLUMNS, row.attempt, strict=True))


@pytest.mark.parametrize(
    ("status", "challenge", "expected"),
    [
        (401, 'Bearer error="invalid_token"', "invalid_token"),
        (400, 'Bearer realm="a, b", error = invalid_token, error_uri="x"', "invalid_token"),
        (403, 'Basic realm="x", Bearer Error="INVALID_TOKEN"', "invalid_token"),
        (403, 'Bearer error="insufficient_scope", scope="a"', "insufficient_scope"),
        (400, 'Bearer error="invalid_request"', ""),
        (401, 'Basic realm="invalid_token"', ""),
        (401, 'Bearer error_description="invalid_token"', ""),
        (400, 'OAuth "Facebook Platform" "invalid_token" "Session has expired"', "invalid_token"),
        (400, 'OAuth "Facebook Platform" "invalid_request" "invalid_token"', ""),
        (500, 'Bearer error="invalid_token"', ""),
        (200, 'Bearer error="invalid_token"', ""),
    ],
)
def test_challenge_says_what_is_wrong_with_the_token(
    status: int, challenge: str, expected: str
) -> None:
    headers = f"HTTP/1.1 {status}\r\nwww-authenticate: {challenge}\r\nX: y\r\n\r\n".encode()
    assert challenge_error(an_answer(status, headers=headers)) == expected


def test_basic_authorization_is_base64_of_login_and_password_in_utf8() -> None:
    header = BasicAuthorization("Олена", "p:ä").header
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == "Олена:p:ä"


def test_bearer_authorization_may_have_another_prefix_or_none() -> None:
    assert BearerAuthorization("T").header == "Bearer T"
    assert BearerAuthorization("T", "Zoho-oauthtoken").header == "Zoho-oauthtoken T"
    assert BearerAuthorization("T", "").header == "T"


def test_the_request_is_signed_as_standard_webhooks_ask() -> None:
    webhook = a_webhook()
    request = prepare(
        a_claim(), make_plan(webhook, NoAuthorization()), dt.datetime.now().timestamp()
    )
    lines = "\r\n".join(map(str, request.headers)).split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    signed = {name: headers[name] for name in headers if name.startswith("webhook-")}
    assert Verifier(webhook.signing_secret).verify(request.body.decode(), signed)
    assert headers["webhook-id"] == "evt_1"


def test_a_test_says_that_it_is_one() -> None:
    for trigger, lines in (("test", ["webhook-test: true"]), ("event", []), ("resent", [])):
        request = prepare(a_claim(trigger=trigger), a_plan(), NOW)
        for sent in ("\n".join(map(str, request.headers)), request.logged_headers):
            assert [one for one in sent.splitlines() if one.startswith("webhook-test")] == lines


def test_a_rotated_secret_signs_along_until_its_end() -> None:
    webhook = a_webhook()
    old = webhook.signing_secret
    webhook.previous_signing_secrets = old
    webhook.previous_signing_secrets_until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    webhook.set_secret("signing_secret", signatures.new_secret())
    assert make_plan(webhook, NoAuthorization()).signing_keys[1] == signatures.secret_key(old)
    webhook.previous_signing_secrets_until = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    assert len(make_plan(webhook, NoAuthorization()).signing_keys) == 1


def test_a_default_json_body_is_the_event_document_byte_for_byte() -> None:
    request = prepare(a_claim(), a_plan(), NOW)
    assert request.body == a_claim().payload
    assert attempt_of(an_answer(), a_plan())["request_body"] is None


def test_a_form_body_is_rendered_and_kept_in_the_log() -> None:
    plan = a_plan(body_format="form")
    request = prepare(a_claim(), plan, NOW)
    assert request.body == b"event=call.incoming.after"
    assert "Content-Type: application/x-www-form-urlencoded" in request.headers
    assert attempt_of(an_answer(), plan)["request_body"] == request.body


def test_the_log_keeps_the_beginning_of_a_large_body_and_its_length(settings: Settings) -> None:
    settings.WEBHOOKS_STORED_BODY_BYTES = 1000
    rows = [{"name": "n", "value": "n" * 900}]
    small = a_plan(body_format="form", parameters=rows)
    large = a_plan(body_format="form", parameters=rows * 2)
    kept = attempt_of(an_answer(), small)
    assert (kept["request_body"], "Content-Length" in str(kept["request_headers"])) == (
        b"n=" + b"n" * 900,
        False,
    )
    request = prepare(a_claim(), large, NOW)
    assert len(request.body) == 1805
    # libcurl adds this header.
    assert not any(str(line).startswith("Content-Length") for line in request.headers)
    kept = attempt_of(an_answer(), large)
    assert kept["request_body"] == request.body[:1000]
    assert "Content-Length: 1805" in str(kept["request_headers"])


def test_the_log_says_where_a_long_address_is_cut() -> None:
    start = "GET https://crm.example/hook?n="
    for length, ending in ((4096 - len(start), "n"), (5000, "…")):
        rows = [{"name": "n", "value": "n" * length}]
        plan = a_plan(url=start[4:-3], method="GET", parameters=rows)
        line = str(attempt_of(an_answer(), plan)["request_line"])
        assert len(line) == 4096
        assert line.endswith(ending)


def test_the_log_shows_the_request_with_its_secrets_masked() -> None:
    webhook = a_webhook()
    rows = [{"name": "X-Key", "value": "hush-hush", "secret": True}]
    rows.append({"name": "X-Team", "value": "sales", "secret": False})
    webhook.set_secret("headers_json", json.dumps(rows))
    plan = make_plan(webhook, BasicAuthorization("admin", "swordfish"))
    request = prepare(a_claim(), plan, NOW)
    assert "X-Key: hush-hush" in request.headers
    assert "X-Key: ********" in request.logged_headers
    assert "X-Team: sales" in request.logged_headers
    assert "Authorization: Basic ********" in request.logged_headers
    assert "Host: receiver.example.com" in request.logged_headers


def test_a_custom_header_takes_the_place_of_our_own() -> None:
    webhook = a_webhook()
    rows = [{"name": "user-agent", "value": "CRM/1", "secret": False}]
    webhook.set_secret("headers_json", json.dumps(rows))
    sent = prepare(a_claim(), make_plan(webhook, NoAuthorization()), NOW).headers
    assert [line for line in sent if str(line).lower().startswith("user-agent")] == [
        "user-agent: CRM/1"
    ]


def test_a_receiver_that_echoes_our_secrets_is_masked_in_the_log() -> None:
    plan = make_plan(a_webhook(), BasicAuthorization("admin", "swordfish"))
    encoded = base64.b64encode(b"admin:swordfish")
    answer = an_answer(headers=b"X-You-Sent: Basic " + encoded, body=b"swordfish " + encoded)
    attempt = attempt_of(answer, plan)
    shown = f"{attempt['response_headers']} {attempt['response_body']}"
    assert "swordfish" not in shown
    assert encoded.decode() not in shown


@pytest.mark.parametrize("coding", ["gzip", "deflate", ""])
def test_a_compressed_echo_of_our_secrets_is_stored_decompressed_and_masked(coding: str) -> None:
    plan = make_plan(a_webhook(), BasicAuthorization("admin", "swordfish"))
    headers = f"HTTP/1.1 500 Oops\r\nContent-Encoding: {coding}\r\n\r\n".encode()
    text = b"You sent swordfish to us. " + b"x" * 100_000
    packed = zlib.compress(text) if coding == "deflate" else gzip.compress(text)
    stored = attempt_of(an_answer(500, headers=headers, body=packed), plan)["response_body"]
    assert isinstance(stored, bytes)
    assert stored.startswith(b"You sent ******** to us. ")
    assert len(stored) == 20_000
    # Nothing else is decompressed.
    harmless = gzip.compress(b"You sent something. Welcome to s")
    answer = an_answer(500, headers=headers, body=harmless)
    assert attempt_of(answer, plan)["response_body"] == harmless


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SUCCEEDED), (204, Outcome.SUCCEEDED), (299, Outcome.SUCCEEDED),
        (301, Outcome.REDIRECT), (304, Outcome.REDIRECT), (307, Outcome.REDIRECT),
        (400, Outcome.REFUSED), (404, Outcome.REFUSED), (413, Outcome.REFUSED),
        (401, Outcome.UNAUTHORIZED), (403, Outcome.UNAUTHORIZED), (407, Outcome.UNAUTHORIZED),
        (408, Outcome.THROTTLED), (425, Outcome.THROTTLED), (429, Outcome.THROTTLED),
        (410, Outcome.GONE), (500, Outcome.SERVER_ERROR), (599, Outcome.SERVER_ERROR),
        (101, Outcome.PROTOCOL), (600, Outcome.PROTOCOL), (999, Outcome.PROTOCOL),
    ],
)  # fmt: skip
def test_each_status_has_one_outcome(status: int, outcome: Outcome) -> None:
    assert classify(an_answer(status)) is outcome


def test_a_broken_transfer_is_no_success_whatever_its_status() -> None:
    assert classify(an_answer(200, error=Outcome.TIMEOUT)) is Outcome.TIMEOUT


def test_server_errors_are_retried_by_the_whole_schedule_and_then_given_up() -> None:
    plan = a_plan()
    for step, seconds in enumerate(RETRY_SCHEDULE_SECONDS):
        then = next_step(Outcome.SERVER_ERROR, a_claim(failure_count=step), plan, retry_after=None)
        assert then.status is Status.PENDING
        assert then.delay_seconds is not None
        assert 0.8 * seconds <= then.delay_seconds <= 1.2 * seconds
    last = a_claim(failure_count=len(RETRY_SCHEDULE_SECONDS))
    assert next_step(Outcome.TIMEOUT, last, plan, retry_after=None).status is Status.FAILED


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.BLOCKED, Outcome.REDIRECT])
def test_refusals_have_the_short_retry_limit(outcome: Outcome) -> None:
    plan = a_plan()
    before = a_claim(failure_count=SHORT_RETRY_LIMIT - 1)
    assert next_step(outcome, before, plan, retry_after=None).status is Status.PENDING
    last = a_claim(failure_count=SHORT_RETRY_LIMIT)
    assert next_step(outcome, last, plan, retry_after=None).status is Status.FAILED


def test_a_webhook_may_have_its_own_schedule() -> None:
    plan = a_plan(retry_schedule_seconds=[100])
    step = next_step(Outcome.NETWORK, a_claim(), plan, retry_after=None)
    assert step.delay_seconds is not None
    assert 80 <= step.delay_seconds <= 120
    again = a_claim(failure_count=1)
    assert next_step(Outcome.NETWORK, again, plan, retry_after=None).status is Status.FAILED


def test_a_test_is_sent_once() -> None:
    claim = a_claim(trigger=Trigger.TEST.value)
    assert (
        next_step(Outcome.SERVER_ERROR, claim, a_plan(), retry_after=None).status is Status.FAILED
    )


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        # The schedule's own step, as without the header.
        *((0.0, 4.0, 6.0), (1.0, 4.0, 6.0)),
        # Never sooner than it was asked for.
        *((5.9, 5.9, 7.08), (60.0, 60.0, 72.0), (300.0, 300.0, 360.0)),
        # As late as the step after the next one at most.
        *((1e9, 300.0, 360.0), (math.inf, 300.0, 360.0)),
    ],
)
def test_retry_after_is_clamped_to_the_steps_and_spread(
    asked: float, least: float, most: float
) -> None:
    claim, plan = a_claim(), a_plan()
    delays = [
        next_step(Outcome.THROTTLED, claim, plan, retry_after=asked).delay_seconds
        for _ in range(200)
    ]
    found = [delay for delay in delays if delay is not None]
    assert len(found) == 200
    assert least <= min(found) <= max(found) <= most
    # Deliveries that fail together do not come again together.
    assert max(found) - min(found) > (most - least) / 2


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"Retry-After: 120", 120.0),
        (b"retry-after:  7 ", 7.0),
        (b"Retry-After: Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        (b"Retry-After: Tue, 14 Nov 2023 00:00:00 GMT", 0.0),
        (b"Retry-After: -5", None),
        (b"Retry-After: 1e9", None),
        (b"Retry-After: soon", None),
        (b"Retry-After: 30.5", 30.5),
        (b"Retry-After: 0000000000000120", 120.0),
        (b"Retry-After: " + b"9" * 500, math.inf),
        (b"X-Retry-After: 120", None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(line: bytes, seconds: float | None) -> None:
    headers = b"HTTP/1.1 429 Slow down\r\n" + line + b"\r\n\r\n"
    assert retry_after_seconds(headers, NOW) == seconds


def test_control_and_bidi_characters_are_stored_as_escapes() -> None:
    assert printable("a\x00b\x1b[31m\u202ec") == "a\\x00b\\x1b[31m\\x202ec"
    assert printable("line\nnext\tтекст") == "line\nnext\tтекст"


@pytest.mark.django_db
def test_a_saved_webhook_makes_the_same_plan_after_a_reload() -> None:
    webhook = make_webhook(authorization_type="basic", basic_login="u", basic_password="p")
    again = Webhook.objects.get(pk=webhook.pk)
    authorization = BasicAuthorization(
        again.credential.basic_login, again.credential.basic_password
    )
    assert make_plan(again, authorization)._replace(version=0) == make_plan(
        webhook, authorization
    )._replace(version=0)
