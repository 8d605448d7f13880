"""URLs that only buttons post to, requested as pages."""

from functools import partial

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in

pytestmark = [pytest.mark.django_db, pytest.mark.once]
person = partial(logged_in, name="ann", is_superuser=True)
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
LIST = "/integrations/webhooks/"


def test_a_button_pressed_without_a_session_leads_back_to_its_page_after_the_login() -> None:
    webhook = make_webhook()
    pause = reverse("webhooks:pause", args=[webhook.pk])
    login = Client().post(pause).headers["Location"]
    assert login.endswith(pause)
    answer = person().get(pause, headers=BROWSER, follow=True)
    assert answer.redirect_chain == [(f"{LIST}{webhook.pk}/", 302)]
    assert "Nothing was done. Press the button again." in answer.content.decode()


@pytest.mark.parametrize(
    ("name", "above"),
    [
        ("refresh_token", "{webhook}/edit/#token"),
        ("switch_authentication", "{webhook}/edit/#token"),
        ("bulk", ""),
        ("delivery_resend", "deliveries/{delivery}/"),
    ],
)
def test_the_nearest_page_above_is_shown(name: str, above: str) -> None:
    delivery = make_delivery(make_webhook())
    keys = {"bulk": [], "delivery_resend": [delivery.pk]}.get(
        name, [delivery.webhook.credential_id]
    )
    answer = person().get(reverse(f"webhooks:{name}", args=keys), headers=BROWSER, follow=True)
    place = above.format(webhook=delivery.webhook_id, delivery=delivery.pk)
    assert answer.redirect_chain[-1][0] == f"{LIST}{place}"


@pytest.mark.parametrize("step", ["resend", "cancel"])
def test_the_log_is_the_nearest_page_above_in_django_admin(step: str) -> None:
    delivery = make_delivery(make_webhook())
    button = reverse(f"admin:webhooks_delivery_{step}", args=[delivery.pk])
    answer = person(is_staff=True).get(button, headers=BROWSER, follow=True)
    assert answer.redirect_chain == [("/admin/webhooks/delivery/", 302)]
    assert "Nothing was done. Press the button again." in answer.content.decode()


def test_machines_and_htmx_learn_that_it_is_no_page() -> None:
    pause = reverse("webhooks:pause", args=[make_webhook().pk])
    browser = person()
    assert browser.get(pause).status_code == 405
    assert browser.get(pause, headers={**BROWSER, "HX-Request": "true"}).status_code == 405
    assert browser.put(pause, headers=BROWSER).status_code == 405
    assert Client().get("/api/v1/events", headers=BROWSER).status_code == 405


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example/", "detail", ""])
def test_a_button_leads_back_to_a_page_of_this_site_only(address: str) -> None:
    webhook = make_webhook()
    pause = reverse("webhooks:pause", args=[webhook.pk])
    answer = person().post(pause, {"next": address})
    assert answer.headers["Location"] == f"{LIST}{webhook.pk}/"
