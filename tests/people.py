"""Browsers of people with permissions."""

import re
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

# Where white space is part of the text, or of a value; the rest of a page, tag by tag.
_AS_IT_IS = re.compile(r"(<pre\b.*?</pre>|<textarea\b.*?</textarea>)", re.DOTALL)
_TAG = re.compile(r"<[a-zA-Z](?:[^<>\"']|\"[^\"]*\"|'[^']*')*>")


class Browser(Client):
    """Reads pages without the line breaks of the templates, so that tests know what they say."""

    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        if "text/html" in response.get("Content-Type", "") and not response.streaming:
            response.content = without_layout(response.content.decode()).encode()
        return response


def without_layout(html: str) -> str:
    """Return a page with one space for white space, and none at the edges of elements."""
    parts = _AS_IT_IS.split(html)
    parts[::2] = [_flat(part) for part in parts[::2]]
    return "".join(parts)


def _flat(html: str) -> str:
    # Not the no-break space: that one is written on purpose.
    one_line = re.sub(r"[ \t\r\n\f]+", " ", html)
    tags = _TAG.sub(lambda tag: tag[0].replace(" >", ">"), one_line)
    return re.sub(
        r" (?=</)|(?<=[a-z0-9\"]>) (?=<[a-z])", "", re.sub(r"(<[a-z][^<>/]*>) ", r"\1", tags)
    )


def logged_in(
    *permissions: str, name: str = "admin", is_staff: bool = False, is_superuser: bool = False
) -> Client:
    """Return the browser of a new person with these permissions."""
    user = get_user_model().objects.create_user(
        name, password="p", is_staff=is_staff, is_superuser=is_superuser
    )
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Browser()
    client.force_login(user)
    return client
