"""Every URL and admin action, requested by every role; and guessed ids."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django import DjangoDbBlocker, Settings

from tests.security.answer_headers import as_in_production, missing
from tests.security.permission_table import (
    ADMIN_ACTIONS,
    ANYONE,
    DELIVERY,
    LINES,
    A,
    AdminAction,
    D,
    Line,
    P,
    W,
)
from tests.security.roles import SUPERUSER, Role, RoleSite, roles_for, taken_back
from tests.security.url_map import CANARY, CONDITION, address, routes, text_of
from tests.ui.webhook_form.test_forms import posted
from webhooks import events
from webhooks.delivery import resends
from webhooks.models import Action, AuditEntry, Delivery, Resend

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.security]


@pytest.fixture(scope="module")
def site(module_transaction: DjangoDbBlocker) -> RoleSite:
    """Make the site with one of each row, once for the module."""
    with module_transaction.unblock():
        return RoleSite()


LOGINS = ("/login/?next=", "/admin/login/?next=")


def needs_of(line: Line, method: str) -> str:
    return line.post_needs or line.needs if method == "post" else line.needs


def may(role: Role, line: Line, method: str) -> bool:
    return role.may(needs_of(line, method)) and (
        role.is_staff or not line.route.startswith("admin/")
    )


def expected(line: Line, role: Role, method: str) -> int:
    """Return the expected status: 302 to the login for users who are not logged in there."""
    status = line.get if method == "get" else line.post
    needs = needs_of(line, method)
    is_known = role.permissions is not None
    if needs == ANYONE:
        return (is_known and role.is_staff and method == "get" and line.staff_get) or status
    if line.route.startswith("admin/"):
        if not is_known or not role.is_staff:
            return 302
        # The admin checks for staff first, and then the method.
        return status if status == 405 or role.may(needs) else line.denied
    if not is_known and not line.headers:
        # The login is required first, and then the method is checked.
        return 302
    if status == 405:
        return 405
    if not is_known:
        return 401
    return status if role.may(needs) else line.denied


def is_right(answer: Any, line: Line, role: Role, method: str) -> bool:
    wanted = expected(line, role, method)
    if needs_of(line, method) == ANYONE:
        return bool(answer.status_code == wanted)
    is_allowed = may(role, line, method)
    leads_to_login = answer.status_code == 302 and answer["Location"].startswith(LOGINS)
    if wanted == 302 and not is_allowed and not leads_to_login:
        return False
    is_refused = leads_to_login or answer.status_code in (401, 403)
    return answer.status_code == wanted and not (is_allowed and is_refused)


def test_every_address_has_its_line_and_no_line_is_without_an_address() -> None:
    lines = {line.route for line in LINES}
    assert lines == set(routes())


def test_every_admin_action_has_its_line() -> None:
    offered = {
        (model._meta.model_name, name)
        for model, page in admin.site._registry.items()
        for name in page.actions or ()
        if model._meta.app_label == "webhooks"
    }
    assert offered == {(one.model, one.name) for one in ADMIN_ACTIONS}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_an_address_answers_each_role_as_its_line_says(
    line: Line, site: RoleSite, settings: Settings, security_figure: Callable[..., None]
) -> None:
    as_in_production(settings)
    wrong, right, asked = [], 0, 0
    for role in roles_for(line.needs, line.post_needs or line.needs):
        browser = site.become(role)
        for method in ("get", "post"):
            faults = [
                f"{role.name}: {method} {one}" for one in _faults(site, browser, line, role, method)
            ]
            wrong += faults
            right += not faults
            asked += 1
    security_figure("permissions", right=right, of=asked)
    assert not wrong


def _faults(site: RoleSite, browser: Client, line: Line, role: Role, method: str) -> Iterator[str]:
    """Yield what is wrong with a response: its status, headers, payload or audit entry."""
    last = AuditEntry.objects.latest("pk").pk
    with taken_back():
        answer = site.ask(browser, line, method, secure=True)
        text = text_of(answer)
        written = AuditEntry.objects.filter(pk__gt=last)
        entries = set(written.values_list("action", "username"))
    if not is_right(answer, line, role, method):
        yield f"is {answer.status_code}, not {expected(line, role, method)}"
    if headers := missing(answer):
        yield f"has other headers: {headers}"
    if CANARY in text and not role.may("view_payload"):
        yield "shows a payload"
    action = line.get_action if method == "get" else line.action
    wanted = {(action, "somebody")} if action and may(role, line, method) else set()
    # Saving as a connection changes the webhook as well.
    beside = {("changed", "somebody")} if wanted else set()
    if entries - beside != wanted - beside or bool(entries) is not bool(wanted):
        yield f"leaves {entries}, not {wanted}"


@pytest.mark.parametrize("action", ADMIN_ACTIONS, ids=str)
def test_an_admin_action_is_done_for_those_who_may_alone(
    action: AdminAction, site: RoleSite, security_figure: Callable[..., None]
) -> None:
    row = {"delivery": site.world.delivery, "apikey": site.world.key}[action.model]
    data = {"action": action.name, "_selected_action": str(row.pk)}
    wrong, asked = [], 0
    for role in roles_for(action.needs):
        client = site.become(role)
        with taken_back():
            client.post(f"/admin/webhooks/{action.model}/", data)
            is_done = AuditEntry.objects.filter(action=action.action).exists()
        asked += 1
        if is_done is not (role.may(action.needs) and role.is_staff):
            wrong.append(f"{role.name}: {'done' if is_done else 'not done'}")
    security_figure("permissions", right=asked - len(wrong), of=asked)
    assert not wrong


# ---- Requests and responses of deliveries -----------------------------------------------------

TRIED = {
    "filter-mode": "json",
    "filter-json": json.dumps(CONDITION),
    "filter-shown": "all",
    "event_types": "call.incoming.after",
}
# Every place that shows something of an event or an attempt: route, method, parameters. The tests
# of every line above check that no other URL shows it.
PLACES: list[tuple[str, str, dict[str, Any]]] = [
    (DELIVERY, "get", {"attempt": "1", "against": "2"}),
    (f"{DELIVERY}edit/", "get", {}),
    (f"{DELIVERY}attempts/<row:attempt_id>/<str:part>.bin", "get", {}),
    (f"{D}export.csv", "get", {"payload": "1"}),
    (f"{W}tests/<str:delivery_id>/", "get", {}),
    (f"{W}why-not-sent/", "get", {"event": "the world's"}),
    (f"{P}filter/", "post", TRIED),
    (f"{P}preview/", "post", posted(preview_event="real")),
    (f"{A}webhooks/delivery/<path:object_id>/change/", "get", {}),
    (f"{A}webhooks/event/<path:object_id>/change/", "get", {}),
]


def browsers(site: RoleSite) -> tuple[Client, Client]:
    """Return the browsers of a user who may do all but see payloads, and of a superuser."""
    every = frozenset(Permission.objects.values_list("codename", flat=True))
    blind = Role(name="blind", permissions=every - {"view_payload"})
    return site.browser(blind), site.browser(SUPERUSER)


@pytest.mark.parametrize(("route", "method", "asked"), PLACES, ids=[one[0] for one in PLACES])
def test_a_payload_is_shown_to_those_who_may_see_it_alone(
    site: RoleSite, route: str, method: str, asked: dict[str, Any]
) -> None:
    path = address(route, site.world, pk="paused" if "why-not" in route else "")
    event = site.world.delivery.event_id
    data = {name: event if text == "the world's" else text for name, text in asked.items()}
    blind, seeing = browsers(site)
    assert CANARY in text_of(getattr(seeing, method)(path, data))
    assert CANARY not in text_of(getattr(blind, method)(path, data))


# ---- Guessed ids ------------------------------------------------------------------------------

# URLs that also work for deleted webhooks; the first explains why an event is not sent any more.
OF_DELETED = ("why-not-sent/", "/restore/", "/purge/")
UNKNOWN = ("0", "999999", str(2**62), str(2**63), "9" * 30)
NO_DELIVERIES = ("dlv_00000000000000000000000000", "x", "dlv_%00", "%00", "9" * 300)
BY_ID = [
    one
    for one in LINES
    # Without htmx the parts of a page redirect to the page, which requires a login.
    if "<row:pk>" in one.route and "apikey" not in one.route and one.needs != ANYONE
]
# Django's own pages check before, or redirect to one that does.
_DJANGO = ("history/", "delete/", "_id>/")
BY_DELIVERY = [
    one
    for one in LINES
    if "<str:delivery_id>" in one.route
    or ("delivery/<path" in one.route and not one.route.endswith(_DJANGO))
]
SENDING = [one for one in BY_DELIVERY if one.action not in (None, Action.CANCELLED)]


@pytest.fixture
def superuser(site: RoleSite) -> Client:
    return site.browser(SUPERUSER)


def not_found(site: RoleSite, browser: Client, line: Line, **instead: Any) -> list[str]:
    """Return every response to an id that is not the URL's own, other than "not found"."""
    wrong = []
    last = AuditEntry.objects.latest("pk").pk
    for method, status in (("get", line.get), ("post", line.post)):
        if status == 405 or (line.staff_get and method == "get"):
            continue
        with taken_back():
            answer = site.ask(browser, line, method, **instead)
            if AuditEntry.objects.filter(pk__gt=last).exists():
                wrong.append(f"{method} {instead} left an entry")
        if answer.status_code != 404:
            wrong.append(f"{method} {instead} is {answer.status_code}")
    return wrong


