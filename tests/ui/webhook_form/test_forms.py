"""The webhook form: what it accepts, which errors it shows, and what it saves."""

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from webhooks import network, oauth
from webhooks.models import OAuthToken, PauseReason, TokenState, Webhook
from webhooks.security.drafts import Draft
from webhooks.ui.webhook_form.forms import WebhookForm

pytestmark = [pytest.mark.django_db, pytest.mark.once]

OAUTH = {
    "authorization_type": "oauth2",
    "token_name": "CRM",
    "auth_url": "http://127.0.0.1:9/authorize",
    "token_url": "http://127.0.0.1:9/token",
    "client_id": "client",
    "client_secret": "s3cret-of-the-client",
    "scope": "read write",
    "client_authentication": "request_body",
}
BASIC = {"authorization_type": "basic", "basic_login": "demo", "basic_password": "pass word "}


def posted(**overrides: Any) -> dict[str, Any]:
    """Return what a browser posts for a new webhook without authorization."""
    data = {
        "name": "CRM",
        "is_active": "on",
        "initial-is_active": "True",
        "url": "http://127.0.0.1:9/hook",
        "method": "POST",
        "body_format": "json",
        "event_types": ["call.incoming.after"],
        "timeout_seconds": "15",
        "date_format": "iso8601",
        "time_zone": "UTC",
        "retries_rejected": "on",
        "authorization_type": "none",
        "headers-TOTAL_FORMS": "0",
        "headers-INITIAL_FORMS": "0",
    }
    return {name: value for name, value in {**data, **overrides}.items() if value is not None}


def header_fields(*rows: dict[str, str]) -> dict[str, str]:
    fields = {"headers-TOTAL_FORMS": str(len(rows))}
    for number, row in enumerate(rows):
        fields |= {f"headers-{number}-{name}": value for name, value in row.items()}
    return fields


def bound(
    webhook: Webhook | None = None,
    *,
    session: dict[str, Any] | None = None,
    draft: Draft | None = None,
    is_checked: bool = True,
    **overrides: Any,
) -> WebhookForm:
    """Return the form after one click on Save."""
    instance = webhook or Webhook()
    owner = str(instance.pk or "new")
    return WebhookForm(
        multi_value(posted(**overrides)),
        instance=instance,
        draft=draft or Draft({} if session is None else session, form_key=owner),
        is_checked=is_checked,
    )


def multi_value(data: dict[str, Any]) -> QueryDict:
    query = QueryDict(mutable=True)
    for name, value in data.items():
        query.setlist(name, value if isinstance(value, list) else [value])
    return query


def saved(webhook: Webhook | None = None, **overrides: Any) -> Webhook:
    form = bound(webhook, **overrides)
    assert form.is_valid(), (form.errors, form.headers.errors)
    return Webhook.objects.get(pk=form.save().pk)


def error(field: str, webhook: Webhook | None = None, **overrides: Any) -> str:
    """Return the only error of a field, or an empty string."""
    form = bound(webhook, **overrides)
    sentences = [str(sentence) for sentence in form.errors.get(field, [])]
    assert len(sentences) <= 1
    return sentences[0] if sentences else ""


# ---- The request -----------------------------------------------------------------------------


