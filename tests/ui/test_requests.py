"""Numbers in a request, of any length."""

import pytest
from django.urls import reverse

from tests.factories import make_webhook
from tests.people import Browser, logged_in
from webhooks.ui.webhook_form import headers

LONG = "9" * 5000


@pytest.fixture
def browser() -> Browser:
    return logged_in(name="ann", is_superuser=True, is_staff=True)


@pytest.mark.django_db
def test_a_number_of_thousands_of_digits_is_no_fault(browser: Browser) -> None:
    make_webhook()
    asked = {
        f"{reverse('webhooks:connection_panel')}?connection={LONG}": 200,
        f"{reverse('webhooks:deliveries')}?counted={LONG}": 200,
        f"/admin/webhooks/webhook/{LONG}/change/": 414,
    }
    for address, status in asked.items():
        assert browser.get(address).status_code == status, address[:60]
    posted = {"webhook": LONG, "filter_action": f"add:{LONG}"}
    assert browser.post(reverse("webhooks:preview"), posted).status_code == 404
    more_headers = {"action": "add_header", "headers-TOTAL_FORMS": LONG}
    more_headers |= {"headers-INITIAL_FORMS": "0"}
    assert browser.post(reverse("webhooks:create"), more_headers).status_code < 500
    more_rows = {"action": "parameter:add", "parameters_mode": "rows", "parameter": LONG}
    assert browser.post(reverse("webhooks:edit_parameters"), more_rows).status_code == 200


@pytest.mark.django_db
def test_a_number_of_headers_draws_at_most_twice_as_many_rows_as_are_allowed(
    browser: Browser,
) -> None:
    posted = {"headers-TOTAL_FORMS": "100000", "headers-INITIAL_FORMS": "0"}
    page = browser.post(reverse("webhooks:create"), posted)
    assert len(page.context["form"].headers.forms) == 2 * headers.MAX_ROWS
    assert "At most 50 headers can be set." in page.text


@pytest.mark.django_db
def test_a_channel_for_a_webhook_that_cannot_be_keeps_what_was_typed(browser: Browser) -> None:
    typed = {"recipient": "ops@example.com", "webhooks": "9" * 30}
    page = browser.post(reverse("webhooks:alert_add", args=["email"]), typed)
    assert page.status_code == 422
    assert list(page.context["form"].errors) == ["webhooks"]
    assert 'value="ops@example.com"' in page.text
