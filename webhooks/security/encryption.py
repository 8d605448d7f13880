"""The encrypted model field: a safe subclass over django-encrypted-model-fields.

It closes the library's gaps: only values from the database are decrypted, and only for the row and
column they were encrypted for; a value that cannot be decrypted raises; expressions, `update()`
with plain text and `bulk_update` are refused; `dumpdata` shows a mask, which is never accepted as a
secret.
"""

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.core.exceptions import FieldError
from django.db import models
from django.db.models.lookups import IsNull
from django.db.models.query_utils import DeferredAttribute
from encrypted_model_fields import fields as library
from encrypted_model_fields.fields import EncryptedTextField, decrypt_str, encrypt_str

from webhooks.security.errors import SecurityError
from webhooks.security.masker import MASK

# Called before anything is encrypted; each raises SecretUnreadableError if the key is wrong.
# Otherwise a wrong key would leave secrets that no list of keys can read together.
before_sealing: list[Callable[[], None]] = []


class SecretUnreadableError(SecurityError):
    """A stored secret cannot be decrypted: wrong key, damaged, or moved from another place."""


class Bound(Protocol):
    """A row with secrets, identified by a value that is known before it is inserted."""

    def secret_binding(self) -> str: ...


class Sealed:
    """Ciphertext on its way from or to the database; never shows its content."""

    __slots__ = ("_ciphertext",)

    def __init__(self, ciphertext: str) -> None:
        self._ciphertext = ciphertext

    @property
    def ciphertext(self) -> str:
        return self._ciphertext

    def __repr__(self) -> str:
        return f"<Sealed {MASK}>"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._ciphertext)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other._ciphertext == self._ciphertext

    def __hash__(self) -> int:
        return hash(self._ciphertext)

    def open(self, place: str) -> str:
        """Return the plain text sealed for `place`.

        Raises SecretUnreadableError if it cannot be decrypted or was sealed for another place.
        """
        if not self._ciphertext:
            return ""
        try:
            plain: str = decrypt_str(self._ciphertext)
        except (InvalidToken, ValueError) as error:
            raise SecretUnreadableError(
                f"The secret in {place.partition(':')[0]} cannot be decrypted with "
                "FIELD_ENCRYPTION_KEY. Restore the key it was encrypted with."
            ) from error
        sealed_for, _, value = plain.partition("\0")
        if not hmac.compare_digest(sealed_for.encode(), place.encode()):
            # Error reports show the variables of this frame.
            del plain, value
            raise SecretUnreadableError(
                f"The secret in {place.partition(':')[0]} was encrypted for another row or column."
            )
        return value

    def renewed(self) -> "Sealed":
        """Return the secret encrypted with the first key, or itself if it already is.

        Raises SecretUnreadableError.
        """
        if not self._ciphertext or self._uses_first_key():
            return self
        try:
            return Sealed(library.CRYPTER.rotate(self._ciphertext).decode())
        except (InvalidToken, ValueError) as error:
            raise SecretUnreadableError(
                "A secret is read by no key of FIELD_ENCRYPTION_KEY."
            ) from error

    def _uses_first_key(self) -> bool:
        try:
            Fernet(settings.FIELD_ENCRYPTION_KEY[0]).decrypt(self._ciphertext)
        except (InvalidToken, ValueError):
            return False
        return True


def seal(value: str, place: str) -> Sealed:
    """Encrypt `value` for `place`, the only one it can be opened at; an empty value stays empty."""
    if not value:
        return Sealed("")
    for check in before_sealing:
        check()
    return Sealed(encrypt_str(f"{place}\0{value}").decode())


class SecretAttribute(DeferredAttribute):
    """Decrypt a secret only when it is read from its row; the instance keeps ciphertext."""

    def __get__(self, instance: models.Model | None, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if isinstance(value, Sealed) and instance is not None:
            return value.open(cast("SecretField", self.field).place(cast(Bound, instance)))
        return value

    def __set__(self, instance: models.Model, value: Any) -> None:
        # The setter makes this a data descriptor, so __get__ also runs for values in __dict__.
        instance.__dict__[self.field.attname] = value


class SecretField(EncryptedTextField):  # type: ignore[misc]
    """Text that is encrypted at rest, bound to its row (`secret_binding()`) and column."""

    descriptor_class = SecretAttribute
    empty_strings_allowed = True

    if TYPE_CHECKING:
        # For the type checker: the attribute of a model is text, as SecretAttribute returns it.
        @overload
        def __get__(self, instance: None, owner: object) -> "SecretField": ...
        @overload
        def __get__(self, instance: models.Model, owner: object) -> str: ...
        def __get__(self, instance: object, owner: object) -> object: ...
        def __set__(self, instance: models.Model, value: str | None) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "db_default" in kwargs:
            raise FieldError("A secret cannot have a database default: it would be plain text.")
        kwargs.setdefault("default", "")
        kwargs.setdefault("blank", True)
        super().__init__(*args, **kwargs)

    def place(self, instance: Bound) -> str:
        return f"{self.model._meta.db_table}.{self.column}:{instance.secret_binding()}"

    def is_set(self, instance: models.Model) -> bool:
        """Return whether the row holds a secret, without decrypting it."""
        if self.attname in instance.__dict__:
            return bool(instance.__dict__[self.attname])
        rows = type(instance)._base_manager.using(instance._state.db).filter(pk=instance.pk)
        return bool(rows.values_list(self.attname, flat=True).get())

    def to_python(self, value: Any) -> Any:
        # Overridden because the library decrypts form input here: pasted ciphertext would become
        # plain text.
        return value if isinstance(value, Sealed) else models.TextField().to_python(value)

    def from_db_value(self, value: str | None, *_: Any) -> Sealed | None:
        return None if value is None else Sealed(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        if self.attname not in model_instance.__dict__:
            # Deferred but named in update_fields: keep the stored value.
            model_instance.refresh_from_db(fields=[self.attname])
        value = model_instance.__dict__[self.attname]
        if hasattr(value, "resolve_expression"):
            return value
        if isinstance(value, Sealed):
            # Opened to check it: a wrong key or a moved value stops the save.
            value.open(self.place(cast(Bound, model_instance)))
            return value
        if value == MASK:
            raise self._masked()
        return seal(str(value or ""), self.place(cast(Bound, model_instance)))

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None or (isinstance(value, str) and value == ""):
            return value
        if isinstance(value, Sealed):
            return value.ciphertext
        if value == MASK:
            raise self._masked()
        raise FieldError(
            f"{self.name} is a secret: set it on the instance and save(), or pass seal(...)."
        )

    def _masked(self) -> FieldError:
        return FieldError(
            f"{self.name} is {MASK}, which only stands for a secret: dumpdata leaves secrets out, "
            "so what it wrote cannot be loaded again. Restore a backup of the database instead."
        )

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return self.get_db_prep_value(value, connection)

    def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
        # Django calls this before it compiles an expression into UPDATE or INSERT.
        if hasattr(value, "resolve_expression"):
            raise FieldError(f"{self.name} is a secret: expressions and bulk_update are refused.")
        return "%s"

    def get_lookup(self, lookup_name: str) -> Any:
        # Equality on ciphertext never matches; only isnull is supported.
        return IsNull if lookup_name == "isnull" else None

    def get_transform(self, lookup_name: str) -> Any:
        return None

    def value_to_string(self, obj: models.Model) -> str:
        return MASK if self.is_set(obj) else ""

    def formfield(self, **kwargs: Any) -> None:
        """Return no form field: each form declares explicitly how a secret is written."""
        return