@pytest.mark.parametrize("line", BY_ID, ids=str)
def test_an_address_knows_no_row_of_another_kind_none_deleted_and_none_unknown(
    line: Line, site: RoleSite, superuser: Client
) -> None:
    guesses = list(UNKNOWN)
    if "connections/" in line.route:
        guesses += [str(one.credential_id) for one in (site.world.webhook, site.world.deleted)]
    elif "credentials/" in line.route:
        guesses += [str(site.world.deleted.credential_id)]
    elif "resends/<row:pk>" not in line.route and "alerts/<row:pk>" not in line.route:
        guesses += [] if line.route.endswith(OF_DELETED) else ["deleted"]
    assert not [one for pk in guesses for one in not_found(site, superuser, line, pk=pk)]


# Django admin redirects from every unknown URL to a known one.
@pytest.mark.parametrize("route", [one for one in routes() if "<row:" in one and A not in one])
def test_an_address_with_a_number_that_no_row_can_have_is_none(
    route: str, site: RoleSite, superuser: Client
) -> None:
    for name in re.findall("<row:([a-z_]+)>", route):
        for number in (str(2**63), "9" * 20, "9" * 400):
            assert superuser.get(address(route, site.world, **{name: number})).status_code == 404


@pytest.mark.parametrize("line", BY_DELIVERY, ids=str)
def test_an_address_knows_no_delivery_that_is_not_there_or_not_of_its_webhook(
    line: Line, site: RoleSite, superuser: Client
) -> None:
    name = "object_id" if "object_id" in line.route else "delivery_id"
    guesses: list[dict[str, str]] = [{name: one} for one in NO_DELIVERIES]
    if "<row:pk>" in line.route:
        guesses += [{name: site.world.stray.pk}, {"pk": "paused"}]
    if "/tests/" in line.route:
        # A delivery of the same webhook that is not a test.
        guesses.append({name: site.world.delivery.pk})
    if "attempt_id" in line.route:
        guesses += [{name: site.world.test.pk}, {"attempt_id": "0"}, {"part": "other"}]
    assert not [one for guess in guesses for one in not_found(site, superuser, line, **guess)]


