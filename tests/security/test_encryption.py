"""The encrypted field: every gap of the library that it closes, on the product's rows."""

import copy
import io
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import connection, models, transaction
from django.db.models import Case, F, Subquery, Value, When
from django.db.models.functions import Concat, Upper
from django.forms import modelform_factory

from tests import keys
from tests.keys import FIRST_KEY, SECOND_KEY
from webhooks.models import Credential, EncryptionCanary, OAuthToken, Webhook
from webhooks.security.encryption import Sealed, SecretField, SecretUnreadableError, seal
from webhooks.security.masker import MASK

pytestmark = [pytest.mark.django_db, pytest.mark.security, pytest.mark.usefixtures("counted")]

counted, use_keys = keys.counted, keys.use_keys
PASSWORD = "пароль: correct horse \0 battery"
UseKeys = Callable[..., None]


@contextmanager
def refused(*errors: type[Exception], match: str | None = None) -> Iterator[None]:
    """Expect one of the errors, and keep the test's transaction usable."""
    with pytest.raises(errors, match=match), transaction.atomic():
        yield


def make_credential(**fields: Any) -> Credential:
    arguments = {
        "name": "CRM",
        "basic_password": PASSWORD,
        "client_secret": "a client's secret",
    }
    return Credential.objects.create(**arguments | fields)


def stored(credential: Credential, column: str = "basic_password") -> str:
    """Return the column's value as it is stored in the database."""
    return keys.stored(credential, column)


def store(credential: Credential, ciphertext: str, column: str = "basic_password") -> None:
    keys.store(credential, column, ciphertext)


def read(credential: Credential) -> Credential:
    return Credential.objects.get(pk=credential.pk)


# Encryption at rest


def test_a_secret_is_ciphertext_in_the_database_and_text_in_python() -> None:
    credential = make_credential()
    assert stored(credential).startswith("gAAAAA")
    assert "battery" not in stored(credential)
    assert read(credential).basic_password == PASSWORD
    assert credential.basic_password == PASSWORD


def test_no_secret_is_an_empty_column() -> None:
    credential = make_credential(basic_password="", client_secret=None)
    assert (stored(credential), stored(credential, "client_secret")) == ("", "")
    assert (read(credential).basic_password, read(credential).client_secret) == ("", "")


def test_the_same_secret_is_stored_differently_each_time() -> None:
    assert stored(make_credential()) != stored(make_credential())


def test_saving_another_field_keeps_the_ciphertext() -> None:
    credential = make_credential()
    before = stored(credential)
    loaded = read(credential)
    loaded.name = "New"
    loaded.save()
    assert stored(credential) == before


def test_a_changed_secret_is_encrypted_again() -> None:
    credential = read(make_credential())
    credential.basic_password = "new"
    credential.save(update_fields=["basic_password"])
    assert read(credential).basic_password == "new"
    assert stored(credential).startswith("gAAAAA")


def test_a_cleared_secret_is_deleted() -> None:
    credential = read(make_credential())
    credential.set_secret("basic_password", "")
    credential.save()
    assert stored(credential) == ""
    assert not credential.has_secret("basic_password")


def test_many_rows_are_encrypted_each_for_itself() -> None:
    made = Credential.objects.bulk_create(
        [Credential(name=str(n), basic_password="same") for n in range(2)]
    )
    first, second = (read(credential) for credential in made)
    assert first.basic_password == second.basic_password == "same"
    assert stored(first) != stored(second)


def test_update_or_create_encrypts() -> None:
    credential = make_credential()
    Credential.objects.update_or_create(pk=credential.pk, defaults={"basic_password": "other"})
    assert read(credential).basic_password == "other"


# Loading only what is needed


def test_a_deferred_secret_is_read_when_it_is_asked_for() -> None:
    credential = make_credential()
    assert (
        Credential.objects.defer("basic_password").get(pk=credential.pk).basic_password == PASSWORD
    )
    assert (
        Credential.objects.only("name").get(pk=credential.pk).client_secret == "a client's secret"
    )


