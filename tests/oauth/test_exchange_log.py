"""The exchange log: every exchange is stored, and no secret with it."""

import json
from typing import Any

import pytest
from django.db import DatabaseError
from django.utils import timezone

from tests.oauth_fakes import FakeProvider, Reply, token
from tests.oauth_rows import SESSION, authorize, begin, make_credential, make_token, make_user
from webhooks import oauth
from webhooks.models import Credential, ExchangeKind, OAuthExchange, OAuthToken
from webhooks.oauth import exchange_log, token_requests
from webhooks.oauth.exchange_log import Transcript

pytestmark = pytest.mark.django_db

ACCESS = "an-access-token-of-the-provider"
REFRESH = "a-refresh-token-of-the-provider"
SECRET = "the-client-secret-0123"
CODE = "the-authorization-code-0123"


@pytest.fixture
def fake(fake: FakeProvider) -> FakeProvider:
    fake.reply(Reply(body={"access_token": ACCESS, "refresh_token": REFRESH}))
    return fake


def get_token(fake: FakeProvider, **fields: Any) -> tuple[Credential, str]:
    """Return an authorized credential, and the state that was used."""
    credential = make_credential(token_url=fake.token_url, client_secret=SECRET, **fields)
    return credential, authorize(credential, code=CODE)["state"]


def everything() -> str:
    return json.dumps(list(OAuthExchange.objects.values()), default=str)


def test_authorization_and_token_are_kept_with_class_status_and_time(
    fake: FakeProvider,
) -> None:
    before = timezone.now()

    credential, _ = get_token(fake)

    approval, exchange = OAuthExchange.objects.filter(credential=credential).order_by("pk")
    assert (approval.kind, approval.result, approval.status_code) == ("authorization", "ok", None)
    assert approval.url == "https://provider.example/authorize"
    assert (exchange.kind, exchange.result, exchange.status_code) == ("token", "ok", 200)
    assert exchange.url == fake.token_url
    assert exchange.started_at >= before
    assert exchange.duration_ms is not None
    assert 0 < exchange.duration_ms < 5000
    assert "grant_type=authorization_code" in exchange.request
    assert "HTTP 200" in exchange.response


@pytest.mark.parametrize("method", ["basic_header", "request_body"])
@pytest.mark.parametrize("is_json", [False, True])
def test_secrets_are_kept_by_their_last_four_characters(
    fake: FakeProvider, method: str, is_json: bool
) -> None:
    credential, state = get_token(
        fake, client_authentication=method, uses_json_token_request=is_json
    )
    oauth.refresh(credential)

    kept = everything()
    header = token_requests.basic_authorization(credential.client_id, SECRET).removeprefix("Basic ")
    for secret in (ACCESS, REFRESH, SECRET, CODE, state, header):
        assert secret not in kept
    assert "…" + CODE[-4:] in OAuthExchange.objects.get(kind="token").request
    assert "…" + ACCESS[-4:] in OAuthExchange.objects.get(kind="token").response
    assert "…" + REFRESH[-4:] in OAuthExchange.objects.get(kind="refresh").request


def test_secrets_that_the_provider_repeats_are_masked(fake: FakeProvider) -> None:
    fake.reply(
        Reply(
            status=400,
            body={
                "error": "invalid_grant",
                "error_description": f"The code {CODE} of {SECRET} is over",
                "debug": {"request": {"code": CODE, "client_secret": SECRET}, "tokens": [ACCESS]},
                "access_token": ACCESS,
                "id_token": ["a-very-long-id-token"],
            },
        )
    )

    with pytest.raises(oauth.AuthorizationError) as failure:
        get_token(fake)

    for secret in (CODE, SECRET):
        assert secret not in everything()
        assert secret not in failure.value.message
    for secret in (ACCESS, "a-very-long-id-token"):
        assert f'access_token": "{secret}' not in everything()
    assert "a-very-long-id-token" not in everything()


@pytest.mark.once
@pytest.mark.parametrize(
    "body",
    [
        f'{{"access_token":"{ACCESS}","refresh_token":"{REFRESH}"',
        f"access_token={ACCESS}&refresh_token={REFRESH}&scope=a",
        f"<html>access_token: {ACCESS} refresh_token='{REFRESH}'",
        f'callback({{"access_token": "{ACCESS}", "refresh_token": "{REFRESH}"}})',
        f"Authorization: Bearer {ACCESS}\nrefresh_token={REFRESH}",
        json.dumps({"data": {"tokens": {"access_token": ACCESS, "refreshToken": REFRESH}}}),
        json.dumps([{"access_token": ACCESS}]),
        f"<oauth><access_token>{ACCESS}</access_token><refresh>x</refresh></oauth>",
        f'<o:AccessToken xmlns:o="urn:x">\n  <![CDATA[{ACCESS}]]>\n</o:AccessToken>',
        f"<token>\n<access_token>{ACCESS}</access_token>\n<refresh-token>{REFRESH}",
        f"<pre>&lt;access_token&gt;{ACCESS}&lt;/access_token&gt;</pre>",
        f"<pre>access_token&quot;:&quot;{ACCESS}&quot;</pre>",
        f'failed on {{\\"access_token\\": \\"{ACCESS}\\"',
        json.dumps({"raw": f"<access_token>{ACCESS}</access_token>"}),
    ],
)
def test_tokens_are_masked_in_every_format(body: str) -> None:
    text = exchange_log.redact_body(body)

    assert ACCESS not in text
    assert REFRESH not in text


