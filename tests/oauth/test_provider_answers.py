"""What real providers answer when something is wrong, and what is made of it.

Each row has the provider's documentation of it or a thread about it. `code` is the row in the table
of errors; its class, sentence and fields are that row's.
"""

from typing import Any, NamedTuple

import pytest

from tests.oauth.test_token_response import ask
from webhooks.oauth import sentence
from webhooks.oauth.errors import ERRORS, Grant, TokenResult
from webhooks.oauth.token_response import Expected


class Published(NamedTuple):
    provider: str
    what: str
    status: int
    body: dict[str, Any]
    code: str
    source: str
    uses_pkce: bool = True


def error(code: str, description: str = "") -> dict[str, Any]:
    return {"error": code, **({"error_description": description} if description else {})}


KEYCLOAK = "https://github.com/keycloak/keycloak/issues/16923"
ENTRA = "https://learn.microsoft.com/entra/identity-platform/reference-error-codes"
GITHUB = (
    "https://docs.github.com/apps/oauth-apps/maintaining-oauth-apps/"
    "troubleshooting-oauth-app-access-token-request-errors"
)
GOOGLE = "https://developers.google.com/identity/protocols/oauth2/web-server"
SALESFORCE = "https://salesforcedictionary.com/errors/invalid-oauth-grant"
HUBSPOT = "https://www.nango.dev/blog/hubspot-oauth-bad-refresh-token"
ZOHO = "https://help.zoho.com/portal/en/community/topic/kaizen-4-troubleshooting-oauth2-0"
BITRIX24 = "https://apidocs.bitrix24.com/settings/oauth/index.html"
KOMMO = "https://developers.kommo.com/reference/get-token"
HYDRA = "https://github.com/ory/hydra/issues/3004"
FIELDVIEW = "https://dev.fieldview.com/api-details"