def test_a_webhook_is_saved_with_everything_that_was_entered() -> None:
    webhook = saved(
        method="PUT",
        body_format="form",
        timeout_seconds="42",
        date_format="unix",
        time_zone="Europe/Kyiv",
        uses_older_names="on",
    )
    assert (webhook.name, webhook.url, webhook.method) == ("CRM", "http://127.0.0.1:9/hook", "PUT")
    assert (webhook.body_format, webhook.timeout_seconds) == ("form", 42)
    assert (webhook.date_format, webhook.time_zone) == ("unix", "Europe/Kyiv")
    assert webhook.uses_older_names
    assert webhook.is_active
    assert webhook.signing_secret.startswith("whsec_")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "Enter a name"),
        ("url", "", "Enter the URL"),
        ("timeout_seconds", "0", "from 1 to 60"),
        ("timeout_seconds", "61", "from 1 to 60"),
        ("timeout_seconds", "soon", "from 1 to 60"),
        ("timeout_seconds", "", "from 1 to 60"),
        ("event_types", [], "at least one event type"),
        ("event_types", ["call.sideways"], "call.sideways"),
        ("event_types", ["webhook.test"], "test event"),
    ],
)
def test_wrong_input_gets_one_sentence_at_its_field(field: str, value: Any, words: str) -> None:
    assert words in error(field, **{field: value})


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "http://169.254.169.254/latest", "no address"],
)
def test_an_address_the_guard_refuses_gets_the_guards_reason(url: str) -> None:
    with pytest.raises(network.UnsafeURLError) as refusal:
        network.check_url(url)
    assert error("url", url=url) == refusal.value.reason


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("http://10.0.0.1/", "WEBHOOKS_ALLOWED_NETWORKS=10.0.0.1/32:80"),
        ("https://192.168.7.7:8443/", "WEBHOOKS_ALLOWED_NETWORKS=192.168.7.7/32:8443"),
        ("http://[fd00::7]:8080/", "WEBHOOKS_ALLOWED_NETWORKS=[fd00::7]/128:8080"),
        ("http://crm.internal/", "its network with WEBHOOKS_ALLOWED_NETWORKS"),
        ("https://hooks.example.com/", "its network with WEBHOOKS_ALLOWED_NETWORKS"),
    ],
)
def test_a_private_address_is_refused_with_the_setting_that_opens_it(
    url: str, setting: str, settings: Any
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    settings.PUBLIC_URL = "https://hooks.example.com"
    assert setting in error("url", url=url)
    provider = error("token_url", **{**OAUTH, "token_url": url})
    assert setting in provider


_SPACES = (" ", "\t", "\n", "\xa0", "\u3000", "\u2028", "\x1f")


@pytest.mark.parametrize("space", _SPACES, ids=ascii)
@pytest.mark.parametrize(
    "field", ["url", "auth_url", "token_url", "refresh_url", "revocation_url", "issuer"]
)
def test_a_space_around_an_address_is_refused_and_stays_to_be_seen(field: str, space: str) -> None:
    plain = "http://127.0.0.1:9/x"
    for typed in (space + plain, plain + space):
        form = bound(**{**OAUTH, field: typed})
        assert form.errors == {field: ["The URL has a space or an invisible character in it."]}
        assert form[field].value() == typed


@pytest.mark.parametrize("before", ["", " "], ids=ascii)
def test_a_curl_command_for_a_url_learns_where_it_goes(before: str) -> None:
    command = f"{before}curl -X POST https://example.com/hooks -d a=1"
    assert "Put it into “Paste a cURL command” below." in error("url", url=command)


def test_an_address_of_spaces_is_refused_too() -> None:
    assert "space" in error("url", url="  ")


def test_nothing_is_stored_when_one_field_is_wrong() -> None:
    webhook = saved()
    form = bound(webhook, name="Other", timeout_seconds="900")
    assert not form.is_valid()
    assert Webhook.objects.get().name == "CRM"


def test_a_wildcard_takes_the_place_of_its_types() -> None:
    webhook = saved(event_types=["call.incoming.*", "call.incoming.after", "deal.created"])
    assert webhook.event_types == ["call.incoming.*", "deal.created"]


def test_one_event_type_has_a_limited_number_of_webhooks(settings: Any) -> None:
    settings.WEBHOOKS_MAX_PER_EVENT_TYPE = 2
    first = saved()
    saved(event_types=["call.incoming.*"])
    sentence = error("event_types", event_types=["call.*", "deal.created"])
    assert "Incoming call: after the call" in sentence
    assert "deal" not in sentence.lower()
    # Existing webhooks can still be changed.
    assert saved(first, name="Renamed").name == "Renamed"
    first.deleted_at = timezone.now()
    first.save()
    assert saved().pk


def test_a_save_without_another_event_type_reads_no_other_webhook() -> None:
    form = bound(saved())
    with CaptureQueriesContext(connection) as queries:
        assert form.is_valid()
    assert not [one["sql"] for one in queries if "event_types" in one["sql"]]


# ---- Active ----------------------------------------------------------------------------------


def test_unticking_active_pauses_and_ticking_resumes() -> None:
    webhook = saved(saved(), is_active=None)
    assert (webhook.is_active, webhook.pause_reason) == (False, PauseReason.PERSON)
    webhook = saved(webhook, **{"initial-is_active": "False"})
    assert (webhook.is_active, webhook.pause_reason) == (True, "")


def test_a_webhook_paused_while_the_form_was_open_stays_paused() -> None:
    webhook = saved()
    webhook.pause(PauseReason.GONE)
    webhook.save()
    assert saved(webhook, name="Renamed").pause_reason == PauseReason.GONE


def test_a_new_webhook_can_start_paused() -> None:
    assert saved(is_active=None).pause_reason == PauseReason.PERSON


# ---- Authorization ---------------------------------------------------------------------------


def test_basic_credentials_are_saved_as_typed() -> None:
    webhook = saved(**BASIC)
    assert (webhook.credential.basic_login, webhook.credential.basic_password) == (
        "demo",
        "pass word ",
    )
    assert "basic_password" in webhook.credential.secrets_changed_at


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("basic_login", "", "Enter the login"),
        ("basic_login", "a:b", "colon"),
        ("basic_login", "a\x01b", "control"),
        ("basic_password", "", "Enter the password"),
        ("basic_password", "a\nb", "control"),
    ],
)
def test_wrong_basic_credentials_are_named(field: str, value: str, words: str) -> None:
    assert words in error(field, **{**BASIC, field: value})


