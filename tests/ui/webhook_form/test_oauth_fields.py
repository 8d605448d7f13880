"""The OAuth 2.0 fields of the form: grants, advanced settings, presets, and their errors."""

import json
from typing import Any

import pytest

from tests.factories import fill, make_delivery
from tests.ui.webhook_form.test_forms import OAUTH, bound, error, multi_value, saved
from webhooks import oauth
from webhooks.models import (
    Credential,
    Delivery,
    HoldReason,
    OAuthToken,
    Status,
    TokenState,
    Webhook,
)
from webhooks.oauth.endpoints import checked_endpoint
from webhooks.ui.webhook_form import oauth_fields

pytestmark = [pytest.mark.django_db, pytest.mark.once]

MACHINE = {**OAUTH, "grant_type": "client_credentials", "auth_url": "", "callback_url": ""}
ADVANCED = {
    "uses_pkce": "False",
    "scope_separator": ",",
    "audience": "https://api.example.com crm",
    "resource": "https://api.example.com/ urn:crm:calls",
    "authorization_parameters": "access_type=offline\nprompt = consent\n\nhint=a\nhint=b=c",
    "token_parameters": "tenant=acme",
    "refresh_parameters": "tenant=acme",
    "uses_json_token_request": "True",
    "refresh_url": "http://127.0.0.1:9/refresh",
    "revocation_url": "http://127.0.0.1:9/revoke",
    "issuer": "http://127.0.0.1:9",
    "token_path": "authed_user.access_token",
    "header_prefix": "Zoho-oauthtoken",
    "expired_status_codes": "401, 403 401",
    "reauthorization_words": "token_revoked\n\nBAD_REFRESH_TOKEN\n",
}


def stored() -> Webhook:
    return saved(**OAUTH)


# ---- Grants ----------------------------------------------------------------------------------


def test_client_credentials_need_neither_auth_url_nor_callback() -> None:
    webhook = saved(**MACHINE)
    assert (webhook.credential.grant_type, webhook.credential.auth_url) == (
        "client_credentials",
        "",
    )


def test_what_the_other_grant_left_in_its_fields_is_forgiven() -> None:
    left = {"auth_url": "no address", "refresh_parameters": "nonsense"}
    webhook = saved(stored(), **{**MACHINE, **left})
    # Kept as typed, as with the other types; a value that cannot be stored stays as it was.
    assert (webhook.credential.auth_url, webhook.credential.refresh_parameters) == (
        "no address",
        {},
    )
    assert "space" in error(
        "auth_url", webhook, **{**OAUTH, **left, "grant_type": "authorization_code"}
    )


def test_client_credentials_are_nothing_without_a_secret() -> None:
    assert "client secret" in error("client_secret", **{**MACHINE, "client_secret": ""})
    assert error("client_secret", **{**OAUTH, "client_secret": ""}) == ""


def test_an_approval_needs_its_auth_url() -> None:
    assert "auth URL" in error("auth_url", **{**OAUTH, "auth_url": ""})


def test_a_form_without_the_new_fields_keeps_what_is_stored() -> None:
    webhook = saved(**OAUTH, **ADVANCED)
    saved(webhook, **OAUTH)
    webhook.refresh_from_db()
    assert (webhook.credential.uses_pkce, webhook.credential.header_prefix) == (
        False,
        "Zoho-oauthtoken",
    )
    assert webhook.credential.uses_json_token_request
    assert webhook.credential.authorization_parameters["access_type"] == "offline"


# ---- Advanced settings -----------------------------------------------------------------------


