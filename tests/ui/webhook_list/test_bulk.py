"""Actions on many webhooks at once: pause, resume, delete; permissions and audit entries."""

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from tests.factories import make_delivery, make_webhook
from tests.ui.webhook_list.test_views import LIST, logged_in
from webhooks import events
from webhooks.models import Action, AuditEntry, Delivery, Status, Webhook
from webhooks.ui.webhook_list import views as list_views

pytestmark = pytest.mark.django_db

BULK = reverse("webhooks:bulk")


def act(browser: Client, action: str, *webhooks: Webhook, **more: Any) -> Any:
    chosen = [webhook.pk for webhook in webhooks]
    return browser.post(BULK, {"action": action, "webhook": chosen, **more}, follow=True)


def active() -> set[str]:
    return set(Webhook.objects.active().values_list("name", flat=True))


def statuses() -> set[str]:
    return set(Delivery.objects.values_list("status", flat=True))


def make_three() -> list[Webhook]:
    return [make_webhook(name=name) for name in ("One", "Two", "Three")]


def test_the_ticked_are_paused_and_no_others(browser: Client) -> None:
    one, two, _three = make_three()
    delivery = make_delivery(one)
    page = act(browser, "pause", one, two)
    assert (
        "2 webhooks were paused. Their deliveries are on hold until they are resumed." in page.text
    )
    assert active() == {"Three"}
    delivery.refresh_from_db()
    assert delivery.status == Status.HELD
    entries = AuditEntry.objects.filter(action=Action.PAUSED).order_by("pk")
    assert [entry.object_name for entry in entries] == ["One", "Two"]
    assert {entry.username for entry in entries} == {"admin"}


def test_who_is_paused_already_is_neither_counted_nor_written_down(browser: Client) -> None:
    one, two, _three = make_three()
    events.pause(one)
    assert "1 webhook was paused." in act(browser, "pause", one, two).text
    assert "they are all paused already" in act(browser, "pause", one, two).text
    assert AuditEntry.objects.filter(action=Action.PAUSED).count() == 1


def test_resuming_without_held_deliveries_asks_nothing(browser: Client) -> None:
    one, two, _three = make_three()
    events.pause(one)
    events.pause(two)
    assert "2 webhooks are active again." in act(browser, "resume", one, two).text
    assert AuditEntry.objects.filter(action=Action.RESUMED).count() == 2


@pytest.mark.parametrize(("held", "status"), [("send", "pending"), ("cancel", "cancelled")])
def test_resuming_asks_what_becomes_of_the_held(browser: Client, held: str, status: str) -> None:
    one, two, _three = make_three()
    make_delivery(one)
    Delivery.objects.exclude(webhook__in=[one, two]).delete()
    events.pause(one)
    events.pause(two)
    page = act(browser, "resume", one, two)
    assert "Deliveries on hold: 2" in page.text
    assert active() == {"Three"}
    page = browser.post(
        BULK,
        {"action": "resume", "webhooks": page.context["ids"], "held": held, "is_confirmed": "1"},
        follow=True,
    )
    assert "2 webhooks are active again." in page.text
    assert statuses() == {status}
    # The same as after a resume on the webhook's own page.
    code = {"send": "resumed_and_sent", "cancel": "resumed_and_cancelled"}[held]
    entries = AuditEntry.objects.filter(action=Action.RESUMED)
    assert [code in entry.note for entry in entries] == [True, True]


def test_a_confirmation_names_only_what_it_would_resume(browser: Client) -> None:
    one, two, _three = make_three()
    events.pause(one)
    make_delivery(one)
    page = act(browser, "resume", one, two)
    assert "Resume 1 webhook?" in page.text
    assert '<li class="tag">Two</li>' not in page.text
    # Those of an active webhook are on their way already.
    Delivery.objects.update(webhook=two)
    assert "1 webhook is active again." in act(browser, "resume", one, two).text


def test_deleting_asks_first_and_says_what_is_lost(browser: Client) -> None:
    one, two, _three = make_three()
    make_delivery(one)
    page = act(browser, "delete", one, two)
    assert "Delete 2 webhooks?" in page.text
    assert "Deliveries waiting or on hold: 2." in page.text
    assert Webhook.objects.present().count() == 3
    assert not AuditEntry.objects.exists()


def test_deleting_takes_webhooks_off_the_list_and_cancels_what_waits(browser: Client) -> None:
    one = make_webhook(name="One")
    two = make_webhook(name="Two")
    make_delivery(one)
    ids = act(browser, "delete", one, two).context["ids"]
    data = {"action": "delete", "webhooks": ids, "is_confirmed": "1"}
    assert "2 webhooks were deleted." in browser.post(BULK, data, follow=True).text
    assert not Webhook.objects.present().exists()
    assert statuses() == {"cancelled"}
    entries = AuditEntry.objects.filter(action=Action.DELETED)
    assert set(entries.values_list("object_name", flat=True)) == {"One", "Two"}


def test_a_confirmation_deletes_what_was_counted_and_nothing_that_came_later(
    browser: Client,
) -> None:
    for name in ("One", "Two", "Three"):
        make_webhook(name=name, url="x://127.0.0.1:9/")
    page = browser.post(BULK, {"action": "delete", "is_all": "1", "q": "T"}, follow=True)
    assert page.context["count"] == 2
    make_webhook(name="Tomorrow")
    data = {"action": "delete", "webhooks": page.context["ids"], "is_confirmed": "1"}
    browser.post(BULK, data)
    assert active() == {"One", "Tomorrow"}


