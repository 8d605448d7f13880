"""The success rule: which responses count as delivered, and what follows from the others."""

import gzip
import json
import zlib
from functools import partial
from typing import Any

import pytest

from tests.cpu_time import LINEAR, TIMES, Work, growth
from tests.delivery.test_engine_oauth import oauth_webhook
from tests.factories import make_delivery, make_webhook, run_engine
from tests.oauth_rows import connect
from tests.sandbox import Provider, Receiver
from tests.security.hostile import answering
from webhooks.alerts import problems
from webhooks.delivery import outcomes
from webhooks.delivery.auth import NoAuthorization
from webhooks.delivery.requests import classify, make_plan, no_response
from webhooks.delivery.success import OPERATORS, PRESETS, Judged, SuccessRule, compile_rule
from webhooks.filters import Operator
from webhooks.models import Attempt, Delivery, OAuthToken, Outcome, Status, Webhook
from webhooks.models.messages import Message
from webhooks.payloads import MappingError

BODY_BYTES = 65_536


def rule_of(**fields: Any) -> SuccessRule:
    webhook = Webhook(**fields)
    assert webhook.has_success_rule
    return compile_rule(webhook)


def judged(rule: SuccessRule, answer: object, status: int = 200, content_type: str = "") -> Judged:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    response = no_response(Outcome.UNKNOWN, Message("said", {}))
    by_status = classify(response._replace(error=None, status_code=status))
    headers = f"Date: now\r\ncontent-type: {content_type}\r\n".encode()
    return rule.judge(status, body[:BODY_BYTES], len(body), by_status, headers=headers)


FAILS = {"response_rule": "fails", "response_variable": "error", "response_operator": "exists"}
SUCCEEDS = {
    "response_rule": "succeeds",
    "response_variable": "ok",
    "response_operator": "equals",
    "response_value": "true",
}


CONTAINS = SUCCEEDS | {
    "response_variable": "answer",
    "response_operator": "contains",
    "response_value": "done",
}