def test_every_advanced_setting_is_saved_as_it_is_used() -> None:
    webhook = saved(**OAUTH, **ADVANCED)
    assert webhook.credential.uses_pkce is False
    assert webhook.credential.scope_separator == ","
    assert webhook.credential.authorization_parameters == {
        "access_type": "offline",
        "prompt": "consent",
        "hint": ["a", "b=c"],
    }
    assert (
        webhook.credential.token_parameters
        == webhook.credential.refresh_parameters
        == {"tenant": "acme"}
    )
    assert webhook.credential.uses_json_token_request is True
    assert webhook.credential.expired_status_codes == [401, 403]
    assert webhook.credential.reauthorization_words == ["token_revoked", "BAD_REFRESH_TOKEN"]
    for field in ("audience", "resource", "refresh_url", "revocation_url", "issuer", "token_path"):
        assert getattr(webhook.credential, field) == ADVANCED[field]


def test_what_was_saved_is_shown_and_saves_the_same_again() -> None:
    webhook = saved(**OAUTH, **ADVANCED)
    form = bound(webhook, **OAUTH)
    unbound = type(form)(None, instance=webhook, draft=form.draft)
    shown = {name: str(unbound[name].value()) for name in ADVANCED}
    # PostgreSQL does not keep the order of an object's names.
    assert sorted(shown["authorization_parameters"].splitlines()) == [
        "access_type=offline",
        "hint=a",
        "hint=b=c",
        "prompt=consent",
    ]
    before = Credential.objects.values().get()
    saved(webhook, **OAUTH, **shown)
    after = Credential.objects.values().get()
    assert {name: after[name] for name in ADVANCED} == {name: before[name] for name in ADVANCED}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("authorization_parameters", "scope=all", "“scope” cannot be an extra parameter"),
        ("authorization_parameters", "State=x", "cannot be an extra parameter"),
        ("authorization_parameters", "no equals sign", "like access_type=offline"),
        ("authorization_parameters", "=value", "like access_type=offline"),
        ("authorization_parameters", "\n".join("a=b" for _ in range(31)), "At most 30"),
        ("token_parameters", "grant_type=password", "cannot be an extra parameter"),
        ("token_parameters", "client_secret=x", "cannot be an extra parameter"),
        ("refresh_parameters", "refresh_token=x", "cannot be an extra parameter"),
        ("refresh_url", "http://provider.test/", "provider.test"),
        ("refresh_url", "http://127.0.0.1:9/#part", "fragment"),
        ("auth_url", "http://127.0.0.1:9/#", "fragment"),
        ("token_url", "http://127.0.0.1:9/token#", "fragment"),
        ("token_url", "http://127.0.0.1:9/token?#", "fragment"),
        ("revocation_url", "http://10.0.0.1/revoke", "10.0.0.1"),
        ("issuer", "https://provider.example/?tenant=1", "without ? and #"),
        ("issuer", "https://provider.example/?", "without ? and #"),
        ("issuer", "https://provider.example#", "without ? and #"),
        ("issuer", "http://provider.example", "https://"),
        ("resource", "api", "whole address"),
        ("resource", "https://api.example.com/#part", "whole address"),
        ("audience", "апі", "ASCII"),
        ("token_path", "authed user.token", "names with dots"),
        ("token_path", ".token", "names with dots"),
        ("header_prefix", "Bearer\ttoken", "for example “Bearer”"),
        ("expired_status_codes", "200", "from 400 to 599"),
        ("expired_status_codes", "expired", "from 400 to 599"),
        ("reauthorization_words", "no", "too short"),
        ("reauthorization_words", "x" * 101, "at most 100 characters"),
        ("scope_separator", ";", "Select a valid choice"),
        ("provider", "nobody", "Select a valid choice"),
    ],
)
def test_each_wrong_setting_gets_one_sentence(field: str, value: str, words: str) -> None:
    assert words in error(field, **{**OAUTH, field: value})


def test_client_credentials_may_name_their_grant() -> None:
    webhook = saved(**MACHINE, token_parameters="grant_type=account_credentials\naccount_id=42")

    assert webhook.credential.token_parameters["grant_type"] == "account_credentials"


