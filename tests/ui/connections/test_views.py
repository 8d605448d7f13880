"""Connections over HTTP: the list, the form, choosing, deleting, and making one from a webhook."""

import datetime as dt
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import LOCAL, deliver_all, make_credential, make_delivery, make_webhook
from tests.sandbox import Provider, Receiver, answer_consent
from tests.ui.webhook_form.test_forms import OAUTH, posted
from tests.ui.webhook_form.test_token_views import come_back, oauth_fields
from tests.ui.webhook_form.test_views import draft_of, edit_url, logged_in
from webhooks import events
from webhooks.models import (
    Credential,
    Delivery,
    HoldReason,
    OAuthExchange,
    OAuthToken,
    Status,
    TokenState,
    Webhook,
)
from webhooks.ui import shared_credentials
from webhooks.ui.connections.forms import MAX_HOSTS, HostsField

pytestmark = pytest.mark.django_db

LIST = "/integrations/webhooks/connections/"
CREATE = LIST + "new/"
BASIC = {"authorization_type": "basic", "basic_login": "shared", "basic_password": "hush-hush"}
OWN_BASIC = {"authorization_type": "basic", "basic_login": "demo", "basic_password": "pass word "}


def fields(**overrides: Any) -> dict[str, Any]:
    """Return what a browser posts for a new Basic connection."""
    data = {"name": "CRM login", "allowed_hosts": LOCAL, "draft": "", **BASIC, **overrides}
    return {name: value for name, value in data.items() if value is not None}


def make_connection(**given: Any) -> Credential:
    return Credential.objects.get(pk=make_credential(**given).pk)


def make_oauth_connection(**given: Any) -> Credential:
    return make_connection(**{"basic_password": "", **OAUTH, "name": "CRM token", **given})


def page_url(connection: Credential) -> str:
    return reverse("webhooks:connection_edit", args=[connection.pk])


def delete_url(connection: Credential) -> str:
    return reverse("webhooks:connection_delete", args=[connection.pk])


def token_for(credential: Credential, **given: Any) -> OAuthToken:
    values = {
        "state": TokenState.VALID,
        "access_token": "access-token-text",
        "refresh_token": "refresh-token-text",
        "obtained_at": timezone.now(),
        "version": 3,
        **given,
    }
    return OAuthToken.objects.create(credential=credential, **values)


# ---- The list ---------------------------------------------------------------------------------


def test_the_hint_and_the_error_of_the_name_give_the_same_example(browser: Client) -> None:
    form = browser.post(CREATE, fields(name="")).context["form"]
    assert form.errors["name"] == ["Enter a name."]
    assert "“CRM login”" in form["name"].help_text


def test_an_empty_list_says_what_a_connection_is_and_offers_the_first_step(browser: Client) -> None:
    page = browser.get(LIST)
    assert "only sent to the hosts you list" in page.text
    assert page.text.count(CREATE) == 1


def test_an_empty_list_offers_nothing_to_who_may_not_create() -> None:
    page = logged_in("view_connection").get(LIST)
    assert CREATE not in page.text


def test_a_row_shows_kind_token_hosts_and_a_link_to_the_webhooks_that_use_it(
    browser: Client,
) -> None:
    connection = make_oauth_connection(allowed_hosts=["crm.example.com", "127.0.0.1"])
    token_for(connection, state=TokenState.NEEDS_REAUTHORIZATION)
    for name in ("One", "Two"):
        make_webhook(name=name, credential=connection)
    make_webhook(name="Gone", credential=connection, deleted_at=timezone.now())
    make_webhook(name="Other")
    page = browser.get(LIST)
    for text in ("CRM token", "OAuth 2.0", "Needs re-authorization", "crm.example.com"):
        assert text in page.text
    assert "2 webhooks" in page.text
    link = f"{reverse('webhooks:list')}?connection={connection.pk}"
    assert f'href="{link}"' in page.text
    rows = browser.get(link).context["rows"]
    assert [row["webhook"].name for row in rows] == ["One", "Two"]