@pytest.mark.parametrize("action", ["pause", "resume", "delete"])
def test_what_was_done_to_many_is_taken_back_with_one_button(browser: Client, action: str) -> None:
    one, two, three = make_three()
    if action == "resume":
        for webhook in (one, two, three):
            events.pause(webhook)
    else:
        events.pause(two)
    before = active()
    page = act(browser, action, one, two, three, is_confirmed="1")
    assert active() != before
    found = re.search(r'name="undo" value="([^"]+)"', page.text)
    assert found is not None
    browser.post(BULK, {"undo": found[1]})
    assert active() == before
    assert Webhook.objects.present().count() == 3


@pytest.mark.slow
def test_all_that_match_are_meant_beyond_the_page(browser: Client) -> None:
    for number in range(60):
        make_webhook(name=f"Hook 1{number}")
    make_webhook(name="Other")
    browser.post(BULK, {"action": "pause", "is_all": "1", "q": "Hook 1"})
    assert active() == {"Other"}


def test_the_bar_carries_the_filters_of_the_list(browser: Client) -> None:
    for number in range(60):
        make_webhook(name=f"Hook {number}")
    page = browser.get(LIST, {"q": "hook", "status": "active"})
    assert '<input type="hidden" name="q" value="hook">' in page.text
    assert '<input type="hidden" name="status" value="active">' in page.text
    assert "All 60 that match" in page.text


def test_nothing_ticked_changes_nothing_and_says_so(browser: Client) -> None:
    make_three()
    assert "Select webhooks first" in act(browser, "pause").text
    assert len(active()) == 3


@pytest.mark.parametrize("chosen", ["x", "-1", "9" * 40, "1 OR 1=1"])
def test_ids_that_are_none_choose_nothing(browser: Client, chosen: str) -> None:
    make_three()
    browser.post(BULK, {"action": "pause", "webhook": chosen})
    assert len(active()) == 3


def test_deleted_webhooks_are_left_alone(browser: Client) -> None:
    gone = make_webhook(name="Gone")
    events.delete(gone)
    page = act(browser, "pause", gone)
    assert "Nothing changed" in page.text


def test_the_list_comes_back_as_it_was_and_never_another_site(browser: Client) -> None:
    one, *_rest = make_three()
    data = {"action": "pause", "webhook": one.pk, "next": f"{LIST}?q=o&page=1"}
    assert browser.post(BULK, data)["Location"] == f"{LIST}?q=o&page=1"
    for foreign in ("https://evil.example/", "//evil.example", "javascript:alert(1)"):
        assert browser.post(BULK, {**data, "next": foreign})["Location"] == LIST


def test_what_takes_too_long_stops_and_asks_for_the_rest(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = make_three()
    monkeypatch.setattr(list_views, "MAX_SECONDS", 0.0)
    page = act(browser, "pause", one, two, three)
    assert "This took too long and stopped." in page.text
    assert page.context["count"] == 2
    assert len(active()) == 2
    data = {"action": "pause", "webhooks": page.context["ids"], "is_confirmed": "1"}
    assert browser.post(BULK, data).context["count"] == 1


def test_undo_after_a_part_leads_back_to_the_list(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks = make_three()
    with monkeypatch.context() as patch:
        patch.setattr(list_views, "MAX_SECONDS", 0.0)
        page = act(browser, "pause", *webhooks, next=f"{LIST}?q=o")
    found = re.search(r'name="undo" value="([^"]+)".*?name="next"[^>]*value="([^"]*)"', page.text)
    assert found is not None
    answer = browser.post(BULK, {"undo": found[1], "next": found[2]})
    assert answer["Location"] == f"{LIST}?q=o"


def test_the_rest_of_a_long_undo_is_found_in_the_trash(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks = make_three()
    for webhook in webhooks:
        events.delete(webhook)
    monkeypatch.setattr(list_views, "MAX_SECONDS", 0.0)
    undo = f"restore:{','.join(str(webhook.pk) for webhook in webhooks)}"
    page = browser.post(BULK, {"undo": undo}, follow=True)
    assert page.redirect_chain[-1][0] == reverse("webhooks:trash")
    assert "1 webhook was restored." in page.text
    assert "The rest are in the trash." in page.text


@pytest.mark.parametrize(
    ("action", "permission"),
    [
        ("pause", "change_webhook"),
        ("resume", "change_webhook"),
        ("delete", "delete_webhook"),
    ],
)
def test_each_action_asks_for_its_permission(action: str, permission: str) -> None:
    one, two, _three = make_three()
    browser = logged_in("view_webhook")
    assert act(browser, action, one, two).status_code == 403
    assert 'id="bulk"' not in browser.get(LIST).text
    get_user_model().objects.get().user_permissions.add(Permission.objects.get(codename=permission))
    assert act(browser, action, one, two).status_code == 200
    assert f'value="{action}"' in browser.get(LIST).text


def test_unknown_actions_and_plain_links_are_refused(browser: Client) -> None:
    one, *_rest = make_three()
    assert act(browser, "explode", one).status_code == 400
    assert browser.get(BULK).status_code == 405
    assert Client().post(BULK, {"action": "pause", "webhook": one.pk}).status_code == 302
    assert len(active()) == 3