@pytest.mark.parametrize(
    ("fields", "answer", "status", "outcome"),
    [
        (FAILS, {"error": "INVALID_CREDENTIALS"}, 200, Outcome.REJECTED),
        (FAILS, {"error": {"code": 7}}, 200, Outcome.REJECTED),
        (FAILS, {"error": None}, 200, Outcome.SUCCEEDED),
        *((FAILS, {"error": none}, 200, Outcome.SUCCEEDED) for none in (False, 0, "", [], {})),
        *((FAILS, {"error": some}, 200, Outcome.REJECTED) for some in (True, 7, "0", [0])),
        (FAILS | {"response_variable": "answer[0].error"}, [{"error": "x"}], 200, Outcome.REJECTED),
        (FAILS | {"response_variable": "answer[1][0].error"}, [[], [{"error": "x"}]], 200,
         Outcome.REJECTED),
        (FAILS | {"response_variable": "errors[0]"}, {"errors": [{"code": 1}]}, 200,
         Outcome.REJECTED),
        (FAILS | {"response_variable": "errors[0]"}, {"errors": []}, 200, Outcome.SUCCEEDED),
        (FAILS | {"response_variable": "data.errors"}, {"data": [{"errors": 1}]}, 200,
         Outcome.SUCCEEDED),
        (FAILS, {"error": " \n"}, 200, Outcome.SUCCEEDED),
        (FAILS | {"response_variable": "answer"}, b"\r\n", 200, Outcome.SUCCEEDED),
        (FAILS | {"response_variable": r"error\.code"}, {"error.code": 7}, 200, Outcome.REJECTED),
        (FAILS, {"result": 1}, 201, Outcome.SUCCEEDED),
        (FAILS, b"OK", 200, Outcome.SUCCEEDED),
        (FAILS, b"", 204, Outcome.SUCCEEDED),
        (FAILS, {"error": "x"}, 500, Outcome.SERVER_ERROR),
        (FAILS, {"result": 1}, 410, Outcome.GONE),
        (SUCCEEDS, {"ok": True}, 200, Outcome.SUCCEEDED),
        (SUCCEEDS, {"ok": "TRUE"}, 200, Outcome.SUCCEEDED),
        *((SUCCEEDS, {"ok": yes}, 200, Outcome.SUCCEEDED) for yes in (1, "1", "True", " true ")),
        *((SUCCEEDS, {"ok": no}, 200, Outcome.REJECTED) for no in (0, 2, "yes", "", None, [True])),
        (SUCCEEDS | {"response_value": "False"}, {"ok": 0}, 200, Outcome.SUCCEEDED),
        (SUCCEEDS | {"response_value": "1"}, {"ok": True}, 200, Outcome.REJECTED),
        (SUCCEEDS, {"ok": False}, 200, Outcome.REJECTED),
        (SUCCEEDS, {}, 200, Outcome.REJECTED),
        (SUCCEEDS, b"<html>", 200, Outcome.REJECTED),
        (SUCCEEDS, b"[" * 60_000, 200, Outcome.REJECTED),
        (SUCCEEDS, {"ok": True}, 401, Outcome.UNAUTHORIZED),
        (SUCCEEDS | {"response_variable": "data[0].status"}, {"data": [{"status": True}]}, 200,
         Outcome.SUCCEEDED),
        (SUCCEEDS | {"response_operator": "one_of", "response_value": "1, yes"}, {"ok": "Yes"}, 200,
         Outcome.SUCCEEDED),
        *((SUCCEEDS | {"response_variable": "answer", "response_value": "ok"}, ok, 200,
           Outcome.SUCCEEDED) for ok in (b"OK", b"OK\r\n", b'"ok"\n', b"\xef\xbb\xbfok")),
        (CONTAINS, {"status": "Done"}, 200, Outcome.SUCCEEDED),
        (CONTAINS, b'{"status": "done"', 200, Outcome.SUCCEEDED),
        (CONTAINS, {"status": "failed"}, 200, Outcome.REJECTED),
        (CONTAINS, {"answer": "no", "status": "done"}, 200, Outcome.REJECTED),
        (CONTAINS | {"response_rule": "fails"}, {"status": "done"}, 200, Outcome.REJECTED),
        (CONTAINS | {"response_operator": "exists"}, {"status": "done"}, 200, Outcome.SUCCEEDED),
        (CONTAINS | {"response_operator": "exists"}, b"{}", 200, Outcome.REJECTED),
        ({"success_codes": [200, 409]}, b"", 409, Outcome.SUCCEEDED),
        ({"success_codes": [200, 409]}, b"", 202, Outcome.REJECTED),
        ({"success_codes": [200, 409]}, b"", 404, Outcome.REFUSED),
        ({"success_codes": [410]}, b"", 410, Outcome.SUCCEEDED),
        (FAILS | {"success_codes": [409]}, {"error": "twice"}, 409, Outcome.REJECTED),
    ],
)  # fmt: skip
def test_an_answer_has_one_outcome(
    fields: dict[str, Any], answer: object, status: int, outcome: Outcome
) -> None:
    assert judged(rule_of(**fields), answer, status).outcome is outcome


def said(found: Judged) -> str:
    assert found.message is not None
    return outcomes.sentence(outcomes.stored(found.message))


def test_the_reason_is_what_the_answer_says() -> None:
    rule = rule_of(**FAILS, response_error="error.code")
    answer = {"error": {"code": "INVALID_CREDENTIALS"}}
    assert "200, but the response says “INVALID_CREDENTIALS”" in said(judged(rule, answer))
    assert "does not meet the success rule" in said(judged(rule, {"error": "x"}))
    assert len(said(judged(rule, {"error": {"code": "x" * 5_000}}))) < 300


@pytest.mark.parametrize("error", [{"echo": "+380671234567"}, ["+380671234567"]])
def test_a_reason_is_no_object_and_no_list(error: object) -> None:
    rule = rule_of(**FAILS, response_error="error")
    assert "does not meet the success rule" in said(judged(rule, {"error": error}))


NO = '{"error":"INVALID_CREDENTIALS","text":"Невірний пароль"}'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (NO.encode("utf-8-sig"), ""),
        (NO.encode("utf-16"), ""),
        (NO.encode("utf-16-le"), "application/json"),
        (NO.encode("utf-32-be"), ""),
        (NO.encode("cp1251"), "application/json; charset=windows-1251"),
        (NO.encode("cp1251"), 'text/html;charset="cp1251"'),
        (NO.encode("cp1251"), ""),
        (NO.encode("koi8-u"), "application/json; charset=no-such"),
        (NO.encode(), "application/json; charset=utf-7"),
        (f"\r\n {NO}\n".encode(), "text/plain"),
    ],
)
def test_an_answer_is_read_in_any_charset(body: bytes, content_type: str) -> None:
    found = judged(rule_of(**FAILS, response_error="error"), body, 200, content_type)
    assert "the response says “INVALID_CREDENTIALS”" in said(found)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