def test_the_page_of_a_connection_names_its_endpoints(browser: Client) -> None:
    connection = make_oauth_connection()
    page = browser.get(reverse("webhooks:connection", args=[connection.pk])).text
    for url in (connection.auth_url, connection.token_url):
        assert f">{url}<" in page


@pytest.mark.parametrize("wanted", ["0", "x", "9" * 30, "-1", ""])
def test_a_link_to_no_connection_shows_every_webhook(browser: Client, wanted: str) -> None:
    make_webhook()
    assert len(browser.get(reverse("webhooks:list"), {"connection": wanted}).context["rows"]) == 1


def test_the_list_asks_the_same_number_of_queries_for_any_number_of_connections(
    browser: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(5):
        token_for(make_oauth_connection(name=f"Connection {number}"))
    with django_assert_max_num_queries(5):
        browser.get(LIST)


def test_connections_are_in_the_navigation_of_who_may_see_them(browser: Client) -> None:
    page = browser.get(LIST)
    assert f'<a href="{LIST}" aria-current="page">' in page.text
    assert page.text.count('aria-current="page"') == 1


def test_connections_are_not_in_the_navigation_of_others() -> None:
    assert LIST not in logged_in("view_webhook").get(reverse("webhooks:list")).text


# ---- The form ---------------------------------------------------------------------------------


def test_a_basic_connection_is_saved_with_its_secret_sealed(browser: Client) -> None:
    answer = browser.post(CREATE, fields(allowed_hosts="CRM.Example.com\r\n127.0.0.1\r\n"))
    connection = Credential.objects.shared().get()
    assert answer["Location"] == page_url(connection)
    assert connection.allowed_hosts == ["crm.example.com", "127.0.0.1"]
    assert (connection.basic_login, connection.basic_password) == ("shared", "hush-hush")
    assert Webhook.objects.present().count() == 0
    page = browser.get(page_url(connection))
    assert "hush-hush" not in page.text
    assert "no-store" in page["Cache-Control"]
    assert "Set on" in page.text


def test_a_secret_is_kept_when_its_field_is_left_empty(browser: Client) -> None:
    connection = make_connection()
    browser.post(page_url(connection), fields(basic_password="", basic_login="other"))
    connection.refresh_from_db()
    assert (connection.basic_login, connection.basic_password) == ("other", "hush-hush")


def test_a_typed_secret_outlives_another_error(browser: Client) -> None:
    page = browser.post(CREATE, fields(name=""))
    assert "hush-hush" not in page.text
    browser.post(CREATE, fields(basic_password="", draft=draft_of(page)))
    assert Credential.objects.shared().get().basic_password == "hush-hush"


@pytest.mark.once
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "Enter a name"),
        ("allowed_hosts", "", "at least one host"),
        ("allowed_hosts", " \n ", "at least one host"),
        ("authorization_type", "none", "not one of the available choices"),
        ("authorization_type", None, "required"),
        ("basic_login", "", "Enter the login"),
        ("basic_password", "", "Enter the password"),
        ("alert_recipients", "nobody", "not an email address"),
    ],
)
def test_wrong_input_gets_one_sentence_at_its_field(
    browser: Client, field: str, value: Any, words: str
) -> None:
    page = browser.post(CREATE, fields(**{field: value}))
    assert page.status_code == 200
    [sentence] = page.context["form"].errors[field]
    assert words in sentence
    assert page.context["form"].problems()
    assert not Credential.objects.shared().exists()


def test_two_connections_cannot_have_one_name(browser: Client) -> None:
    make_connection()
    page = browser.post(CREATE, fields(name="crm LOGIN"))
    assert "Another connection has this name" in page.text