def test_oauth_fields_are_saved_as_typed() -> None:
    webhook = saved(**OAUTH)
    assert webhook.credential.client_secret == "s3cret-of-the-client"
    assert webhook.credential.client_authentication == "request_body"
    assert webhook.credential.callback_url == oauth.default_callback_url()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("auth_url", "", "auth URL"),
        ("token_url", "", "access token URL"),
        ("client_id", "", "client ID"),
        ("client_id", "клієнт", "ASCII"),
        ("client_secret", "a\x00b", "ull characters"),
        ("scope", 'read "write"', "without quotes"),
        ("token_url", "http://10.1.2.3/token", ""),
        ("auth_url", "javascript:alert(1)", ""),
        ("token_url", "http://127.0.0.1:9/token#x", "#"),
        ("callback_url", "https://elsewhere.example/callback", ""),
    ],
)
def test_wrong_oauth_fields_are_named(field: str, value: str, words: str) -> None:
    sentence = error(field, **{**OAUTH, field: value})
    assert sentence
    assert words in sentence


def test_a_public_client_has_no_secret() -> None:
    assert saved(**{**OAUTH, "client_secret": ""}).credential.client_secret == ""


def test_only_the_chosen_types_fields_are_checked_and_all_are_kept() -> None:
    wrong_oauth = {"auth_url": "nowhere", "scope": 'a"b', "callback_url": "http://other.example/"}
    webhook = saved(**{**OAUTH, **BASIC, **wrong_oauth})
    assert webhook.credential.authorization_type == "basic"
    assert (webhook.credential.auth_url, webhook.credential.scope) == ("nowhere", 'a"b')
    assert webhook.credential.client_secret == "s3cret-of-the-client"
    again = saved(webhook, **{**OAUTH, "client_secret": ""})
    own = again.credential
    assert (own.basic_login, own.basic_password) == ("demo", "pass word ")


def test_what_no_column_can_hold_is_left_out_of_a_type_that_was_not_chosen() -> None:
    webhook = saved(token_url="http://127.0.0.1:9/token")
    again = saved(webhook, token_url="x" * 3000)
    assert again.credential.token_url == "http://127.0.0.1:9/token"


# ---- Secrets ---------------------------------------------------------------------------------