def test_an_answer_that_was_packed_unasked_is_unpacked(coding: str) -> None:
    body = zlib.compress(NO.encode()) if coding == "deflate" else gzip.compress(NO.encode())
    rule = rule_of(**FAILS, response_error="error")
    head = f"content-encoding: {coding}\r\ncontent-type: application/json\r\n".encode()
    found = rule.judge(200, body, len(body), Outcome.SUCCEEDED, headers=head)
    assert "the response says “INVALID_CREDENTIALS”" in said(found)


@pytest.mark.slow
def test_of_a_packed_answer_no_more_is_read_than_of_another() -> None:
    body = gzip.compress(b'{"trace": "' + b"x" * 100_000_000 + b'", "ok": true}')
    head = b"Content-Encoding: gzip\r\n"
    found = rule_of(**SUCCEEDS).judge(200, body, len(body), Outcome.SUCCEEDED, headers=head)
    assert "64 KiB" in said(found)


def test_a_reason_is_read_in_the_charset_of_the_answer() -> None:
    rule = rule_of(**FAILS, response_error="text")
    found = judged(rule, NO.encode("cp1251"), 200, "application/json; charset=windows-1251")
    assert "Невірний пароль" in said(found)


LONG = "x" * 70_000
ESCAPES = "\\u0451" * 6_000


@pytest.mark.parametrize(
    "body",
    [
        f'{{"error": "INVALID", "trace": "{LONG}"}}',
        f'{{"error": "INVALID", "trace": {{"text": ["{LONG}"]}}}}',
        f'{{"error": "INVALID", "rows": [{"[1, 2], " * 10_000}[]]}}',
        f'{{"error": "INVALID", "rows": [{"true, " * 12_000}true]}}',
        f'{{"error": "INVALID", "rows": {json.dumps(dict.fromkeys(map(str, range(9_000)), 1))}}}',
        f'{{"error": "INVALID", "number": {"9" * 70_000}}}',
        f'{{"error": "INVALID", "a": "{ESCAPES}", "b": "{ESCAPES}"}}',
        f'{{"error": "INVALID", "a": "{LONG[:65_500]}\\u0041\\u0042{LONG}"}}',
        f'{{"error": "INVALID", "{LONG}": 1}}',
        f'{{"error": "INVALID {LONG}"}}',
    ],
)
def test_what_was_read_of_a_long_answer_counts(body: str) -> None:
    rule = rule_of(**FAILS, response_error="error")
    for cut in range(8):
        # Wherever the text is cut.
        assert "the response says “INVALID" in said(judged(rule, (" " * cut + body).encode()))


@pytest.mark.parametrize(
    ("fields", "answer", "outcome"),
    [
        (SUCCEEDS, {"ok": True, "rows": LONG}, Outcome.SUCCEEDED),
        (SUCCEEDS, {"ok": False, "rows": LONG}, Outcome.REJECTED),
        (SUCCEEDS, {"rows": LONG, "ok": True}, Outcome.REJECTED),
        (FAILS, {"rows": LONG, "error": "x"}, Outcome.SUCCEEDED),
        (FAILS, {"ok": True, "rows": LONG}, Outcome.SUCCEEDED),
        (CONTAINS, {"status": "done", "rows": LONG}, Outcome.SUCCEEDED),
        (CONTAINS, {"rows": LONG, "status": "done"}, Outcome.REJECTED),
        (CONTAINS | {"response_rule": "fails"},
         {"rows": LONG, "status": "done"}, Outcome.SUCCEEDED),
        # The part that was cut off may contain the error.
        (SUCCEEDS | {"response_variable": "error", "response_operator": "not_exists"},
         {"ok": True, "rows": LONG}, Outcome.REJECTED),
        (FAILS | {"response_variable": "ok", "response_operator": "not_exists"},
         {"rows": LONG, "ok": True}, Outcome.SUCCEEDED),
        (FAILS | {"response_variable": "ok", "response_operator": "not_equals",
                  "response_value": "true"},
         {"ok": False, "rows": LONG}, Outcome.REJECTED),
    ],
)  # fmt: skip
def test_what_was_not_read_decides_nothing(
    fields: dict[str, Any], answer: object, outcome: Outcome
) -> None:
    assert judged(rule_of(**fields), answer).outcome is outcome


