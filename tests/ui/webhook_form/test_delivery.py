"""The form's sections Delivery and Alerts: valid input, errors, and summaries when folded."""

from typing import Any

import pytest
from django.utils import translation

from tests.factories import make_webhook
from tests.ui.webhook_form.test_forms import bound, error, saved
from webhooks.delivery.requests import RETRY_SCHEDULE_SECONDS
from webhooks.delivery_log.figures import rough_duration
from webhooks.models import Webhook
from webhooks.security.drafts import Draft
from webhooks.ui.webhook_form.forms import WebhookForm
from webhooks.ui.webhook_form.sections import MAX_STEPS, schedule_text

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def shown(webhook: Webhook) -> WebhookForm:
    """Return the form as it opens."""
    return WebhookForm(instance=webhook, draft=Draft({}))


# ---- Limits ----------------------------------------------------------------------------------


def test_a_rate_a_concurrency_and_an_order_are_saved() -> None:
    webhook = saved(
        rate_limit="30", rate_limit_seconds="60", concurrency_limit="4", is_ordered="on"
    )
    assert (webhook.rate_limit, webhook.rate_limit_seconds) == (30, 60)
    assert (webhook.concurrency_limit, webhook.is_ordered) == (4, True)


def test_left_empty_there_is_no_limit() -> None:
    webhook = saved(rate_limit="", rate_limit_seconds="1", concurrency_limit="")
    assert (webhook.rate_limit, webhook.concurrency_limit) == (None, None)
    assert not webhook.is_ordered
    assert webhook.retry_schedule_seconds == []


def test_a_limit_is_taken_away_again() -> None:
    webhook = make_webhook(
        rate_limit=5, concurrency_limit=2, is_ordered=True, retry_schedule_seconds=[60]
    )
    webhook = saved(webhook, rate_limit="", concurrency_limit="", retry_schedule_seconds="")
    assert (webhook.rate_limit, webhook.concurrency_limit) == (None, None)
    assert (webhook.is_ordered, webhook.retry_schedule_seconds) == (False, [])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rate_limit", "0", "from 1 to 100,000"),
        ("rate_limit", "100001", "from 1 to 100,000"),
        ("rate_limit", "many", "from 1 to 100,000"),
        ("rate_limit", "1.5", "from 1 to 100,000"),
        ("rate_limit_seconds", "3600", "second or minute"),
        ("concurrency_limit", "0", "from 1 to 1,000"),
        ("concurrency_limit", "1001", "from 1 to 1,000"),
        ("concurrency_limit", "-1", "from 1 to 1,000"),
    ],
)
def test_a_wrong_limit_says_what_is_allowed(field: str, value: str, words: str) -> None:
    assert words in error(field, **{field: value})


# ---- Retries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("5s, 5m, 30m, 2h, 5h", [5, 300, 1800, 7200, 18000]),
        ("1d", [86400]),
        ("7d", [7 * 86400]),
        (" 10 S ,1 Min; 2 hours\n1day,", [10, 60, 7200, 86400]),
        ("90s", [90]),
        ("", []),
        (" , ", []),
        (", ".join(["1m"] * MAX_STEPS), [60] * MAX_STEPS),
    ],
)
def test_a_retry_schedule_is_read(typed: str, seconds: list[int]) -> None:
    assert saved(retry_schedule_seconds=typed).retry_schedule_seconds == seconds


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("5", "“5” has no unit. Enter 5s, 5m, 5h or 5d."),
        ("5s, soon", "“soon” is not a waiting time."),
        ("5s 5m", "“5s 5m” is not a waiting time."),
        ("-5s", "“-5s” is not a waiting time."),
        ("1.5h", "“1.5h” is not a waiting time."),
        ("0s", "“0s” is out of range"),
        ("8d", "“8d” is out of range"),
        ("999999999d", "out of range"),
        ("5s\0", "Null characters are not allowed."),
        (", ".join(["1m"] * (MAX_STEPS + 1)), "16 waiting times are too many; the limit is 15"),
    ],
)
def test_a_wrong_retry_schedule_says_which_part_is_wrong(typed: str, words: str) -> None:
    assert words in error("retry_schedule_seconds", retry_schedule_seconds=typed)


def test_a_stored_schedule_is_shown_as_it_can_be_typed() -> None:
    webhook = make_webhook(retry_schedule_seconds=[5, 90, 300, 7200, 86400])
    form = shown(webhook)
    assert 'value="5s, 90s, 5m, 2h, 1d"' in str(form["retry_schedule_seconds"])
    same = bound(webhook, retry_schedule_seconds="5s, 90s, 5m, 2h, 1d")
    assert "retry_schedule_seconds" not in same.changed_data


