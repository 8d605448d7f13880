"""Discovery of a provider's endpoints: which document is trusted, and what is taken from it."""

import gzip
from typing import Any

import pytest
from django.conf import LazySettings

from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply
from tests.sandbox import Provider
from webhooks import oauth
from webhooks.models import GrantType


def serve(fake: FakeProvider, path: str, **document: Any) -> None:
    """Serve the fake's metadata at one path, and 404 everywhere else."""
    body = {
        "issuer": fake.url,
        "authorization_endpoint": f"{fake.url}/authorize",
        "token_endpoint": f"{fake.url}/token",
        **document,
    }
    body = {name: value for name, value in body.items() if value is not None}

    def answer(asked: ReceivedRequest) -> Reply:
        return Reply(body=body) if asked.path == path else Reply(status=404)

    fake.reply(answer)


OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"


@pytest.mark.parametrize(
    ("issuer_path", "document_path"),
    [
        ("", OPENID),
        ("", OAUTH),
        ("/tenant", f"/tenant{OPENID}"),
        ("/tenant", f"{OAUTH}/tenant"),
        ("/tenant", f"{OPENID}/tenant"),
        ("/", OPENID),
    ],
)
def test_document_is_found_where_the_standards_put_it(
    fake: FakeProvider, issuer_path: str, document_path: str
) -> None:
    issuer = fake.url + issuer_path
    serve(fake, document_path, issuer=issuer, revocation_endpoint=f"{fake.url}/revoke")

    found = oauth.discover(issuer)

    assert found.fields == {
        "issuer": issuer,
        "auth_url": f"{fake.url}/authorize",
        "token_url": f"{fake.url}/token",
        "revocation_url": f"{fake.url}/revoke",
        "client_authentication": "basic_header",
        "uses_pkce": True,
        "requires_issuer": False,
    }
    assert found.notes == ()
    assert {asked.method for asked in fake.requests} == {"GET"}


@pytest.mark.parametrize(("asked", "named"), [("", "/"), ("/", "")])
def test_issuer_that_differs_by_a_slash_is_taken_and_said(
    fake: FakeProvider, asked: str, named: str
) -> None:
    serve(fake, OPENID, issuer=fake.url + named)

    found = oauth.discover(fake.url + asked)

    assert found.fields["issuer"] == fake.url + named
    assert f"calls itself “{fake.url}{named}”, which is taken as Issuer" in found.notes[0]


@pytest.mark.parametrize("suffix", [OPENID, OAUTH])
def test_address_of_the_document_is_taken_for_its_issuer(fake: FakeProvider, suffix: str) -> None:
    serve(fake, suffix)

    assert oauth.discover(f" {fake.url}{suffix} ").fields["issuer"] == fake.url


@pytest.mark.parametrize("suffix", [OPENID, OAUTH])
def test_issuers_path_may_follow_in_the_address_of_the_document(
    fake: FakeProvider, suffix: str
) -> None:
    issuer = f"{fake.url}/tenant"
    serve(fake, f"{suffix}/tenant", issuer=issuer)

    assert oauth.discover(f"{fake.url}{suffix}/tenant").fields["issuer"] == issuer


def test_issuer_of_all_tenants_is_taken(fake: FakeProvider) -> None:
    issuer = f"{fake.url}/common/v2.0"
    serve(fake, f"/common/v2.0{OPENID}", issuer=f"{fake.url}/{{tenantid}}/v2.0")

    assert oauth.discover(issuer).fields["issuer"] == issuer


def test_document_may_come_packed(fake: FakeProvider) -> None:
    serve(fake, OPENID)
    body = gzip.compress(
        fake.answer(ReceivedRequest(method="GET", path=OPENID, headers={}, body=b"")).payload()
    )
    fake.reply(Reply(body=body, headers={"Content-Encoding": "gzip"}))

    assert oauth.discover(fake.url).fields["issuer"] == fake.url


@pytest.mark.parametrize(
    "named",
    [
        *("https://evil.example", "{url}//", "{url}/other", "HTTP{rest}"),
        *("{url}/{{tenantid}}", "{{tenantid}}", "https://{{tenantid}}/"),
    ],
)
def test_document_of_another_issuer_is_not_believed(fake: FakeProvider, named: str) -> None:
    named = named.format(url=fake.url, rest=fake.url.removeprefix("http"))
    serve(fake, OPENID, issuer=named)

    with pytest.raises(oauth.MisconfiguredError, match="calls itself"):
        oauth.discover(fake.url)


