"""What the pages say about a token with a problem: once, and only while it is true."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.ui.connections.test_views import OAUTH, make_oauth_connection, token_for
from webhooks import events
from webhooks.models import (
    BLOCKED_STATES,
    Credential,
    Delivery,
    HoldReason,
    Incident,
    IncidentKind,
    TokenState,
    Webhook,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]

LOST = "The provider says that the approval was taken back."


def page_of(browser: Client, webhook: Webhook) -> str:
    return str(browser.get(reverse("webhooks:detail", args=[webhook.pk])).text)


def incident(subject: Webhook | Credential, kind: IncidentKind, message: str) -> None:
    about = {"webhook" if isinstance(subject, Webhook) else "credential": subject}
    Incident.objects.create(**about, kind=kind, message=message, opened_at=timezone.now())


@pytest.mark.parametrize("state", [TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED])
@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed", "not noticed yet"])
def test_the_error_of_a_lost_grant_is_shown_once(
    browser: Client, state: TokenState, is_noticed: bool
) -> None:
    webhook = make_webhook(**OAUTH)
    token_for(webhook.credential, state=state, last_error=LOST)
    if is_noticed:
        kinds = {"needs_reauthorization": "reauthorization"}
        incident(webhook, IncidentKind(kinds.get(state, state)), LOST)
    assert page_of(browser, webhook).count(LOST) == 1


def test_the_error_of_a_connection_is_shown_once_on_its_webhook(browser: Client) -> None:
    connection = make_oauth_connection()
    token_for(connection, state=TokenState.NEEDS_REAUTHORIZATION, last_error=LOST)
    incident(connection, IncidentKind.REAUTHORIZATION, LOST)
    webhook = make_webhook(credential=connection)
    assert page_of(browser, webhook).count(LOST) == 1


def test_the_list_says_why_a_webhook_is_on_hold(browser: Client) -> None:
    token_for(
        make_webhook(**OAUTH).credential, state=TokenState.NEEDS_REAUTHORIZATION, last_error=LOST
    )
    assert LOST in browser.get(reverse("webhooks:list")).text


@pytest.mark.parametrize("state", [None, *BLOCKED_STATES], ids=str)
def test_on_hold_has_the_colour_of_a_delivery_on_hold(
    browser: Client, state: TokenState | None
) -> None:
    webhook = make_webhook(**OAUTH)
    if state:
        token_for(webhook.credential, state=state)
    badge = '<span class="badge has-dot is-held">On hold</span>'
    for page in (reverse("webhooks:list"), reverse("webhooks:detail", args=[webhook.pk])):
        assert badge in browser.get(page).text


@pytest.mark.parametrize(
    ("token", "is_shown"),
    [
        ({"refresh_token_expires_at": timedelta(days=2)}, True),
        # Authorized again since: the next check closes the incident.
        ({"refresh_token_expires_at": timedelta(days=90)}, False),
        ({"refresh_token_expires_at": None}, False),
        # It has ended, for which there is another notice.
        (
            {
                "refresh_token_expires_at": timedelta(days=-1),
                "state": TokenState.NEEDS_REAUTHORIZATION,
            },
            False,
        ),
    ],
)
def test_a_grant_that_ends_soon_is_reported_while_it_does(
    browser: Client, token: dict[str, Any], is_shown: bool
) -> None:
    webhook = make_webhook(**OAUTH)
    ends = token["refresh_token_expires_at"]
    ends_at = timezone.now() + ends if ends else None
    token_for(webhook.credential, **{**token, "refresh_token_expires_at": ends_at})
    incident(webhook, IncidentKind.TOKEN_ENDING, "The refresh token ends on Friday.")
    assert ("Needs re-authorization soon" in page_of(browser, webhook)) is is_shown


def test_the_panel_counts_what_a_token_sends_and_not_what_a_resume_sends(browser: Client) -> None:
    webhook = make_webhook(**OAUTH)
    token_for(webhook.credential, state=TokenState.VALID)
    make_delivery(webhook)
    events.pause(webhook)
    page = reverse("webhooks:edit", args=[webhook.pk])
    assert "on hold until the next token" not in browser.get(page).text
    Delivery.objects.update(hold_reason=HoldReason.REAUTHORIZATION)
    assert "delivery is on hold until the next token." in browser.get(page).text


def test_a_refresh_token_alone_is_no_hold(browser: Client) -> None:
    """It was pasted, and the provider was down."""
    webhook = make_webhook(**OAUTH)
    token_for(webhook.credential, state=TokenState.EXPIRING, access_token="", obtained_at=None)
    page = page_of(browser, webhook)
    assert "until you get a new access token" not in page
    assert "The next delivery gets one." in page
    form = browser.get(reverse("webhooks:edit", args=[webhook.pk])).text
    assert "refreshed automatically" not in form


@pytest.mark.parametrize(("minutes", "word"), [(-120, "Expired"), (120, "Expires")])
def test_an_expired_token_is_said_to_have_expired(browser: Client, minutes: int, word: str) -> None:
    connection = make_oauth_connection()
    webhook = make_webhook(credential=connection)
    moment = timezone.now()
    for credential in (connection, webhook.own_credential):
        expires_at = moment + timedelta(minutes=minutes)
        token_for(credential, expires_at=expires_at, obtained_at=moment)
    pages = [
        reverse("webhooks:edit", args=[webhook.pk]),
        reverse("webhooks:connection", args=[connection.pk]),
        reverse("webhooks:detail", args=[webhook.pk]),
    ]
    for page in pages:
        words = " ".join(re.sub("<[^>]*>", " ", browser.get(page).text).split())
        assert f" {word} " in words, page
        assert "Expires 2 hours ago" not in words, page