@pytest.mark.parametrize("line", SENDING, ids=str)
def test_nothing_is_sent_with_a_delivery_of_a_deleted_webhook(
    line: Line, site: RoleSite, superuser: Client
) -> None:
    before = Delivery.objects.count()
    name = "object_id" if "object_id" in line.route else "delivery_id"
    events.cancel(Delivery.objects.filter(pk=site.world.stray.pk))
    site.ask(superuser, line, "post", **{name: site.world.stray.pk})
    assert Delivery.objects.count() == before
    assert not AuditEntry.objects.filter(action=line.action, username="olena").exists()


def test_many_at_once_leave_out_what_is_deleted(site: RoleSite, superuser: Client) -> None:
    guessed = [site.world.deleted.pk, 999999]
    for action in ("pause", "resume", "delete"):
        data = {"action": action, "webhook": guessed, "is_confirmed": "1", "held": "send"}
        superuser.post("/integrations/webhooks/bulk/", data)
    answer = superuser.post("/integrations/webhooks/export/", {"webhook": guessed})
    assert answer.status_code == 302
    assert not AuditEntry.objects.filter(username="olena").exists()


def test_a_resend_of_guessed_deliveries_leaves_out_deleted_webhooks(
    site: RoleSite, superuser: Client
) -> None:
    data = {"delivery": [site.world.stray.pk, "dlv_x"], "confirm": "1", "rate": "5"}
    superuser.post("/integrations/webhooks/resends/new/", data)
    for resend in Resend.objects.filter(scope="selection"):
        resends.advance(resend.pk)
    assert Delivery.objects.filter(webhook=site.world.deleted).count() == 1


def test_who_may_not_see_connections_can_choose_none_by_its_id(site: RoleSite) -> None:
    browser = site.browser(Role(name="editor", permissions=frozenset({"change_webhook"})))
    data = posted(connection=site.world.connection.pk)
    browser.post(f"/integrations/webhooks/{site.world.paused.pk}/edit/", data)
    site.world.paused.refresh_from_db()
    assert not site.world.paused.credential.is_shared


def test_the_import_is_written_down(site: RoleSite, superuser: Client) -> None:
    exported = superuser.post("/integrations/webhooks/export/", {"webhook": site.world.paused.pk})
    changed = exported.content.decode().replace("Paused", "Renamed")
    page = superuser.post("/integrations/webhooks/import/", {"text": changed})
    plan = page.context["plan"]
    data = {"plan": page.context["signed"], "entry": [one.number for one in plan.doable]}
    superuser.post("/integrations/webhooks/import/", data)
    entry = AuditEntry.objects.latest("pk")
    assert (entry.action, entry.username) == (Action.IMPORTED, "olena")