@pytest.mark.parametrize("host", ["127.0.0.2:9", "localhost:9", "LOCALHOST.:9"])
def test_each_spelling_of_loopback_that_is_opened_needs_no_tls(host: str, settings: Any) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = ["127.0.0.0/8:9", "[::1]:9"]
    url = f"http://{host}/token"
    webhook = saved(**{**OAUTH, "token_url": url, "issuer": f"http://{host}"})
    assert checked_endpoint(webhook.credential.token_url, "token_url").scheme == "http"


def test_another_type_forgives_what_its_settings_hold() -> None:
    wrong = {**OAUTH, "token_parameters": "nonsense", "expired_status_codes": "never"}
    webhook = saved(**{**wrong, "token_path": ".", "authorization_type": "none"})
    assert (webhook.credential.token_parameters, webhook.credential.expired_status_codes) == (
        {},
        [],
    )


# ---- Where the token goes --------------------------------------------------------------------


def test_a_token_in_the_address_has_a_parameter_of_its_own() -> None:
    query = {**OAUTH, "token_placement": "query"}
    webhook = saved(**query, token_query_parameter="auth")
    assert (webhook.credential.token_placement, webhook.credential.token_query_parameter) == (
        "query",
        "auth",
    )
    field = "token_query_parameter"
    assert "Enter the parameter's name" in error(field, **query, token_query_parameter="")
    assert "Enter the parameter's name" in error(field, **query, token_query_parameter="a&b")
    assert "has a parameter of this name" in error(
        field, **{**query, "url": "http://127.0.0.1:9/?auth=1"}, token_query_parameter="auth"
    )
    assert "Events have a variable" in error(field, **query, token_query_parameter="call_id")
    assert "Events have a variable" in error(field, **query, token_query_parameter="billsec")


def test_a_token_in_a_header_of_its_own() -> None:
    named = saved(**OAUTH, token_header="X-Shopify-Access-Token", header_prefix="")
    assert (named.credential.token_header, named.credential.header_prefix) == (
        "X-Shopify-Access-Token",
        "",
    )
    assert "letters, digits and hyphens" in error("token_header", **OAUTH, token_header="X Token")
    assert "set automatically" in error("token_header", **OAUTH, token_header="Host")
    assert "signature" in error("token_header", **OAUTH, token_header="Webhook-Signature")
    for standard in ("Authorization", "authorization", ""):
        assert error("token_header", **OAUTH, token_header=standard) == ""
    query = {**OAUTH, "token_placement": "query", "token_query_parameter": "auth"}
    assert error("token_header", **query, token_header="X Token") == ""


def test_a_parameter_that_is_not_used_is_not_judged() -> None:
    assert error("token_query_parameter", **OAUTH, token_query_parameter="a&b") == ""


def test_an_empty_header_prefix_sends_the_token_alone() -> None:
    assert saved(**OAUTH, header_prefix="").credential.header_prefix == ""


# ---- The summary of the folded section -------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Default settings"),
        ({"uses_pkce": "False", "audience": "crm"}, "No PKCE, audience"),
        ({"requires_issuer": "True"}, "Responses name the issuer"),
        ({"header_prefix": ""}, "No header prefix"),
        ({"header_prefix": "token"}, "Header prefix “token”"),
        ({"token_header": "X-Auth-Token"}, "Token in the header “X-Auth-Token”"),
        ({"token_header": "authorization"}, "Default settings"),
        ({"token_placement": "query", "header_prefix": "token"}, "Token in the address"),
        ({"authorization_parameters": "a=b\n\nc=d"}, "2 authorization parameters"),
        ({"refresh_parameters": "a=b"}, "1 refresh parameter"),
        ({"expired_status_codes": "403"}, "Expired at 403"),
        ({"expired_status_codes": "401"}, "Default settings"),
        (
            {"grant_type": "client_credentials", "uses_pkce": "False"},
            "Default settings",
        ),
    ],
)
def test_the_folded_section_says_what_differs(fields: dict[str, str], words: str) -> None:
    posted = {"uses_pkce": "True", "scope_separator": " ", "token_placement": "header"}
    posted |= {"uses_json_token_request": "False", "header_prefix": "Bearer"}
    posted["requires_issuer"] = "False"
    form = bound(is_checked=False, **{**OAUTH, **posted, **fields})
    assert form.advanced_summary == words


