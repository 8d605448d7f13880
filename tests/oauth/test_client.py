"""What is sent to a token endpoint, and how its responses are handled."""

import base64
import gzip
import io
import json
import logging
import random
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from django.conf import LazySettings

from tests.oauth_fakes import FakeProvider, Reply, token
from tests.oauth_rows import make_credential
from webhooks.models import Credential
from webhooks.oauth import client, sentence, token_requests
from webhooks.oauth.errors import MisconfiguredError, TokenResult
from webhooks.oauth.parameters import check_parameters
from webhooks.oauth.token_response import TokenResponse

pytestmark = [pytest.mark.django_db, pytest.mark.once]
CALLBACK = "http://127.0.0.1/callback"


@pytest.fixture
def fake(fake: FakeProvider) -> FakeProvider:
    fake.reply(token())
    return fake


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    return make_credential(token_url=fake.token_url, **fields)


def exchange(credential: Credential, **overrides: str) -> TokenResponse:
    values = {"code": "the-code", "code_verifier": "v" * 64, "redirect_uri": CALLBACK, **overrides}
    return client.send(token_requests.code_request(credential, **values))[0]


def refresh(credential: Credential) -> TokenResponse:
    return client.send(token_requests.refresh_request(credential, "the-refresh-token"))[0]


def fetch(credential: Credential) -> TokenResponse:
    return client.send(token_requests.client_credentials_request(credential))[0]