@pytest.mark.parametrize("named", ["", None, 5, ["https://a.example"]])
def test_document_without_an_issuer_is_not_believed(fake: FakeProvider, named: Any) -> None:
    serve(fake, OPENID, issuer=named)

    with pytest.raises(oauth.MisconfiguredError, match="has no issuer"):
        oauth.discover(fake.url)


def test_answer_without_an_issuer_leads_to_the_next_address(fake: FakeProvider) -> None:
    serve(fake, OAUTH)
    described = fake.answer(ReceivedRequest(method="GET", path=OAUTH, headers={}, body=b""))
    error = Reply(body={"error": "not_here"})
    fake.reply(lambda asked: described if asked.path == OAUTH else error)

    assert oauth.discover(fake.url).fields["issuer"] == fake.url


def test_document_of_another_issuer_leads_to_the_next_address(fake: FakeProvider) -> None:
    """The server in front answers every path with its own document, the one behind does not."""
    issuer = f"{fake.url}/tenant"
    serve(fake, f"{OAUTH}/tenant", issuer=issuer)
    described = fake.answer(
        ReceivedRequest(method="GET", path=f"{OAUTH}/tenant", headers={}, body=b"")
    )
    other = Reply(body={**described.body, "issuer": "https://evil.example"})
    fake.reply(lambda asked: described if asked.path.startswith(OAUTH) else other)

    assert oauth.discover(issuer).fields["issuer"] == issuer


def test_addresses_may_be_written_carelessly(fake: FakeProvider) -> None:
    token_url = f"{fake.url}/token"
    serve(fake, OPENID, token_endpoint=f" {token_url} ", revocation_endpoint="")

    found = oauth.discover(fake.url).fields

    assert found["token_url"] == token_url
    assert "revocation_url" not in found


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"token_endpoint": None}, "has no token_endpoint"),
        ({"token_endpoint": " "}, "has no token_endpoint"),
        ({"authorization_endpoint": ["x"]}, "has no authorization_endpoint"),
        ({"token_endpoint": "http://provider.example/token"}, "must start with https://"),
        ({"token_endpoint": "/token"}, "http"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "http"),
    ],
)
def test_endpoint_that_cannot_be_used_is_refused(
    fake: FakeProvider, fields: dict[str, Any], words: str
) -> None:
    serve(fake, OPENID, **fields)

    with pytest.raises(oauth.MisconfiguredError, match=words):
        oauth.discover(fake.url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://provider.example/revoke", "must start with https://"),
        ("https://a@evil.example/", "login or password"),
        ("/revoke", "http"),
    ],
)
def test_optional_endpoint_that_cannot_be_used_is_left_out(
    fake: FakeProvider, url: str, words: str
) -> None:
    serve(fake, OPENID, revocation_endpoint=url)

    found = oauth.discover(fake.url)

    assert found.fields["token_url"] == f"{fake.url}/token"
    assert "revocation_url" not in found.fields
    (note,) = found.notes
    assert "revocation_endpoint is left out" in note
    assert words in note


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=404),
        Reply(status=500),
        Reply(status=302, headers={"Location": "https://evil.example/"}),
        Reply(body=b"<html>", headers={"Content-Type": "text/html"}),
        Reply(body=b"[]"),
        Reply(body=b'{"issuer":"a","issuer":"b"}'),
        Reply(body=b"x" * 70_000),
        Reply(raw=b""),
    ],
    ids=["404", "500", "redirect", "html", "list", "twice", "large", "nothing"],
)
def test_no_document_is_said_in_a_sentence(fake: FakeProvider, reply: Reply) -> None:
    fake.reply(reply)

    with pytest.raises(oauth.MisconfiguredError, match="Fill in the addresses by hand"):
        oauth.discover(fake.url)

    assert all(asked.path.startswith("/.well-known/") for asked in fake.requests)


@pytest.mark.parametrize(
    ("issuer", "words"),
    [
        ("", "Fill in Issuer"),
        ("http://provider.example", "must start with https://"),
        ("https://provider.example?x=1", "no query"),
        ("https://provider.example?", "no query"),
        ("https://provider.example#x", "fragment"),
        ("provider.example", "http"),
    ],
)
def test_issuer_that_cannot_be_one_is_refused(issuer: str, words: str) -> None:
    with pytest.raises(oauth.MisconfiguredError, match=words):
        oauth.discover(issuer)


