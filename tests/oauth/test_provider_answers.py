"""What real providers respond when something is wrong, and how it is classified.

Each row links the provider's documentation or a thread about it. `code` is the row in the table of
errors, which gives its class, sentence and fields.
"""

from typing import Any, NamedTuple

import pytest

from tests.oauth.test_token_response import ask
from webhooks.oauth import sentence
from webhooks.oauth.errors import ERRORS, Grant, TokenResult
from webhooks.oauth.token_response import Expected


class RealReply(NamedTuple):
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
GITHUB = (
    "https://docs.github.com/apps/oauth-apps/maintaining-oauth-apps/"
    "troubleshooting-oauth-app-access-token-request-errors"
)
SALESFORCE = "https://salesforcedictionary.com/errors/invalid-oauth-grant"
HUBSPOT = "https://www.nango.dev/blog/hubspot-oauth-bad-refresh-token"
ZOHO = "https://help.zoho.com/portal/en/community/topic/kaizen-4-troubleshooting-oauth2-0"
BITRIX24 = "https://github.com/bitrix24/b24restdocs/blob/main/api-reference/oauth/error-codes.md"
KOMMO = "https://developers.kommo.com/reference/get-token"
GLEWLWYD = (
    "https://github.com/babelouest/glewlwyd/blob/0219fa08044c1594d8b014903165e53754291605/"
    "src/plugin/protocol_oidc.c"
)
HYDRA = "https://github.com/ory/hydra/issues/3004"
FIELDVIEW = "https://dev.fieldview.com/api-details"