@pytest.mark.once
@pytest.mark.parametrize(
    ("typed", "hosts"),
    [
        ("crm.example.com", ["crm.example.com"]),
        ("CRM.Example.Com.", ["crm.example.com"]),
        ("a.example.com, b.example.com", ["a.example.com", "b.example.com"]),
        ("a.example.com\nA.EXAMPLE.COM", ["a.example.com"]),
        ("приклад.укр", ["xn--80aikifvh.xn--j1amh"]),
        ("203.0.113.7", ["203.0.113.7"]),
        ("[2001:db8::1]", ["2001:db8::1"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("https://crm.example.com", ["crm.example.com"]),
        ("crm.example.com:443", ["crm.example.com"]),
        ("crm.example.com:8443", ["https://crm.example.com:8443"]),
        ("HTTP://crm.example.com:80", ["http://crm.example.com"]),
        ("[2001:db8::1]:8443", ["https://[2001:db8::1]:8443"]),
    ],
)
def test_hosts_are_spelled_as_the_urls_of_webhooks_are(typed: str, hosts: list[str]) -> None:
    assert HostsField().clean(typed) == hosts


@pytest.mark.once
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("https://crm.example.com/hooks", "Enter only crm.example.com"),
        ("http://crm.example.com:8080/", "Enter only http://crm.example.com:8080"),
        ("crm.example.com/hooks", "Enter only crm.example.com"),
        ("crm.example.com/", "Enter only crm.example.com"),
        ("crm.example.com?x", "Enter only crm.example.com"),
        ("me@crm.example.com", "not a host"),
        ("*.example.com", "not a host"),
        ("crm_..com", "not a host"),
        ("010.0.0.1", "not a host"),
        ("<b>", "not a host"),
    ],
)
def test_what_is_no_host_name_alone_is_refused(typed: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        HostsField().clean(typed)


def test_more_hosts_than_the_limit_are_refused() -> None:
    many = "\n".join(f"h{number}.example.com" for number in range(MAX_HOSTS + 1))
    with pytest.raises(ValidationError, match="the limit is 50"):
        HostsField().clean(many)


def test_without_javascript_the_other_fields_come_with_a_round_trip(browser: Client) -> None:
    page = browser.post(
        CREATE, fields(authorization_type="oauth2", action="change_type", name="", client_id="abc")
    )
    assert page.context["form"].chosen_type == "oauth2"
    assert not page.context["form"].errors
    assert 'value="abc"' in page.text


def test_a_new_host_releases_what_was_held_for_it(browser: Client) -> None:
    connection = make_connection(allowed_hosts=["crm.example.com"])
    delivery = make_delivery(make_webhook(credential=connection))
    Delivery.objects.filter(pk=delivery.pk).update(
        status=Status.HELD, hold_reason=HoldReason.MISCONFIGURED, next_attempt_at=None
    )
    browser.post(page_url(connection), fields(allowed_hosts="crm.example.com\nhttp://127.0.0.1:9"))
    assert Delivery.objects.get().status == Status.PENDING


def test_another_client_drops_the_token_of_a_connection(browser: Client) -> None:
    connection = make_oauth_connection()
    token_for(connection)
    values = {**OAUTH, "client_secret": "", "client_id": "another"}
    browser.post(page_url(connection), fields(**values, name="CRM token"))
    assert OAuthToken.objects.get().state == TokenState.NONE


# ---- The token --------------------------------------------------------------------------------


def test_one_authorization_releases_the_deliveries_of_every_webhook(
    browser: Client, provider: Provider, receiver: Receiver
) -> None:
    data = oauth_fields(provider, allowed_hosts=receiver.url, name="Shared token")
    answer = browser.post(CREATE, data)
    connection = Credential.objects.shared().get()
    for number in range(2):
        hook = make_webhook(url=f"{receiver.url}/bearer/{number}", credential=connection)
        Delivery.objects.filter(pk=make_delivery_of(hook).pk).update(
            status=Status.HELD, hold_reason=HoldReason.NO_TOKEN, next_attempt_at=None
        )
    back = come_back(browser, answer_consent(answer["Location"]))
    assert (back.status_code, back["Location"]) == (303, page_url(connection) + "#token")
    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.PENDING}
    page = browser.get(page_url(connection))
    assert "2 deliveries that waited for it are being sent." in page.text
    assert OAuthToken.objects.get().credential_id == connection.pk


