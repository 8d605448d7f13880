"""Hostile texts on every page, in real Chromium: nothing runs, nothing is blocked, nothing moves.

Every text of the site comes from the corpus (`tests.security.planted`), and every URL that shows a
page is looked at (`tests.security.page_inspection`).
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from tests.browser import steps
from tests.browser.steps import OpenPage
from tests.factories import deliver_all, make_webhook
from tests.polling import PATIENCE_SECONDS
from tests.security import figures, planted
from tests.security.hostile import answering
from tests.security.injections import CORPUS, STORABLE, chunks, find, packed
from tests.security.page_inspection import Look, Witness
from webhooks.models import Attempt, OAuthExchange, Webhook, WebhookVersion
from webhooks.models.alerts import ChannelKind
from webhooks.templatetags import logtext

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = [pytest.mark.once, pytest.mark.security]

LIST = "/integrations/webhooks/"
NEW = f"{LIST}new/"
# They respond with JSON or a redirect.
_NO_PAGES = {"healthz", "readyz", "logout", "view_on_site", "autocomplete", "jsi18n"}
# Fills in a form; the browser itself would refuse to send some of the texts.
_FILL = """
(texts) => {
  let next = 0;
  const inputs = "input:not([type]), [type=text], [type=url], [type=search], textarea";
  for (const one of document.querySelectorAll(`main :is(${inputs})`))
    if (!one.readOnly) one.value = texts[next++ % texts.length];
  for (const form of document.forms) form.noValidate = true;
}
"""

# Requests a preview with the given body and name, as the form does.
_PREVIEW = """
async ([path, body, name]) => {
  const data = new FormData(document.getElementById("webhook-form"));
  data.set("body_template", body);
  data.set("parameters_mode", "template");
  data.set("name", name);
  data.set("url", "http://127.0.0.1:9/hook");
  const headers = {...JSON.parse(document.body.getAttribute("hx-headers")), "HX-Request": "true"};
  const answer = await fetch(path, {method: "POST", body: data, headers});
  return {status: answer.status, text: await answer.text()};
}
"""
_SHOW_PART = """
(html) => {
  const part = document.createElement("section");
  part.innerHTML = html;
  document.querySelector("main").append(part);
}
"""


@dataclass
class Visit:
    """A browser at the planted site."""

    page: Page
    witness: Witness
    site: planted.PlantedSite
    client: Client
    found: set[tuple[str, int]]

    def look(self, path: str = "") -> Look:
        if path:
            self.page.goto(path)
        look = self.witness.look(self.page)
        self._note(look)
        return look

    def look_at_all(self, paths: list[str]) -> list[Look]:
        looks = self.witness.look_at_all(self.page, paths)
        for look in looks:
            self._note(look)
        return looks

    def executed(self) -> list[str]:
        """Count what was looked at for `make security`; return what must not have happened."""
        executed = self.witness.take()
        figures.report("injection", executed=len(executed), of=len(self.found))
        self.found.clear()
        return executed

    def _note(self, look: Look) -> None:
        assert not look.tricks, f"{look.path} shows raw: {look.tricks[:3]}"
        self.found |= {(look.path, number) for number in find(look.text)}


@pytest.fixture
def typing(open_page: OpenPage, live_server: LiveServer, admin: User) -> Iterator[Visit]:
    """A browser at a site with nothing planted."""
    page = open_page()
    witness = Witness(page.context, origin=live_server.url)
    client = Client()
    client.force_login(admin)
    # The same session, so that either can finish what the other started.
    session = {"name": "sessionid", "value": client.cookies["sessionid"].value}
    page.context.add_cookies([{**session, "url": live_server.url}])
    page.goto(LIST)
    yield Visit(page, witness, planted.PlantedSite(), client, set())
    assert witness.executed == []


@pytest.fixture
def visit(open_page: OpenPage, live_server: LiveServer, admin: User) -> Iterator[Visit]:
    site = planted.make_hostile_rows(admin)
    answers = planted.answers()
    with answering(answers) as address:
        for number, webhook in enumerate(site.sending):
            url = f"{address}/{number % len(answers)}"
            Webhook.objects.filter(pk=webhook.pk).update(url=url)
        deliver_all(seconds=60)
        planted.resume(site)
        planted.store_attempts(site)
        page = open_page()
        witness = Witness(page.context, origin=live_server.url)
        client = Client()
        client.force_login(admin)
        page.goto(LIST)
        yield Visit(page, witness, site, client, set())
    assert witness.executed == []


# ---- Every address of the site ---------------------------------------------------------------


def named_patterns() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the name and the arguments of every URL of the site."""

    def walk(resolver: URLResolver, prefix: str, names: tuple[str, ...]) -> Iterator[Any]:
        for entry in resolver.url_patterns:
            own = (*names, *entry.pattern.converters)
            if isinstance(entry, URLResolver):
                space = f"{prefix}{entry.namespace}:" if entry.namespace else prefix
                yield from walk(entry, space, own)
            elif isinstance(entry, URLPattern) and entry.name:
                yield prefix + entry.name, own

    yield from walk(get_resolver(), "", ())


