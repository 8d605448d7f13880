"""Test clients logged in as people with given permissions."""

import re
from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
)
from django.contrib.auth.models import Permission
from django.test import Client

from webhooks.security.browser_sessions import SessionStore

# Elements whose white space is significant; in all other parts it is normalized tag by tag.
_PRESERVED = re.compile(r"(<pre\b.*?</pre>|<textarea\b.*?</textarea>)", re.DOTALL)
_TAG = re.compile(r"<[a-zA-Z][^<>\"']*(?:(?:\"[^\"]*\"|'[^']*')[^<>\"']*)*>")
_BEGIN = re.compile(r"(<[a-z][^<>/]*>) ")
_EDGE = re.compile(r" <(?:(?=/)|(?<=[a-z0-9\"]> <)(?=[a-z]))")


class Browser(Client):
    """Removes the templates' line breaks from responses, so that tests can compare text."""

    def force_login(self, user: Any, backend: str | None = None) -> None:
        """Begin a session as a login does, without the queries that record the login."""
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = backend or settings.AUTHENTICATION_BACKENDS[-1]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.create()
        self.cookies[settings.SESSION_COOKIE_NAME] = session.session_key or ""

    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        if "text/html" in response.get("Content-Type", "") and not response.streaming:
            response.content = without_layout(response.content.decode()).encode()
        return response


def without_layout(html: str) -> str:
    """Return a page with white space collapsed, and removed at the edges of elements."""
    parts = _PRESERVED.split(html)
    parts[::2] = [_flat(part) for part in parts[::2]]
    return "".join(parts)


def _flat(html: str) -> str:
    one_line = _TAG.sub(lambda tag: tag[0].replace(" >", ">"), _one_line(html))
    return _EDGE.sub("<", _BEGIN.sub(r"\1", one_line))


def _one_line(html: str) -> str:
    # `bytes.split` does not treat the no-break space, which is intentional, as white space. The
    # brackets keep one space at either end.
    edged = b"<" + html.encode() + b">"
    return b" ".join(edged.split()).decode()[1:-1]


def logged_in(
    *permissions: str, name: str = "admin", is_staff: bool = False, is_superuser: bool = False
) -> Client:
    """Return the client of a new person with these permissions."""
    user = get_user_model().objects.create_user(
        name, password="p", is_staff=is_staff, is_superuser=is_superuser
    )
    if permissions:
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Browser()
    client.force_login(user)
    return client
