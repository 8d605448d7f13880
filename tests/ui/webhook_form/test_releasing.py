"""Saving a form that corrects the reason of a hold releases the held deliveries."""

import json
from typing import Any

import pytest

from tests.factories import make_delivery, make_webhook
from tests.ui.connections.test_views import fields, make_connection, make_oauth_connection, page_url
from tests.ui.webhook_form.test_forms import BASIC, OAUTH, posted, saved
from tests.ui.webhook_form.test_views import logged_in
from webhooks.models import Delivery, HoldReason, OAuthToken, Status, TokenState, Webhook

pytestmark = pytest.mark.django_db


def held(webhook: Webhook, reason: str) -> Delivery:
    delivery = make_delivery(webhook)
    Delivery.objects.update(status=Status.HELD, hold_reason=reason, next_attempt_at=None)
    return delivery


def is_released(delivery: Delivery) -> bool:
    delivery.refresh_from_db()
    return delivery.status == Status.PENDING


@pytest.mark.parametrize("reason", [HoldReason.REAUTHORIZATION, HoldReason.NO_TOKEN])
@pytest.mark.parametrize("chosen", [BASIC, {"authorization_type": "none"}], ids=["basic", "none"])
def test_another_kind_of_authorization_releases(reason: str, chosen: dict[str, str]) -> None:
    webhook = saved(**OAUTH)
    OAuthToken.objects.create(credential=webhook.credential, state=TokenState.NEEDS_REAUTHORIZATION)
    delivery = held(webhook, reason)
    saved(webhook, **{**OAUTH, **chosen})
    assert is_released(delivery)


def test_another_kind_at_a_connection_releases_at_those_who_use_it() -> None:
    connection = make_oauth_connection()
    delivery = held(make_webhook(credential=connection), HoldReason.NO_TOKEN)
    browser = logged_in(is_superuser=True)
    answer = browser.post(page_url(connection), fields(name=connection.name))
    assert answer.status_code == 302
    assert is_released(delivery)


def test_a_corrected_address_releases_what_its_connection_may_be_sent_to_now() -> None:
    connection = make_connection()
    webhook = make_webhook(credential=connection, url="http://127.0.0.2:9/hook")
    delivery = held(webhook, HoldReason.MISCONFIGURED)
    saved(webhook, connection=str(connection.pk))
    assert is_released(delivery)


def test_a_readable_filter_releases_what_could_not_be_judged() -> None:
    webhook = make_webhook(filter={"variable": "disposition", "operator": "no such"})
    delivery = make_delivery(webhook)
    assert not is_released(delivery)
    tree = {"variable": "disposition", "operator": "equals", "value": "BUSY"}
    saved(webhook, name="Renamed")
    assert not is_released(delivery)
    saved(webhook, **{"filter-mode": "json", "filter-json": json.dumps(tree)})
    assert is_released(delivery)


@pytest.mark.parametrize("change", [{"name": "Renamed"}, {"timeout_seconds": "20"}])
def test_other_changes_release_nothing(change: dict[str, Any]) -> None:
    webhook = saved(**OAUTH)
    delivery = held(webhook, HoldReason.NO_TOKEN)
    saved(webhook, **{**posted(), **OAUTH, **change})
    assert not is_released(delivery)
