"""Access to the provider from another process. Must not import Django."""

from dataclasses import dataclass
from typing import Any

from tests.sandbox.http_request import call


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedTokenRequest:
    """One request to the provider's token or revocation endpoint, with all secrets removed."""

    number: int
    time: float
    endpoint: str
    # "basic", "body", "both" or "none".
    client_authentication: str
    grant_type: str
    status: int
    # The OAuth error of the response, or "".
    error: str
    # Whether the response was injected by `Provider.fault`.
    is_fault: bool
    # Names and values as sent; codes, verifiers, secrets and tokens are "***".
    parameters: list[tuple[str, str]]
    headers: list[tuple[str, str]]


class Provider:
    """Client of a running provider."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.issuer = url
        self.auth_url = f"{url}/authorize/"
        self.token_url = f"{url}/token/"
        self.revocation_url = f"{url}/revoke/"
        self.introspection_url = f"{url}/introspect/"
        self.metadata_url = f"{url}/.well-known/oauth-authorization-server"

    def fault(
        self,
        *,
        status: int | None = None,
        body: str = "",
        content_type: str = "text/html",
        headers: dict[str, str] | None = None,
        times: int | None = 1,
        delay_seconds: float = 0.0,
        drip_seconds: float = 0.0,
        after: bool = False,
        endpoint: str = "token_endpoint",
    ) -> None:
        """Inject a fault into an endpoint (`token_endpoint`, `revocation_endpoint`, ...).

        `status` None only delays the real response. `after` processes the request first and then
        responds with the fault, as if the real response was lost. `drip_seconds` passes between
        two bytes of the body. `times` None lasts until `clear_fault`.
        """
        fault = {
            "status": status,
            "body": body,
            "content_type": content_type,
            "headers": headers or {},
            "times": times,
            "delay_seconds": delay_seconds,
            "drip_seconds": drip_seconds,
            "after": after,
        }
        self._control({endpoint: fault})

    def clear_fault(self) -> None:
        """Remove the faults of all endpoints."""
        endpoints = ("token_endpoint", "revocation_endpoint", "introspection_endpoint")
        self._control(dict.fromkeys((*endpoints, "metadata_endpoint")))

    def expire_tokens(self) -> None:
        """Let every access token expire; refresh tokens stay valid."""
        self._control({"expire_tokens": True})

    def revoke_grants(self) -> None:
        """Revoke every code, access and refresh token: a refresh now gives `invalid_grant`."""
        self._control({"revoke_grants": True})

    def set_token_seconds(self, seconds: int) -> None:
        """Set the lifetime of access tokens issued from now on."""
        self._control({"token_seconds": seconds})

    def token_requests(self, since: int = 0) -> list[ReceivedTokenRequest]:
        """Return the requests to the token endpoint after number `since`, oldest first."""
        return self._recorded("/_token_requests", since)

    def revocation_requests(self, since: int = 0) -> list[ReceivedTokenRequest]:
        return self._recorded("/_revocation_requests", since)

    def clear_requests(self) -> None:
        """Delete the recorded token and revocation requests; numbering continues."""
        self._control({"clear_requests": True})

    def _recorded(self, path: str, since: int) -> list[ReceivedTokenRequest]:
        rows = call(self.url, "GET", f"{path}?since={since}")
        return [
            ReceivedTokenRequest(
                **{
                    **row,
                    "parameters": [(name, value) for name, value in row["parameters"]],
                    "headers": [(name, value) for name, value in row["headers"]],
                }
            )
            for row in rows
        ]

    def _control(self, changes: dict[str, Any]) -> None:
        call(self.url, "POST", "/_control", changes)
