"""Fixtures of the browser tests: Chromium, a logged-in page, and the engine that delivers."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests import chromium as installed
from tests.browser.page_errors import Watch
from tests.browser.steps import OpenPage
from tests.polling import PATIENCE_SECONDS
from webhooks.delivery.engine import Engine
from webhooks.delivery.wakeup import wakeup

_PATIENCE_MILLISECONDS = 1000 * PATIENCE_SECONDS


@pytest.fixture(scope="session")
def chromium(chromium_path: str) -> Iterator[Browser]:
    """One Chromium for all tests, which run last; every page has its own context."""
    expect.set_options(timeout=_PATIENCE_MILLISECONDS)
    with pytest.MonkeyPatch.context() as environment, sync_playwright() as playwright:
        # Playwright runs an event loop in this thread, so Django would take the tests' queries for
        # those of a coroutine, which they are not.
        environment.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(
            executable_path=chromium_path, args=installed.ARGUMENTS
        )
        yield browser
        browser.close()


@pytest.fixture
def admin(live_server: LiveServer) -> User:
    """The site's first user, who may do everything."""
    return User.objects.create_superuser("admin", password="a password")


@pytest.fixture
def open_page(chromium: Browser, live_server: LiveServer, admin: User) -> Iterator[OpenPage]:
    """Open pages as a logged-in user; the test fails if anything goes wrong in any of them.

    `open_page(user=None, **options)` takes Playwright's options of a context. The page's watch is
    `page.context.watch`.
    """
    contexts = []

    def open_page(*, user: User | None = admin, **options: Any) -> Page:
        given = {"viewport": {"width": 1280, "height": 900}, "locale": "en-US", **options}
        context = chromium.new_context(base_url=live_server.url, **given)
        context.set_default_timeout(_PATIENCE_MILLISECONDS)
        context.watch = Watch(context, origin=live_server.url)  # type: ignore[attr-defined]
        contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user)
            session = client.cookies["sessionid"].value
            context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        return context.new_page()

    yield open_page
    problems = [problem for context in contexts for problem in context.watch.problems()]
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A page opened by the admin."""
    return open_page()


@pytest.fixture
def plain_page(open_page: OpenPage) -> Page:
    """A page opened by the admin in a browser without JavaScript."""
    return open_page(java_script_enabled=False)


@pytest.fixture
def engine(live_server: LiveServer) -> Iterator[None]:
    """The real delivery engine, next to the site and on its database."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            Engine(wakeup(), stop.is_set).run(seconds=600)
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="engine")
    thread.start()
    yield
    stop.set()
    wakeup().notify()
    thread.join(30)
    assert not thread.is_alive()
    assert not failures
