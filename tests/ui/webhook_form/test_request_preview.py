"""The preview compared with the request that arrives, and what it must never contain."""

from typing import Any

import pytest

from tests.factories import deliver_all, make_delivery, make_webhook
from tests.sandbox import Receiver
from tests.sandbox.receiver.client import Received
from webhooks.models import Event, Webhook
from webhooks.security.masker import MASK
from webhooks.ui.webhook_form import preview as request_preview

pytestmark = pytest.mark.django_db

ROWS = [
    {"name": "client.phone", "variable": "client_number"},
    {"name": "client.city", "variable": "fields.city", "default": "Київ"},
    {"name": "at", "variable": "call_started_at", "format": "sql", "time_zone": "Europe/Kyiv"},
    {"name": "n", "value": 5},
]
SHAPES: dict[str, dict[str, Any]] = {
    "every variable": {},
    "older names in unix seconds": {"uses_older_names": True, "date_format": "unix"},
    "rows as JSON": {"method": "PUT", "parameters": ROWS},
    "rows as a form": {"body_format": "form", "parameters": ROWS},
    "rows in a query": {"method": "GET", "parameters": ROWS},
    "every variable of a deletion in its query": {"method": "DELETE", "body_format": "query"},
    "a JSON body": {"body_template": '{"who": "{{ client_number }}", "n": "{{ number }}"}'},
}


def received_by(receiver: Receiver, webhook: Webhook, **payload: object) -> Received:
    make_delivery(webhook, **payload)
    deliver_all()
    (received,) = receiver.wait_for(1, path_prefix="/open/")
    return received


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_preview_of_a_real_event_is_what_arrived(
    receiver: Receiver, shape: dict[str, Any]
) -> None:
    receiver.clear()
    headers = '[{"name": "X-Team", "value": "sales", "secret": false}]'
    webhook = make_webhook(url=f"{receiver.url}/open/in?a=1", headers_json=headers, **shape)
    arrived = received_by(
        receiver, webhook, client_number="380", number=7, call_started_at="2026-10-25T00:30:00Z"
    )
    source = request_preview.newest(["call.incoming.after"])
    assert source is not None
    preview = request_preview.build(
        webhook, source, now=float(arrived.header("webhook-timestamp") or 0)
    )
    target = arrived.path + (f"?{arrived.query}" if arrived.query else "")
    assert preview.request_line == f"{arrived.method} {target} HTTP/1.1"
    assert list(preview.headers) == arrived.headers
    assert preview.body == arrived.body


@pytest.mark.django_db(transaction=True)
def test_a_secret_is_masked_where_the_request_has_it(receiver: Receiver) -> None:
    receiver.clear()
    headers = '[{"name": "X-Key", "value": "k3y", "secret": true}]'
    webhook = make_webhook(
        url=f"{receiver.url}/open/",
        headers_json=headers,
        authorization_type="basic",
        basic_login="demo",
        basic_password="p4ss",
    )
    arrived = received_by(receiver, webhook)
    source = request_preview.newest(["call.incoming.after"])
    assert source is not None
    preview = request_preview.build(
        webhook, source, now=float(arrived.header("webhook-timestamp") or 0)
    )
    masked = {"X-Key": MASK, "Authorization": f"Basic {MASK}"}
    assert list(preview.headers) == [
        (name, masked.get(name, value)) for name, value in arrived.headers
    ]


def test_a_token_in_the_address_is_masked() -> None:
    webhook = make_webhook(
        authorization_type="oauth2",
        token_placement="query",
        token_query_parameter="key",
    )
    preview = request_preview.build(
        webhook, request_preview.sample(webhook, "call.incoming.after"), now=0
    )
    assert preview.url.endswith(f"?key={MASK}")


def test_a_new_webhook_has_no_signature_yet() -> None:
    webhook = Webhook(url="https://crm.test/in")
    preview = request_preview.build(
        webhook, request_preview.sample(webhook, "webhook.failing"), now=0
    )
    assert dict(preview.headers)["webhook-signature"] == MASK
    assert webhook.pk is None


def test_a_test_event_is_no_real_one() -> None:
    assert request_preview.newest([]) is None
    webhook = make_webhook()
    make_delivery(webhook)
    Event.objects.update(source="test")
    assert request_preview.newest(["call.incoming.after"]) is None


def test_a_form_and_a_query_are_decoded_for_reading() -> None:
    rows = [{"name": "місто", "value": "Київ & Львів"}]
    for shape in ({"body_format": "form"}, {"method": "GET"}):
        webhook = Webhook(url="https://crm.test/in", parameters=rows, **shape)
        preview = request_preview.build(
            webhook, request_preview.sample(webhook, "form.submitted"), now=0
        )
        assert preview.pairs == [("місто", "Київ & Львів")]


def test_a_long_query_is_noticed() -> None:
    rows = [{"name": "a", "value": "x" * 8000}]
    webhook = Webhook(url="https://crm.test/in", method="GET", parameters=rows)
    assert request_preview.build(
        webhook, request_preview.sample(webhook, "form.submitted"), now=0
    ).is_url_too_long


def test_a_query_that_no_one_would_read_is_not_made() -> None:
    rows = [{"name": f"n{number}", "value": "є" * 8000} for number in range(2)]
    webhook = Webhook(url="https://crm.test/in", method="GET", parameters=rows)
    source = request_preview.sample(webhook, "form.submitted")
    with pytest.raises(request_preview.PreviewError, match="would be 96027 characters long"):
        request_preview.build(webhook, source, now=0)
    webhook.method = "POST"
    assert request_preview.build(webhook, source, now=0).body
