"""Create and edit over HTTP: use without JavaScript, the secret shown once, permissions."""

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.people import logged_in
from tests.ui.webhook_form.test_forms import BASIC, OAUTH, header_fields, posted
from webhooks.models import Webhook

pytestmark = [pytest.mark.django_db, pytest.mark.once]

CREATE = "/integrations/webhooks/new/"


def edit_url(webhook: Webhook) -> str:
    return reverse("webhooks:edit", args=[webhook.pk])


def draft_of(page: Any) -> str:
    return str(page.context["form"].draft.id)


def created(browser: Client, **overrides: Any) -> Webhook:
    answer = browser.post(CREATE, posted(**overrides))
    assert answer.status_code == 302, answer.context["form"].errors
    return Webhook.objects.latest("pk")


def test_a_list_that_only_serves_a_button_is_no_unsaved_change(browser: Client) -> None:
    script = (settings.BASE_DIR / "static/webhook_form/unsaved-changes.js").read_text()
    is_ignored = re.compile(script.partition("value && !/")[2].partition("/.test")[0])
    page = browser.get(CREATE).text
    for name in ("parameter_variable", "success_preset", "preview_event"):
        assert f'name="{name}"' in page
        assert is_ignored.match(name)
    assert not is_ignored.match("parameter")


def test_a_new_webhook_is_saved_and_its_secret_shown_once(browser: Client) -> None:
    answer = browser.post(CREATE, posted())
    webhook = Webhook.objects.get()
    assert answer["Location"] == edit_url(webhook)
    first = browser.get(edit_url(webhook))
    assert webhook.signing_secret in first.text
    assert "no-store" in first["Cache-Control"]
    assert webhook.signing_secret not in browser.get(edit_url(webhook)).text
    assert webhook.created_by == get_user_model().objects.get()


@pytest.mark.parametrize("permissions", [["add_webhook"], ["add_webhook", "view_webhook"]])
def test_who_may_only_add_is_led_to_a_page_that_can_be_opened(permissions: list[str]) -> None:
    person = logged_in(*permissions)
    answer = person.post(CREATE, posted(name="CRM"))
    assert Webhook.objects.count() == 1
    page = person.get(answer["Location"])
    assert page.status_code == 200
    assert "“CRM” was created." in page.text


@pytest.mark.slow
def test_saving_the_same_form_twice_is_said(browser: Client) -> None:
    sentence = "Another webhook has the same name and URL."
    assert sentence not in browser.post(CREATE, posted(), follow=True).text
    other = posted(name="Another name")
    assert sentence not in browser.post(CREATE, other, follow=True).text
    assert sentence in browser.post(CREATE, posted(), follow=True).text


def test_the_secret_is_never_in_the_session_or_a_cookie(browser: Client) -> None:
    answer = browser.post(CREATE, posted())
    secret = Webhook.objects.get().signing_secret
    assert secret not in str(dict(browser.session))
    assert secret not in str(answer.cookies)


def test_an_error_shows_the_form_again_with_everything_typed(browser: Client) -> None:
    page = browser.post(CREATE, posted(**{**OAUTH, "url": "", "name": "Typed <b>name</b>"}))
    assert page.status_code == 200
    assert 'href="#id_url"' in page.text
    assert "Typed &lt;b&gt;name&lt;/b&gt;" in page.text
    assert 'value="http://127.0.0.1:9/token"' in page.text
    assert OAUTH["client_secret"] not in page.text
    assert not Webhook.objects.exists()
    data = posted(**{**OAUTH, "client_secret": "", "draft": draft_of(page)})
    browser.post(CREATE, data)
    assert Webhook.objects.get().credential.client_secret == OAUTH["client_secret"]


def test_change_type_shows_the_other_fields_and_judges_nothing(browser: Client) -> None:
    page = browser.post(
        CREATE,
        posted(**{**BASIC, "authorization_type": "oauth2", "name": "", "action": "change_type"}),
    )
    assert page.context["form"].chosen_type == "oauth2"
    assert "Enter a name" not in page.text
    assert 'value="demo"' in page.text
    assert BASIC["basic_password"] not in page.text
    assert not Webhook.objects.exists()
    data = posted(**{**BASIC, "basic_password": "", "draft": draft_of(page)})
    browser.post(CREATE, data)
    assert Webhook.objects.get().credential.basic_password == BASIC["basic_password"]


def test_add_header_adds_a_row_and_keeps_the_others(browser: Client) -> None:
    row = header_fields({"name": "X-Team", "value": "sales"})
    page = browser.post(CREATE, posted(**row, action="add_header"))
    assert 'value="sales"' in page.text
    assert 'name="headers-1-name"' in page.text
    assert 'name="headers-TOTAL_FORMS" value="2"' in page.text


def test_a_header_value_with_braces_is_pointed_out(browser: Client) -> None:
    fields = header_fields({"name": "X-Call", "value": "{{ call_id }}"})
    page = browser.get(edit_url(created(browser, **fields))).text
    assert "“X-Call” is sent with its braces" in page


def test_editing_saves_and_stays_on_the_form(browser: Client) -> None:
    webhook = created(browser)
    answer = browser.post(edit_url(webhook), posted(name="Renamed"))
    assert answer["Location"] == edit_url(webhook)
    webhook.refresh_from_db()
    assert webhook.name == "Renamed"
    assert "The changes were saved." in browser.get(edit_url(webhook)).text


def test_the_form_never_shows_a_stored_secret(browser: Client) -> None:
    secret_row = {"name": "X-Key", "value": "k3y-0123", "is_secret": "on"}
    webhook = created(browser, **{**OAUTH, **header_fields(secret_row)})
    browser.get(edit_url(webhook))
    page = browser.get(edit_url(webhook)).text
    assert "Set on" in page
    assert not any(
        secret in page for secret in (OAUTH["client_secret"], "k3y-0123", webhook.signing_secret)
    )


def test_rotating_shows_the_new_secret_once_and_keeps_the_old_one_valid(browser: Client) -> None:
    webhook = created(browser)
    browser.get(edit_url(webhook))
    old = webhook.signing_secret
    answer = browser.post(reverse("webhooks:rotate_secret", args=[webhook.pk]))
    assert answer["Location"] == edit_url(webhook) + "#signing"
    webhook = Webhook.objects.get()
    assert webhook.previous_signing_secrets == old
    assert webhook.signing_secret != old
    page = browser.get(edit_url(webhook)).text
    assert webhook.signing_secret in page
    assert old not in page
    assert "previous secret" in page
    assert webhook.signing_secret not in browser.get(edit_url(webhook)).text


def test_rotating_by_htmx_answers_the_panel_alone(browser: Client) -> None:
    webhook = created(browser)
    url = reverse("webhooks:rotate_secret", args=[webhook.pk])
    answer = browser.post(url, headers={"HX-Request": "true"})
    assert Webhook.objects.get().signing_secret in answer.text
    assert "<html" not in answer.text
    assert "no-store" in answer["Cache-Control"]


def test_without_the_permission_to_authorize_there_is_no_button() -> None:
    browser = logged_in("add_webhook", "view_webhook")
    assert "Get new access token" not in browser.get(CREATE).text
    answer = browser.post(CREATE, posted(**OAUTH, action="authorize"))
    assert answer.status_code == 403
    assert not Webhook.objects.exists()
