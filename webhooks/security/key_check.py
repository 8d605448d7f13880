"""The canary: one known secret whose decryption proves that the encryption key is right.

Written after `migrate`; read by the system check, `/readyz` and `manage.py run`, before a drain
sends its first request, and before a process first encrypts. A wrong key is found before anything
is sent or overwritten.
"""

from typing import Any

from django.apps import apps as installed_apps
from django.db import DEFAULT_DB_ALIAS, connections
from encrypted_model_fields import fields as library

from webhooks.security.encryption import SecretUnreadableError

# The keys that read the canary in this process, so that it is not read for every secret.
_proven: object = None


def plant(*, apps: Any = None, using: str = DEFAULT_DB_ALIAS, **_: object) -> None:
    """Receive `post_migrate`: write the canary if there is none.

    `apps` is missing when `flush` sends the signal.
    """
    try:
        (apps or installed_apps).get_model("webhooks", "EncryptionCanary")
    except LookupError:
        # Migrated back to a state before the table.
        return
    canaries = _canaries()
    canaries.objects.using(using).get_or_create(pk=1, defaults={"canary": canaries.TEXT})


def problem(using: str = DEFAULT_DB_ALIAS) -> str:
    """Return why the stored secrets cannot be read, or "" if they can."""
    canary = _planted(using)
    if canary is None:
        return ""
    try:
        matches = canary.canary == canary.TEXT
    except SecretUnreadableError as error:
        return str(error)
    return "" if matches else "The encryption canary was changed."


def is_proven() -> bool:
    """Return whether this process has read the canary with the current key."""
    return _proven is library.CRYPTER


def require() -> None:
    """Raise SecretUnreadableError if the stored secrets were encrypted with another key."""
    global _proven
    if is_proven():
        return
    if sentence := problem():
        raise SecretUnreadableError(sentence)
    if _planted(DEFAULT_DB_ALIAS) is not None:
        _proven = library.CRYPTER


def _planted(using: str) -> Any:
    """Return the canary; None before the first `migrate`."""
    canaries = _canaries()
    if canaries._meta.db_table not in connections[using].introspection.table_names():
        return None
    return canaries.objects.using(using).filter(pk=1).first()


def _canaries() -> Any:
    """Return the model class, which this package may not import."""
    return installed_apps.get_model("webhooks", "EncryptionCanary")