def test_the_folded_section_opens_at_a_mistake() -> None:
    assert bound(**OAUTH, token_path=".").has_advanced_open
    assert not bound(**OAUTH).has_advanced_open


# ---- Dropping and keeping tokens -------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "is_kept"),
    [
        ({"grant_type": "client_credentials"}, False),
        ({"refresh_url": "http://127.0.0.1:8/refresh"}, False),
        ({"revocation_url": "http://127.0.0.1:8/revoke"}, False),
        ({"revocation_url": "http://127.0.0.1:9/revoke"}, True),
        ({"header_prefix": "token", "scope": "read", "audience": "crm"}, True),
    ],
)
def test_only_what_the_token_belongs_to_drops_it(fields: dict[str, str], is_kept: bool) -> None:
    webhook = stored()
    OAuthToken.objects.create(
        credential=webhook.credential, access_token="t", state=TokenState.VALID
    )
    saved(webhook, **{**OAUTH, **fields})
    assert OAuthToken.objects.get().has_access_token() is is_kept


def test_corrected_settings_release_what_waited_for_them() -> None:
    webhook = stored()
    OAuthToken.objects.create(
        credential=webhook.credential,
        access_token="t",
        refresh_token="r",
        state=TokenState.MISCONFIGURED,
    )
    make_delivery(webhook)
    Delivery.objects.update(
        status=Status.HELD, hold_reason=HoldReason.MISCONFIGURED, next_attempt_at=None
    )
    saved(webhook, **{**OAUTH, "client_secret": "the right one"})
    assert OAuthToken.objects.get().state == TokenState.VALID
    assert Delivery.objects.get().status == Status.PENDING


def test_other_changes_release_nothing() -> None:
    webhook = stored()
    OAuthToken.objects.create(
        credential=webhook.credential, access_token="t", state=TokenState.NEEDS_REAUTHORIZATION
    )
    make_delivery(webhook)
    Delivery.objects.update(
        status=Status.HELD, hold_reason=HoldReason.REAUTHORIZATION, next_attempt_at=None
    )
    saved(webhook, **{**OAUTH, "name": "Another name"})
    assert Delivery.objects.get().status == Status.HELD


# ---- Presets ---------------------------------------------------------------------------------


def filled(**posted: str) -> dict[str, str]:
    data = multi_value({**OAUTH, **posted})
    oauth_fields.fill_in(data)
    return data.dict()


@pytest.mark.parametrize("key", oauth.PRESETS)
def test_every_preset_fills_in_a_form_that_can_be_saved(key: str) -> None:
    answers = {"portal": "acme.bitrix24.com", "account": "a.kommo.com", "user": "4799e5e9-0"}
    posted = {f"preset-{key}-{name}": answer for name, answer in answers.items()}
    values = filled(action="use_preset", provider=key, **posted)
    # URLs whose names a test must not look up.
    for field in ("auth_url", "token_url", "revocation_url"):
        values[field] = values[field] and "http://127.0.0.1:9/"
    webhook = saved(**{**values, "issuer": "", "action": "save"})
    fields = oauth.fill(key, answers)
    for field in fields.keys() - {"auth_url", "token_url", "revocation_url", "issuer", "scope"}:
        assert getattr(webhook.credential, field) == fields[field], field


def test_a_preset_takes_the_place_of_the_one_before() -> None:
    zoho = filled(action="use_preset", provider="zoho")
    google = filled(**{**zoho, "provider": "google"})
    assert zoho["header_prefix"] == "Zoho-oauthtoken"
    assert google["header_prefix"] == "Bearer"
    assert (google["uses_pkce"], google["scope_separator"]) == ("True", " ")


