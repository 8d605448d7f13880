"""How a request is authorized: one seam for every kind.

An authorization gives the header it adds, the same masked for the log, and every spelling of its
secret that an answer might echo. Knows neither models nor where a token comes from.
"""

import base64
from typing import Protocol

from webhooks.secrets import MASK


class Authorization(Protocol):
    """Edits a request so that the receiver accepts it; the one seam for every kind."""

    def header(self) -> str | None:
        """Return the value of the Authorization header."""

    def logged_header(self) -> str | None:
        """Return the same value with the secret masked."""

    def secrets(self) -> tuple[str, ...]:
        """Return every spelling of the secret that an answer might echo."""


class NoAuthorization:
    def header(self) -> None:
        return None

    def logged_header(self) -> None:
        return None

    def secrets(self) -> tuple[str, ...]:
        return ()


class BasicAuthorization:
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


class BearerAuthorization:
    """RFC 6750, with the prefix a provider asks for; an empty prefix sends the bare token."""

    def __init__(self, token: str, prefix: str = "Bearer") -> None:
        self._token = token
        self._prefix = f"{prefix} " if prefix else ""

    def header(self) -> str:
        return f"{self._prefix}{self._token}"

    def logged_header(self) -> str:
        return f"{self._prefix}{MASK}"

    def secrets(self) -> tuple[str, ...]:
        return (self._token,)
