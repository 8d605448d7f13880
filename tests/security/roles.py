"""The users of the permission tests: roles, their browsers, and a site with one of each row."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client

from tests.security import figures
from tests.security.permission_table import ADMIN_ACTIONS, ANYONE, LINES, NO_ONE, Line
from tests.security.url_map import address, make_world


@dataclass(frozen=True, kw_only=True)
class Role:
    """A user with these permissions; None: not even logged in."""

    name: str
    permissions: frozenset[str] | None
    is_staff: bool = True
    is_superuser: bool = False

    def may(self, needs: str) -> bool:
        if needs == ANYONE:
            return True
        if needs == NO_ONE or self.permissions is None:
            return False
        return self.is_superuser or any(one <= self.permissions for one in _ways(needs))


SUPERUSER = Role(name="olena", permissions=frozenset(), is_superuser=True)


def _ways(needs: str) -> list[frozenset[str]]:
    return [frozenset(way.split("+")) - {""} for way in needs.split("|")]


def _named(needs: Iterable[str]) -> set[str]:
    ways = (way for one in needs if one not in (ANYONE, NO_ONE) for way in _ways(one))
    return set().union(*ways)


NEEDED = _named([*(one.needs for one in LINES), *(one.post_needs for one in LINES),
                 *(one.needs for one in ADMIN_ACTIONS)])  # fmt: skip


def roles_for(*needs: str) -> list[Role]:
    """Return the roles to test: not logged in, just enough, one missing, everything else.

    In `make security` also one role for each permission that any URL needs.
    """
    every = frozenset(Permission.objects.values_list("codename", flat=True))
    mine = _named(needs)
    roles = [
        Role(name="not logged in", permissions=None),
        Role(name="staff with nothing", permissions=frozenset()),
        Role(name="every permission but no staff", permissions=every, is_staff=False),
        Role(name="everything else", permissions=every - mine),
        SUPERUSER,
        Role(name="all but payloads", permissions=every - {"view_payload"}),
    ]
    ways = {way for one in needs if one not in (ANYONE, NO_ONE) for way in _ways(one)}
    roles += [Role(name="+".join(sorted(way)), permissions=way) for way in ways if way]
    # With a single permission this is "everything else".
    if len(mine) > 1:
        roles += [Role(name=f"all but {one}", permissions=every - {one}) for one in sorted(mine)]
    if figures.FILE_VARIABLE in os.environ:
        singles = {one for one in NEEDED if frozenset({one}) not in ways}
        roles += [Role(name=one, permissions=frozenset({one})) for one in sorted(singles)]
    return roles


class RoleSite:
    """Browsers of roles; the changes of one request are rolled back before the next."""

    def __init__(self) -> None:
        self.world = make_world()
        self._ids = dict(Permission.objects.values_list("codename", "pk"))
        self._person = User.objects.create(username="somebody")
        client = Client()
        client.force_login(self._person)
        self._session = client.cookies["sessionid"].value

    def browser(self, role: Role) -> Client:
        client = Client(raise_request_exception=True)
        if role.permissions is None:
            return client
        user = User.objects.create(
            username=role.name, is_staff=role.is_staff, is_superuser=role.is_superuser
        )
        user.user_permissions.set(self._ids[one] for one in role.permissions)
        client.force_login(user)
        return client

    def become(self, role: Role) -> Client:
        """Return the browser of one user who now has this role; a login for each would be slow."""
        if role.permissions is None:
            return Client()
        User.objects.filter(pk=self._person.pk).update(
            is_staff=role.is_staff, is_superuser=role.is_superuser
        )
        self._person.user_permissions.set(self._ids[one] for one in role.permissions)
        client = Client()
        client.cookies["sessionid"] = self._session
        return client

    def ask(
        self, client: Client, line: Line, method: str, *, secure: bool = False, **instead: Any
    ) -> Any:
        path = address(line.route, self.world, **{"pk": line.pk, **instead})
        data = line.data(self.world) if method == "post" else {}
        return getattr(client, method)(path, data, secure=secure, **line.headers)


@contextmanager
def taken_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