def arguments(name: str, names: tuple[str, ...], site: planted.PlantedSite) -> list[dict[str, Any]]:
    """Return the arguments of one URL, for several rows; fail for a URL not known here."""
    if name == "admin:app_list":
        return [{"app_label": "webhooks"}]
    if not names:
        return [{}]
    if name.startswith("admin:"):
        return _admin_arguments(name, names, site)
    if names == ("pk",):
        if name.startswith("webhooks:connection"):
            rows: list[Any] = site.connections
        elif name in ("webhooks:resend", "webhooks:resend_stop"):
            rows = [site.resend]
        elif name.startswith("webhooks:alert_"):
            rows = site.channels
        else:
            rows = [*site.webhooks, site.sending[0], site.sending[1]]
        return [{"pk": row.pk} for row in rows]
    if names == ("delivery_id",):
        return [{"delivery_id": row.pk} for row in site.deliveries]
    if names == ("event_id",):
        return [{"event_id": row.pk} for row in site.events]
    if names == ("event_type",):
        return [{"event_type": "call.incoming.after"}]
    if names == ("kind",):
        return [{"kind": kind} for kind in ChannelKind.values]
    if names == ("pk", "entry"):
        versions = WebhookVersion.objects.order_by("-pk")[:3]
        return [{"pk": one.webhook_id, "entry": one.pk} for one in versions]
    if names == ("uid", "form"):
        return [{"uid": site.webhooks[0].credential.uid, "form": "json"}]
    if names == ("pk", "delivery_id"):
        return [{"pk": row.webhook_id, "delivery_id": row.pk} for row in site.deliveries[:2]]
    if names == ("delivery_id", "attempt_id", "part"):
        one = Attempt.objects.latest("pk")
        return [{"delivery_id": one.delivery_id, "attempt_id": one.pk, "part": "response"}]
    raise AssertionError(
        f"Say in tests/security/test_injection.py what the address {name} is about."
    )


def _admin_arguments(
    name: str, names: tuple[str, ...], site: planted.PlantedSite
) -> list[dict[str, Any]]:
    rows: dict[str, list[Any]] = {
        "webhook": site.webhooks[:3],
        "event": site.events,
        "delivery": site.deliveries[:3],
        "oauthexchange": list(OAuthExchange.objects.order_by("-pk")[:3]),
    }
    model = name.removeprefix("admin:").split("_")[1]
    if model not in rows:
        model_class = next(one for one in _registered() if one._meta.model_name == model)
        rows[model] = list(model_class._default_manager.order_by("-pk")[:3])
    key = names[0]
    extra = {"user_id": "id", "id": "id"}
    return [{key: getattr(row, extra.get(key, "pk"))} for row in rows[model]]


def _registered() -> list[Any]:
    from django.contrib import admin as django_admin

    return list(django_admin.site._registry)


@pytest.mark.slow
def test_no_page_runs_or_moves_what_is_planted_in_it(visit: Visit) -> None:
    shown, fetched = pages_of(visit)
    for path in shown:
        visit.look(path)
    visit.look_at_all(fetched)
    # Each string was really shown: a page that shows nothing proves nothing.
    never = set(range(len(CORPUS))) - {number for _path, number in visit.found}
    assert [CORPUS[number] for number in sorted(never)] == []
    assert len(shown) > 40
    assert visit.executed() == []


def pages_of(visit: Visit) -> tuple[list[str], list[str]]:
    """Return the URLs that respond with a page: one of each kind to show, the rest to fetch."""
    shown, fetched = [], []
    for name, names in named_patterns():
        if name.rpartition(":")[2] in _NO_PAGES:
            continue
        try:
            paths = [reverse(name, kwargs=one) for one in arguments(name, names, visit.site)]
        except NoReverseMatch as error:
            raise AssertionError(
                f"Say in tests/security/test_injection.py what {name} takes."
            ) from error
        answer = visit.client.get(paths[0]) if paths else None
        if answer is None or answer.status_code != 200:
            continue
        if answer.get("Content-Type", "").startswith("text/html"):
            # A fragment is only fetched: a browser does not show it alone.
            is_whole = b"<html" in answer.content
            shown += paths[:is_whole]
            fetched += paths[is_whole:]
    return shown, fetched