def test_an_empty_secret_keeps_and_clear_clears() -> None:
    webhook = saved(**OAUTH)
    changed_at = webhook.credential.secrets_changed_at["client_secret"]
    webhook = saved(webhook, **{**OAUTH, "client_secret": ""})
    assert webhook.credential.client_secret == "s3cret-of-the-client"
    assert webhook.credential.secrets_changed_at["client_secret"] == changed_at
    webhook = saved(webhook, **{**OAUTH, "client_secret": "", "client_secret-clear": "on"})
    assert not webhook.credential.has_secret("client_secret")
    assert "client_secret" not in webhook.credential.secrets_changed_at


def test_a_password_cannot_be_cleared_while_it_is_needed() -> None:
    webhook = saved(**BASIC)
    clearing = {**BASIC, "basic_password": "", "basic_password-clear": "on"}
    assert "Enter the password" in error("basic_password", webhook, **clearing)


def test_typing_and_clearing_at_once_is_asked_about() -> None:
    assert "not both" in error("basic_password", **BASIC, **{"basic_password-clear": "on"})


def test_a_typed_secret_survives_an_error_without_going_into_the_page() -> None:
    session: dict[str, Any] = {}
    form = bound(session=session, **{**BASIC, "name": ""})
    assert not form.is_valid()
    page = str(form["basic_password"])
    assert "Entered, not saved yet" in page
    assert "pass word" not in page + json.dumps(session)
    draft = Draft(session, draft_id=form.draft.id)
    webhook = saved(draft=draft, **{**BASIC, "basic_password": ""})
    assert webhook.credential.basic_password == "pass word "
    assert "pass" not in json.dumps(session)
    assert not Draft(session, draft_id=draft.id).get("basic_password")


def test_a_secret_typed_for_another_type_survives_the_change_of_type() -> None:
    session: dict[str, Any] = {}
    form = bound(session=session, is_checked=False, **{**BASIC, "authorization_type": "oauth2"})
    assert form.chosen_type == "oauth2"
    assert not form.errors
    draft = Draft(session, draft_id=form.draft.id)
    webhook = saved(draft=draft, **{**BASIC, "basic_password": ""})
    assert webhook.credential.basic_password == "pass word "


def test_a_draft_keeps_nothing_that_is_longer_than_a_secret() -> None:
    session: dict[str, Any] = {}
    draft = Draft(session)
    draft.keep("client_secret", "s" * 20_000)
    draft.keep("client_key", "k" * 2_000_000)
    assert draft.get("client_secret") == "s" * 20_000
    assert not draft.get("client_key")
    assert len(str(session)) < 50_000


def test_a_draft_of_one_webhook_is_of_no_use_to_another() -> None:
    session: dict[str, Any] = {}
    draft = Draft(session, form_key="1")
    draft.keep("client_secret", "typed")
    assert Draft(session, draft_id=draft.id, form_key="1").get("client_secret") == "typed"
    assert Draft(session, draft_id=draft.id, form_key="2").get("client_secret") == ""


def test_a_session_keeps_only_the_latest_drafts() -> None:
    session: dict[str, Any] = {}
    drafts = [Draft(session) for _ in range(12)]
    for number, draft in enumerate(drafts):
        draft.keep("client_secret", f"typed {number}")
    assert [draft.get("client_secret") for draft in drafts[:4]] == [""] * 4
    assert drafts[-1].get("client_secret") == "typed 11"


# ---- Headers ---------------------------------------------------------------------------------


