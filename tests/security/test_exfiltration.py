"""An editor who cannot see a stored secret cannot have it sent to a server of their own either.

Each case changes where a request would go, in every way that the product has. Refusals are
counted; at the end the engine runs, and no stored secret arrives at the other receiver.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import change, deliver_all, make_credential, make_delivery, make_webhook
from tests.people import logged_in
from tests.sandbox import Receiver
from tests.ui.transfer.test_views import bring_in, look
from tests.ui.webhook_form.test_forms import header_fields, posted
from webhooks import oauth
from webhooks.models import (
    Credential,
    Delivery,
    OAuthToken,
    Webhook,
    may_be_sent_to,
)

pytestmark = [pytest.mark.django_db, pytest.mark.security, pytest.mark.slow]
# The engine's threads see only committed rows.
sends = pytest.mark.django_db(transaction=True)

SECRET = "typed-by-the-owner-7Q"
OWN = "http://127.0.0.1:9"
BASIC = {"authorization_type": "basic", "basic_login": "crm"}
CLIENT = {
    "authorization_type": "oauth2",
    "token_name": "CRM",
    "auth_url": f"{OWN}/authorize",
    "token_url": f"{OWN}/token",
    "client_id": "client",
    "client_authentication": "request_body",
    "grant_type": "authorization_code",
}
MACHINE = {**CLIENT, "grant_type": "client_credentials", "auth_url": ""}
HEADERS = json.dumps([{"name": "X-Api-Key", "value": SECRET, "secret": True}])
KEPT = header_fields(
    {"name": "X-Api-Key", "value": "", "is_secret": "on", "stored_name": "X-Api-Key"}
)


@pytest.fixture
def editor() -> Client:
    """Return the browser of a user who may edit everything and sees no secret."""
    kinds = ("webhook", "connection")
    names = [f"{action}_{kind}" for kind in kinds for action in ("add", "change", "view")]
    return logged_in(*names, "authorize_webhook", "test_webhook", name="mallory")


@pytest.fixture
def figure(security_figure: Callable[..., None]) -> Callable[[bool], None]:
    def count(is_refused: bool) -> None:
        security_figure("exfiltration", refused=int(is_refused), of=1)
        assert is_refused

    return count


def owned(**fields: Any) -> Webhook:
    return make_webhook(
        url=f"{OWN}/hook", name="CRM", event_types=["call.incoming.after"], **fields
    )


def save(editor: Client, webhook: Webhook, **fields: Any) -> Any:
    return editor.post(reverse("webhooks:edit", args=[webhook.pk]), posted(**fields))


def sentence(answer: Any, field: str) -> str:
    return " ".join(map(str, answer.context["form"].errors.get(field, [])))


def send(webhook: Webhook) -> None:
    make_delivery(Webhook.objects.get(pk=webhook.pk))
    deliver_all()


def arrived(receiver: Receiver) -> str:
    return "".join(f"{one.headers} {one.body!r}" for one in receiver.requests())


# ---- The form -----------------------------------------------------------------------------------


ELSEWHERE = [
    "http://127.0.0.1:10/hook",
    "http://localhost:9/hook",
    "http://127.0.0.2:9/hook",
    "https://127.0.0.1:9/hook",
]


@pytest.mark.once
@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_password_is_asked_for_again_where_another_origin_would_get_it(
    editor: Client, figure: Callable[[bool], None], url: str
) -> None:
    webhook = owned(**BASIC, basic_password=SECRET)
    answer = save(editor, webhook, **BASIC, url=url)
    assert answer.status_code == 200
    assert "Enter it again" in sentence(answer, "basic_password")
    assert answer.context["form"]["url"].value() == url
    figure(Webhook.objects.get().url == webhook.url)


@pytest.mark.once
@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_secret_header_is_asked_for_again(
    editor: Client, figure: Callable[[bool], None], url: str
) -> None:
    webhook = owned(headers_json=HEADERS)
    answer = save(editor, webhook, url=url, **KEPT)
    assert answer.status_code == 200
    (row, *_) = answer.context["form"].headers.forms
    assert "Enter it again" in str(row.errors["value"])
    figure(Webhook.objects.get().url == webhook.url)


def test_a_client_secret_that_is_restored_stays_with_the_origins_it_was_entered_for(
    editor: Client, figure: Callable[[bool], None], receiver: Receiver
) -> None:
    webhook = owned(**CLIENT, client_secret=SECRET)
    OAuthToken.objects.create(credential=webhook.credential, state="valid", access_token="a-1")
    elsewhere = {"auth_url": f"{receiver.url}/authorize", "client_secret": "mine"}
    saved = save(editor, webhook, **{**CLIENT, **elsewhere}, url=f"{OWN}/hook")
    assert saved.status_code == 302, saved.context["form"].errors
    editor.post(reverse("webhooks:restore_secret", args=[webhook.credential_id]))
    credential = Credential.objects.get()
    assert credential.client_secret == SECRET
    figure(not may_be_sent_to(credential, receiver.url, "client_secret"))
    figure(may_be_sent_to(credential, CLIENT["token_url"], "client_secret"))


def test_another_path_of_the_same_origin_needs_nothing(editor: Client) -> None:
    webhook = owned(**BASIC, basic_password=SECRET, headers_json=HEADERS)
    assert save(editor, webhook, **BASIC, url=f"{OWN}/other?x=1", **KEPT).status_code == 302
    stored = Webhook.objects.get()
    assert (stored.url, stored.credential.basic_password) == (f"{OWN}/other?x=1", SECRET)
    assert SECRET in stored.headers_json


def test_what_was_typed_again_goes_to_the_new_origin_and_no_longer_to_the_old_one(
    editor: Client,
) -> None:
    webhook = owned(**BASIC, basic_password=SECRET)
    url = "http://127.0.0.1:10/hook"
    assert save(editor, webhook, **BASIC, url=url, basic_password="typed anew").status_code == 302
    credential = Credential.objects.get()
    assert credential.basic_password == "typed anew"
    assert may_be_sent_to(credential, url)
    assert not may_be_sent_to(credential, f"{OWN}/hook")


def test_a_password_that_is_cleared_needs_no_typing(editor: Client) -> None:
    webhook = owned(**BASIC, basic_password=SECRET)
    url = "http://127.0.0.1:10/hook"
    assert save(editor, webhook, url=url, **{"basic_password-clear": "on"}).status_code == 302
    assert not Credential.objects.get().has_secret("basic_password")


def test_the_way_over_no_authorization_is_closed(
    editor: Client, figure: Callable[[bool], None]
) -> None:
    webhook = owned(**BASIC, basic_password=SECRET)
    url = "http://127.0.0.1:10/hook"
    assert save(editor, webhook, url=url, authorization_type="none").status_code == 302
    answer = save(editor, webhook, **BASIC, url=url)
    figure("Enter it again" in sentence(answer, "basic_password"))


@pytest.mark.once
@pytest.mark.parametrize("field", ["token_url", "auth_url", "refresh_url", "revocation_url"])
def test_a_client_secret_is_asked_for_again(
    editor: Client, figure: Callable[[bool], None], field: str
) -> None:
    webhook = owned(**CLIENT, client_secret=SECRET)
    answer = save(editor, webhook, **{**CLIENT, field: "http://127.0.0.1:10/x"})
    assert "127.0.0.1:10" in sentence(answer, "client_secret")
    figure(getattr(Credential.objects.get(), field) == getattr(webhook.credential, field))


def test_client_credentials_fetch_no_token_for_another_receiver(
    editor: Client, figure: Callable[[bool], None]
) -> None:
    webhook = owned(**MACHINE, client_secret=SECRET)
    answer = save(editor, webhook, **MACHINE, url="http://127.0.0.1:10/hook")
    figure("Enter it again" in sentence(answer, "client_secret"))


def test_another_grant_gets_no_token_for_a_receiver_that_no_person_approved(
    editor: Client, figure: Callable[[bool], None]
) -> None:
    webhook = owned(**CLIENT, client_secret=SECRET)
    url = "http://127.0.0.1:10/hook"
    assert save(editor, webhook, **CLIENT, url=url).status_code == 302
    answer = save(editor, webhook, **MACHINE, url=url)
    figure("Enter it again" in sentence(answer, "client_secret"))


# ---- Import and duplicate -----------------------------------------------------------------------


def entry(**fields: Any) -> dict[str, Any]:
    return {"name": "CRM", "url": f"{OWN}/hook", "event_types": ["call.incoming.after"], **fields}


@pytest.mark.parametrize(
    ("stored", "moved", "secret", "words"),
    [
        (BASIC, {"url": "http://127.0.0.1:10/hook"}, "basic_password", "the password"),
        (CLIENT, {"token_url": "http://127.0.0.1:10/token"}, "client_secret", "client secret"),
        (MACHINE, {"url": "http://127.0.0.1:10/hook"}, "client_secret", "client secret"),
    ],
)
def test_an_import_to_another_origin_drops_the_secret_and_says_so(
    editor: Client,
    figure: Callable[[bool], None],
    stored: dict[str, Any],
    moved: dict[str, Any],
    secret: str,
    words: str,
) -> None:
    webhook = owned(**stored, **{secret: SECRET})
    preview = look(editor, entry(uid=webhook.uid, **moved))
    (planned,) = preview.context["plan"].items
    assert words in " ".join(planned.missing), planned.errors
    bring_in(editor, preview, 0)
    figure(not Credential.objects.get().has_secret(secret))
    kept = Credential.objects.get()
    assert {name: getattr(kept, name) for name in moved if name != "url"} == {
        name: value for name, value in moved.items() if name != "url"
    }
    moved_to = Webhook.objects.get().url
    if stored is BASIC:
        # Held until a person enters it, and not sent without it.
        assert not may_be_sent_to(Credential.objects.get(), moved_to)


@pytest.mark.parametrize("listed", [True, False])
def test_an_import_to_another_origin_empties_secret_headers(
    editor: Client, figure: Callable[[bool], None], listed: bool
) -> None:
    webhook = owned(headers_json=HEADERS)
    headers = {"headers": [{"name": "X-Api-Key", "secret": True}]} if listed else {}
    moved = entry(uid=webhook.uid, url="http://127.0.0.1:10/hook", **headers)
    preview = look(editor, moved)
    assert "X-Api-Key" in " ".join(preview.context["plan"].items[0].missing)
    bring_in(editor, preview, 0)
    assert Webhook.objects.get().url == "http://127.0.0.1:10/hook"
    figure(SECRET not in Webhook.objects.get().headers_json)


def test_an_import_to_the_same_origin_keeps_every_secret(editor: Client) -> None:
    webhook = owned(**BASIC, basic_password=SECRET, headers_json=HEADERS)
    bring_in(editor, look(editor, entry(uid=webhook.uid, url=f"{OWN}/other")), 0)
    stored = Webhook.objects.get()
    assert stored.url == f"{OWN}/other"
    assert stored.credential.basic_password == SECRET
    assert SECRET in stored.headers_json


def test_a_copy_is_bound_to_where_its_secrets_were_entered_for(
    editor: Client, figure: Callable[[bool], None]
) -> None:
    webhook = owned(**BASIC, basic_password=SECRET, headers_json=HEADERS)
    editor.post(reverse("webhooks:duplicate", args=[webhook.pk]))
    copy = Webhook.objects.latest("pk")
    assert copy.credential.basic_password == SECRET
    answer = save(editor, copy, **BASIC, url="http://127.0.0.1:10/hook", **KEPT)
    figure("Enter it again" in sentence(answer, "basic_password"))
    assert copy.credential.secret_origins == webhook.credential.secret_origins


# ---- Connections --------------------------------------------------------------------------------


def connection_of(**fields: Any) -> Credential:
    return Credential.objects.get(pk=make_credential(**{"allowed_hosts": [OWN], **fields}).pk)


def save_connection(editor: Client, connection: Credential, **fields: Any) -> Any:
    data = {"name": connection.name, "allowed_hosts": OWN, "draft": "", **fields}
    return editor.post(reverse("webhooks:connection_edit", args=[connection.pk]), data)


@pytest.mark.once
@pytest.mark.parametrize("host", ["evil.example.com", "http://127.0.0.1:10", "127.0.0.1"])
def test_a_further_host_of_a_connection_needs_the_password(
    editor: Client, figure: Callable[[bool], None], host: str
) -> None:
    connection = connection_of(basic_password=SECRET)
    answer = save_connection(
        editor, connection, **BASIC, allowed_hosts=f"{OWN}\n{host}", accepts_plain_http="on"
    )
    assert "Enter it again" in sentence(answer, "basic_password")
    figure(Credential.objects.get().allowed_hosts == [OWN])


def test_a_further_host_of_a_connection_drops_its_token(
    editor: Client, figure: Callable[[bool], None]
) -> None:
    connection = connection_of(**CLIENT, basic_password="", client_secret=SECRET)
    OAuthToken.objects.create(credential=connection, state="valid", access_token="access-token-1")
    answer = save_connection(
        editor, connection, **CLIENT, allowed_hosts=f"{OWN}\nhttp://127.0.0.1:10"
    )
    assert answer.status_code == 302
    figure(not any(token.has_access_token() for token in OAuthToken.objects.all()))


@pytest.mark.parametrize("field", ["token_url", "auth_url"])
def test_the_client_secret_of_a_connection_is_asked_for_again(
    editor: Client, figure: Callable[[bool], None], field: str
) -> None:
    connection = connection_of(**CLIENT, basic_password="", client_secret=SECRET)
    answer = save_connection(editor, connection, **{**CLIENT, field: "http://127.0.0.1:10/x"})
    figure("Enter it again" in sentence(answer, "client_secret"))


@pytest.mark.once
@pytest.mark.parametrize(
    ("bound_to", "url", "is_allowed"),
    [
        ("crm.example.com", "https://crm.example.com/hook", True),
        ("crm.example.com", "https://CRM.example.com.:443/hook", True),
        ("crm.example.com", "http://crm.example.com/hook", False),
        ("crm.example.com", "https://crm.example.com:8443/hook", False),
        ("crm.example.com", "https://crm.example.com.evil.example/hook", False),
        ("https://crm.example.com:8443", "https://crm.example.com:8443/hook", True),
        ("https://crm.example.com:8443", "https://crm.example.com/hook", False),
        ("http://crm.example.com", "http://crm.example.com:80/hook", True),
        ("http://crm.example.com", "https://crm.example.com/hook", False),
        ("2001:db8::7", "https://[2001:db8::7]/hook", True),
        ("xn--bcher-kva.example", "https://bücher.example/hook", True),
    ],
)
def test_a_connection_is_bound_to_scheme_host_and_port(
    bound_to: str, url: str, is_allowed: bool, figure: Callable[[bool], None]
) -> None:
    figure(may_be_sent_to(connection_of(allowed_hosts=[bound_to]), url) is is_allowed)


# ---- Whatever the rows say ----------------------------------------------------------------------


@sends
def test_a_password_never_arrives_where_it_was_not_entered_for(
    receiver: Receiver, figure: Callable[[bool], None]
) -> None:
    webhook = owned(**BASIC, basic_password=SECRET)
    Webhook.objects.filter(pk=webhook.pk).update(url=f"{receiver.url}/open/x")
    send(webhook)
    assert Delivery.objects.get().hold_reason == "misconfigured"
    figure(receiver.requests() == [])


@sends
def test_a_secret_header_never_arrives_where_it_was_not_entered_for(
    receiver: Receiver, figure: Callable[[bool], None]
) -> None:
    webhook = owned(headers_json=HEADERS)
    Webhook.objects.filter(pk=webhook.pk).update(url=f"{receiver.url}/open/x")
    send(webhook)
    figure(receiver.requests() == [])


@sends
def test_a_connection_never_arrives_where_its_password_was_not_entered_for(
    receiver: Receiver, figure: Callable[[bool], None]
) -> None:
    connection = connection_of(basic_password=SECRET)
    webhook = owned(credential=connection)
    Webhook.objects.filter(pk=webhook.pk).update(url=f"{receiver.url}/open/x")
    Credential.objects.filter(pk=connection.pk).update(allowed_hosts=[receiver.url])
    send(webhook)
    figure(receiver.requests() == [])


@pytest.mark.parametrize("settings", [CLIENT, MACHINE])
def test_a_client_secret_never_arrives_at_another_token_endpoint(
    receiver: Receiver, figure: Callable[[bool], None], settings: dict[str, Any]
) -> None:
    webhook = owned(**settings, client_secret=SECRET)
    OAuthToken.objects.create(credential=webhook.credential, state="valid", refresh_token="r-1")
    Credential.objects.update(token_url=f"{receiver.url}/open/token")
    with pytest.raises(oauth.TokenUnavailableError, match="entered for another address"):
        oauth.refresh(Credential.objects.get())
    figure(SECRET not in arrived(receiver))


@sends
def test_a_token_never_arrives_where_it_was_not_granted_for(
    receiver: Receiver, figure: Callable[[bool], None]
) -> None:
    webhook = owned(**CLIENT, client_secret=SECRET)
    OAuthToken.objects.create(credential=webhook.credential, state="valid", access_token=SECRET)
    Webhook.objects.filter(pk=webhook.pk).update(url=f"{receiver.url}/open/x")
    send(webhook)
    assert Delivery.objects.get().hold_reason == "no_token"
    assert not OAuthToken.objects.get().has_access_token()
    figure(receiver.requests() == [])


@sends
def test_a_token_of_a_connection_never_arrives_at_a_host_that_was_added_behind_its_back(
    receiver: Receiver, figure: Callable[[bool], None]
) -> None:
    connection = connection_of(**CLIENT, client_secret=SECRET)
    OAuthToken.objects.create(credential=connection, state="valid", access_token=SECRET)
    webhook = owned(credential=connection)
    Webhook.objects.filter(pk=webhook.pk).update(url=f"{receiver.url}/open/x")
    Credential.objects.filter(pk=connection.pk).update(allowed_hosts=[receiver.url])
    send(webhook)
    figure(receiver.requests() == [])


def test_a_refresh_token_goes_to_no_other_endpoint(
    receiver: Receiver, figure: Callable[[bool], None]
) -> None:
    webhook = owned(**CLIENT)
    OAuthToken.objects.create(credential=webhook.credential, state="valid", refresh_token=SECRET)
    moved = f"{receiver.url}/open/token"
    Credential.objects.update(token_url=moved, revocation_url=moved)
    with pytest.raises(oauth.TokenUnavailableError, match="granted for other addresses"):
        oauth.refresh(Credential.objects.get())
    oauth.clear_token(Credential.objects.get())
    figure(receiver.requests() == [])


@sends
def test_what_was_entered_arrives_again_after_it_was_entered_again(receiver: Receiver) -> None:
    webhook = owned(**BASIC, basic_password=SECRET)
    Webhook.objects.filter(pk=webhook.pk).update(url=f"{receiver.url}/open/x")
    change(Credential.objects.get(), basic_password="again")
    send(webhook)
    assert len(receiver.requests()) == 1