# ---- No user gains permissions ----------------------------------------------------------------

ACCOUNTS = frozenset({"view_user", "add_user", "change_user", "delete_user", "change_group"})


def test_who_edits_accounts_gives_no_permissions(site: RoleSite) -> None:
    browser = site.browser(Role(name="helpdesk", permissions=ACCOUNTS))
    me, group = User.objects.get(username="helpdesk"), site.world.group
    every = list(Permission.objects.values_list("pk", flat=True))
    data = {"username": "helpdesk", "is_active": "on", "is_superuser": "on",
            "user_permissions": every, "groups": [group.pk], "first_name": "Changed"}  # fmt: skip
    assert browser.post(f"/admin/auth/user/{me.pk}/change/", data).status_code == 302
    answer = browser.post(
        f"/admin/auth/group/{group.pk}/change/", {"name": "Renamed", "permissions": every}
    )
    assert answer.status_code == 302
    me.refresh_from_db()
    assert (me.first_name, me.is_superuser, me.groups.count()) == ("Changed", False, 0)
    assert me.user_permissions.count() == len(ACCOUNTS)
    assert group.permissions.count() == 0


@pytest.mark.parametrize("step", ["change", "password", "delete"])
def test_who_edits_accounts_touches_no_superuser(site: RoleSite, step: str) -> None:
    browser = site.browser(Role(name="helpdesk", permissions=ACCOUNTS))
    root = User.objects.create_superuser("root", password="p")
    data = {"username": "taken", "password1": "another-1-2-3", "password2": "another-1-2-3",
            "usable_password": "true", "post": "yes"}  # fmt: skip
    assert browser.post(f"/admin/auth/user/{root.pk}/{step}/", data).status_code == 403
    root.refresh_from_db()
    assert (root.username, root.check_password("p")) == ("root", True)


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("by_group", [True, False])
@pytest.mark.parametrize("step", ["change", "password", "delete"])
def test_who_edits_accounts_touches_no_one_with_rights_of_their_own(
    site: RoleSite, step: str, by_group: bool, is_active: bool
) -> None:
    browser = site.browser(Role(name="helpdesk", permissions=ACCOUNTS))
    editor = User.objects.create_user("editor", password="p", is_active=is_active)
    right = Permission.objects.get(codename="change_webhook")
    if by_group:
        site.world.group.permissions.add(right)
        editor.groups.add(site.world.group)
    else:
        editor.user_permissions.add(right)
    data = {"username": "taken", "password1": "another-1-2-3", "password2": "another-1-2-3",
            "usable_password": "true", "post": "yes", "is_active": "on"}  # fmt: skip
    assert browser.post(f"/admin/auth/user/{editor.pk}/{step}/", data).status_code == 403
    after = User.objects.get(pk=editor.pk)
    assert (after.username, after.is_active) == ("editor", is_active)
    assert after.check_password("p")
    chosen = {"action": "delete_selected", "_selected_action": [editor.pk], "post": "yes"}
    browser.post("/admin/auth/user/", chosen)
    assert User.objects.filter(pk=editor.pk).exists()


def test_who_edits_accounts_helps_those_who_may_do_no_more(site: RoleSite) -> None:
    browser = site.browser(Role(name="helpdesk", permissions=ACCOUNTS | {"view_webhook"}))
    reader = User.objects.create_user("reader", password="p")
    reader.user_permissions.add(Permission.objects.get(codename="view_webhook"))
    data = {"password1": "another-1-2-3", "password2": "another-1-2-3", "usable_password": "true"}
    assert browser.post(f"/admin/auth/user/{reader.pk}/password/", data).status_code == 302
    assert User.objects.get(pk=reader.pk).check_password("another-1-2-3")


def test_who_edits_groups_deletes_none_with_other_rights(site: RoleSite) -> None:
    browser = site.browser(Role(name="helpdesk", permissions=ACCOUNTS | {"delete_group"}))
    group = site.world.group
    group.permissions.add(Permission.objects.get(codename="change_webhook"))
    answer = browser.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"})
    assert answer.status_code == 403


def test_who_edits_accounts_deletes_no_superuser_among_others(site: RoleSite) -> None:
    browser = site.browser(Role(name="helpdesk", permissions=ACCOUNTS))
    root = User.objects.create_superuser("root", password="p")
    data = {"action": "delete_selected", "_selected_action": [root.pk], "post": "yes"}
    browser.post("/admin/auth/user/", data)
    assert User.objects.filter(pk=root.pk).exists()


def test_a_superuser_gives_permissions(site: RoleSite, superuser: Client) -> None:
    one = Permission.objects.latest("pk")
    data = {"username": "person", "is_active": "on", "user_permissions": [one.pk]}
    superuser.post(f"/admin/auth/user/{site.world.person.pk}/change/", data)
    assert site.world.person.user_permissions.get() == one
