"""A token in the query string or its own header: sent there, and masked wherever it is stored."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.delivery.test_engine_oauth import oauth_webhook
from tests.delivery.test_requests import NOW, a_claim, a_webhook, an_answer
from tests.factories import deliver_all, make_delivery
from tests.oauth_rows import connect
from tests.sandbox import Provider, Receiver
from webhooks.delivery.auth import BearerAuthorization, QueryAuthorization
from webhooks.delivery.queue.rows import ATTEMPT_COLUMNS
from webhooks.delivery.requests import RequestPlan, classify, make_plan, next_step, prepare, result
from webhooks.models import Attempt, Delivery, OAuthToken, Status

TOKEN = "top/secret+token="


def plan_for(**fields: object) -> RequestPlan:
    return make_plan(a_webhook(**fields), QueryAuthorization(TOKEN, "auth"), token_version=1)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"url": "https://crm.example.com/hook"}, "/hook?auth="),
        ({"url": "https://crm.example.com/hook?a=b"}, "/hook?a=b&auth="),
        (
            {"url": "https://crm.example.com/hook?a=b", "method": "GET"},
            "/hook?a=b&event=call.incoming.after&attempt=1&auth=",
        ),
    ],
)
def test_the_token_ends_the_address_and_is_encoded(fields: dict[str, str], sent: str) -> None:
    request = prepare(a_claim(), plan_for(**fields), NOW)
    assert request.url == f"https://crm.example.com{sent}top%2Fsecret%2Btoken%3D"
    assert not any(str(line).startswith("Authorization") for line in request.headers)


def test_the_log_keeps_the_token_neither_in_the_address_nor_in_an_echo() -> None:
    plan = plan_for(url="https://crm.example.com/hook")
    request = prepare(a_claim(), plan, NOW)
    answer = an_answer(headers=b"Location: " + request.url.encode(), body=TOKEN.encode())
    outcome = classify(answer)
    step = next_step(outcome, request.claim, plan, retry_after=None)
    row = result(request, answer, outcome, step).attempt
    attempt = dict(zip(ATTEMPT_COLUMNS, row, strict=True))
    assert "POST https://crm.example.com/hook?auth=********" in attempt.values()
    assert "secret" not in str(row)


def test_a_header_of_the_token_comes_once_whatever_a_webhook_sharing_it_has() -> None:
    rows = [{"name": name, "value": "mine", "secret": False} for name in ("x-token", "X-Other")]
    authorization = BearerAuthorization(TOKEN, "", name="X-Token")
    plan = make_plan(a_webhook(headers_json=json.dumps(rows)), authorization, token_version=1)
    own = [line for line in plan.headers if str(line).lower().startswith("x-")]
    assert own == ["X-Other: mine", f"X-Token: {TOKEN}"]
    assert not any(str(line).startswith("Authorization") for line in plan.headers)
    assert "X-Token: ********" in plan.logged_headers.splitlines()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("placement", "sent", "form"),
    [
        (
            {"token_header": "X-Auth-Token", "header_prefix": ""},
            lambda request: f"X-Auth-Token: {request.header('X-Auth-Token')}",
            "X-Auth-Token: {}",
        ),
        (
            {"token_placement": "query", "token_query_parameter": "auth"},
            lambda request: request.query,
            "auth={}",
        ),
    ],
    ids=["header", "query"],
)
def test_it_arrives_there_and_is_refreshed_when_it_is_refused(
    receiver: Receiver,
    provider: Provider,
    placement: dict[str, str],
    sent: Callable[[Any], str],
    form: str,
) -> None:
    webhook = oauth_webhook(receiver, provider, url=f"{receiver.url}/status/401", **placement)
    connect(webhook.credential)
    delivery = make_delivery(webhook)
    first = OAuthToken.objects.get().access_token
    deliver_all()
    token = OAuthToken.objects.get().access_token
    arrived = [sent(one) for one in receiver.requests("/status/401")]
    assert arrived[:2] == [form.format(first), form.format(token)]
    assert all(one.header("Authorization") is None for one in receiver.requests())
    assert Delivery.objects.get(pk=delivery.pk).status == Status.PENDING
    lines = [json.dumps(row, default=str) for row in Attempt.objects.values()]
    assert all(form.format("********") in line for line in lines)
    assert not any(first in line or token in line for line in lines)