def test_the_grant_of_a_preset_goes_with_it() -> None:
    account = filled(action="use_preset", provider="google_service_account")
    assert account["grant_type"] == "jwt_bearer"
    assert filled(**{**account, "provider": "github"})["grant_type"] == "authorization_code"
    machine = {**OAUTH, "grant_type": "client_credentials", "action": "use_preset"}
    assert filled(**machine, provider="microsoft")["grant_type"] == "client_credentials"


def test_a_typed_scope_is_kept_and_one_of_a_provider_goes_with_it() -> None:
    preset = {"action": "use_preset", "provider": "microsoft"}
    assert filled(**preset)["scope"] == OAUTH["scope"]
    microsoft = filled(**preset, scope="")
    assert microsoft["scope"] == "offline_access"
    assert filled(**{**microsoft, "provider": "github"})["scope"] == ""


def test_an_answer_takes_its_place_in_the_addresses() -> None:
    answer = {"preset-microsoft-tenant": "https://contoso.onmicrosoft.com/"}
    values = filled(action="use_preset", provider="microsoft", **answer)
    assert values["token_url"].startswith(
        "https://login.microsoftonline.com/contoso.onmicrosoft.com/"
    )


def test_a_question_without_an_answer_is_asked_again_and_changes_nothing() -> None:
    posted = {**OAUTH, "action": "use_preset", "provider": "bitrix24"}
    assert filled(**posted)["auth_url"] == OAUTH["auth_url"]
    form = bound(is_checked=False, **posted)
    [guide] = [guide for guide in form.guides if guide["is_chosen"]]
    assert "Fill in Portal, for example “acme.bitrix24.com”." in guide["problem"]


def test_an_answer_is_read_back_from_the_saved_address() -> None:
    address = "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/authorize"
    webhook = Webhook()
    fill(webhook.credential, provider="microsoft", auth_url=address)
    form = bound()
    shown = type(form)(None, instance=webhook, draft=form.draft)
    [guide] = [guide for guide in shown.guides if guide["is_chosen"]]
    assert [ask["value"] for ask in guide["asks"]] == ["contoso.com"]


def test_answers_within_claims_are_read_back() -> None:
    webhook = Webhook()
    claims = {"aud": "account-d.docusign.com", "sub": "4799e5e9-0"}
    url = "https://account-d.docusign.com/oauth/token"
    fill(webhook.credential, provider="docusign", token_url=url, assertion_claims=claims)
    form = bound()
    shown = type(form)(None, instance=webhook, draft=form.draft)
    [guide] = [guide for guide in shown.guides if guide["is_chosen"]]
    assert [ask["value"] for ask in guide["asks"]] == ["account-d.docusign.com", "4799e5e9-0"]


def test_a_button_fills_in_what_belongs_to_this_section_only() -> None:
    fill = {"auth_url": "http://127.0.0.1:9/new", "name": "Evil", "client_secret": "evil"}
    values = filled(name="CRM", fill=json.dumps(fill))
    assert values["auth_url"] == "http://127.0.0.1:9/new"
    assert (values["name"], values["client_secret"]) == ("CRM", OAUTH["client_secret"])


@pytest.mark.parametrize("fill", ["", "no JSON", "[1]", '"text"'])
def test_a_fill_that_is_none_changes_nothing(fill: str) -> None:
    assert filled(fill=fill) == {**OAUTH, "fill": fill}


def test_texts_for_the_script_are_those_of_the_form() -> None:
    form = bound(is_checked=False, **OAUTH)
    values: dict[str, Any] = {
        guide["preset"].key: json.loads(guide["filling"]) for guide in form.guides
    }
    assert values["google"]["authorization_parameters"] == "access_type=offline\nprompt=consent"
    assert values["microsoft"]["auth_url"].count("{tenant}") == 1
    assert all(set(fields) <= oauth_fields.FILLABLE for fields in values.values())