PUBLISHED = [
    RealReply("Keycloak", "wrong secret", 401, error("unauthorized_client",
              "Invalid client or Invalid client credentials"), "invalid_client", KEYCLOAK),
    RealReply("Keycloak", "secret sent nowhere", 400, error("unauthorized_client",
              "UNKNOWN_CLIENT: Client was not identified by any client authenticator"),
              "invalid_client", "https://github.com/Waziup/WaziCloud/issues/173"),
    RealReply("Keycloak", "wrong secret, older", 403, error("unauthorized_client",
              "Invalid client secret"), "invalid_client",
              "https://github.com/code-specialist/fastapi-keycloak/issues/65"),
    RealReply("Keycloak", "signed JWT wanted", 400, error("invalid_client",
              "Parameter client_assertion_type is missing"), "client_key_needed",
              "https://github.com/thomasdarimont/spring-boot-keycloak-jwe-example/issues/1"),
    RealReply("Keycloak", "used refresh token", 400, error("invalid_grant",
              "Stale refresh token"), "invalid_grant",
              "https://github.com/marcospereirampj/python-keycloak/issues/53"),
    RealReply("Keycloak", "reused refresh token", 400, error("invalid_grant",
              "Maximum allowed refresh token reuse exceeded"), "invalid_grant",
              "https://github.com/keycloak/keycloak/pull/4510"),
    RealReply("Keycloak", "ended session", 400, error("invalid_grant", "Token is not active"),
              "invalid_grant", "https://github.com/openid/AppAuth-iOS/issues/843"),
    RealReply("Keycloak", "wrong verifier", 400, error("invalid_grant",
              "PKCE verification failed: Code mismatch"), "pkce_mismatch", KEYCLOAK),
    RealReply("Ory Hydra", "reused refresh token", 401, error("token_inactive", "Token is inactive "
              "because it is malformed, expired or otherwise invalid. Token validation failed."),
              "invalid_grant", HYDRA),
    RealReply("Ory Hydra", "unknown refresh token", 400, error("invalid_grant", "The provided "
              "authorization grant (e.g., authorization code, resource owner credentials) or "
              "refresh token is invalid, expired, revoked, does not match the redirection URI used "
              "in the authorization request, or was issued to another client."), "invalid_grant",
              "https://github.com/ory/hydra/issues/2645"),
    RealReply("Ory Hydra", "wrong way of sending", 401, error("invalid_client", "Client "
              "authentication failed (e.g., unknown client, no client authentication included, or "
              "unsupported authentication method). The OAuth 2.0 Client supports client "
              "authentication method 'client_secret_basic', but method 'client_secret_post' was "
              "requested."), "invalid_client", HYDRA),
    RealReply("Ory Hydra", "PKCE missing", 400, error("invalid_request", "Clients must include a "
              "code_challenge when performing the authorize code flow, but it is missing."),
              "pkce_required", HYDRA, uses_pkce=False),
    RealReply("Glewlwyd", "wrong secret", 403, error("unauthorized_client"), "client_or_grant",
              GLEWLWYD),
    RealReply("Auth0", "wrong secret", 401, error("access_denied", "Unauthorized"),
              "invalid_client", "https://github.com/auth0-samples/auth0-angular-samples/issues/201"),
    RealReply("Auth0", "grant not allowed", 403, error("unauthorized_client", "Grant type "
              "'client_credentials' not allowed for the client."), "unauthorized_client",
              "https://github.com/auth0/ruby-auth0/issues/190"),
    RealReply("Entra", "wrong secret", 401, error("invalid_client", "AADSTS7000215: Invalid client "
              "secret provided. Ensure the secret being sent in the request is the client secret "
              "value, not the client secret ID, for a secret added to app 'x'."), "invalid_client",
              "https://github.com/OfficeDev/microsoft-365-agents-toolkit/issues/8621"),
    RealReply("Entra", "ended secret", 401, error("invalid_client", "AADSTS7000222: The provided "
              "client secret keys are expired."), "invalid_client",
              "https://github.com/microsoft/botframework-sdk/issues/6221"),
    RealReply("Entra", "unknown client", 400, error("unauthorized_client", "AADSTS700016: "
              "Application with identifier 'x' was not found in the directory 'y'. This can happen "
              "if the application has not been installed by the administrator of the tenant or "
              "consented to by any user in the tenant. You may have sent your authentication "
              "request to the wrong tenant."), "invalid_client",
              "https://github.com/vippsas/vipps-ecom-api/issues/183"),
    RealReply("Entra", "dead refresh token", 400, error("invalid_grant", "AADSTS700082: The "
              "refresh token has expired due to inactivity. The token was issued on 2020-02-26 and "
              "was inactive for 90.00:00:00."), "invalid_grant",
              "https://github.com/Azure/azure-cli/issues/14244"),
    RealReply("Entra", "wrong scope", 400, error("invalid_scope", "AADSTS70011: The provided "
              "request must include a 'scope' input parameter. The provided value for the input "
              "parameter 'scope' is not valid. The scope x is not valid."), "invalid_scope",
              "https://github.com/jonascrevecoeur/terraform-provider-azuresql/pull/56"),
    RealReply("Entra", "wrong redirect", 401, error("invalid_client", "AADSTS50011: The reply URL "
              "specified in the request does not match the reply URLs configured for the "
              "application: 'x'."), "redirect_uri_mismatch",
              "https://github.com/MicrosoftDocs/azure-docs/issues/86043"),
    RealReply("Google", "wrong secret", 401, error("invalid_client", "Unauthorized"),
              "invalid_client", "https://github.com/hybridauth/hybridauth/issues/973"),
    RealReply("Google", "unknown client", 401, error("invalid_client",
              "The OAuth client was not found."), "invalid_client",
              "https://github.com/Edujugon/laravel-google-ads/issues/17"),
    RealReply("Google", "refresh token of another client", 401, error("unauthorized_client",
              "Unauthorized"), "invalid_client",
              "https://github.com/googleapis/google-api-dotnet-client/issues/2802"),
    RealReply("Google", "dead refresh token", 400, error("invalid_grant",
              "Token has been expired or revoked."), "invalid_grant",
              "https://github.com/apache/opendal/issues/3901"),
    RealReply("Google", "wrong redirect", 400, error("redirect_uri_mismatch", "Bad Request"),
              "redirect_uri_mismatch",
              "https://github.com/googleapis/google-auth-library-python-oauthlib/issues/64"),
    RealReply("GitHub", "wrong secret", 200, error("incorrect_client_credentials", "The client_id "
              "and/or client_secret passed are incorrect."), "invalid_client", GITHUB),
    RealReply("GitHub", "wrong redirect", 200, error("redirect_uri_mismatch", "The redirect_uri "
              "MUST match the registered callback URL for this application."),
              "redirect_uri_mismatch", GITHUB),
    RealReply("GitHub", "used code", 200, error("bad_verification_code",
              "The code passed is incorrect or expired."), "invalid_grant", GITHUB),
    RealReply("Salesforce", "dead refresh token", 400, error("invalid_grant",
              "expired access/refresh token"), "invalid_grant", SALESFORCE),
    RealReply("Salesforce", "wrong secret", 400, error("invalid_grant",
              "authentication failure - invalid client credentials"), "invalid_client",
              SALESFORCE),
    RealReply("Salesforce", "wrong redirect", 400, error("invalid_grant",
              "redirect uri does not match configuration"), "redirect_uri_mismatch", SALESFORCE),
    RealReply("Salesforce", "unknown client", 400, error("invalid_client_id",
              "client identifier invalid"), "invalid_client", SALESFORCE),
    RealReply("HubSpot", "dead refresh token", 400, {"status": "BAD_REFRESH_TOKEN",
              "message": "missing or invalid refresh token"}, "invalid_grant", HUBSPOT),
    RealReply("HubSpot", "dead refresh token, newer", 400, {"category": "VALIDATION_ERROR",
              "message": "Invalid refresh token", "subCategory": "INVALID_TOKEN",
              "errors": [{"message": "Invalid parameter value", "code": "INVALID_PARAMETER"}]},
              "invalid_grant", "https://apis.io/examples/hubspot/hubspot-oauth-error-example/"),
    RealReply("HubSpot", "wrong secret", 400, {"status": "BAD_CLIENT_SECRET",
              "message": "missing or invalid client secret"}, "invalid_client", HUBSPOT),
    RealReply("Zoho", "wrong secret", 200, error("invalid_client_secret"), "invalid_client", ZOHO),
    RealReply("Zoho", "unknown client", 200, error("invalid_client"), "invalid_client", ZOHO),
    RealReply("Zoho", "dead code", 200, error("invalid_code"), "invalid_grant", ZOHO),
    RealReply("Zoho", "wrong redirect", 200, error("invalid_redirect_uri"),
              "redirect_uri_mismatch", ZOHO),
    RealReply("Bitrix24", "dead refresh token", 400, error("invalid_grant"), "invalid_grant",
              BITRIX24),
    RealReply("Bitrix24", "dead code", 400, {"error": "invalid_grant", "domain": "x.bitrix24.com"},
              "invalid_grant", "https://github.com/yarbshk/pybitrix24/issues/17"),
    RealReply("Bitrix24", "wrong secret", 400, error("invalid_client"), "invalid_client", BITRIX24),
    RealReply("Bitrix24", "wrong scope", 400, error("insufficient_scope"), "invalid_scope",
              BITRIX24),
    RealReply("Kommo", "dead refresh token", 401, {"title": "Unauthorized", "status": 401,
              "detail": "Incorrect request", "hint": "Token has been revoked"}, "invalid_grant",
              KOMMO),
    RealReply("Kommo", "wrong secret", 401, {"title": "Unauthorized", "status": 401,
              "detail": "Client authentication failed"}, "invalid_client", KOMMO),
    RealReply("FieldView", "used refresh token", 400, error("invalid_grant",
              "Provided Authorization Grant is invalid"), "invalid_grant", FIELDVIEW),
    RealReply("FieldView", "wrong redirect", 400, error("invalid_grant", "Callback url mismatch"),
              "redirect_uri_mismatch", FIELDVIEW),
]  # fmt: skip


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.provider}: {row.what}")
def test_published_answer_is_understood(row: RealReply) -> None:
    expected = Expected(
        grant=Grant.CODE,
        scope="events",
        uses_pkce=row.uses_pkce,
        redirect_uri="https://here.example/callback",
    )

    answer = ask(row.body, row.status, expected=expected)

    assert answer.code == row.code
    needs_person = row.code in ("invalid_grant", "pkce_mismatch")
    # Some call a wrong callback URL an invalid grant, and an ended grant needs a person.
    is_called_grant = (
        row.code == "redirect_uri_mismatch" and row.body.get("error") == "invalid_grant"
    )
    is_ended = needs_person or is_called_grant
    assert (answer.result is TokenResult.NEEDS_REAUTHORIZATION) is is_ended
    # The sentence says what to do; a field is named unless the change is made at the provider.
    assert sentence(answer.message)
    assert needs_person or row.code == "unauthorized_client" or ERRORS[row.code].fields