def make_delivery_of(webhook: Webhook) -> Delivery:
    return events.send_test(webhook)


def test_get_new_access_token_saves_the_form_of_a_connection_first(
    browser: Client, provider: Provider
) -> None:
    browser.post(CREATE, oauth_fields(provider, allowed_hosts="127.0.0.1", name="Shared token"))
    connection = Credential.objects.shared().get()
    address = reverse("webhooks:authorize", args=[connection.pk])
    page = browser.post(address, oauth_fields(provider, allowed_hosts="", name="Renamed"))
    assert "at least one host" in page.text
    assert f'action="{page_url(connection)}"' in page.text
    answer = browser.post(
        address, oauth_fields(provider, allowed_hosts="127.0.0.1", name="Renamed")
    )
    assert answer["Location"].startswith(provider.auth_url)
    connection.refresh_from_db()
    assert connection.name == "Renamed"


def test_a_token_is_refreshed_and_cleared_on_the_page_of_a_connection(
    browser: Client, provider: Provider
) -> None:
    data = oauth_fields(provider, allowed_hosts="127.0.0.1", name="Shared token")
    come_back(browser, answer_consent(browser.post(CREATE, data)["Location"]))
    connection = Credential.objects.shared().get()
    before = OAuthToken.objects.get().version
    answer = browser.post(reverse("webhooks:refresh_token", args=[connection.pk]))
    assert answer["Location"] == page_url(connection) + "#token"
    assert OAuthToken.objects.get().version > before
    panel = browser.post(
        reverse("webhooks:clear_token", args=[connection.pk]), headers={"HX-Request": "true"}
    )
    assert "The access token was cleared." in panel.text
    assert OAuthToken.objects.get().state == TokenState.NONE


# ---- Choosing one -----------------------------------------------------------------------------


def test_the_choice_is_not_there_while_no_connection_exists(browser: Client) -> None:
    assert "This webhook&#x27;s own" not in browser.get(edit_url(make_webhook())).text


def test_a_webhook_uses_a_connection_and_keeps_its_own_credentials(browser: Client) -> None:
    connection = make_connection()
    webhook = make_webhook(**OWN_BASIC)
    answer = browser.post(
        edit_url(webhook), posted(**{**OWN_BASIC, "basic_password": ""}, connection=connection.pk)
    )
    assert answer.status_code == 302
    webhook.refresh_from_db()
    assert webhook.credential_id == connection.pk
    own = webhook.private_credential
    assert (own.basic_login, own.basic_password) == ("demo", "pass word ")
    page = browser.get(edit_url(webhook))
    assert page.context["form"].chosen_type == "connection"
    assert page_url(connection) in page.text
    browser.post(edit_url(webhook), posted(**{**OWN_BASIC, "basic_password": ""}, connection=""))
    webhook.refresh_from_db()
    assert not webhook.credential.is_shared
    assert webhook.credential.basic_password == "pass word "


def test_own_fields_that_are_wrong_do_not_matter_while_a_connection_is_chosen(
    browser: Client,
) -> None:
    webhook = make_webhook()
    wrong = {"authorization_type": "oauth2", "auth_url": "nonsense", "client_id": ""}
    wrong["client_certificate"] = "no certificate"
    answer = browser.post(edit_url(webhook), posted(**wrong, connection=make_connection().pk))
    assert answer.status_code == 302


def test_a_connection_for_other_hosts_cannot_be_chosen_and_the_page_says_why(
    browser: Client,
) -> None:
    other = make_connection(name="Elsewhere", allowed_hosts=["crm.example.com"])
    webhook = make_webhook()
    page = browser.get(edit_url(webhook)).text
    option = page[page.index(f'<option value="{other.pk}"') :].partition("</option>")[0]
    assert "disabled" in option
    assert "only for crm.example.com" in option
    page = browser.post(edit_url(webhook), posted(connection=other.pk))
    [sentence] = page.context["form"].errors["connection"]
    assert "“Elsewhere” may not be sent to http://127.0.0.1:9. Add it to the hosts" in sentence
    assert "Elsewhere" in str(page.context["form"].problems())


