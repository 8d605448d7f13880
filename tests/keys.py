"""Encryption keys of tests: reload the field's library with other keys, and read stored bytes."""

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection, models
from encrypted_model_fields import fields as library

from webhooks.models import EncryptionCanary
from webhooks.security import key_check

FIRST_KEY, SECOND_KEY, THIRD_KEY = (Fernet.generate_key().decode() for _ in range(3))


class Keys:
    """The keys in use: the first encrypts, all decrypt."""

    def __init__(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._settings, self._monkeypatch = settings, monkeypatch

    def __call__(self, *keys: str) -> None:
        self._settings.FIELD_ENCRYPTION_KEY = list(keys)
        self._monkeypatch.setattr(library, "CRYPTER", library.get_crypter())


@pytest.fixture
def counted(request: pytest.FixtureRequest, security_figure: Any) -> Iterator[None]:
    """Count a test as one case of encryption at rest, right unless it failed."""
    failed_before = request.session.testsfailed
    yield
    is_right = request.session.testsfailed == failed_before
    security_figure("encryption", right=int(is_right), of=1)


@pytest.fixture
def use_keys(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Reload the library with other keys; starts with FIRST_KEY and its canary."""
    keys = Keys(settings, monkeypatch)
    EncryptionCanary.objects.all().delete()
    keys(FIRST_KEY)
    key_check.plant()
    return keys


def replant() -> None:
    """Replace the canary with one that matches the keys in use."""
    EncryptionCanary.objects.all().delete()
    key_check.plant()


def stored(row: models.Model, column: str) -> str:
    """Return a column's bytes as they are in the database."""
    table, key = row._meta.db_table, row._meta.pk.column
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table} WHERE {key} = %s", [row.pk])
        return str(cursor.fetchone()[0])


def store(row: models.Model, column: str, ciphertext: str) -> None:
    """Write a column around the field, as an attacker with access to the database could."""
    table, key = row._meta.db_table, row._meta.pk.column
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", [ciphertext, row.pk])
