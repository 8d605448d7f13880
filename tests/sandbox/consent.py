"""A person at the provider without a browser: logs in, approves or denies."""

import http.client
import urllib.error
import urllib.request
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import IO
from urllib.parse import urlencode, urljoin, urlsplit


def answer_consent(
    authorization_url: str, *, is_approved: bool = True, person: str = "demo"
) -> str:
    """Return the callback URL, with code or error, that the provider redirects the browser to.

    ValueError when the provider shows a page of its own instead, such as one about an error.
    """
    browser = _Browser()
    page = browser.open(authorization_url)
    fields = browser.form_fields(page)
    if "username" in fields:
        page = browser.submit({**fields, "username": person, "password": person})
        fields = browser.form_fields(page)
    if browser.is_at(authorization_url) and "client_id" in fields:
        browser.submit({**fields, "allow": "Approve"} if is_approved else fields)
    if browser.is_at(authorization_url):
        raise ValueError(f"The provider did not send the browser back: {page[:2000]}")
    return browser.url


def enter_device_code(verification_url: str) -> None:
    """Approve on the page of a device code; the URL contains the code (RFC 8628)."""
    browser = _Browser()
    page = browser.open(verification_url)
    browser.url = verification_url.partition("?")[0]
    for _step in ("enter", "confirm"):
        page = browser.submit(browser.form_fields(page, everywhere=True))


class _Browser:
    """Follows redirects within the provider and stops at the first that leaves it."""

    def __init__(self) -> None:
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        no_proxy = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(no_proxy, cookies, _NoRedirect())
        self.url = ""

    def open(self, url: str, body: bytes | None = None) -> str:
        self.url = url
        try:
            with self._opener.open(url, body, timeout=30) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as response:
            with response:
                location = response.headers["Location"]
                if not location:
                    return response.read().decode()
        target = urljoin(url, location)
        if urlsplit(target).netloc == urlsplit(url).netloc:
            return self.open(target)
        self.url = target
        return ""

    def submit(self, fields: dict[str, str]) -> str:
        return self.open(self.url, urlencode(fields).encode())

    def is_at(self, url: str) -> bool:
        return urlsplit(self.url).netloc == urlsplit(url).netloc

    @staticmethod
    def form_fields(page: str, *, everywhere: bool = False) -> dict[str, str]:
        """Return name and value of the inputs in the page's main part, or in the whole page."""
        parser = _Inputs(is_in_main=everywhere)
        parser.feed(page)
        return parser.fields


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


class _Inputs(HTMLParser):
    def __init__(self, *, is_in_main: bool) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._is_in_main = is_in_main

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "main":
            self._is_in_main = True
        elif tag == "input" and self._is_in_main and attributes.get("name"):
            self.fields[attributes["name"] or ""] = attributes.get("value") or ""