def test_headers_are_stored_encrypted_in_their_order() -> None:
    webhook = saved(
        **header_fields(
            {"name": "X-Api-Key", "value": "k3y-0123456789", "is_secret": "on"},
            {"name": "", "value": ""},
            {"name": " X-Team ", "value": " sales "},
        )
    )
    assert json.loads(webhook.headers_json) == [
        {"name": "X-Api-Key", "value": "k3y-0123456789", "secret": True},
        {"name": "X-Team", "value": "sales", "secret": False},
    ]
    assert "k3y" not in repr(webhook.__dict__)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("X Api", "letters, digits and hyphens"),
        ("X-Ключ", "letters, digits and hyphens"),
        ("X:", "letters, digits and hyphens"),
        ("X\r\nY", "letters, digits and hyphens"),
        ("X\r\n", "letters, digits and hyphens"),
        ("Host", "set automatically"),
        ("content-LENGTH", "set automatically"),
        ("Transfer-Encoding", "set automatically"),
        ("Connection", "set automatically"),
        ("Authorization", "authorization type"),
        ("Content-Type", "body format"),
        ("Cookie", "authorization type"),
        ("webhook-id", "signature"),
        ("Webhook-Timestamp", "signature"),
        ("WEBHOOK-SIGNATURE", "signature"),
        ("webhook-attempt", "signature"),
        ("webhook-test", "set automatically"),
    ],
)
def test_a_header_name_that_cannot_be_sent_is_refused(name: str, words: str) -> None:
    form = bound(**header_fields({"name": name, "value": "1"}))
    assert not form.is_valid()
    assert words in str(form.headers.errors[0]["name"])


@pytest.mark.parametrize(
    "value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\x1bb", "ключ", "a\n"]
)
def test_a_header_value_with_line_breaks_or_controls_is_refused(value: str) -> None:
    form = bound(**header_fields({"name": "X-Key", "value": value}))
    assert not form.is_valid()
    assert form.headers.errors[0]["value"]


def test_a_header_value_with_braces_is_said_to_be_sent_with_them() -> None:
    rows = {"name": "X-Call", "value": "{{ call_id }}"}, {"name": "X-Plain", "value": "{call_id}"}
    form = bound(**header_fields(*rows))
    assert form.is_valid()
    sentence = "“X-Call” is sent with its braces: headers have no variables."
    assert [str(one) for one in form.headers.placeholder_warnings] == [sentence]
    form.save()
    again = WebhookForm(None, instance=form.instance, draft=Draft({}))
    assert [str(one) for one in again.headers.placeholder_warnings] == [sentence]