def test_a_connection_that_was_deleted_concurrently_is_refused(browser: Client) -> None:
    connection = make_connection()
    shared_credentials.delete(connection)
    make_connection(name="Another")
    page = browser.post(edit_url(make_webhook()), posted(connection=connection.pk))
    assert "no longer exists" in page.text


def test_a_webhook_is_no_connection(browser: Client) -> None:
    page = browser.post(edit_url(make_webhook()), posted(connection=make_webhook().credential_id))
    assert page.context["form"].errors["connection"]


@pytest.mark.slow
def test_without_javascript_a_chosen_connection_hides_the_own_fields(browser: Client) -> None:
    connection = make_connection()
    page = browser.post(
        edit_url(make_webhook()),
        posted(connection=connection.pk, action="change_type", authorization_type="oauth2"),
    )
    assert page.context["form"].chosen_type == "connection"
    assert not page.context["is_oauth"]
    assert page.context["connection"] == connection


@pytest.mark.slow
def test_who_may_not_see_connections_keeps_the_one_that_is_used_and_chooses_no_other() -> None:
    used, other = make_connection(), make_connection(name="Secret one")
    webhook = make_webhook(credential=used)
    browser = logged_in("change_webhook")
    page = browser.get(edit_url(webhook))
    assert "CRM login" in page.text
    assert "Secret one" not in page.text
    assert browser.post(edit_url(webhook), posted(connection=used.pk)).status_code == 302
    refused = browser.post(edit_url(webhook), posted(connection=other.pk))
    assert refused.context["form"].errors["connection"]


def test_choosing_a_connection_releases_what_waited_for_the_own_token(browser: Client) -> None:
    connection = make_connection()
    webhook = make_webhook(**OAUTH)
    delivery = make_delivery(webhook)
    Delivery.objects.filter(pk=delivery.pk).update(
        status=Status.HELD, hold_reason=HoldReason.NO_TOKEN, next_attempt_at=None
    )
    browser.post(edit_url(webhook), posted(connection=connection.pk))
    assert Delivery.objects.get().status == Status.PENDING


def test_the_panel_of_a_chosen_connection_is_drawn_alone(browser: Client) -> None:
    connection = make_oauth_connection()
    token_for(connection, state=TokenState.NEEDS_REAUTHORIZATION, last_error="It was revoked.")
    address = reverse("webhooks:connection_panel")
    panel = browser.get(address, {"connection": connection.pk})
    for text in ("CRM token", "Needs re-authorization", "It was revoked.", page_url(connection)):
        assert text in panel.text
    for nothing in ("", "0", "x"):
        assert browser.get(address, {"connection": nothing}).text.strip() == ""


def test_list_and_page_show_the_connection_and_its_token(browser: Client) -> None:
    connection = make_oauth_connection()
    token_for(connection, state=TokenState.NEEDS_REAUTHORIZATION, last_error="It was revoked.")
    webhook = make_webhook(credential=connection)
    row = browser.get(reverse("webhooks:list"))
    page = browser.get(reverse("webhooks:detail", args=[webhook.pk]))
    for answer in (row, page):
        assert "CRM token" in answer.text
        assert "Needs re-authorization" in answer.text
        assert "On hold" in answer.text
    assert page.context["status"]["sentence"].startswith("Connection “CRM token”: ")
    assert reverse("webhooks:authorize", args=[connection.pk]) in page.text


def test_a_webhook_whose_connection_lost_its_host_is_on_hold(browser: Client) -> None:
    webhook = make_webhook(credential=make_connection(allowed_hosts=["crm.example.com"]))
    page = browser.get(reverse("webhooks:detail", args=[webhook.pk]))
    assert page.context["status"]["label"] == "On hold"
    assert "may not be sent to http://127.0.0.1:9" in page.text


