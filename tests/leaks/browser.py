"""A person's browser that records everything it was shown, as sinks."""

from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from tests.leaks.sinks import Sink


class LeakBrowser:
    """One session with the site; redirects are only followed by `follow`."""

    def __init__(self, url: str, sinks: list[Sink], *, name: str = "") -> None:
        self.url = url
        self.sinks = sinks
        self.name = name
        self.session = requests.Session()
        self.session.trust_env = False

    @property
    def session_key(self) -> str:
        return self.session.cookies.get("sessionid") or ""

    def get(self, path: str, *, shown: str = "", **headers: str) -> requests.Response:
        return self._send("GET", path, shown=shown, headers=headers)

    def post(
        self, path: str, fields: dict[str, Any] | None = None, *, shown: str = "", **headers: str
    ) -> requests.Response:
        token = self.session.cookies.get("csrftoken") or ""
        data = {**(fields or {}), "csrfmiddlewaretoken": token}
        return self._send("POST", path, shown=shown, data=data, headers=headers)

    def _send(self, method: str, path: str, *, shown: str, **request: Any) -> requests.Response:
        url = urljoin(self.url, path)
        answer = self.session.request(method, url, allow_redirects=False, timeout=60, **request)
        # The session key is a secret elsewhere, but not in its own cookie.
        headers = [
            f"{name}: {value}"
            for name, value in answer.raw.headers.items()
            if not (name.lower() == "set-cookie" and value.startswith("sessionid="))
        ]
        kind = "page" if answer.status_code < 400 else "error page"
        is_part = " htmx" if "HX-Request" in request.get("headers", {}) else ""
        self.sinks.append(
            Sink(
                kind,
                f"{self.name}{method}{is_part} {urlsplit(url).path}",
                "\n".join([*headers, "", answer.text]),
                frozenset(filter(None, shown.split(", "))),
            )
        )
        return answer

    def follow(self, answer: requests.Response, *, shown: str = "") -> requests.Response:
        """Follow redirects within the site; return the last response."""
        while answer.is_redirect:
            answer = self.get(urljoin(answer.url, answer.headers["Location"]), shown=shown)
        return answer

    def log_in(self, name: str, password: str) -> None:
        self.get("/login/")
        answer = self.post("/login/", {"username": name, "password": password})
        assert answer.is_redirect, answer.text[:500]
