"""Canary secrets through a whole site, and every place they could have leaked to.

One site is set up, works and fails for a while (`tests.leaks.story`); then every log, page, mail,
store and export is searched for every spelling of every secret.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.leaks import stores
from tests.leaks.echo import running_echo
from tests.leaks.forms import forms
from tests.leaks.sinks import Secrets, Sink, search
from tests.leaks.site import running_site
from tests.leaks.story import Story
from tests.sandbox import running_provider

pytestmark = [pytest.mark.security, pytest.mark.timeout(600)]

KINDS = {
    "password", "client secret", "access token", "refresh token", "code", "state", "verifier",
    "signing secret", "API key", "secret header", "session key", "encryption key",
    "private key", "alert channel",
    # Beyond the required ones.
    "signing key of the site", "server password",
}  # fmt: skip
# Where the deliberate leak must be found, which shows that these places are searched.
LEAKED_TO = {
    "log: web", "log: debug", "log: worker", "celery: messages", "redis: what was said",
    "session: decoded", "mail: to people and operators", "export: JSON", "export: CSV",
    "export: dumpdata", "table: django_admin_log", "table: webhooks_oauthexchange",
    "table: webhooks_webhook", "page: GET /integrations/webhooks/",
    "page: GET /admin/webhooks/webhook/",
}  # fmt: skip
CONTROL = "c0ntrol/secret+that&nobody=has"


@pytest.fixture
def story(tmp_path: Path, database_url: str) -> Story:
    """A site after its day; its processes have ended and everything they left is collected."""
    with running_site(tmp_path, database_url) as (site, wire):
        callback = f"{site.url}/integrations/webhooks/oauth/callback/"
        with running_provider([callback]) as provider, running_echo() as echo_url:
            story = Story(site, provider, echo_url)
            story.begin()
            story.issue_api_key()
            story.set_up()
            story.get_tokens()
            story.deliver()
            story.fail_to_get_tokens()
            story.tend_tokens()
            story.change()
            story.try_out()
            story.err()
            story.leak(CONTROL)
            story.visit_all_urls()
            story.export()
            story.command()
            sessions = "\n".join(site.read()["sessions"])
            story.sinks.append(Sink("session", "decoded", sessions))
            story.sinks += wire.sinks()
            story.sinks += stores.dump(database_url)
    story.mails()
    story.sinks += site.logs()
    return story


@pytest.mark.once
@pytest.mark.slow
def test_no_secret_is_found_in_any_sink_and_a_leak_would_be(
    story: Story, security_figure: Any
) -> None:
    assert set(story.secrets.values) == KINDS
    assert all(story.secrets.values.values())
    found = search(story.sinks, story.secrets)
    security_figure("secrets", found=len(found), sinks=len(story.sinks))
    for leak in found[:40]:
        print(leak)
    assert Counter((leak.secret, leak.sink) for leak in found) == {}
    # The deliberate leak is found in every kind of place.
    control = Secrets()
    control.add("control", CONTROL)
    leaked_to = {leak.sink for leak in search(story.sinks, control)}
    assert {sink.partition(":")[0] for sink in leaked_to} == {sink.kind for sink in story.sinks}
    assert leaked_to >= LEAKED_TO, LEAKED_TO - leaked_to
    # Outputs that are hard to produce were among what was searched.
    assert story.broken == []
    for words in ("curl --globoff", "X-Echo-1", "HTTP 500", "grant_type=refresh_token"):
        assert any(words in sink.text for sink in story.sinks if sink.kind == "page"), words


@pytest.mark.parametrize("form", sorted(forms(CONTROL)))
def test_a_leak_in_any_spelling_is_found_in_a_sink(form: str) -> None:
    secrets = Secrets()
    secrets.add("password", CONTROL)
    text = f"a line\nbefore {forms(CONTROL)[form]} after\nanother"
    sinks = [Sink("page", "one", "nothing"), Sink("log", "web", text)]
    assert {(leak.secret, leak.sink) for leak in search(sinks, secrets)} == {
        ("password", "log: web")
    }


def test_only_what_is_shown_by_design_is_passed_over() -> None:
    secrets = Secrets()
    secrets.add("API key", CONTROL)
    shown = Sink("page", "POST /admin/webhooks/apikey/add/", CONTROL, frozenset({"API key"}))
    other = Sink("page", "GET /admin/webhooks/apikey/", CONTROL, frozenset({"state"}))
    assert {leak.sink for leak in search([shown, other], secrets)} == {f"page: {other.name}"}