def test_the_filters_of_the_list_know_what_a_webhook_sends(browser: Client) -> None:
    waiting = make_webhook(name="Waits", credential=make_oauth_connection())
    make_webhook(name="Fine", credential=make_connection(), **OAUTH)
    found = browser.get(reverse("webhooks:list"), {"authorization": "oauth2"}).context["rows"]
    assert [row["webhook"] for row in found] == [waiting]
    found = browser.get(reverse("webhooks:list"), {"status": "attention"}).context["rows"]
    assert [row["webhook"] for row in found] == [waiting]


def test_the_page_of_a_connection_shows_where_its_token_comes_from(browser: Client) -> None:
    connection = make_oauth_connection(auth_url="https://provider.example/approve")
    page = browser.get(reverse("webhooks:connection", args=[connection.pk])).text
    assert "https://provider.example/approve" in page
    assert connection.token_url in page


def test_a_copy_of_a_webhook_keeps_its_connection(browser: Client) -> None:
    connection = make_connection()
    browser.post(reverse("webhooks:duplicate", args=[make_webhook(credential=connection).pk]))
    assert set(Webhook.objects.present().values_list("credential", flat=True)) == {connection.pk}


# ---- Deleting one -----------------------------------------------------------------------------


def test_a_connection_in_use_is_not_deleted_and_the_page_says_by_which_webhooks(
    browser: Client,
) -> None:
    connection = make_connection()
    webhook = make_webhook(name="Missed calls", credential=connection)
    page = browser.get(delete_url(connection))
    assert "Missed calls" in page.text
    assert reverse("webhooks:detail", args=[webhook.pk]) in page.text
    assert "Delete connection" not in page.text
    assert browser.post(delete_url(connection)).status_code == 409
    assert Credential.objects.shared().get().basic_password == "hush-hush"


def test_a_deleted_connection_leaves_no_secret_and_no_token(browser: Client) -> None:
    connection = make_oauth_connection()
    token_for(connection)
    make_webhook(credential=connection, deleted_at=timezone.now())
    assert "revoked if the provider supports it" in browser.get(delete_url(connection)).text
    assert browser.post(delete_url(connection))["Location"] == LIST
    connection.refresh_from_db()
    assert connection.deleted_at
    assert not connection.client_secret
    assert not OAuthToken.objects.exists()
    assert browser.get(page_url(connection)).status_code == 404
    assert browser.get(LIST).context["rows"] == []


# ---- Making one from a webhook ----------------------------------------------------------------


def save_as_connection(browser: Client, webhook: Webhook) -> Any:
    return browser.post(reverse("webhooks:save_as_connection", args=[webhook.pk]))