PUBLISHED = [
    Published("Keycloak", "wrong secret", 401, error("unauthorized_client",
              "Invalid client or Invalid client credentials"), "invalid_client", KEYCLOAK),
    Published("Keycloak", "secret sent nowhere", 400, error("unauthorized_client",
              "UNKNOWN_CLIENT: Client was not identified by any client authenticator"),
              "invalid_client", "https://github.com/Waziup/WaziCloud/issues/173"),
    Published("Keycloak", "wrong secret, older", 403, error("unauthorized_client",
              "Invalid client secret"), "invalid_client",
              "https://github.com/code-specialist/fastapi-keycloak/issues/65"),
    Published("Keycloak", "signed JWT wanted", 400, error("invalid_client",
              "Parameter client_assertion_type is missing"), "client_key_needed",
              "https://github.com/thomasdarimont/spring-boot-keycloak-jwe-example/issues/1"),
    Published("Keycloak", "used refresh token", 400, error("invalid_grant",
              "Stale refresh token"), "invalid_grant",
              "https://github.com/marcospereirampj/python-keycloak/issues/53"),
    Published("Keycloak", "reused refresh token", 400, error("invalid_grant",
              "Maximum allowed refresh token reuse exceeded"), "invalid_grant",
              "https://github.com/keycloak/keycloak/pull/4510"),
    Published("Keycloak", "ended session", 400, error("invalid_grant", "Token is not active"),
              "invalid_grant", "https://github.com/openid/AppAuth-iOS/issues/843"),
    Published("Keycloak", "wrong verifier", 400, error("invalid_grant",
              "PKCE verification failed: Code mismatch"), "pkce_mismatch", KEYCLOAK),
    Published("Ory Hydra", "reused refresh token", 401, error("token_inactive", "Token is inactive "
              "because it is malformed, expired or otherwise invalid. Token validation failed."),
              "invalid_grant", HYDRA),
    Published("Ory Hydra", "unknown refresh token", 400, error("invalid_grant", "The provided "
              "authorization grant (e.g., authorization code, resource owner credentials) or "
              "refresh token is invalid, expired, revoked, does not match the redirection URI used "
              "in the authorization request, or was issued to another client."), "invalid_grant",
              "https://github.com/ory/hydra/issues/2645"),
    Published("Ory Hydra", "wrong way of sending", 401, error("invalid_client", "Client "
              "authentication failed (e.g., unknown client, no client authentication included, or "
              "unsupported authentication method). The OAuth 2.0 Client supports client "
              "authentication method 'client_secret_basic', but method 'client_secret_post' was "
              "requested."), "invalid_client", HYDRA),
    Published("Ory Hydra", "PKCE missing", 400, error("invalid_request", "Clients must include a "
              "code_challenge when performing the authorize code flow, but it is missing."),
              "pkce_required", HYDRA, uses_pkce=False),
    Published("Glewlwyd", "wrong secret", 403, error("unauthorized_client"), "client_or_grant",
              "https://github.com/babelouest/glewlwyd"),
    Published("Auth0", "wrong secret", 401, error("access_denied", "Unauthorized"),
              "invalid_client", "https://auth0.com/docs/api/authentication"),
    Published("Auth0", "grant not allowed", 403, error("unauthorized_client", "Grant type "
              "'client_credentials' not allowed for the client."), "unauthorized_client",
              "https://auth0.com/docs/get-started/applications/application-grant-types"),
    Published("Entra", "wrong secret", 401, error("invalid_client",
              "AADSTS7000215: Invalid client secret provided."), "invalid_client", ENTRA),
    Published("Entra", "ended secret", 401, error("invalid_client", "AADSTS7000222: The provided "
              "client secret keys for app are expired."), "invalid_client", ENTRA),
    Published("Entra", "unknown client", 400, error("unauthorized_client", "AADSTS700016: "
              "Application with identifier 'x' was not found in the directory."),
              "invalid_client", ENTRA),
    Published("Entra", "dead refresh token", 400, error("invalid_grant", "AADSTS700082: The "
              "refresh token has expired due to inactivity."), "invalid_grant", ENTRA),
    Published("Entra", "wrong scope", 400, error("invalid_scope", "AADSTS70011: The provided value "
              "for the input parameter 'scope' is not valid."), "invalid_scope", ENTRA),
    Published("Entra", "wrong redirect", 400, error("invalid_request", "AADSTS50011: The redirect "
              "URI specified in the request does not match."), "redirect_uri_mismatch", ENTRA),
    Published("Google", "wrong secret", 401, error("invalid_client", "Unauthorized"),
              "invalid_client", GOOGLE),
    Published("Google", "unknown client", 401, error("invalid_client",
              "The OAuth client was not found."), "invalid_client", GOOGLE),
    Published("Google", "refresh token of another client", 401, error("unauthorized_client",
              "Unauthorized"), "invalid_client", GOOGLE),
    Published("Google", "dead refresh token", 400, error("invalid_grant",
              "Token has been expired or revoked."), "invalid_grant", GOOGLE),
    Published("Google", "wrong redirect", 400, error("redirect_uri_mismatch", "Bad Request"),
              "redirect_uri_mismatch", GOOGLE),
    Published("GitHub", "wrong secret", 200, error("incorrect_client_credentials", "The client_id "
              "and/or client_secret passed are incorrect."), "invalid_client", GITHUB),
    Published("GitHub", "wrong redirect", 200, error("redirect_uri_mismatch", "The redirect_uri "
              "MUST match the registered callback URL for this application."),
              "redirect_uri_mismatch", GITHUB),
    Published("GitHub", "used code", 200, error("bad_verification_code",
              "The code passed is incorrect or expired."), "invalid_grant", GITHUB),
    Published("Salesforce", "dead refresh token", 400, error("invalid_grant",
              "expired access/refresh token"), "invalid_grant", SALESFORCE),
    Published("Salesforce", "wrong secret", 400, error("invalid_grant",
              "authentication failure - invalid client credentials"), "invalid_client",
              SALESFORCE),
    Published("Salesforce", "wrong redirect", 400, error("invalid_grant",
              "redirect uri does not match configuration"), "redirect_uri_mismatch", SALESFORCE),
    Published("Salesforce", "unknown client", 400, error("invalid_client_id",
              "client identifier invalid"), "invalid_client", SALESFORCE),
    Published("HubSpot", "dead refresh token", 400, {"status": "BAD_REFRESH_TOKEN",
              "message": "missing or invalid refresh token"}, "invalid_grant", HUBSPOT),
    Published("HubSpot", "dead refresh token, newer", 400, {"category": "VALIDATION_ERROR",
              "message": "Invalid refresh token", "subCategory": "INVALID_TOKEN",
              "errors": [{"message": "Invalid parameter value", "code": "INVALID_PARAMETER"}]},
              "invalid_grant", "https://apis.io/examples/hubspot/hubspot-oauth-error-example/"),
    Published("HubSpot", "wrong secret", 400, {"status": "BAD_CLIENT_SECRET",
              "message": "missing or invalid client secret"}, "invalid_client", HUBSPOT),
    Published("Zoho", "wrong secret", 200, error("invalid_client_secret"), "invalid_client", ZOHO),
    Published("Zoho", "unknown client", 200, error("invalid_client"), "invalid_client", ZOHO),
    Published("Zoho", "dead code", 200, error("invalid_code"), "invalid_grant", ZOHO),
    Published("Zoho", "wrong redirect", 200, error("invalid_redirect_uri"),
              "redirect_uri_mismatch", ZOHO),
    Published("Bitrix24", "dead refresh token", 400, error("invalid_grant",
              "Invalid refresh token"), "invalid_grant", BITRIX24),
    Published("Bitrix24", "wrong secret", 400, error("invalid_client", "Invalid client secret"),
              "invalid_client", BITRIX24),
    Published("Kommo", "dead refresh token", 401, {"title": "Unauthorized", "status": 401,
              "detail": "Incorrect request", "hint": "Token has been revoked"}, "invalid_grant",
              KOMMO),
    Published("Kommo", "wrong secret", 401, {"title": "Unauthorized", "status": 401,
              "detail": "Client authentication failed"}, "invalid_client", KOMMO),
    Published("FieldView", "used refresh token", 400, error("invalid_grant",
              "Provided Authorization Grant is invalid"), "invalid_grant", FIELDVIEW),
    Published("FieldView", "wrong redirect", 400, error("invalid_grant", "Callback url mismatch"),
              "redirect_uri_mismatch", FIELDVIEW),
]  # fmt: skip


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.provider}: {row.what}")
def test_published_answer_is_understood(row: Published) -> None:
    expected = Expected(
        grant=Grant.CODE,
        scope="events",
        uses_pkce=row.uses_pkce,
        redirect_uri="https://here.example/callback",
    )

    answer = ask(row.body, row.status, expected=expected)

    assert answer.code == row.code
    needs_person = row.code in ("invalid_grant", "pkce_mismatch")
    # Some call a wrong callback URL an invalid grant; what ends the grant is for a person.
    is_called_grant = (
        row.code == "redirect_uri_mismatch" and row.body.get("error") == "invalid_grant"
    )
    is_ended = needs_person or is_called_grant
    assert (answer.result is TokenResult.NEEDS_REAUTHORIZATION) is is_ended
    # The sentence says what to do, and for what is not changed at the provider there is a field.
    assert sentence(answer.message)
    assert needs_person or row.code == "unauthorized_client" or ERRORS[row.code].fields
