"""How a request is authorized: one seam for every kind."""

import base64
from dataclasses import dataclass
from urllib.parse import quote

from webhooks.security.masker import MASK


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Authorization:
    """The header or query string that authorizes a request, and the same with the secret masked."""

    # The header's name; without a value there is no header.
    name: str = "Authorization"
    header: str | None = None
    logged_header: str | None = None
    # Appended to the URL's query string, encoded; "" for nothing.
    query: str = ""
    logged_query: str = ""
    # Every spelling of the secret that a response might echo.
    secrets: tuple[str, ...] = ()


class NoAuthorization(Authorization):
    pass


class BasicAuthorization(Authorization):
    """RFC 7617 with UTF-8."""

    def __init__(self, login: str, password: str) -> None:
        credentials = base64.b64encode(f"{login}:{password}".encode()).decode()
        super().__init__(
            header=f"Basic {credentials}",
            logged_header=f"Basic {MASK}",
            secrets=(credentials, password),
        )


class BearerAuthorization(Authorization):
    """RFC 6750, or the header and prefix a receiver asks for; without a prefix the bare token."""

    def __init__(self, token: str, prefix: str = "Bearer", *, name: str = "Authorization") -> None:
        prefix = f"{prefix} " if prefix else ""
        super().__init__(
            name=name,
            header=f"{prefix}{token}",
            logged_header=f"{prefix}{MASK}",
            secrets=(token,),
        )


class QueryAuthorization(Authorization):
    """RFC 6750 section 2.3: the token as a query parameter, for receivers that read no header."""

    def __init__(self, token: str, parameter: str) -> None:
        encoded = quote(token, safe="")
        super().__init__(
            query=f"{parameter}={encoded}",
            logged_query=f"{parameter}={MASK}",
            secrets=tuple({token, encoded}),
        )
