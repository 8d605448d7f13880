"""The page of an event: a line for each webhook, within bounds."""

import pytest

from tests.ui.webhook_form.test_filter_views import make_webhook, publish
from webhooks.delivery_log import event_detail

pytestmark = pytest.mark.django_db


def test_webhooks_with_a_delivery_are_never_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ABC":
        make_webhook(name=name, event_types=["form.submitted"])
    last = make_webhook(name="Z")
    [event] = publish()
    monkeypatch.setattr(event_detail, "MAX_WEBHOOKS", 2)
    lines = event_detail.lines_of(event)
    assert [line["webhook"].name for line in lines] == ["Z", "A"]
    assert lines[0]["verdict"]["deliveries"][0].webhook_id == last.pk


def test_a_webhook_whose_delivery_is_not_read_is_not_called_unsent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in "ABC":
        make_webhook(name=name)
    make_webhook(name="D", event_types=["form.submitted"])
    [event] = publish()
    for most in (2, 3):
        monkeypatch.setattr(event_detail, "MAX_DELIVERIES", most)
        lines = event_detail.lines_of(event)
        assert len(lines) == most
        assert all("deliveries" in line["verdict"] for line in lines)
    monkeypatch.setattr(event_detail, "MAX_DELIVERIES", 4)
    assert len(event_detail.lines_of(event)) == 4


def test_an_event_without_deliveries_lists_all_webhooks() -> None:
    make_webhook(event_types=["form.submitted"])
    [event] = publish()
    assert len(event_detail.lines_of(event)) == 1