def test_saving_a_row_with_a_deferred_secret_keeps_the_secret() -> None:
    credential = make_credential()
    for update_fields in (None, ["name"], ["basic_password"]):
        loaded = Credential.objects.defer("basic_password").get(pk=credential.pk)
        loaded.save(update_fields=update_fields)
        assert read(credential).basic_password == PASSWORD


@pytest.mark.parametrize("is_deferred", [False, True])
def test_presence_is_known_without_the_key(use_keys: UseKeys, is_deferred: bool) -> None:
    credential = make_credential(client_secret="")
    use_keys(SECOND_KEY)
    loaded = Credential.objects.all()
    if is_deferred:
        loaded = loaded.defer("basic_password", "client_secret")
    assert loaded.get(pk=credential.pk).has_secret("basic_password")
    assert not loaded.get(pk=credential.pk).has_secret("client_secret")


# A wrong key


def test_a_wrong_key_raises_and_gives_nothing(use_keys: UseKeys) -> None:
    credential = make_credential()
    use_keys(SECOND_KEY)
    loaded = read(credential)
    with pytest.raises(SecretUnreadableError, match="FIELD_ENCRYPTION_KEY") as raised:
        _ = loaded.basic_password
    assert stored(credential) not in str(raised.value)
    assert raised.value.permanent


@pytest.mark.parametrize("update_fields", [None, ["basic_password"], ["name", "basic_password"]])
def test_a_wrong_key_changes_no_stored_byte(
    use_keys: UseKeys, update_fields: list[str] | None
) -> None:
    credential = make_credential()
    before = Credential.objects.filter(pk=credential.pk).values().get()
    use_keys(SECOND_KEY)
    loaded = read(credential)
    loaded.name = "Changed"
    with refused(SecretUnreadableError):
        loaded.save(update_fields=update_fields)
    assert Credential.objects.filter(pk=credential.pk).values().get() == before


def test_a_wrong_key_writes_no_new_secret_either(use_keys: UseKeys) -> None:
    credential = make_credential()
    before = stored(credential)
    use_keys(SECOND_KEY)
    loaded = Credential.objects.defer("client_secret").get(pk=credential.pk)
    loaded.basic_password = "typed under the wrong key"
    with refused(SecretUnreadableError):
        loaded.save(update_fields=["basic_password"])
    with refused(SecretUnreadableError):
        make_credential()
    with refused(SecretUnreadableError):
        Credential.objects.bulk_create([Credential(name="x", client_secret="z")])
    with refused(SecretUnreadableError):
        seal("typed into a form", "draft.basic_password:7:x")
    assert stored(credential) == before
    use_keys(FIRST_KEY)
    assert read(credential).basic_password == PASSWORD


def test_other_columns_can_still_be_written_with_a_wrong_key(use_keys: UseKeys) -> None:
    credential = make_credential()
    before = stored(credential)
    use_keys(SECOND_KEY)
    loaded = read(credential)
    loaded.name = "Changed"
    loaded.save(update_fields=["name"])
    assert (read(credential).name, stored(credential)) == ("Changed", before)


@pytest.mark.parametrize("change", [lambda c: c[:-8], lambda c: c[:20] + "AAAA" + c[24:]])
def test_damaged_ciphertext_raises(change: Callable[[str], str]) -> None:
    credential = make_credential()
    store(credential, change(stored(credential)))
    with pytest.raises(SecretUnreadableError):
        _ = read(credential).basic_password


@pytest.mark.parametrize("plain", ["secret", "é", "gAAAAA", " "])
def test_plain_text_in_the_column_is_never_passed_on(plain: str) -> None:
    credential = make_credential()
    store(credential, plain)
    with pytest.raises(SecretUnreadableError):
        _ = read(credential).basic_password