def test_an_answer_whose_end_was_needed_says_so() -> None:
    assert "64 KiB" in said(judged(rule_of(**SUCCEEDS), {"rows": LONG, "ok": True}))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    "error",
    [
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5_000,
        rb'"\ud800"',
        rb'"\u0000"',
        rb'{"\udfff": "\ud800"}',
        b"[" * 500 + b"]" * 500,
        b"[" * 5_000 + b"]" * 5_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
    ids=lambda error: error[:12].decode(),
)
def test_an_answer_that_python_reads_and_json_forbids_ends_nothing(
    error: bytes, operator: Operator
) -> None:
    rule = rule_of(**FAILS | {"response_operator": operator, "response_value": "a"},
                   response_error="error", expired_token_errors=["gone"])  # fmt: skip
    found = judged(rule, b'{"error":' + error + b"}")
    assert found.outcome in (Outcome.SUCCEEDED, Outcome.REJECTED)
    if found.message is not None:
        assert outcomes.stored(found.message).encode()


@pytest.mark.parametrize("status", [200, 400])
def test_a_reason_may_mean_that_the_token_has_expired(status: int) -> None:
    rule = rule_of(**FAILS, response_error="error", expired_token_errors=["token_expired"])
    found = judged(rule, {"error": "TOKEN_EXPIRED"}, status)
    assert (found.outcome, found.is_token_expired) == (Outcome.UNAUTHORIZED, True)
    assert not judged(rule, {"error": "other"}, status).is_token_expired


def test_a_rule_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(MappingError):
        compile_rule(Webhook(**SUCCEEDS | {"response_value": ""}))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_a_preset_is_a_rule(preset: Any) -> None:
    assert judged(rule_of(**preset.fields), {}).outcome in (Outcome.SUCCEEDED, Outcome.REJECTED)


@pytest.mark.parametrize(
    ("key", "good", "bad", "reason"),
    [
        ("bitrix24", {"result": 7}, {"error": "QUERY_LIMIT_EXCEEDED"}, "QUERY_LIMIT_EXCEEDED"),
        ("slack", {"ok": True}, {"ok": False, "error": "invalid_auth"}, "invalid_auth"),
        ("telegram", {"ok": True}, {"ok": False, "description": "no chat"}, "no chat"),
        ("zoho", {"data": [{"status": "success", "code": "SUCCESS"}]},
         {"data": [{"status": "error", "code": "MANDATORY_NOT_FOUND"}]}, "MANDATORY_NOT_FOUND"),
    ],
)  # fmt: skip
def test_a_preset_knows_the_answers_of_its_api(
    key: str, good: object, bad: object, reason: str
) -> None:
    rule = rule_of(**PRESETS[key].fields)
    assert judged(rule, good).outcome is Outcome.SUCCEEDED
    assert reason in said(judged(rule, bad))


