"""Browser sessions, stored in the database under a digest of their keys.

A copy of the database opens no session, because it does not contain the key in a browser's cookie.
Django's own store writes the key itself.
"""

import hashlib
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.utils import timezone

# The column has 40 characters: 160 bits, about as many as the key.
_DIGITS = 40


def stored_key(session_key: str) -> str:
    return hashlib.sha256(session_key.encode()).hexdigest()[:_DIGITS]


class SessionStore(DatabaseStore):
    """Django's database store: the session has the key, its row only the digest."""

    def _get_session_from_db(self) -> Session | None:
        rows = Session.objects.filter(expire_date__gt=timezone.now())
        found = rows.filter(session_key=stored_key(self.session_key or "")).first()
        if found is None:
            # A key made up by a browser must never become a session's key.
            self._session_key = None
        return found

    async def _aget_session_from_db(self) -> Session | None:
        return await sync_to_async(self._get_session_from_db)()

    def exists(self, session_key: str) -> bool:
        return super().exists(stored_key(session_key))

    async def aexists(self, session_key: str) -> bool:
        return await super().aexists(stored_key(session_key))

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        return self._as_stored(super().create_model_instance(data))

    async def acreate_model_instance(self, data: dict[str, Any]) -> Session:
        return self._as_stored(await super().acreate_model_instance(data))

    def delete(self, session_key: str | None = None) -> None:
        if key := session_key or self.session_key:
            super().delete(stored_key(key))

    async def adelete(self, session_key: str | None = None) -> None:
        if key := session_key or self.session_key:
            await super().adelete(stored_key(key))

    @staticmethod
    def _as_stored(row: Any) -> Session:
        assert isinstance(row, Session)
        row.session_key = stored_key(row.session_key)
        return row