def test_a_canary_reveals_the_wrong_key(use_keys: UseKeys) -> None:
    assert EncryptionCanary.objects.get().canary == EncryptionCanary.TEXT
    use_keys(SECOND_KEY)
    with pytest.raises(SecretUnreadableError):
        _ = EncryptionCanary.objects.get().canary


# Rotation


def test_a_key_list_reads_the_old_and_writes_the_new(use_keys: UseKeys) -> None:
    old = make_credential()
    use_keys(SECOND_KEY, FIRST_KEY)
    assert read(old).basic_password == PASSWORD
    new = make_credential()
    rewritten = read(old)
    rewritten.basic_password = rewritten.basic_password
    rewritten.save(update_fields=["basic_password"])

    use_keys(SECOND_KEY)
    assert read(new).basic_password == PASSWORD
    assert read(old).basic_password == PASSWORD
    with pytest.raises(SecretUnreadableError):
        _ = read(old).client_secret


def test_the_second_key_of_a_list_does_not_encrypt(use_keys: UseKeys) -> None:
    use_keys(SECOND_KEY, FIRST_KEY)
    credential = make_credential()
    use_keys(FIRST_KEY)
    with pytest.raises(SecretUnreadableError):
        _ = read(credential).basic_password


# Refused ways to write


@pytest.mark.parametrize(
    "value",
    [
        "plain text",
        "gAAAAABm" + "A" * 92,
        b"bytes",
        5,
        F("client_secret"),
        F("name"),
        Value("plain text"),
        Value(""),
        Upper("name"),
        Concat("name", Value("x")),
        Case(When(name="CRM", then=Value("plain")), default=Value("other")),
        Subquery(Credential.objects.values("name")[:1]),
    ],
)
def test_update_takes_no_plain_text_and_no_expression(value: object) -> None:
    credential = make_credential()
    before = stored(credential)
    with refused(FieldError, match="basic_password is a secret"):
        Credential.objects.filter(pk=credential.pk).update(basic_password=value)
    assert stored(credential) == before


def test_update_may_clear_or_take_a_sealed_secret() -> None:
    credential = make_credential()
    place = f"webhooks_credential.basic_password:{credential.uid}"
    Credential.objects.filter(pk=credential.pk).update(basic_password=seal("new", place))
    assert read(credential).basic_password == "new"
    Credential.objects.filter(pk=credential.pk).update(basic_password="")
    assert read(credential).basic_password == ""


@pytest.mark.parametrize("is_changed", [False, True])
def test_bulk_update_is_refused(is_changed: bool) -> None:
    credential = make_credential()
    before = stored(credential)
    loaded = read(credential)
    if is_changed:
        loaded.basic_password = "new"
    with refused(FieldError, match="basic_password is a secret"):
        Credential.objects.bulk_update([loaded], ["basic_password"])
    assert stored(credential) == before


def test_bulk_update_of_other_columns_works() -> None:
    credential = make_credential()
    loaded = read(credential)
    loaded.name = "New"
    Credential.objects.bulk_update([loaded], ["name"])
    assert read(credential).basic_password == PASSWORD


@pytest.mark.parametrize(
    "value", [F("name"), Value("plain text"), Upper(Value("plain text")), Value("")]
)
def test_an_expression_on_the_instance_is_refused(value: Any) -> None:
    credential = make_credential()
    before = stored(credential)
    loaded = read(credential)
    loaded.basic_password = value
    with refused(FieldError):
        loaded.save()
    assert stored(credential) == before
    # Django itself refuses F() in an INSERT.
    with refused(FieldError, ValueError):
        Credential.objects.create(name="Other", basic_password=value)
    assert not Credential.objects.filter(name="Other").exists()


@pytest.mark.parametrize("default", ["", "plain", Value("x"), None])
def test_a_database_default_is_refused(default: object) -> None:
    with pytest.raises(FieldError, match="database default"):
        SecretField(db_default=default)


# Written back