def test_masked_form_body_stays_readable() -> None:
    body = f"access_token={ACCESS}&scope=a+b&note=1%2F2"

    text = exchange_log.redact_body(body)

    assert text == "access_token=…ider&scope=a%20b&note=1%2F2"


GRANTED = "gho_16C7e42F292c6912E7710c838347Ae178B4a"


@pytest.mark.once
@pytest.mark.parametrize(
    "body",
    [
        f"<oauth><access_token>{GRANTED}</access_token></oauth>",
        f"<dict><key>it</key><string>{GRANTED}</string></dict>",
        f"it: {GRANTED}\nfor: you",
        GRANTED,
        json.dumps(GRANTED),
        json.dumps({"data": [GRANTED]}),
        json.dumps({"said": f"Yours is {GRANTED}."}),
    ],
)
def test_what_looks_like_a_token_in_a_grant_is_masked_in_every_format(body: str) -> None:
    assert GRANTED[:-4] not in exchange_log.redact_body(body, may_grant=True)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"value": f"12|{GRANTED}"}),
        f"value=12%7C{GRANTED}",
        f"Yours is 12|{GRANTED}.",
        json.dumps({"access": f"1/1204058:{GRANTED}"}),
        json.dumps({"Access": f"v^1.1#i^1#{GRANTED}"}),
        f"access=1/1204058:{GRANTED}",
    ],
)
def test_a_token_of_another_alphabet_is_masked_in_a_grant(body: str) -> None:
    assert GRANTED[:-4] not in exchange_log.redact_body(body, may_grant=True)


@pytest.mark.once
@pytest.mark.parametrize("name", ["tokens", "client-secret", "passwd", "pwd", "user_password"])
def test_a_short_secret_is_masked_by_its_name(name: str) -> None:
    secret = "k3Yq0xZ81mPq7TaB"
    for body in (json.dumps({name: [secret]}), json.dumps({name: secret}), f"{name}: '{secret}'"):
        for may_grant in (False, True):
            text = exchange_log.redact_body(body, may_grant=may_grant)
            assert secret not in text
            assert "…7TaB" in text


@pytest.mark.parametrize(
    "body",
    [
        '<html><a href="https://site.example/path1/and-more-of-it">Log in</a> <code>a_b_c_1</code>',
        "<oauth><token_type>bearer</token_type><expires_in>3600</expires_in></oauth>",
        "<error><code>invalid_client</code><message>Unknown client app-12</message></error>",
        '{\n "tokens": 57,\n "scope": "read write"\n}',
    ],
)
def test_what_is_no_secret_stays_readable_in_a_grant(body: str) -> None:
    assert exchange_log.redact_body(body, may_grant=True) == body


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"a":' * 900 + "1" + "}" * 900,
        "\x00\x01\ud800",
        "{" + "9" * 6000 + "}",
        '{"a": 1e999}',
        "",
        "x" * 60_000,
        '"' * 60_000,
        "token=" * 10_000,
        "<token>" * 9_000,
        "token" + "\\" * 60_000,
        "<token>a" + " " * 60_000 + "b",
    ],
    ids=[
        "deep",
        "nested",
        "control",
        "number",
        "infinity",
        "empty",
        "long",
        "quotes",
        "names",
        "elements",
        "backslashes",
        "spaces",
    ],
)
def test_any_body_can_be_kept(body: str) -> None:
    text = exchange_log.redact_body(body)

    text.encode()
    assert "\x00" not in text
    assert len(text) <= exchange_log.MAX_RECORDED


@pytest.mark.parametrize(
    ("secret", "shown"),
    [("", "…"), ("abcd", "…"), ("abcdefghijk", "…"), ("abcdefghijkl", "…ijkl")],
)
def test_short_secret_shows_nothing_of_itself(secret: str, shown: str) -> None:
    assert exchange_log.mask(secret) == shown


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("access_token", True),
        ("refreshToken", True),
        ("id_token", True),
        ("client_secret", True),
        ("code", True),
        ("code_verifier", True),
        ("state", True),
        ("client_assertion", True),
        ("client-secret", True),
        ("oauth2.token", True),
        ("passwd", True),
        ("pwd", True),
        ("tokens", True),
        ("X-Api-Key", True),
        ("status-code", False),
        ("token_type", False),
        ("expires_in", False),
        ("scope", False),
        ("client_id", False),
        ("code_challenge_method", False),
        ("error", False),
    ],
)
def test_names_of_secrets_are_known(name: str, is_secret: bool) -> None:
    assert exchange_log.is_secret(name) is is_secret