@pytest.mark.security
@pytest.mark.parametrize(
    ("start", "piece", "end"),
    [
        (b"", b"[", b""),
        (b"", b'{"a":', b""),
        (b'{"error":"', "а\u0301\u0316".encode(), b'"}'),
        (b"[1", b"," + b"9" * 4_000, b"]"),
        (b'{"error":"', b"\\u0301", b'"}'),
    ],
    ids=["lists", "objects", "marks", "numbers", "escapes"],
)
def test_the_worst_answer_is_judged_in_linear_time(
    start: bytes, piece: bytes, end: bytes, security_figure: Any
) -> None:
    fields = FAILS | {"response_operator": "contains", "response_value": "z" * 500}
    rule = rule_of(**fields, response_error="error", expired_token_errors=["x"])

    def prepare(parts: int) -> Work:
        length = (BODY_BYTES - len(start + end)) * parts // TIMES
        return partial(judged, rule, start + piece * (length // len(piece)) + end)

    found = growth(prepare, limit=LINEAR)
    security_figure("linear", right=int(found < LINEAR), of=1)
    assert found < LINEAR


# ---- In the engine ----------------------------------------------------------------------------


def http(answer: object) -> bytes:
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("is_retried", "status"), [(True, "pending"), (False, "failed")])
@pytest.mark.slow
def test_an_answer_that_says_no_is_no_delivery(is_retried: bool, status: str) -> None:
    with answering({"/in": http({"error": "INVALID_CREDENTIALS"})}) as address:
        webhook = make_webhook(
            url=f"{address}/in", **FAILS, response_error="error", retries_rejected=is_retried
        )
        delivery = make_delivery(webhook)
        run_engine(lambda: Attempt.objects.exists())
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.status_code) == (Outcome.REJECTED, 200)
    assert "the response says “INVALID_CREDENTIALS”" in outcomes.sentence(attempt.error)
    assert Delivery.objects.get(pk=delivery.pk).status == status
    webhook = Webhook.objects.get(pk=webhook.pk)
    assert "INVALID_CREDENTIALS" in problems.sentence(webhook.state.last_error)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fields", "answer", "sentence"),
    [
        (FAILS, {"error": "INVALID", "trace": LONG}, "the response says “INVALID”"),
        (FAILS, {"error": "INVALID", "trace": LONG * 20}, "the response says “INVALID”"),
        (FAILS, {"trace": LONG * 20}, ""),
        (SUCCEEDS, {"ok": True, "trace": LONG}, ""),
        (SUCCEEDS, {"trace": LONG, "ok": True}, "64 KiB"),
    ],
)
@pytest.mark.slow
def test_a_long_answer_is_judged_by_its_beginning(
    fields: dict[str, Any], answer: object, sentence: str
) -> None:
    with answering({"/in": http(answer)}) as address:
        make_delivery(make_webhook(url=f"{address}/in", **fields, response_error="error"))
        run_engine(lambda: Attempt.objects.exists())
    error = Attempt.objects.get().error
    assert sentence in outcomes.sentence(error) if sentence else error == ""


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_an_answer_of_another_charset_says_no_too() -> None:
    body = NO.encode("cp1251")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=windows-1251\r\n"
    with answering({"/in": head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)}) as address:
        make_delivery(make_webhook(url=f"{address}/in", **FAILS, response_error="text"))
        run_engine(lambda: Attempt.objects.exists())
    assert "Невірний пароль" in outcomes.sentence(Attempt.objects.get().error)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("before", range(183, 200, 4))
@pytest.mark.slow
def test_a_reason_that_is_cut_in_a_secret_shows_nothing_of_it(before: int) -> None:
    password = "secrettoken-123456"
    with answering({"/in": http({"error": "x" * before + password})}) as address:
        webhook = make_webhook(
            url=f"{address}/in", **FAILS, response_error="error",
            authorization_type="basic", basic_login="me", basic_password=password,
        )  # fmt: skip
        make_delivery(webhook)
        run_engine(lambda: Attempt.objects.exists())
    stored = Attempt.objects.get().error
    assert "response_says" in stored
    assert "secre" not in stored


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_an_answer_that_says_yes_is_delivered() -> None:
    with answering({"/in": http({"result": {"id": 7}})}) as address:
        delivery = make_delivery(make_webhook(url=f"{address}/in", **FAILS))
        run_engine(lambda: Attempt.objects.exists())
    assert Delivery.objects.get(pk=delivery.pk).status == Status.SUCCEEDED
    assert Attempt.objects.get().error == ""


@pytest.mark.django_db(transaction=True)
def test_an_expired_token_is_refreshed_and_the_request_sent_once_more(
    receiver: Receiver, provider: Provider
) -> None:
    with answering({"/in": http({"error": "token_expired"})}) as address:
        webhook = oauth_webhook(
            receiver,
            provider,
            url=f"{address}/in",
            **FAILS,
            response_error="error",
            expired_token_errors=["token_expired"],
        )
        connect(webhook.credential)
        before = OAuthToken.objects.get().access_token
        delivery = make_delivery(webhook)
        run_engine(lambda: Attempt.objects.count() == 2)
    assert OAuthToken.objects.get().access_token != before
    assert "the access token has expired" in outcomes.sentence(Attempt.objects.latest("pk").error)
    # The first rejection is free, the second one counts.
    assert Delivery.objects.get(pk=delivery.pk).failure_count == 1


def test_a_plan_without_a_rule_has_none() -> None:
    webhook = Webhook(url="https://crm.test/in")
    webhook.set_secret("signing_secret", "whsec_" + "A" * 32)
    assert make_plan(webhook, NoAuthorization()).success_rule is None