def test_guard_is_asked(fake: FakeProvider, settings: LazySettings) -> None:
    serve(fake, OPENID)
    settings.WEBHOOKS_ALLOWED_NETWORKS = []

    with pytest.raises(oauth.MisconfiguredError):
        oauth.discover(fake.url)

    assert fake.requests == []


@pytest.mark.parametrize(
    ("document", "fields", "notes"),
    [
        (
            {"token_endpoint_auth_methods_supported": ["client_secret_post"]},
            {"client_authentication": "request_body"},
            0,
        ),
        (
            {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
            {"client_authentication": "private_key_jwt"},
            0,
        ),
        (
            {"token_endpoint_auth_methods_supported": ["self_signed_tls_client_auth"]},
            {"client_authentication": "tls_client_auth"},
            0,
        ),
        ({"token_endpoint_auth_methods_supported": ["client_secret_oob"]}, {}, 1),
        # A string instead of a list, and different case.
        (
            {"token_endpoint_auth_methods_supported": "client_secret_post"},
            {"client_authentication": "request_body"},
            0,
        ),
        (
            {"token_endpoint_auth_methods_supported": ["CLIENT_SECRET_POST", None, {}]},
            {"client_authentication": "request_body"},
            0,
        ),
        ({"code_challenge_methods_supported": ["s256"]}, {"uses_pkce": True}, 0),
        ({"code_challenge_methods_supported": "plain,S256"}, {"uses_pkce": True}, 0),
        ({"code_challenge_methods_supported": "plain"}, {"uses_pkce": False}, 1),
        ({"response_types_supported": "code token"}, {}, 0),
        ({"grant_types_supported": "implicit"}, {}, 1),
        ({"token_endpoint_auth_methods_supported": ["none"]}, {}, 0),
        ({"code_challenge_methods_supported": ["plain"]}, {"uses_pkce": False}, 1),
        ({"code_challenge_methods_supported": ["S256"]}, {"uses_pkce": True}, 0),
        ({"grant_types_supported": ["client_credentials"]}, {}, 1),
        ({"response_types_supported": ["token"]}, {}, 1),
        ({"scopes_supported": "openid"}, {}, 0),
        ({}, {"requires_issuer": False}, 0),
        (
            {"authorization_response_iss_parameter_supported": True},
            {"requires_issuer": True},
            0,
        ),
        (
            {"authorization_response_iss_parameter_supported": "true"},
            {"requires_issuer": False},
            0,
        ),
    ],
)
def test_what_the_provider_offers_is_chosen_and_what_it_lacks_is_said(
    fake: FakeProvider, document: dict[str, Any], fields: dict[str, Any], notes: int
) -> None:
    serve(fake, OPENID, **document)

    found = oauth.discover(fake.url)

    assert fields.items() <= found.fields.items()
    assert len(found.notes) == notes


@pytest.mark.parametrize(
    ("said", "grant", "notes"),
    [
        (True, GrantType.AUTHORIZATION_CODE, 1),
        (False, GrantType.AUTHORIZATION_CODE, 0),
        ("yes", GrantType.AUTHORIZATION_CODE, 0),
        (True, GrantType.CLIENT_CREDENTIALS, 0),
    ],
)
def test_pushed_requests_that_are_required_are_said(
    fake: FakeProvider, said: Any, grant: GrantType, notes: int
) -> None:
    """RFC 9126 section 5."""
    serve(fake, OPENID, require_pushed_authorization_requests=said)

    found = oauth.discover(fake.url, grant=grant)

    assert ["(PAR)" in note for note in found.notes] == [True] * notes


ALL_METHODS = ["client_secret_post", "client_secret_basic", "tls_client_auth", "private_key_jwt"]


@pytest.mark.parametrize(
    ("offered", "chosen", "kept"),
    [
        (ALL_METHODS, "basic_header", "basic_header"),
        (ALL_METHODS, "raw_basic", "raw_basic"),
        (ALL_METHODS, "request_body", "request_body"),
        (ALL_METHODS, "tls_client_auth", "tls_client_auth"),
        (ALL_METHODS, "client_secret_jwt", "basic_header"),
        (["client_secret_post"], "raw_basic", "request_body"),
        (["client_secret_post"], "nonsense", "request_body"),
        (None, "request_body", "basic_header"),
    ],
)
def test_a_chosen_way_to_authenticate_is_kept_where_it_is_offered(
    fake: FakeProvider, offered: list[str] | None, chosen: str, kept: str
) -> None:
    serve(fake, OPENID, token_endpoint_auth_methods_supported=offered)

    found = oauth.discover(fake.url, authentication=chosen)

    assert found.fields["client_authentication"] == kept


@pytest.mark.parametrize(
    ("chosen", "method", "token_path", "revocation_path"),
    [
        ("tls_client_auth", "tls_client_auth", "/mtls/token", "/mtls/revoke"),
        ("basic_header", "basic_header", "/token", "/revoke"),
    ],
)
def test_a_client_with_a_certificate_gets_the_endpoints_that_ask_for_one(
    fake: FakeProvider, chosen: str, method: str, token_path: str, revocation_path: str
) -> None:
    serve(
        fake,
        OPENID,
        revocation_endpoint=f"{fake.url}/revoke",
        mtls_endpoint_aliases={
            "token_endpoint": f"{fake.url}/mtls/token",
            "revocation_endpoint": f"{fake.url}/mtls/revoke",
        },
    )

    found = oauth.discover(fake.url, authentication=chosen).fields

    assert found["client_authentication"] == method
    assert found["token_url"] == fake.url + token_path
    assert found["revocation_url"] == fake.url + revocation_path
    # A browser has no client certificate: there is no other page to log in at.
    assert found["auth_url"] == f"{fake.url}/authorize"


@pytest.mark.parametrize("aliases", [None, [], "x", {"token_endpoint": None}])
def test_what_has_no_other_endpoint_for_certificates_keeps_the_usual_one(
    fake: FakeProvider, aliases: Any
) -> None:
    serve(
        fake,
        OPENID,
        token_endpoint_auth_methods_supported=["tls_client_auth"],
        mtls_endpoint_aliases=aliases,
    )

    found = oauth.discover(fake.url, authentication="tls_client_auth").fields

    assert found["token_url"] == f"{fake.url}/token"


@pytest.mark.parametrize("alias", [5, "", None])
def test_an_endpoint_for_certificates_that_is_none_is_left_out(
    fake: FakeProvider, alias: object
) -> None:
    serve(fake, OPENID, mtls_endpoint_aliases={"token_endpoint": alias})

    found = oauth.discover(fake.url, authentication="tls_client_auth").fields

    assert found["token_url"] == f"{fake.url}/token"


def test_an_endpoint_for_certificates_that_leads_elsewhere_is_refused(fake: FakeProvider) -> None:
    aliases = {"token_endpoint": "http://10.0.0.1/token"}
    serve(fake, OPENID, mtls_endpoint_aliases=aliases)

    with pytest.raises(oauth.MisconfiguredError, match="token_endpoint"):
        oauth.discover(fake.url, authentication="tls_client_auth")


@pytest.mark.parametrize(
    ("grant", "auth_path", "notes"),
    [
        ("authorization_code", "/authorize", 1),
        ("device_code", "/device", 0),
        ("client_credentials", "", 0),
        ("jwt_bearer", "", 1),
    ],
)
def test_the_endpoints_are_those_of_the_grant(
    fake: FakeProvider, grant: str, auth_path: str, notes: int
) -> None:
    serve(
        fake,
        OPENID,
        device_authorization_endpoint=f"{fake.url}/device",
        grant_types_supported=[
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
    )

    found = oauth.discover(fake.url, grant=GrantType(grant))

    assert found.fields.get("auth_url", fake.url) == fake.url + auth_path
    assert len(found.notes) == notes


def test_a_server_without_pages_is_enough_for_a_machine(fake: FakeProvider) -> None:
    serve(fake, OAUTH, authorization_endpoint=None)

    assert oauth.discover(fake.url, grant=GrantType.CLIENT_CREDENTIALS).fields["token_url"]
    with pytest.raises(oauth.MisconfiguredError, match="has no device_authorization_endpoint"):
        oauth.discover(fake.url, grant=GrantType.DEVICE_CODE)


def test_scopes_are_offered(fake: FakeProvider) -> None:
    serve(fake, OPENID, scopes_supported=["openid", 5, "email"])

    assert oauth.discover(fake.url).scopes == ("openid", "email")


def test_real_provider_is_discovered(provider: Provider) -> None:
    found = oauth.discover(provider.issuer)

    assert found.fields["auth_url"] == provider.auth_url
    assert found.fields["token_url"] == provider.token_url
    assert found.fields["revocation_url"] == provider.revocation_url
    assert found.fields["issuer"] == provider.issuer