@pytest.mark.parametrize(
    ("error", "result"),
    [
        ("access_denied", "needs_reauthorization"),
        ("temporarily_unavailable", "transient"),
        ("invalid_scope", "misconfigured"),
    ],
)
def test_refused_callback_is_kept_with_class_and_sentence(
    fake: FakeProvider, error: str, result: str
) -> None:
    credential, user = make_credential(token_url=fake.token_url), make_user()
    _, sent = begin(credential, user)
    query = {"error": [error], "state": [sent["state"]]}

    with pytest.raises(oauth.AuthorizationError) as failure:
        oauth.finish_authorization(query, user=user, session_key=SESSION)

    kept = OAuthExchange.objects.get()
    assert (kept.credential, kept.kind) == (credential, "authorization")
    assert kept.result == result
    assert kept.message == failure.value.message
    assert f"error={error}" in kept.response
    assert sent["state"] not in kept.response


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # TikTok for Business, which also sends it as "code"; Amazon; DingTalk.
        ("auth_code", CODE),
        ("spapi_oauth_code", "ANDMxqpCmqWHJeyzdbMH"),
        ("authCode", "b2d5f1c8a7e64f0b9c3d"),
        ("oauth_verifier", "b2d5f1c8a7e64f0b9c3d"),
    ],
)
def test_code_by_another_name_is_masked(fake: FakeProvider, name: str, value: str) -> None:
    credential, user = make_credential(token_url=fake.token_url), make_user()
    _, sent = begin(credential, user)
    answer = {"code": CODE, name: value, "location": "eu", "state": sent["state"]}

    oauth.finish_authorization(
        {name: [value] for name, value in answer.items()}, user=user, session_key=SESSION
    )

    kept = OAuthExchange.objects.get(kind="authorization").response
    assert value not in kept
    assert f"{name}=…" in kept
    assert "location=eu" in kept


@pytest.mark.parametrize(
    ("reply", "result", "status"),
    [
        (Reply(status=503), "transient", 503),
        (Reply(raw=b""), "transient", None),
        (Reply(status=400, body={"error": "invalid_grant"}), "needs_reauthorization", 400),
        (Reply(status=401, body={"error": "invalid_client"}), "misconfigured", 401),
        (token(scope="another"), "ok_with_warning", 200),
        (token(), "ok", 200),
    ],
)
def test_each_refresh_is_kept_with_its_class(
    fake: FakeProvider, reply: Reply, result: str, status: int | None
) -> None:
    credential = make_credential(token_url=fake.token_url)
    make_token(credential)
    fake.reply(reply)

    if result.startswith("ok"):
        oauth.refresh(credential)
    else:
        with pytest.raises(oauth.TokenUnavailableError):
            oauth.refresh(credential)

    kept = OAuthExchange.objects.get()
    assert (kept.kind, kept.result, kept.status_code) == ("refresh", result, status)


def test_answer_asked_for_twice_is_kept_twice(fake: FakeProvider) -> None:
    credential = make_credential(token_url=fake.token_url)
    make_token(credential)
    fake.reply(Reply(body=b'{"access_token":"'), token())

    oauth.refresh(credential)

    assert OAuthExchange.objects.count() == 2


def test_query_of_an_endpoint_is_not_kept(fake: FakeProvider) -> None:
    credential = make_credential(token_url=f"{fake.token_url}?key=an-api-key")
    make_token(credential)

    oauth.refresh(credential)

    assert "an-api-key" not in everything()


def test_lost_transcript_does_not_lose_the_token(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = make_credential(token_url=fake.token_url)
    make_token(credential)

    def fail(**_columns: Any) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(OAuthExchange.objects, "create", fail)

    assert oauth.refresh(credential).version == 2
    assert OAuthToken.objects.get().access_token == ACCESS


def test_long_values_fit_their_columns() -> None:
    credential = make_credential()
    transcript = Transcript(
        kind=ExchangeKind.TOKEN,
        url="https://provider.example/" + "a" * 3000,
        started_at=timezone.now(),
    )

    exchange_log.record(credential, transcript, result="needs_reauthorization", message="x" * 3000)

    kept = OAuthExchange.objects.get()
    assert (len(kept.url), len(kept.message)) == (2048, 1000)


def test_an_address_inside_an_answers_sentence_loses_its_code_and_state() -> None:
    said = "Wrong for https://site.example/callback/?code=c0de-of-it-all&state=st4te-of-it-all&x=1"
    text = exchange_log.redact_body(
        json.dumps({"error": "invalid_grant", "error_description": said})
    )
    assert "of-it" not in text
    assert "https://site.example/callback/?code=" in text
