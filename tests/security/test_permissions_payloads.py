"""What was sent and answered is seen by those who may see payloads, wherever it could be shown.

That no address shows it to anybody else is held by `test_permissions.py`.
"""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from pytest_django import DjangoDbBlocker

from tests.security.permission_table import DELIVERY, A, D, P, W
from tests.security.roles import SUPERUSER, Role, Site
from tests.security.url_map import CANARY, CONDITION, address, text_of
from tests.ui.webhook_form.test_forms import posted

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture(scope="module")
def site(module_transaction: DjangoDbBlocker) -> Site:
    """The site with one of each row, made once."""
    with module_transaction.unblock():
        return Site()


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


def browsers(site: Site) -> tuple[Client, Client]:
    """Return the browsers of somebody who may do all but see payloads, and of a superuser."""
    every = frozenset(Permission.objects.values_list("codename", flat=True))
    blind = Role(name="blind", permissions=every - {"view_payload"})
    return site.browser(blind), site.browser(SUPERUSER)


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
