"""Secrets that were typed but not saved yet, kept between two requests of one form.

A password is never put back into a page, so a form that is shown again would lose it. It is kept in
the session instead, encrypted for this draft, webhook and field.
"""

import secrets
from collections.abc import MutableMapping
from typing import Any

from webhooks.security.encryption import Sealed, SecretUnreadableError, seal

_SESSION_KEY = "webhook_drafts"
# Open forms with typed secrets per session; the oldest is dropped.
_MAX_DRAFTS = 8
# Longer than any field accepts. The session is read with every page.
_MAX_CHARACTERS = 25_000


class Draft:
    """The typed secrets of one form, by field name."""

    def __init__(
        self, session: MutableMapping[str, Any], *, draft_id: str = "", form_key: str = "new"
    ) -> None:
        self._session = session
        self._form_key = form_key
        self.id = draft_id if draft_id in self._all() else secrets.token_urlsafe(12)

    def get(self, field: str) -> str:
        """Return the typed secret, or ""."""
        ciphertext = self._all().get(self.id, {}).get(field, "")
        try:
            return Sealed(ciphertext).open(self._place(field))
        except SecretUnreadableError:
            # Sealed for another webhook's form, or with a key that was removed: not typed here.
            return ""

    def keep(self, field: str, value: str) -> None:
        """Keep a typed secret; an empty or too long value removes it.

        With a wrong encryption key nothing is kept, because the right one could not read it.
        """
        if len(value) > _MAX_CHARACTERS:
            value = ""
        try:
            sealed = seal(value, self._place(field)).ciphertext
        except SecretUnreadableError:
            return
        fields = {**self._all().get(self.id, {}), field: sealed}
        self._store({name: kept for name, kept in fields.items() if kept})

    def discard(self) -> None:
        """Remove the draft, after it was saved."""
        if self.id in self._all():
            self._store({})

    def _place(self, field: str) -> str:
        return f"draft.{field}:{self._form_key}:{self.id}"

    def _all(self) -> dict[str, dict[str, str]]:
        drafts: dict[str, dict[str, str]] = self._session.get(_SESSION_KEY, {})
        return drafts

    def _store(self, fields: dict[str, str]) -> None:
        drafts = {key: kept for key, kept in self._all().items() if key != self.id}
        if fields:
            drafts[self.id] = fields
        self._session[_SESSION_KEY] = dict(list(drafts.items())[-_MAX_DRAFTS:])


def renew(session: MutableMapping[str, Any]) -> tuple[int, int, list[str]]:
    """Encrypt a session's drafts again with the first key, in place.

    Return the number renewed, the number already current, and the fields that no key reads.
    """
    renewed, current, unreadable = 0, 0, []
    drafts: dict[str, dict[str, str]] = session.get(_SESSION_KEY, {})
    for fields in drafts.values():
        for name, ciphertext in fields.items():
            try:
                now = Sealed(ciphertext).renewed().ciphertext
            except SecretUnreadableError:
                unreadable.append(name)
                continue
            renewed, current = renewed + (now != ciphertext), current + (now == ciphertext)
            fields[name] = now
    return renewed, current, unreadable