@pytest.mark.parametrize("format_name", ["json", "jsonl", "xml"])
def test_a_masked_dump_is_not_loaded_as_if_the_mask_were_the_secret(
    format_name: str, tmp_path: Path
) -> None:
    credential = make_credential()
    before = stored(credential)
    dump = tmp_path / f"dump.{format_name}"
    call_command("dumpdata", "webhooks.credential", format=format_name, output=str(dump))
    with refused(FieldError, match="dumpdata leaves secrets out"):
        call_command("loaddata", str(dump))
    assert stored(credential) == before
    Credential.objects.all().delete()
    with refused(FieldError, match="Restore a backup"):
        call_command("loaddata", str(dump))
    assert not Credential.objects.exists()


def test_a_dump_without_secrets_can_be_loaded(tmp_path: Path) -> None:
    credential = make_credential(basic_password="", client_secret="")
    Credential.objects.filter(pk=credential.pk).update(client_secret="")
    dump = tmp_path / "dump.json"
    call_command("dumpdata", "webhooks.credential", output=str(dump))
    Credential.objects.all().delete()
    call_command("loaddata", str(dump), verbosity=0)
    assert Credential.objects.get().name == "CRM"


def test_the_mask_itself_is_no_secret() -> None:
    credential = make_credential()
    before = stored(credential)
    loaded = read(credential)
    loaded.basic_password = MASK
    with refused(FieldError, match="only stands for a secret"):
        loaded.save()
    with refused(FieldError, match="only stands for a secret"):
        Credential.objects.filter(pk=credential.pk).update(basic_password=MASK)
    assert stored(credential) == before


@pytest.mark.parametrize(
    "lookup",
    [
        {"basic_password": PASSWORD},
        {"basic_password__exact": ""},
        {"basic_password__in": ["a"]},
        {"basic_password__startswith": "gAAAAA"},
        {"basic_password__contains": "a"},
        {"basic_password__gt": ""},
        {"basic_password__length": 3},
        {"basic_password__regex": "."},
    ],
)
def test_a_secret_cannot_be_searched_for(lookup: dict[str, Any]) -> None:
    with pytest.raises(FieldError):
        Credential.objects.filter(**lookup).exists()


# Moved ciphertext


def test_ciphertext_of_another_row_is_refused() -> None:
    owner, thief = make_credential(), make_credential()
    store(thief, stored(owner))
    with pytest.raises(SecretUnreadableError, match="another row or column") as raised:
        _ = read(thief).basic_password
    assert "battery" not in str(raised.value)


def test_ciphertext_of_another_column_is_refused() -> None:
    credential = make_credential()
    store(credential, stored(credential, "client_secret"), "basic_password")
    with pytest.raises(SecretUnreadableError, match="another row or column"):
        _ = read(credential).basic_password


def test_ciphertext_of_another_table_is_refused() -> None:
    credential = make_credential()
    token = OAuthToken.objects.create(credential=credential, access_token="token")
    with connection.cursor() as cursor:
        cursor.execute("SELECT access_token FROM webhooks_oauthtoken")
        store(credential, cursor.fetchone()[0])
    assert OAuthToken.objects.get(pk=token.pk).access_token == "token"
    with pytest.raises(SecretUnreadableError):
        _ = read(credential).basic_password


def test_a_copied_row_cannot_take_the_secrets_along() -> None:
    credential = make_credential()
    copied = read(credential)
    copied.pk, copied.uid, copied._state.adding = None, "whk_copy", True
    with refused(SecretUnreadableError):
        copied.save()
    assert Credential.objects.count() == 1


def test_moved_ciphertext_stops_a_save() -> None:
    credential = make_credential()
    store(credential, stored(credential, "client_secret"), "basic_password")
    loaded = read(credential)
    loaded.name = "Changed"
    with refused(SecretUnreadableError):
        loaded.save()
    assert read(credential).name == "CRM"