def test_a_webhooks_login_moves_into_a_connection_for_its_host(
    browser: Client, receiver: Receiver
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/basic/x", **OWN_BASIC)
    assert (
        reverse("webhooks:save_as_connection", args=[webhook.pk])
        in browser.get(edit_url(webhook)).text
    )
    answer = save_as_connection(browser, webhook)
    connection = Credential.objects.shared().get()
    assert answer["Location"] == page_url(connection)
    assert (connection.name, connection.allowed_hosts) == ("CRM", [receiver.url])
    assert (connection.basic_login, connection.basic_password) == ("demo", "pass word ")
    webhook.refresh_from_db()
    assert webhook.credential_id == connection.pk
    assert webhook.own_credential.authorization_type == "none"
    assert not webhook.own_credential.has_secret("basic_password")
    assert "basic_password" not in webhook.own_credential.secrets_changed_at


@pytest.mark.django_db(transaction=True)
def test_a_webhooks_token_moves_along_and_still_opens(
    browser: Client, provider: Provider, receiver: Receiver
) -> None:
    data = oauth_fields(provider, url=f"{receiver.url}/bearer/x")
    new = reverse("webhooks:create")
    come_back(browser, answer_consent(browser.post(new, data)["Location"]))
    webhook = Webhook.objects.present().get()
    before = OAuthToken.objects.get()
    save_as_connection(browser, webhook)
    connection = Credential.objects.shared().get()
    token = OAuthToken.objects.get()
    assert token.credential_id == connection.pk
    assert (token.access_token, token.refresh_token) == (before.access_token, before.refresh_token)
    assert (token.state, token.granted_by) == (TokenState.VALID, before.granted_by)
    assert set(OAuthExchange.objects.values_list("credential", flat=True)) == {connection.pk}
    make_delivery(webhook)
    deliver_all()
    assert Delivery.objects.get().status == Status.SUCCEEDED
    browser.post(reverse("webhooks:refresh_token", args=[connection.pk]))
    assert OAuthToken.objects.get().version > token.version


def test_a_token_that_is_being_refreshed_stays_where_its_answer_arrives(browser: Client) -> None:
    webhook = make_webhook(**OAUTH)
    token_for(
        webhook.credential,
        refresh_lease="a worker",
        refresh_lease_until=timezone.now() + dt.timedelta(seconds=20),
    )
    save_as_connection(browser, webhook)
    connection = Credential.objects.shared().get()
    assert connection.token.refresh_lease == "a worker"
    assert connection.client_secret == OAUTH["client_secret"]


def test_every_connection_gets_a_name_of_its_own(browser: Client) -> None:
    for _number in range(3):
        save_as_connection(browser, make_webhook(name="n" * 100, **OWN_BASIC))
    names = Credential.objects.shared().values_list("name", flat=True)
    assert len({name.lower() for name in names}) == 3
    assert all(len(name) <= 100 for name in names)


def test_only_own_credentials_become_a_connection(browser: Client) -> None:
    for webhook in (make_webhook(), make_webhook(credential=make_connection())):
        answer = save_as_connection(browser, webhook)
        assert "no credentials of its own" in browser.get(answer["Location"]).text
    assert Credential.objects.shared().count() == 1


# ---- Permissions ------------------------------------------------------------------------------


def test_the_form_of_a_connection_is_saved_only_by_who_may_change_connections(
    provider: Provider,
) -> None:
    connection = make_oauth_connection()
    browser = logged_in("authorize_webhook", "change_webhook")
    address = reverse("webhooks:authorize", args=[connection.pk])
    data = oauth_fields(provider, allowed_hosts="evil.example.com")
    assert browser.post(address, data).status_code == 403
    connection.refresh_from_db()
    assert connection.allowed_hosts == [LOCAL]


@pytest.mark.parametrize("more", [[], ["view_connection"], ["change_connection"]])
def test_who_creates_a_connection_goes_on_to_a_page_that_is_open(more: list[str]) -> None:
    browser = logged_in("add_connection", *more)
    page = browser.post(CREATE, fields(), follow=True)
    assert page.status_code == 200
    assert "The connection “CRM login” was created." in page.text


@pytest.mark.slow
def test_the_form_links_a_deletion_that_is_open() -> None:
    connection = make_connection()
    browser = logged_in("change_connection", "delete_connection")
    assert browser.get(delete_url(connection)).status_code == 403
    assert delete_url(connection) not in browser.get(page_url(connection)).text
    other = logged_in("change_connection", "delete_connection", "view_connection", name="other")
    assert delete_url(connection) in other.get(page_url(connection)).text
    assert other.post(delete_url(connection), follow=True).status_code == 200


def test_the_webhooks_of_the_admin_are_no_connections() -> None:
    browser = logged_in(is_superuser=True)
    user = Webhook._meta.get_field("created_by").remote_field.model.objects.get()
    user.is_staff = True
    user.save()
    make_connection()
    make_webhook(name="Missed calls")
    page = browser.get(reverse("admin:webhooks_webhook_changelist"))
    assert "Missed calls" in page.text
    assert "CRM login" not in page.text