class TestRequest:
    def test_code_is_exchanged_as_the_rfc_says(self, fake: FakeProvider) -> None:
        assert exchange(credential_at(fake)).is_ok

        (asked,) = fake.requests
        assert (asked.method, asked.path) == ("POST", "/token")
        assert sorted(asked.form) == [
            ("code", "the-code"),
            ("code_verifier", "v" * 64),
            ("grant_type", "authorization_code"),
            ("redirect_uri", CALLBACK),
        ]
        assert asked.headers["accept"] == "application/json"
        assert asked.headers["content-type"] == "application/x-www-form-urlencoded"

    def test_refresh_sends_the_refresh_token_and_no_scope(self, fake: FakeProvider) -> None:
        assert refresh(credential_at(fake, scope="read write")).is_ok

        assert sorted(fake.requests[0].form) == [
            ("grant_type", "refresh_token"),
            ("refresh_token", "the-refresh-token"),
        ]

    def test_client_credentials_send_the_scope(self, fake: FakeProvider) -> None:
        assert fetch(credential_at(fake, scope="read write", scope_separator=",")).is_ok

        assert sorted(fake.requests[0].form) == [
            ("grant_type", "client_credentials"),
            ("scope", "read,write"),
        ]

    def test_refresh_goes_to_its_own_address_if_there_is_one(self, fake: FakeProvider) -> None:
        credential = credential_at(fake, refresh_url=f"{fake.url}/refresh")

        refresh(credential)
        exchange(credential)

        assert [asked.path for asked in fake.requests] == ["/refresh", "/token"]

    @pytest.mark.parametrize("send", [exchange, refresh, fetch])
    @pytest.mark.parametrize(
        ("client_id", "client_secret", "userinfo"),
        [
            ("id", "secret", "id:secret"),
            ("odd:client", "päss:w%rd +", "odd%3Aclient:p%C3%A4ss%3Aw%25rd+%2B"),
            (
                "клієнт",
                "секрет",
                "%D0%BA%D0%BB%D1%96%D1%94%D0%BD%D1%82:%D1%81%D0%B5%D0%BA%D1%80%D0%B5%D1%82",
            ),
        ],
    )
    def test_basic_credentials_are_form_urlencoded_and_never_in_the_body(
        self, fake: FakeProvider, send: Any, client_id: str, client_secret: str, userinfo: str
    ) -> None:
        send(credential_at(fake, client_id=client_id, client_secret=client_secret))

        (asked,) = fake.requests
        expected = base64.b64encode(userinfo.encode()).decode()
        assert asked.headers["authorization"] == f"Basic {expected}"
        assert not {"client_id", "client_secret"} & set(asked.fields)

    @pytest.mark.parametrize("send", [exchange, refresh, fetch])
    def test_credentials_in_the_body_are_never_in_a_header(
        self, fake: FakeProvider, send: Any
    ) -> None:
        credential = credential_at(
            fake,
            client_id="odd:client",
            client_secret="päss:w%rd +",
            client_authentication="request_body",
        )

        send(credential)

        (asked,) = fake.requests
        assert "authorization" not in asked.headers
        assert asked.fields["client_id"] == "odd:client"
        assert asked.fields["client_secret"] == "päss:w%rd +"

    @pytest.mark.parametrize("method", ["basic_header", "request_body"])
    @pytest.mark.parametrize("send", [exchange, refresh])
    def test_public_client_says_only_its_id(
        self, fake: FakeProvider, send: Any, method: str
    ) -> None:
        send(credential_at(fake, client_secret="", client_authentication=method))

        (asked,) = fake.requests
        assert "authorization" not in asked.headers
        assert asked.fields["client_id"] == "sandbox-client"
        assert "client_secret" not in asked.fields

    def test_extra_parameters_go_to_their_own_request_and_may_repeat(
        self, fake: FakeProvider
    ) -> None:
        credential = credential_at(
            fake,
            resource="https://a.example https://b.example",
            audience="the-api",
            authorization_parameters={"prompt": "consent"},
            token_parameters={"tenant": ["one", "two"], "flag": True},
            refresh_parameters={"again": "1"},
        )

        exchange(credential)
        refresh(credential)

        code, renewal = (asked.form for asked in fake.requests)
        targets = [
            ("resource", "https://a.example"),
            ("resource", "https://b.example"),
            ("audience", "the-api"),
        ]
        assert code[:6] == [*targets, ("tenant", "one"), ("tenant", "two"), ("flag", "true")]
        assert renewal[:4] == [*targets, ("again", "1")]

    def test_request_can_be_json(self, fake: FakeProvider) -> None:
        credential = credential_at(
            fake,
            uses_json_token_request=True,
            client_authentication="request_body",
            token_parameters={"tag": ["a", "b", "c"]},
        )

        exchange(credential)

        (asked,) = fake.requests
        assert asked.headers["content-type"] == "application/json"
        assert asked.json == {
            "grant_type": "authorization_code",
            "code": "the-code",
            "code_verifier": "v" * 64,
            "redirect_uri": CALLBACK,
            "client_id": "sandbox-client",
            "client_secret": "sandbox-secret",
            "tag": ["a", "b", "c"],
        }

    @pytest.mark.parametrize(
        "name",
        ["grant_type", "code", "client_id", "CLIENT_SECRET", "refresh_token"],
    )
    def test_reserved_parameter_is_refused_before_anything_is_sent(
        self, fake: FakeProvider, name: str
    ) -> None:
        credential = credential_at(
            fake, token_parameters={name: "x"}, refresh_parameters={name: "x"}
        )

        for build in (
            lambda: token_requests.refresh_request(credential, "r"),
            lambda: token_requests.client_credentials_request(credential),
        ):
            with pytest.raises(MisconfiguredError, match=f"“{name}” cannot be an extra parameter"):
                build()
        assert fake.requests == []

    def test_callback_url_is_an_extra_parameter_of_a_refresh_alone(
        self, fake: FakeProvider
    ) -> None:
        extra = {"redirect_uri": CALLBACK}
        credential = credential_at(fake, token_parameters=extra, refresh_parameters=extra)

        pairs = token_requests.refresh_request(credential, "r").pairs
        with pytest.raises(MisconfiguredError, match="cannot be an extra parameter"):
            exchange(credential)

        assert ("redirect_uri", CALLBACK) in pairs

    @pytest.mark.parametrize("is_json", [False, True])
    def test_client_credentials_may_have_a_grant_of_another_name(
        self, fake: FakeProvider, is_json: bool
    ) -> None:
        """Zoom's Server-to-Server OAuth."""
        credential = credential_at(
            fake,
            grant_type="client_credentials",
            scope="",
            token_parameters={"grant_type": "account_credentials", "account_id": "42"},
            uses_json_token_request=is_json,
        )

        pairs = token_requests.machine_request(credential).pairs

        assert sorted(pairs) == [("account_id", "42"), ("grant_type", "account_credentials")]

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://provider.example/token", "must start with https://"),
            ("https://provider.example/token#part", "fragment"),
            ("https://user:pass@provider.example/token", "login or password"),
            ("ftp://provider.example/token", "http"),
            ("", "Fill in Access token URL"),
            ("https://provider.example/to ken", "space"),
        ],
    )
    def test_secret_goes_to_https_only(self, url: str, words: str) -> None:
        with pytest.raises(MisconfiguredError, match=words):
            token_requests.refresh_request(make_credential(token_url=url), "r")