def test_the_other_rows_secret_is_in_no_frame_of_the_error() -> None:
    owner, thief = make_credential(), make_credential()
    store(thief, stored(owner))
    with pytest.raises(SecretUnreadableError) as raised:
        _ = read(thief).basic_password
    frames = [entry.frame.f_locals for entry in raised.traceback][1:]
    assert "battery" not in repr(frames)


# Pasted ciphertext


def test_pasted_ciphertext_stays_text() -> None:
    victim, attacker = make_credential(), make_credential()
    pasted = stored(victim)
    attacker.basic_password = pasted
    attacker.full_clean()
    attacker.save()
    assert read(attacker).basic_password == pasted
    field = Credential._meta.get_field("basic_password")
    assert field.to_python(pasted) == pasted
    assert field.clean(pasted, attacker) == pasted


def test_pasted_ciphertext_of_the_same_place_stays_text() -> None:
    credential = make_credential()
    pasted = stored(credential)
    loaded = read(credential)
    loaded.basic_password = pasted
    loaded.save()
    assert read(loaded).basic_password == pasted


def test_validation_keeps_the_secret() -> None:
    credential = read(make_credential())
    credential.full_clean()
    credential.save()
    assert read(credential).basic_password == PASSWORD


# What can be seen


@pytest.mark.parametrize("format_name", ["json", "jsonl", "xml", "python"])
def test_dumpdata_masks(format_name: str) -> None:
    credential = make_credential(client_secret="")
    if format_name == "python":
        from django.core import serializers

        text = repr(serializers.serialize("python", [read(credential), credential]))
    else:
        out = io.StringIO()
        call_command("dumpdata", "webhooks", format=format_name, stdout=out)
        text = out.getvalue()
    assert MASK in text
    for secret in ("battery", stored(credential)):
        assert secret not in text


def test_dumpdata_shows_which_secrets_are_set() -> None:
    make_credential(client_secret="")
    out = io.StringIO()
    call_command("dumpdata", "webhooks.credential", stdout=out)
    (row,) = json.loads(out.getvalue())
    assert (row["fields"]["basic_password"], row["fields"]["client_secret"]) == (MASK, "")


def test_values_give_neither_the_secret_nor_a_readable_ciphertext() -> None:
    credential = make_credential()
    rows = [
        *Credential.objects.values_list("basic_password", "client_secret"),
        *Credential.objects.values("basic_password").values_list(),
        *Credential.objects.annotate(copied=F("basic_password")).values_list("copied"),
    ]
    for text in (repr(rows), str(rows), f"{rows[0][0]} {rows[0][0]!r}"):
        assert "battery" not in text
        assert stored(credential) not in text


def test_a_sealed_value_cannot_be_written_as_json() -> None:
    with pytest.raises(TypeError):
        json.dumps(Sealed("gAAAAA"))


def test_a_loaded_row_keeps_only_ciphertext_in_memory() -> None:
    loaded = read(make_credential())
    assert loaded.basic_password == PASSWORD
    assert "battery" not in repr(vars(loaded))
    assert b"battery" not in pickle.dumps(loaded)
    assert copy.deepcopy(loaded).basic_password == PASSWORD


def test_no_form_field_is_drawn_outside_its_template() -> None:
    for model in (Credential, Webhook):
        form = modelform_factory(model, fields="__all__")
        secret_names = {f.name for f in model._meta.get_fields() if isinstance(f, SecretField)}
        assert len(secret_names) >= 2
        assert not secret_names & set(form.base_fields)


def test_a_migration_rebuilds_the_field_without_a_secret() -> None:
    field = Credential._meta.get_field("basic_password")
    _name, path, arguments, options = field.deconstruct()
    assert path == "webhooks.security.encryption.SecretField"
    rebuilt = SecretField(*arguments, **options)
    assert isinstance(rebuilt, models.TextField)
    assert field.db_type(connection) == rebuilt.db_type(connection) == "text"
