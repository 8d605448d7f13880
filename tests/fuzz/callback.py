"""The callback's query string: rejected with a message, or exactly one code from the issuer."""

from urllib.parse import quote, urlsplit

from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict
from hypothesis import strategies as st

from tests.fuzz.target import FuzzTarget
from tests.fuzz.tokens import storable
from webhooks.models import AuthorizationRequest, AuthorizationType, Credential, GrantType
from webhooks.oauth import callback
from webhooks.oauth.errors import AuthorizationError

_SECRET = "canary-client-secret"
_ISSUER = "https://provider.example.com"
_NAMES = ("code", "state", "iss", "error", "error_description", "accounts-server", "scope", "x", "")
_WORDS = ("abc", _ISSUER, f"{_ISSUER}:443/", "https://evil.example.net", "access_denied", "a\r\nb",
          "\0", "<script>", _SECRET, "é", "\ud800", "", "https://[::1", "consent_required",
          "x" * 300, "https://provider.example.com.evil.net", "%", "\x1b[31m")  # fmt: skip
_PAIR = st.tuples(
    st.one_of(st.sampled_from(_NAMES), st.text(max_size=4)),
    st.one_of(st.sampled_from(_WORDS), st.text(max_size=12)),
)
INPUTS = st.tuples(
    st.one_of(
        st.lists(_PAIR, max_size=5).map(
            lambda pairs: "&".join(
                f"{quote(key, errors='surrogatepass')}={quote(value, errors='surrogatepass')}"
                for key, value in pairs
            )
        ),
        st.builds(
            lambda code, more: f"state=abc&code={quote(code, errors='surrogatepass')}{more}",
            st.one_of(st.just("the-code"), st.text(max_size=20)),
            st.sampled_from(
                ["", f"&iss={_ISSUER}", "&scope=a+b", "&code=2", "&error=x", "&x", "&=&"]
            ),
        ),
        st.text(max_size=40),
    ),
    st.booleans(),
)


def check(given: tuple[str, bool]) -> bool:
    query, has_issuer = given
    found = _request(_ISSUER if has_issuer else "")
    try:
        parameters = callback.read_query(dict(QueryDict(query.encode("utf-8", "replace")).lists()))
        callback.check_issuer(parameters, found)
        callback.check_data_center(parameters, found)
        code = callback.code_of(parameters, found)
        callback.hashed(parameters.get("state", ""))
    except AuthorizationError as error:
        assert str(error)
        assert storable(str(error))
        assert _SECRET not in str(error)
        return False
    except SuspiciousOperation:
        # Too many parameters: Django responds with 400.
        return False
    assert code.isascii()
    assert code.isprintable()
    assert parameters.get("code") == code
    assert "error" not in parameters
    issuer = parameters.get("iss", _ISSUER)
    assert issuer == _ISSUER or not has_issuer
    assert _is_home(issuer)
    return True


def _is_home(issuer: str) -> bool:
    """Return whether this is the issuer's origin, ignoring case and an explicit default port."""
    parts = urlsplit(issuer)
    host = (parts.hostname or "").rstrip(".")
    return (parts.scheme, host, parts.port or 443) == ("https", "provider.example.com", 443)


def _request(issuer: str) -> AuthorizationRequest:
    credential = Credential(
        pk=1,
        name="Shared",
        authorization_type=AuthorizationType.OAUTH2,
        grant_type=GrantType.AUTHORIZATION_CODE,
        auth_url=f"{_ISSUER}/authorize",
        token_url=f"{_ISSUER}/token",
        client_id="client",
    )
    credential.client_secret = _SECRET
    return AuthorizationRequest(credential=credential, issuer=issuer)


TARGET = FuzzTarget(name="callback query", inputs=INPUTS, check=check)