# ---- What is typed, asked for and answered ---------------------------------------------------


@pytest.mark.slow
def test_lists_and_searches_repeat_what_was_asked(visit: Visit) -> None:
    webhook = visit.site.webhooks[0].pk
    addresses = itertools.cycle(
        [
            f"{LIST}?q=%s",
            f"{LIST}?status=%s&sort=%s",
            f"{LIST}deliveries/?q=%s&event=%s&since=%s",
            f"{LIST}{webhook}/why-not-sent/?q=%s",
            f"{LIST}{webhook}/why-not-sent/?event=%s&before=%s",
            "/admin/webhooks/delivery/?q=%s",
            "/admin/webhooks/event/?q=%s&type=%s",
            "/admin/webhooks/webhook/?q=%s",
            "/login/?next=%s",
        ]
    )
    paths = [
        address.replace("%s", quote(text))
        for text, address in zip(packed(180), addresses, strict=False)
    ]
    pages = [f"{LIST}?page={number}" for number in (2, 3)]
    visit.look_at_all([*paths, *pages])
    visit.look(f"{LIST}?q={quote(packed(180)[0])}")
    assert visit.executed() == []


def test_a_filter_shows_the_values_that_it_refused(visit: Visit) -> None:
    rows = [
        {"variable": name, "operator": "equals", "value": "nothing"}
        for name in planted.VARIABLES
        if name != "disposition"
    ]
    webhook = make_webhook(event_types=[planted.AFTER], filter={"any": rows})
    Webhook.objects.filter(pk=webhook.pk).update(created_at="2020-01-01T00:00Z")
    why = reverse("webhooks:why_not_sent", args=[webhook.pk])
    looks = visit.look_at_all([f"{why}?event={event.pk}" for event in visit.site.events])
    assert all("The filter did not match" in look.text for look in looks)
    visit.look(f"{why}?event={visit.site.events[0].pk}")
    visit.page.goto(reverse("webhooks:edit", args=[webhook.pk]))
    visit.page.get_by_role("radio", name="All", exact=True).check()
    visit.page.get_by_role("list", name="Tried events").wait_for()
    assert "but here it is" in visit.look().text
    shown = {number for _path, number in visit.found}
    assert len(shown) > 0.8 * len(STORABLE)
    assert visit.executed() == []


def test_a_form_with_mistakes_shows_again_what_was_typed(typing: Visit) -> None:
    page = typing.page
    for number, texts in enumerate(chunks(60)):
        page.goto(NEW if number % 3 else f"{LIST}connections/new/")
        page.evaluate(_FILL, texts)
        with page.expect_navigation():
            page.get_by_role("button", name="Save", exact=True).last.click()
        typing.look()
    assert not Webhook.objects.exists()
    assert len({number for _path, number in typing.found}) > 0.5 * len(STORABLE)
    assert typing.executed() == []


def test_the_preview_of_a_hostile_request_is_only_text(typing: Visit) -> None:
    page = typing.page
    page.goto(NEW)
    steps.choose_events(page, steps.AFTER_A_CALL)
    steps.unfold(page, "preview-card")
    # Texts with placeholders are errors in a JSON body, and are shown as such.
    plain, places = [
        [text for text in STORABLE if ("{{" in text) is has_place] for has_place in (False, True)
    ]
    for texts in (*chunks(120, plain), places):
        body = json.dumps({text: text for text in texts})
        answer = page.evaluate(_PREVIEW, [reverse("webhooks:preview"), body, packed(100, texts)[0]])
        assert answer["status"] == 200
        page.evaluate(_SHOW_PART, answer["text"])
        typing.look()
    assert len({number for _path, number in typing.found}) > 0.8 * len(STORABLE)
    assert typing.executed() == []


