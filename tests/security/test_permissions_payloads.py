"""What was sent and answered is seen by those who may see payloads, wherever it could be shown."""

import datetime as dt
import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from tests.security.permission_table import DELIVERY, LINES, A, D, Line, P, W
from tests.security.test_permissions import Role, Site, taken_back
from tests.security.url_map import address
from tests.ui.webhook_form.test_forms import posted
from webhooks.models import Attempt, Delivery, Event, Webhook

pytestmark = [pytest.mark.django_db, pytest.mark.once]

CANARY = "canary-of-a-payload"
CONDITION = {"variable": "caller_name", "operator": "equals", "value": "somebody else"}
TRIED = {
    "filter-mode": "json",
    "filter-json": json.dumps(CONDITION),
    "filter-shown": "all",
    "event_types": "call.incoming.after",
}
# Every place that shows something of an event or an attempt: route, method, what is asked for.
PLACES: list[tuple[str, str, dict[str, Any]]] = [
    (DELIVERY, "get", {"attempt": "1", "against": "2"}),
    (f"{DELIVERY}edit/", "get", {}),
    (f"{DELIVERY}attempts/<int:attempt_id>/<str:part>.bin", "get", {}),
    (f"{D}export.csv", "get", {"payload": "1"}),
    (f"{W}tests/<str:delivery_id>/", "get", {}),
    (f"{W}why-not-sent/", "get", {"event": "the world's"}),
    (f"{P}filter/", "post", TRIED),
    (f"{P}preview/", "post", posted(preview_event="real")),
    (f"{A}webhooks/delivery/<path:object_id>/change/", "get", {}),
    (f"{A}webhooks/event/<path:object_id>/change/", "get", {}),
]


@pytest.fixture
def site() -> Site:
    """Return the site with the canary wherever a payload can be."""
    site = Site()
    document = json.loads(site.world.delivery.event.payload) | {"caller_name": CANARY}
    Event.objects.update(payload=json.dumps(document).encode())
    # It refuses the event, and a page says why.
    paused = Webhook.objects.filter(pk=site.world.paused.pk)
    yesterday = timezone.now() - dt.timedelta(days=1)
    paused.update(filter=CONDITION, event_types=["call.*"], created_at=yesterday)
    Attempt.objects.all().delete()
    for delivery in (site.world.test, site.world.delivery):
        for number in (1, 2):
            site.world.attempt = make_attempt(delivery, number)
    return site


def make_attempt(delivery: Delivery, number: int) -> Attempt:
    return Attempt.objects.create(
        delivery=delivery,
        number=number,
        started_at=timezone.now(),
        outcome="server_error",
        status_code=500,
        request_line=f"GET http://127.0.0.1:9/hook?caller_name={CANARY}-{number} HTTP/1.1",
        request_headers="webhook-id: x",
        request_body=f'{{"caller_name": "{CANARY}-{number}"}}'.encode(),
        response_headers="HTTP/1.1 500 Oops",
        response_body=f"You sent {CANARY}-{number}".encode(),
    )


def browsers(site: Site) -> tuple[Client, Client]:
    """Return the browsers of somebody who may do all but see payloads, and of a superuser."""
    every = frozenset(Permission.objects.values_list("codename", flat=True))
    blind = Role(name="blind", permissions=every - {"view_payload"})
    return site.browser(blind), site.browser(
        Role(name="olena", permissions=frozenset(), is_superuser=True)
    )


def text_of(answer: Any) -> str:
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return str(content.decode("utf-8", "replace"))


@pytest.mark.parametrize(("route", "method", "asked"), PLACES, ids=[one[0] for one in PLACES])
def test_a_payload_is_shown_to_those_who_may_see_it_alone(
    site: Site, route: str, method: str, asked: dict[str, Any]
) -> None:
    path = address(route, site.world, pk="paused" if "why-not" in route else "")
    event = site.world.delivery.event_id
    data = {name: event if text == "the world's" else text for name, text in asked.items()}
    blind, seeing = browsers(site)
    assert CANARY in text_of(getattr(seeing, method)(path, data))
    assert CANARY not in text_of(getattr(blind, method)(path, data))


@pytest.mark.parametrize("line", LINES, ids=str)
def test_no_address_shows_a_payload_to_those_who_may_not(line: Line, site: Site) -> None:
    blind, _seeing = browsers(site)
    for method in ("get", "post"):
        with taken_back():
            assert CANARY not in text_of(site.ask(blind, line, method))