def test_a_header_is_there_once_whatever_its_case() -> None:
    form = bound(**header_fields({"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}))
    assert not form.is_valid()
    assert "twice" in str(form.headers.errors[1]["name"])


def test_a_header_needs_both_name_and_value() -> None:
    form = bound(**header_fields({"name": "X-A", "value": ""}, {"name": "", "value": "2"}))
    assert not form.is_valid()
    assert "Enter a value" in str(form.headers.errors[0]["value"])
    assert "name" in str(form.headers.errors[1]["name"])


def secret_header() -> Webhook:
    return saved(**header_fields({"name": "X-Key", "value": "k3y-0123", "is_secret": "on"}))


def test_a_secret_header_is_not_shown_and_kept_when_left_empty() -> None:
    webhook = secret_header()
    shown = WebhookForm(None, instance=webhook, draft=Draft({}, form_key=str(webhook.pk)))
    assert "k3y" not in str(shown.headers)
    row = {"name": "X-Renamed", "value": "", "is_secret": "on", "stored_name": "X-Key"}
    webhook = saved(webhook, **header_fields(row))
    assert [(header.name, header.value) for header in webhook.read_headers()] == [
        ("X-Renamed", "k3y-0123")
    ]


def test_a_secret_header_does_not_become_visible_without_its_value() -> None:
    row = {"name": "X-Key", "value": "", "stored_name": "X-Key"}
    form = bound(secret_header(), **header_fields(row))
    assert not form.is_valid()
    assert "Enter the value again" in str(form.headers.errors[0]["value"])


def test_a_typed_secret_header_survives_an_error() -> None:
    session: dict[str, Any] = {}
    row = {"name": "X-Key", "value": "k3y-0123", "is_secret": "on"}
    form = bound(session=session, **{"name": "", **header_fields(row)})
    assert not form.is_valid()
    assert "k3y" not in str(form.headers) + json.dumps(session)
    draft = Draft(session, draft_id=form.draft.id)
    webhook = saved(draft=draft, **header_fields({**row, "value": ""}))
    assert webhook.read_headers()[0].value == "k3y-0123"


def test_a_header_is_removed_by_its_box_or_by_its_absence() -> None:
    webhook = secret_header()
    row = {"name": "X-Key", "value": "", "is_secret": "on", "stored_name": "X-Key"}
    assert saved(webhook, **header_fields({**row, "is_removed": "on"})).headers_json == ""
    assert saved(secret_header(), **header_fields()).headers_json == ""


def test_a_form_without_header_rows_leaves_the_headers_alone() -> None:
    webhook = saved(secret_header(), **{"headers-TOTAL_FORMS": None})
    assert webhook.read_headers()[0].value == "k3y-0123"


def test_there_are_at_most_fifty_headers() -> None:
    rows = [{"name": f"X-{number}", "value": "1"} for number in range(51)]
    form = bound(**header_fields(*rows))
    assert not form.is_valid()
    assert "At most 50 headers" in str(form.headers.non_form_errors())


def test_blank_and_removed_rows_are_no_headers_too_many() -> None:
    rows = [{"name": f"X-{number}", "value": "1"} for number in range(51)]
    rows[3]["is_removed"] = "on"
    webhook = saved(**header_fields(*rows, {"name": "", "value": ""}))
    assert len(webhook.read_headers()) == 50


# ---- Tokens ----------------------------------------------------------------------------------


def authorized() -> Webhook:
    webhook = saved(**OAUTH)
    user = get_user_model().objects.create_user("granter")
    OAuthToken.objects.update_or_create(
        credential=webhook.credential,
        defaults={
            "state": TokenState.VALID,
            "access_token": "t0ken",
            "refresh_token": "r3fresh",
            "granted_by": user,
        },
    )
    return webhook


@pytest.mark.parametrize(
    "change",
    [
        {"token_url": "http://127.0.0.1:10/token", "client_secret": "typed again"},
        {"client_id": "another"},
        {"url": "http://127.0.0.1:10/hook"},
    ],
)
def test_a_change_of_what_a_token_is_bound_to_drops_it(change: dict[str, str]) -> None:
    webhook = authorized()
    saved(webhook, **{**OAUTH, "client_secret": "", **change})
    token = OAuthToken.objects.filter(credential=webhook.credential).first()
    assert token is None or not token.has_access_token()


def test_other_changes_keep_the_token() -> None:
    webhook = authorized()
    unchanged = {"client_secret": "", "scope": "read", "url": "http://127.0.0.1:9/other"}
    saved(webhook, **{**OAUTH, **unchanged})
    assert OAuthToken.objects.get(credential=webhook.credential).access_token == "t0ken"


# ---- The page --------------------------------------------------------------------------------


def test_the_summary_names_every_problem_with_the_id_of_its_field() -> None:
    wrong = {"name": "", "event_types": [], "time_zone": "Nowhere", "timeout_seconds": "soon"}
    template = {"parameters_mode": "template", "body_template": "{"}
    form = bound(**{**wrong, **template, **header_fields({"name": "Host", "value": "1"})})
    assert not form.is_valid()
    # In the order of the page.
    assert [(problem["label"], problem["target"]) for problem in form.problems()] == [
        ("Name", "id_name"),
        ("Events", "id_event_types"),
        ("Time zone", "id_time_zone"),
        ("JSON body", "id_body_template"),
        ("Header name", "id_headers-0-name"),
        ("Timeout (seconds)", "id_timeout_seconds"),
    ]


def test_labels_are_those_people_know_from_their_providers() -> None:
    form = WebhookForm(None, instance=Webhook(), draft=Draft({}))
    labels = {name: str(field.label) for name, field in form.fields.items()}
    assert labels["basic_login"] == "Login"
    assert labels["basic_password"] == "Password"
    assert [labels[name] for name in ("token_name", "callback_url", "auth_url", "token_url")] == [
        "Token name",
        "Callback URL",
        "Auth URL",
        "Access token URL",
    ]
    assert [labels[name] for name in ("client_id", "client_secret", "scope")] == [
        "Client ID",
        "Client secret",
        "Scope",
    ]
    assert labels["client_authentication"] == "Send credentials as"
    choices = form.fields["client_authentication"].choices  # type: ignore[attr-defined]
    assert [str(label) for _value, label in choices][:2] == [
        "Basic Auth header",
        "Client credentials in body",
    ]


def test_an_error_is_announced_at_its_field() -> None:
    field = bound(name="")["name"].as_field_group()
    assert 'aria-invalid="true"' in field
    assert 'aria-describedby="id_name_error"' in field
    assert 'id="id_name_error"' in field


def test_a_wrong_secret_stays_wrong_on_the_next_try() -> None:
    session: dict[str, Any] = {}
    wrong = {**BASIC, "basic_password": "a\x01b"}
    draft = Draft(session, draft_id=bound(session=session, **wrong).draft.id)
    assert "control" in error("basic_password", draft=draft, **{**BASIC, "basic_password": ""})


def test_a_mask_is_not_taken_for_a_secret() -> None:
    session: dict[str, Any] = {}
    masked = {**BASIC, "basic_password": "********"}
    draft = Draft(session, draft_id=bound(session=session, **masked).draft.id)
    assert "asterisks" in error("basic_password", **masked)
    assert "asterisks" in error("basic_password", draft=draft, **{**BASIC, "basic_password": ""})


def test_a_wrong_secret_header_stays_wrong_on_the_next_try() -> None:
    session: dict[str, Any] = {}
    row = {"name": "X-Key", "value": "a\r\nb", "is_secret": "on"}
    wrong = bound(session=session, **header_fields(row))
    assert not wrong.is_valid()
    draft = Draft(session, draft_id=wrong.draft.id)
    form = bound(draft=draft, **header_fields({**row, "value": ""}))
    assert not form.is_valid()
    assert "line breaks" in form.headers.errors[0]["value"][0]


@pytest.mark.parametrize(
    ("field", "typed", "words"),
    [
        ("client_key", "no key", "private key"),
        ("client_certificate", "no certificate", "no certificate"),
        ("token_headers", "no header", "no header"),
        ("client_secret", "s" * 5000, "4096"),
    ],
)
def test_a_secret_that_its_field_refuses_stays_wrong_on_the_next_try(
    field: str, typed: str, words: str
) -> None:
    session: dict[str, Any] = {}
    oauth_fields = {**OAUTH, "client_authentication": "private_key_jwt"}
    form = bound(session=session, **{**oauth_fields, field: typed})
    draft = Draft(session, draft_id=form.draft.id)
    assert words in error(field, draft=draft, **{**oauth_fields, field: ""})


def test_a_kept_secret_is_saved_as_if_it_was_typed_now() -> None:
    session: dict[str, Any] = {}
    rows = header_fields({"name": "X-Key", "value": " k3y ", "is_secret": "on"})
    wrong = bound(session=session, **{**OAUTH, **rows, "client_secret": " s3cret ", "name": ""})
    assert not wrong.is_valid()
    draft = Draft(session, draft_id=wrong.draft.id)
    rows = header_fields({"name": "X-Key", "value": "", "is_secret": "on"})
    webhook = saved(draft=draft, **{**OAUTH, **rows, "client_secret": ""})
    assert webhook.credential.client_secret == "s3cret"
    assert webhook.read_headers()[0].value == "k3y"


def test_a_secret_header_that_is_too_long_stays_wrong_on_the_next_try() -> None:
    session: dict[str, Any] = {}
    row = {"name": "X-Key", "value": "k" * 9000, "is_secret": "on"}
    wrong = bound(session=session, **header_fields(row))
    assert not wrong.is_valid()
    draft = Draft(session, draft_id=wrong.draft.id)
    form = bound(draft=draft, **header_fields({**row, "value": ""}))
    assert not form.is_valid()
    assert "8192" in form.headers.errors[0]["value"][0]


def test_a_name_that_is_not_found_is_refused_only_when_it_is_new() -> None:
    missing = "https://no-such-name.example.com/hook"
    assert error("url", url=missing)
    webhook = saved()
    Webhook.objects.update(url=missing)
    webhook.refresh_from_db()
    assert not error("url", webhook, url=missing)