def test_an_import_shows_what_the_file_says(typing: Visit) -> None:
    hostile = [make_webhook(name=name, url="http://127.0.0.1:9/") for name in packed(100)]
    data = {"webhook": [webhook.pk for webhook in hostile]}
    exported = typing.client.post(reverse("webhooks:export"), data)
    assert exported["Content-Type"] == "application/json"
    Webhook.objects.all().delete()
    page = typing.page
    page.context.watch.expect("422")  # type: ignore[attr-defined]
    for text in (exported.text, exported.text.replace("http:", "javascript:"), exported.text[:-9]):
        page.goto(reverse("webhooks:import"))
        page.locator("textarea[name=text]").evaluate("(one, text) => { one.value = text; }", text)
        with page.expect_navigation():
            page.evaluate("document.querySelector('textarea[name=text]').form.requestSubmit()")
        typing.look()
    assert len({number for _path, number in typing.found}) > 0.8 * len(STORABLE)
    assert typing.executed() == []


def test_what_a_provider_says_of_an_error_is_only_text(typing: Visit) -> None:
    webhook = make_webhook(
        authorization_type="oauth2",
        auth_url="http://127.0.0.1:9/authorize",
        token_url="http://127.0.0.1:9/token",
        client_id="client",
        client_secret="s3cret-of-the-client",
    )
    page = typing.page
    page.goto(reverse("webhooks:edit", args=[webhook.pk]))
    for text in packed(1800):
        answer = typing.client.post(reverse("webhooks:authorize", args=[webhook.credential_id]))
        state = parse_qs(urlsplit(answer["Location"]).query)["state"][0]
        given = {"error": text[:60], "error_description": text, "error_uri": text, "state": state}
        page.goto(f"{reverse('webhooks:oauth_callback')}?{urlencode(given)}")
        typing.look()
    page.goto(f"{reverse('webhooks:oauth_callback')}?{urlencode({'state': packed(300)[0]})}")
    typing.look()
    assert typing.executed() == []


@pytest.mark.parametrize("path", ["%s", f"{LIST[1:]}%s/", f"{LIST[1:]}deliveries/%s/", "admin/%s/"])
def test_an_address_that_leads_nowhere_repeats_nothing_that_runs(typing: Visit, path: str) -> None:
    typing.page.context.watch.expect("404")  # type: ignore[attr-defined]
    for text in packed(200)[:3]:
        typing.page.goto("/" + path.replace("%s", quote(text, safe="")))
        typing.witness.look(typing.page)
    executed = typing.witness.take()
    assert [one for one in executed if not one.startswith("request: GET ")] == []


# ---- The witnesses themselves ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "seen"),
    [
        ("<img src=x onerror=alert(1)>", "executed: alert"),
        ("<details open ontoggle=alert(1)>", "executed: alert"),
        ("<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>", "executed: alert"),
        ("<img src=//127.0.0.1:9/x>", "request: GET http://127.0.0.1:9/x"),
        ("<b onclick=alert(1)>x</b>", "attribute: onclick"),
        ("<a href=javascript:alert(1)>x</a>", "address: href"),
        ("<base href=/elsewhere/>", "element: <base"),
        ("<!-- <b> -->", "comment: "),
    ],
)
def test_the_witness_sees_what_runs_where_nothing_stops_it(
    open_page: OpenPage, live_server: LiveServer, html: str, seen: str
) -> None:
    page = open_page(bypass_csp=True)
    page.context.watch.expect("")  # type: ignore[attr-defined]
    witness = Witness(page.context, origin=live_server.url)
    page.goto(LIST)
    page.evaluate("html => { document.querySelector('main').innerHTML = html; }", html)
    witness.look(page)
    wait_for(witness, page, seen)


def test_the_witness_sees_what_the_policy_stops(typing: Visit) -> None:
    typing.page.context.watch.expect("")  # type: ignore[attr-defined]
    typing.page.evaluate(
        "html => { document.querySelector('main').innerHTML = html; }",
        "<img src=x onerror=alert(1)>",
    )
    wait_for(typing.witness, typing.page, "policy: script-src-attr")
    assert not [one for one in typing.witness.take() if one.startswith("executed:")]


def test_a_page_that_forgets_to_escape_is_caught(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit.page.context.watch.expect("")  # type: ignore[attr-defined]
    monkeypatch.setattr(logtext, "conditional_escape", lambda text: text)
    for delivery in visit.site.deliveries:
        visit.page.goto(reverse("webhooks:delivery", args=[delivery.pk]))
        visit.witness.look(visit.page)
    found = visit.witness.take()
    assert any(one.startswith("element: ") for one in found)
    assert any(one.startswith("policy: ") for one in found)


def wait_for(witness: Witness, page: Page, seen: str) -> None:
    """Wait until the witness noted a line that starts with `seen`; calls let events through."""
    for _ in range(int(PATIENCE_SECONDS / 0.05)):
        if any(one.startswith(seen) for one in witness.executed):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{seen} was not seen, but {witness.executed}")
