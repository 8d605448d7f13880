"""Looks at pages in Chromium for anything that a planted string made of them.

Four witnesses: a script that ran, a violation of the content security policy, a request that none
of our pages makes, and anything in the document that none of our templates writes.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request

from webhooks.oauth.providers import PRESETS

_HERE = Path(__file__).parent
# Runs before every document's own scripts, in frames too.
_HOOKS = (_HERE / "hooks.js").read_text()
# Link targets of our own: the providers' consoles, and the standard in the receiver's guide.
_CONSOLES = [one.console_url for one in PRESETS.values()]
_LINKS = json.dumps([*_CONSOLES, "https://www.standardwebhooks.com/"])
# Reads a document, shown or only parsed.
_AUDIT = (_HERE / "audit.js").read_text().replace("LINKS", _LINKS)
_AUDIT_SHOWN = f"() => ({_AUDIT})(document)"
# Pages that are fetched and parsed, not shown: faster, and nothing in them can run.
_AUDIT_FETCHED = f"""async (paths) => {{
  const read = async (path) => {{
    const answer = await fetch(path);
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    return {{...({_AUDIT})(parsed), status: answer.status}};
  }};
  const found = [];
  for (const path of paths) found.push(await read(path));
  return found;
}}"""


@dataclass
class Look:
    """What was seen on one page."""

    path: str
    text: str
    tricks: list[str] = field(default_factory=list)


class Witness:
    """Watches every page of a browser context; `executed` must stay empty."""

    def __init__(self, context: BrowserContext, *, origin: str) -> None:
        self._origin = urlsplit(origin).netloc
        self.executed: list[str] = []
        context.expose_binding("__noted", lambda source, what: self._note(what, source["page"]))
        context.add_init_script(_HOOKS)
        context.on("dialog", self._on_dialog)
        context.on("console", self._on_console)
        context.on("request", self._on_request)

    def look(self, page: Page) -> Look:
        """Read the page that is open."""
        found = page.evaluate(_AUDIT_SHOWN)
        self.executed += [f"{problem} (on {page.url})" for problem in found["problems"]]
        return Look(urlsplit(page.url).path, found["text"], found["tricks"])

    def look_at_all(self, page: Page, paths: list[str]) -> list[Look]:
        """Fetch and read pages from within the open page."""
        looks = []
        for path, found in zip(paths, page.evaluate(_AUDIT_FETCHED, paths), strict=True):
            if found["status"] != 200:
                self.executed.append(f"answered {found['status']}: {path}")
            self.executed += [f"{problem} (in {path})" for problem in found["problems"]]
            looks.append(Look(path, found["text"], found["tricks"]))
        return looks

    def take(self) -> list[str]:
        """Return what was noted so far, and forget it."""
        found = self.executed.copy()
        self.executed.clear()
        return found

    def _note(self, what: str, page: Page | None) -> None:
        self.executed.append(f"{what} (on {page.url if page else 'a page'})")

    def _on_dialog(self, dialog: Dialog) -> None:
        # The form asks before it is left with changes; a planted string cannot do that.
        if dialog.type == "beforeunload":
            dialog.accept()
            return
        self._note(f"dialog: {dialog.message}", dialog.page)
        dialog.dismiss()

    def _on_console(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "Refused to" in message.text:
            self._note(f"console: {message.text}", message.page)

    def _on_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        is_ours = url.netloc == self._origin and url.path.startswith(
            ("/integrations/", "/admin/", "/static/", "/login/", "/logout/")
        )
        if not is_ours and url.path != "/" and request.url != "about:blank":
            self.executed.append(f"request: {request.method} {request.url}")