class TestAnswer:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("send", [exchange, refresh, fetch])
    def test_redirect_is_not_followed(self, fake: FakeProvider, send: Any, status: int) -> None:
        fake.reply(Reply(status=status, headers={"Location": f"{fake.url}/elsewhere"}), token())

        answer = send(credential_at(fake))

        assert answer.result == TokenResult.MISCONFIGURED
        assert [asked.path for asked in fake.requests] == ["/token"]

    @pytest.mark.parametrize(
        ("location", "shown"),
        [
            ("/v2/token?key=secret", "/v2/token"),
            ("../login#form", "/login"),
            ("//elsewhere.example/token", "http://elsewhere.example/token"),
            ("http://[::1", "http://[::1"),
        ],
    )
    def test_redirect_is_named_as_it_can_be_entered(
        self, fake: FakeProvider, location: str, shown: str
    ) -> None:
        fake.reply(Reply(status=308, headers={"Location": location}))

        answer = refresh(credential_at(fake))

        whole = shown if shown.startswith("http") else fake.url + shown
        assert f"“{whole}”" in sentence(answer.message)

    def test_redirect_is_kept_without_login_query_and_fragment(self, fake: FakeProvider) -> None:
        location = "https://user:secret-1@new.example/token?key=secret-2#secret-3"
        fake.reply(Reply(status=308, headers={"Location": location}))

        request = token_requests.refresh_request(credential_at(fake), "the-refresh-token")
        _answer, (transcript,) = client.send(request)

        assert "location: https://new.example/token" in transcript.response.lower()
        assert "secret-" not in transcript.response

    def test_token_of_a_provider_whose_clock_is_late_has_its_whole_life(
        self, fake: FakeProvider
    ) -> None:
        theirs = datetime.now(UTC) - timedelta(minutes=5)
        ends_at = int(theirs.timestamp()) + 120
        head = f"HTTP/1.1 200 OK\r\nDate: {format_datetime(theirs, usegmt=True)}\r\n\r\n"
        body = json.dumps({"access_token": "T", "expires_at": ends_at})
        fake.reply(Reply(raw=(head + body).encode()))

        answer = refresh(credential_at(fake))

        assert answer.token is not None
        assert answer.token.expires_in == 120

    def test_refusal_in_the_challenge_alone_is_understood(self, fake: FakeProvider) -> None:
        challenge = 'Basic realm="oauth", error="invalid_client", error_description="No such app"'
        fake.reply(Reply(status=401, headers={"WWW-Authenticate": challenge}))

        answer = refresh(credential_at(fake))

        assert (answer.result, answer.code) == (TokenResult.MISCONFIGURED, "invalid_client")
        assert sentence(answer.message).endswith("The provider says: “No such app”")

    def test_cut_off_answer_is_asked_for_once_more(self, fake: FakeProvider) -> None:
        fake.reply(Reply(body=b'{"access_token":"T","token'), token())

        assert refresh(credential_at(fake)).is_ok
        assert len(fake.requests) == 2

    def test_answer_cut_off_twice_is_malformed(self, fake: FakeProvider) -> None:
        fake.reply(Reply(body=b'{"access_token":"T","token'))

        answer = refresh(credential_at(fake))

        assert (answer.result, answer.reason) == (TokenResult.MISCONFIGURED, "truncated")
        assert len(fake.requests) == 2

    def test_code_is_never_sent_twice(self, fake: FakeProvider) -> None:
        fake.reply(Reply(body=b'{"access_token":"T","token'))

        answer = exchange(credential_at(fake))

        assert answer.result == TokenResult.TRANSIENT
        assert "press “Get new access token” again" in sentence(answer.message)
        assert len(fake.requests) == 1

    @pytest.mark.parametrize("size", [65_536, 65_537, 10_000_000])
    def test_nothing_is_read_past_64_kib(self, fake: FakeProvider, size: int) -> None:
        document = json.dumps({"access_token": "T"}).encode()
        fake.reply(Reply(body=document + b" " * (size - len(document))))

        answer = refresh(credential_at(fake))

        assert answer.is_ok is (size <= 65_536)
        assert answer.is_ok or answer.reason == "too_large"

    @pytest.mark.parametrize(
        ("body", "coding", "reason"),
        [
            (gzip.compress(b'{"access_token":"T"}'), "gzip", ""),
            (zlib.compress(b'{"access_token":"T"}'), "Deflate", ""),
            (gzip.compress(b'{"access_token":"T"}'), "x-gzip", ""),
            (gzip.compress(b'{"access_token":"T"}'), "gzip, identity", ""),
            (gzip.compress(b'{"access_token":"T"}'), "", ""),
            (zlib.compress(b'{"access_token":"T"}', wbits=-15), "deflate", ""),
            (zlib.compress(b'{"access_token":"T"}', wbits=-15)[:-4], "deflate", "not_json"),
            (zlib.compress(b" " * 20_000_000, wbits=-15), "deflate", "too_large"),
            (b'{"access_token":"T"}', "deflate", ""),
            (b"3", "deflate", "not_an_object"),
            (gzip.compress(b" " * 20_000_000), "gzip", "too_large"),
            (gzip.compress(b'{"access_token":"T"}')[:-12], "gzip", "truncated"),
            (gzip.compress(b'{"access_token":"T"}'), "br", "not_json"),
            (b"garbage", "gzip", "not_json"),
        ],
        ids=[
            *("gzip", "deflate", "x-gzip", "identity", "unsaid", "raw", "short raw", "raw bomb"),
            *("plain", "a number", "bomb", "short", "other", "garbage"),
        ],
    )
    def test_packed_answer_is_unpacked_within_64_kib(
        self, fake: FakeProvider, body: bytes, coding: str, reason: str
    ) -> None:
        fake.reply(Reply(body=body, headers={"Content-Encoding": coding}))

        answer = refresh(credential_at(fake))

        assert (answer.is_ok, answer.reason) == (not reason, reason)

    @pytest.mark.parametrize(
        ("status", "result", "words"),
        [
            (403, TokenResult.TRANSIENT, "A web page with status 403 came"),
            (404, TokenResult.MISCONFIGURED, "There is no token endpoint at Access token URL"),
            (302, TokenResult.MISCONFIGURED, "a redirect to “https://login.example/”"),
            (503, TokenResult.TRANSIENT, "The provider is not working (503)"),
            (200, TokenResult.MISCONFIGURED, "more than 64 KiB"),
        ],
    )
    @pytest.mark.parametrize("coding", ["", "gzip"])
    def test_long_page_is_judged_by_its_status(
        self, fake: FakeProvider, status: int, result: TokenResult, words: str, coding: str
    ) -> None:
        page = b"<html><title>Blocked</title>" + random.randbytes(70_000).hex().encode()
        headers = {
            "Content-Type": "text/html",
            "Content-Encoding": coding,
            "Location": "https://login.example/",
            **({"Retry-After": "7"} if status == 503 else {}),
        }
        fake.reply(
            Reply(status=status, body=gzip.compress(page) if coding else page, headers=headers)
        )

        answer = refresh(credential_at(fake))

        assert answer.result == result
        assert words in sentence(answer.message)
        assert answer.retry_after_seconds == (7 if status == 503 else None)

    def test_too_much_from_a_broken_provider_is_transient(self, fake: FakeProvider) -> None:
        fake.reply(Reply(status=502, body=b"x" * 100_000))

        assert refresh(credential_at(fake)).result == TokenResult.TRANSIENT

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"garbage\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 99999 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=\xff\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        ],
        ids=["nothing", "garbage", "short", "chunks", "gzip", "status", "charset", "many", "long"],
    )
    def test_broken_http_is_an_answer_of_some_class_and_no_exception(
        self, fake: FakeProvider, raw: bytes
    ) -> None:
        fake.reply(Reply(raw=raw))

        answer = refresh(credential_at(fake))

        assert answer.token is None
        assert answer.result in (TokenResult.TRANSIENT, TokenResult.MISCONFIGURED)
        assert answer.message

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(delay_seconds=8.0),
            Reply(body={"access_token": "T"}, drip_seconds=0.4),
        ],
        ids=["silent", "dripping"],
    )
    def test_exchange_ends_after_its_seconds_in_total(
        self, fake: FakeProvider, reply: Reply, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "TOTAL_SECONDS", 0.5)
        fake.reply(reply)
        started = time.monotonic()

        answer = refresh(credential_at(fake))

        assert answer.result == TokenResult.TRANSIENT
        assert time.monotonic() - started < 6

    def test_refused_connection_is_transient(self) -> None:
        answer = refresh(make_credential(token_url="http://127.0.0.1:9/token"))

        assert answer.result == TokenResult.TRANSIENT
        assert "the connection was refused" in sentence(answer.message)

    def test_refused_address_is_a_mistake_of_the_settings(
        self, fake: FakeProvider, settings: LazySettings
    ) -> None:
        credential = credential_at(fake)
        settings.WEBHOOKS_ALLOWED_NETWORKS = []

        answer = refresh(credential)

        assert (answer.result, answer.reason) == (TokenResult.MISCONFIGURED, "unsafe_url")
        assert fake.requests == []

    @pytest.mark.parametrize("send", [exchange, refresh, fetch])
    def test_environment_does_not_change_the_request(
        self, fake: FakeProvider, send: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login evil password evil")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

        assert send(credential_at(fake, client_secret="")).is_ok
        assert "authorization" not in fake.requests[0].headers


class TestLog:
    @pytest.fixture
    def log(self) -> Iterator[io.StringIO]:
        """Collect what any library writes at DEBUG, also with every logger turned on."""
        text = io.StringIO()
        handler = logging.StreamHandler(text)
        names = ["", "requests_oauthlib", "requests_oauthlib.oauth2_session", "oauthlib",
                 "urllib3", "requests", "webhooks"]  # fmt: skip
        before = [(name, logging.getLogger(name).level) for name in names]
        for name in names:
            logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger().addHandler(handler)
        yield text
        logging.getLogger().removeHandler(handler)
        for name, level in before:
            logging.getLogger(name).setLevel(level)

    def test_library_is_silent_below_warning(self, log: io.StringIO) -> None:
        logging.getLogger("requests_oauthlib.oauth2_session").debug("Obtained token %s.", "t0ken")
        logging.getLogger("oauthlib").debug("t0ken")

        assert "t0ken" not in log.getvalue()

    @pytest.mark.parametrize("body", [{"access_token": "an-access-token"}, {"error": "invalid_x"}])
    def test_no_secret_is_written_at_any_level(
        self, fake: FakeProvider, log: io.StringIO, body: dict[str, str]
    ) -> None:
        fake.reply(Reply(body={**body, "refresh_token": "a-refresh-token"}))
        credential = credential_at(fake, client_secret="the-client-secret")

        exchange(credential)
        refresh(credential)

        written = log.getvalue()
        header = token_requests.basic_authorization(credential.client_id, "the-client-secret")
        for secret in (
            "the-code",
            "v" * 64,
            "the-refresh-token",
            "the-client-secret",
            header.removeprefix("Basic "),
            "an-access-token",
            "a-refresh-token",
        ):
            assert secret not in written


@pytest.mark.parametrize(
    "parameters",
    [
        {"a": "\ud800"},
        {"\udfff": "a"},
        {"a": ["b", "\0"]},
        {"a": float("inf")},
        {"a": float("nan")},
        {"a": 10**5000},
    ],
    ids=["surrogate", "name", "nul", "infinite", "nan", "digits"],
)
def test_parameter_that_no_request_can_hold_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(MisconfiguredError, match="must be text"):
        check_parameters(parameters, ())
