"""README.md followed to the letter: each step is read from it and done in the product it starts.

A sentence in the steps that this test does not know fails it, so that README contains nothing
untested.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.page_errors import Watch
from tests.screenshots.product import RunningProduct, running_product

pytest_plugins = ["tests.browser.fixtures"]

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIVE_MINUTES = README.partition("## Five minutes\n")[2].partition("\n## ")[0]
# A small laptop: everything that a step names must be visible without scrolling.
VIEWPORT = {"width": 1280, "height": 700}


def steps(title: str) -> list[str]:
    """Return the numbered steps under a bold title, each as one line."""
    _, _, rest = FIVE_MINUTES.partition(f"**{title}**\n\n")
    found = re.findall(r"^\d\. (.+(?:\n   .+)*)", rest.partition("\n\n")[0], re.MULTILINE)
    assert found, f"README has no steps under {title}"
    return [" ".join(step.split()) for step in found]


class Walk:
    """A reader with README open in one window and the product in another."""

    def __init__(self, product: RunningProduct, page: Page) -> None:
        self.product = product
        self.first_tab = self.page = page

    def do(self, step: str) -> None:
        """Do everything in a step, from its first word to its last."""
        for act, words in read(step):
            act(self, *words)

    def log_in(self) -> None:
        self.page.goto(self.product.url)
        self._fill("Login", "admin")
        self._fill("Password", self.product.password)
        self.press("Log in")

    def log_in_at_provider(self, login: str, password: str) -> None:
        self._fill("User name", login)
        self._fill("Password", password)
        self.press("Log in")

    def is_in(self, heading: str) -> None:
        expect(self.page.get_by_role("heading", name=heading, exact=True)).to_be_visible()

    def open(self, link: str) -> None:
        self._seen(self.page.get_by_role("link", name=link, exact=True)).click()

    def press(self, name: str) -> None:
        """Press the visible control with this name, and follow it into a new tab."""
        button = self.page.get_by_role("button", name=name, exact=True)
        link = self.page.get_by_role("link", name=name, exact=True)
        control = self._seen(button.or_(link))
        if control.get_attribute("target") == "_blank":
            with self.page.context.expect_page() as opened:
                control.click()
            self.page = opened.value
        else:
            control.click()

    def press_beside(self, name: str, sentence: str) -> None:
        news = self.page.get_by_role("status").filter(has_text=sentence)
        self._seen(news.get_by_role("button", name=name, exact=True)).click()

    def back_in_the_first_tab(self) -> None:
        self.page = self.first_tab
        self.page.bring_to_front()

    def sees_request_and_response(self, status: str, *, line: str = "POST http://") -> None:
        result = self.page.locator(".test-result")
        expect(result.get_by_text("Succeeded")).to_be_in_viewport()
        expect(result.locator("pre.is-head").first).to_contain_text(line)
        expect(result.locator("pre.is-head").last).to_contain_text(f"HTTP/1.1 {status}")

    def sees_header_and_response(self, line: str, status: str) -> None:
        self.sees_request_and_response(status, line=line)

    def sees_at_the_receiver(self, header: str, scheme: str) -> None:
        assert self.page is not self.first_tab
        row = self.page.get_by_role("row").filter(has_text=header)
        expect(row).to_contain_text(scheme)
        expect(self.page.get_by_text("signature valid").first).to_be_visible()

    def is_on_the_form(self) -> None:
        expect(self.page).to_have_url(re.compile(r"/edit/#token$"))

    def sees_the_token(self) -> None:
        panel = self.page.get_by_role("region", name="Access token")
        for text in ("events:write", "offline_access", "in 59 minutes"):
            expect(panel.get_by_text(text, exact=True)).to_be_in_viewport()

    def is_asked_by_the_provider(self) -> None:
        expect(self.page.get_by_label("User name")).to_be_visible()
        assert self.page.url.startswith(self.product.provider.url)

    def _fill(self, label: str, text: str) -> None:
        self.page.get_by_label(label, exact=True).fill(text)

    def _seen(self, control: Locator) -> Locator:
        """Return the first match, once it is on the screen."""
        first = control.first
        expect(first).to_be_in_viewport(ratio=1)
        return first


# Phrases that README may use, and the action of each.
_ACTS: list[tuple[str, Callable[..., None]]] = [
    ("Open the printed address and log in", Walk.log_in),
    (r"You are in Integrations -> ([^.]+\.\d)", Walk.is_in),
    (r"[Oo]pen \*([^*]+)\* and", Walk.open),
    (r"[Pp]ress \*\*([^*]+)\*\* beside “([^”]+)”", Walk.press_beside),
    (r"(?:and )?[Pp]ress \*\*([^*]+)\*\*(?: above the request)?", Walk.press),
    (r"The page shows the request and the response, (\d+)", Walk.sees_request_and_response),
    (
        r"In a new tab there is the same request with its `(\w+): (\w+)` header and a valid "
        r"signature",
        Walk.sees_at_the_receiver,
    ),
    ("Back in the first tab", Walk.back_in_the_first_tab),
    ("The provider asks who you are", Walk.is_asked_by_the_provider),
    (r"log in as `(\w+)` with the password `(\w+)`", Walk.log_in_at_provider),
    ("You are on the webhook's form", Walk.is_on_the_form),
    ("The token panel shows the token's scopes and when it expires", Walk.sees_the_token),
    (r"The request carries `([^`]+)`, and the response is (\d+)", Walk.sees_header_and_response),
]


def read(step: str) -> Iterator[tuple[Callable[..., None], tuple[str, ...]]]:
    """Return the actions of a step, in order, with the words they apply to."""
    rest = step
    while rest:
        found = ((re.match(words, rest), act) for words, act in _ACTS)
        match, act = next(((match, act) for match, act in found if match), (None, None))
        assert match, f"nobody tried what README says: {rest!r}"
        assert act
        yield act, match.groups()
        rest = rest[match.end() :].lstrip(" ,.:")


@pytest.fixture
def product() -> Iterator[RunningProduct]:
    with running_product() as running:
        yield running


@pytest.fixture
def walk(product: RunningProduct, chromium: Browser) -> Iterator[Walk]:
    context = chromium.new_context(viewport=VIEWPORT, locale="en-US")
    watch = Watch(context, origin=product.url)
    yield Walk(product, context.new_page())
    context.close()
    assert not watch.problems()


@pytest.mark.slow
def test_the_five_minutes_are_as_readme_says(walk: Walk, product: RunningProduct) -> None:
    for title in ("Basic authentication", "OAuth 2.0"):
        for step in steps(title):
            walk.do(step)
    received = product.receiver.requests()
    assert [(one.path, one.status, one.signature) for one in received] == [
        ("/basic/", 200, "valid"),
        ("/bearer/", 200, "valid"),
    ]

    published = re.search(r"^((?:    .+\n)+)", FIVE_MINUTES, re.MULTILINE)
    assert published is not None
    command = published[1].replace(".venv/bin/python", shlex.quote(sys.executable))
    environment = {**product.environment, "PUBLIC_URL": product.url}
    printed = subprocess.check_output(
        command, shell=True, cwd=ROOT, env=environment, text=True, stderr=subprocess.STDOUT
    )
    assert "deliveries: 2" in printed
    sent = product.receiver.wait_for(4, timeout=20)
    assert {one.json()["call_id"] for one in sent[2:]} == {"1"}

    for name in re.findall(r"\*\*(New webhook|Delivery log)\*\*", FIVE_MINUTES):
        walk.page.goto(product.url)
        walk.press(name)
        expect(walk.page.get_by_role("heading", name=name)).to_be_visible()


def test_a_sentence_that_no_one_tried_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"what README says: 'Then shake it\.'"):
        list(read("Open *CRM* and press **Send test**. Then shake it."))
