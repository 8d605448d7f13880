"""How a request is authorized: one seam for every kind.

An authorization gives the header or the query it adds, the same masked for the log, and every
spelling of its secret that an answer might echo. Knows neither models nor where a token comes from.
"""

import base64
from typing import Protocol
from urllib.parse import quote

from webhooks.security.masker import MASK


class Authorization(Protocol):
    """Edits a request so that the receiver accepts it; the one seam for every kind."""

    name: str
    """Of the header that `header` is the value of."""

    def header(self) -> str | None:
        """Return the value of the header; None for none."""

    def logged_header(self) -> str | None:
        """Return the same value with the secret masked."""

    def query(self) -> str:
        """Return what is appended to the address's query, encoded; "" for nothing."""

    def logged_query(self) -> str:
        """Return the same with the secret masked."""

    def secrets(self) -> tuple[str, ...]:
        """Return every spelling of the secret that an answer might echo."""


class _InHeader:
    """What goes into a header adds nothing to the address."""

    name = "Authorization"

    def query(self) -> str:
        return ""

    def logged_query(self) -> str:
        return ""


class NoAuthorization(_InHeader):
    def header(self) -> None:
        return None

    def logged_header(self) -> None:
        return None

    def secrets(self) -> tuple[str, ...]:
        return ()


class BasicAuthorization(_InHeader):
    """RFC 7617 with UTF-8."""

    def __init__(self, login: str, password: str) -> None:
        self._password = password
        self._credentials = base64.b64encode(f"{login}:{password}".encode()).decode()

    def header(self) -> str:
        return f"Basic {self._credentials}"

    def logged_header(self) -> str:
        return f"Basic {MASK}"

    def secrets(self) -> tuple[str, ...]:
        return (self._credentials, self._password)


class BearerAuthorization(_InHeader):
    """RFC 6750, or the header and prefix a receiver asks for; without a prefix the bare token."""

    def __init__(self, token: str, prefix: str = "Bearer", *, name: str = "Authorization") -> None:
        self.name = name
        self._token = token
        self._prefix = f"{prefix} " if prefix else ""

    def header(self) -> str:
        return f"{self._prefix}{self._token}"

    def logged_header(self) -> str:
        return f"{self._prefix}{MASK}"

    def secrets(self) -> tuple[str, ...]:
        return (self._token,)


class QueryAuthorization:
    """RFC 6750 section 2.3: the token as a query parameter, for receivers that read no header."""

    name = "Authorization"

    def __init__(self, token: str, parameter: str) -> None:
        self._parameter = parameter
        self._token = token
        self._encoded = quote(token, safe="")

    def header(self) -> None:
        return None

    def logged_header(self) -> None:
        return None

    def query(self) -> str:
        return f"{self._parameter}={self._encoded}"

    def logged_query(self) -> str:
        return f"{self._parameter}={MASK}"

    def secrets(self) -> tuple[str, ...]:
        return tuple({self._token, self._encoded})