def test_what_was_typed_wrong_is_shown_again_in_an_open_section() -> None:
    form = bound(retry_schedule_seconds="5s, <b>")
    assert not form.is_valid()
    assert form.has_delivery_open
    assert 'value="5s, &lt;b&gt;"' in str(form["retry_schedule_seconds"])
    [problem] = form.problems()
    assert problem["target"] == "id_retry_schedule_seconds"


def test_the_default_schedule_is_shown_where_an_own_one_is_typed() -> None:
    help_text = str(shown(make_webhook()).fields["retry_schedule_seconds"].help_text)
    assert schedule_text(RETRY_SCHEDULE_SECONDS) in help_text
    assert "5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 1d" in help_text
    assert rough_duration(sum(RETRY_SCHEDULE_SECONDS)) == "3 d 3 h"


def test_a_schedule_is_shown_and_typed_in_ukrainian_too() -> None:
    with translation.override("uk"):
        assert rough_duration(90_061) == "1 д 1 год"
        assert rough_duration(61) == "1 хв 1 с"
    webhook = saved(retry_schedule_seconds="5с, 2 хв, 3год, 1 д")
    assert webhook.retry_schedule_seconds == [5, 120, 10_800, 86_400]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "No limits, default retries"),
        ({"rate_limit": 10}, "At most 10 per second"),
        ({"rate_limit": 10, "rate_limit_seconds": 60}, "At most 10 per minute"),
        ({"concurrency_limit": 1}, "1 request at a time"),
        ({"concurrency_limit": 3, "is_ordered": True}, "In order, one at a time"),
        (
            {"rate_limit": 2, "retry_schedule_seconds": [5, 300]},
            "At most 2 per second, 2 retries within 5 min 5 s",
        ),
    ],
)
def test_the_folded_section_says_what_is_set(fields: dict[str, Any], line: str) -> None:
    form = shown(make_webhook(**fields))
    assert form.delivery_summary == line
    assert form.has_delivery_open is bool(fields)


def test_the_line_follows_what_was_typed_and_not_saved() -> None:
    webhook = make_webhook(rate_limit=5)
    form = bound(webhook, is_checked=False, rate_limit="7", rate_limit_seconds="60")
    assert form.delivery_summary == "At most 7 per minute"


# ---- Alerts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "addresses"),
    [
        ("ops@example.com", ["ops@example.com"]),
        ("a@example.com, b@example.com", ["a@example.com", "b@example.com"]),
        ("b@example.com\r\n a@example.com;\n\n", ["b@example.com", "a@example.com"]),
        ("Ops@example.com\nops@EXAMPLE.com", ["Ops@example.com"]),
        ("", []),
    ],
)
def test_recipients_are_read_a_line_or_a_comma_each(typed: str, addresses: list[str]) -> None:
    assert saved(alert_recipients=typed).alert_recipients == addresses


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("ops@", "“ops@” is not an email address."),
        ("a@example.com\nnobody", "“nobody” is not an email address."),
        ("Ops <ops@example.com>", "“Ops” is not an email address."),
        ("a@example.com\0", "Null characters are not allowed."),
        ("a" * 65 + "@example.com" * 20, "is not an email address."),
        (
            "\n".join(f"p{n}@example.com" for n in range(21)),
            "21 addresses are too many; the limit is 20",
        ),
    ],
)
def test_wrong_recipients_say_which_one_is_wrong(typed: str, words: str) -> None:
    assert words in error("alert_recipients", alert_recipients=typed)


def test_recipients_are_muted_and_taken_away() -> None:
    webhook = make_webhook(alert_recipients=["ops@example.com"])
    webhook = saved(webhook, alert_recipients="ops@example.com", alerts_are_muted="on")
    assert (webhook.alerts_are_muted, webhook.alert_recipients) == (True, ["ops@example.com"])
    webhook = saved(webhook, alert_recipients="")
    assert (webhook.alerts_are_muted, webhook.alert_recipients) == (False, [])


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "No recipients"),
        ({"alert_recipients": ["a@example.com"]}, "1 recipient"),
        ({"alert_recipients": ["a@example.com", "b@example.com"]}, "2 recipients"),
        ({"alert_recipients": ["a@example.com"], "alerts_are_muted": True}, "Muted"),
    ],
)
def test_the_folded_alerts_say_who_is_notified(fields: dict[str, Any], line: str) -> None:
    assert shown(make_webhook(**fields)).alerts_summary == line
