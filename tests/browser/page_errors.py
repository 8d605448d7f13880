"""Records everything that goes wrong in a page, whether or not a test checks it."""

import re
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response, WebError

# Logged by htmx when a request ended without a response; the browser reports how it ended.
_ENDED_REQUEST = re.compile(r"htmx:(afterRequest|sendError|sendAbort)\b")
# Chromium logs most violations to the console; those of a page's own frame may be missing.
_REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error(
  `policy violated: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


class Watch:
    """The problems of all pages of one browser context.

    A console error or warning, an exception in a script, a violation of the content security
    policy, a request to the product that failed, or a response of 400 or more from it.
    """

    def __init__(self, context: BrowserContext, *, origin: str) -> None:
        self._origin = urlsplit(origin).netloc
        self._expected: list[str] = []
        self._problems: list[str] = []
        context.add_init_script(_REPORT_VIOLATIONS)
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("requestfailed", self._on_failed_request)
        context.on("response", self._on_response)

    def expect(self, pattern: str) -> None:
        """Ignore problems that match, because the test provokes them."""
        self._expected.append(pattern)

    def problems(self) -> list[str]:
        return [
            problem
            for problem in self._problems
            if not any(re.search(pattern, problem) for pattern in self._expected)
        ]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _ENDED_REQUEST.match(message.text):
            # The location of the message is the only place that names a failed resource.
            source = message.location.get("url", "")
            self._note(f"console {message.type}: {message.text} (from {source})", message.page)

    def _on_error(self, error: WebError) -> None:
        self._note(f"exception: {error.error}", error.page)

    def _on_failed_request(self, request: Request) -> None:
        # Aborted: the page was left with a request in flight, for example for a test's result.
        if self._is_own(request.url) and request.failure != "net::ERR_ABORTED":
            self._note(f"failed: {request.method} {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if self._is_own(response.url) and response.status >= 400:
            self._note(f"answered {response.status}: {response.request.method} {response.url}")

    def _is_own(self, url: str) -> bool:
        return urlsplit(url).netloc == self._origin

    def _note(self, problem: str, page: Page | None = None) -> None:
        self._problems.append(f"{problem} (on {page.url})" if page else problem)
