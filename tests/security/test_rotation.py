"""`manage.py rotate_keys`: everything under the first key, restartable, nothing overwritten."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests import keys
from tests.factories import make_credential
from tests.keys import FIRST_KEY, SECOND_KEY, THIRD_KEY, Keys, replant, store, stored
from tests.oauth_rows import make_token, make_user, make_webhook
from webhooks import audit
from webhooks.models import (
    Action,
    AlertChannel,
    AuthorizationRequest,
    Credential,
    EncryptionCanary,
    OAuthToken,
    Webhook,
    WebhookVersion,
)
from webhooks.security import key_check
from webhooks.security.browser_sessions import SessionStore
from webhooks.security.drafts import Draft
from webhooks.security.encryption import SecretField, SecretUnreadableError
from webhooks.security.rotation import secret_models

pytestmark = [pytest.mark.django_db, pytest.mark.security, pytest.mark.usefixtures("counted")]

counted, use_keys = keys.counted, keys.use_keys
ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse \0 battery"


def rotate(**options: Any) -> str:
    out = io.StringIO()
    call_command("rotate_keys", stdout=out, **options)
    return out.getvalue()


def make_everything() -> list[tuple[Any, str]]:
    """Save a row of every model with every secret; return (row, column) of each secret."""
    webhook = make_webhook(
        basic_password=PASSWORD, headers_json="[]", previous_signing_secrets="p",
        client_key="key", client_certificate="certificate", token_headers="X-Key: k",
    )  # fmt: skip
    shared = make_credential(name="Shared", basic_password=PASSWORD)
    pending = AuthorizationRequest.objects.create(
        state_hash="0" * 64,
        credential=webhook.credential,
        user=make_user(),
        session_hash="1" * 64,
        code_verifier="the-verifier",
        redirect_uri="https://a.example/",
        client_fingerprint="2" * 64,
        expires_at=timezone.now(),
    )
    more = {
        "replaced_secret": "an earlier secret",
        "placeholder_values": '{"device_id": "a device"}',
    }
    token = make_token(webhook.credential, **more)
    rows = [webhook, webhook.credential, shared, token, pending]
    rows.append(EncryptionCanary.objects.get())
    rows.append(AlertChannel.objects.create(kind="slack", name="Ops", secret="https://a.example/"))
    audit.record(Action.CHANGED, webhook, user=None)
    rows.append(WebhookVersion.objects.get())
    return [
        (row, field.name)
        for row in rows
        for field in row._meta.concrete_fields
        if isinstance(field, SecretField) and field.is_set(row)
    ]


def plain(row: Any, column: str) -> str:
    return str(getattr(type(row)._base_manager.get(pk=row.pk), column))


@contextmanager
def change_before_write(change: Any, *, times: int = 1) -> Iterator[None]:
    """Call `change` between the command's read of a row and its write."""
    left = [times]

    def intrude(execute: Any, sql: str, *rest: Any) -> Any:
        if left[0] and sql.startswith("UPDATE") and "AND" in sql:
            left[0] -= 1
            change()
        return execute(sql, *rest)

    with connection.execute_wrapper(intrude):
        yield


def test_every_secret_of_every_model_is_read_by_the_new_key_alone(use_keys: Keys) -> None:
    secrets = make_everything()
    kinds = {(type(row)._meta.concrete_model, name) for row, name in secrets}
    fields = {
        (model, field.name)
        for model in secret_models()
        for field in model._meta.concrete_fields
        if isinstance(field, SecretField)
    }
    assert kinds == fields, "a secret that this test does not make would not be seen to rotate"
    before = {(row, name): plain(row, name) for row, name in secrets}
    use_keys(SECOND_KEY, FIRST_KEY)
    assert "Every secret is under the first key" in rotate()
    use_keys(SECOND_KEY)
    assert {(row, name): plain(row, name) for row, name in secrets} == before
    assert key_check.problem() == ""


def test_nothing_but_ciphertext_changes(use_keys: Keys) -> None:
    secrets = make_everything()
    rows = {row for row, _ in secrets}
    hidden = {name for _, name in secrets}

    def open_columns() -> list[dict[str, Any]]:
        found = [type(row)._base_manager.filter(pk=row.pk).values().get() for row in rows]
        return [{k: v for k, v in values.items() if k not in hidden} for values in found]

    before = open_columns()
    use_keys(SECOND_KEY, FIRST_KEY)
    rotate()
    # Versions stay as well: workers keep what they decrypted.
    assert open_columns() == before


def test_a_second_run_finds_nothing_to_do(use_keys: Keys) -> None:
    credential = make_webhook(basic_password=PASSWORD).credential
    use_keys(SECOND_KEY, FIRST_KEY)
    rotate()
    before = stored(credential, "basic_password")
    report = rotate()
    assert "webhooks_credential.basic_password: 0 re-encrypted, 1 under the first key" in report
    assert stored(credential, "basic_password") == before


def test_a_dry_run_counts_and_writes_nothing(use_keys: Keys) -> None:
    webhooks = [make_webhook(basic_password=PASSWORD).credential for _ in range(3)]
    use_keys(SECOND_KEY, FIRST_KEY)
    before = [stored(credential, "basic_password") for credential in webhooks]
    report = rotate(dry_run=True)
    assert "webhooks_credential.basic_password: 3 would be re-encrypted, 0 under" in report
    assert "can be removed" not in report
    assert [stored(credential, "basic_password") for credential in webhooks] == before


@pytest.mark.parametrize("batch_size", [1, 2, 3, 200])
def test_every_batch_size_reaches_every_row(use_keys: Keys, batch_size: int) -> None:
    webhooks = [make_webhook(basic_password=PASSWORD).credential for _ in range(5)]
    use_keys(SECOND_KEY, FIRST_KEY)
    out = io.StringIO()
    call_command("rotate_keys", batch_size=batch_size, verbosity=2, stdout=out)
    batches = out.getvalue().count("webhooks_webhook:")
    assert batches == -(-5 // batch_size)
    use_keys(SECOND_KEY)
    assert {plain(credential, "basic_password") for credential in webhooks} == {PASSWORD}


@pytest.mark.parametrize("batch_size", [0, -1, 10_001, 10**20])
def test_a_batch_of_no_rows_or_too_many_is_refused(batch_size: int) -> None:
    with pytest.raises(CommandError, match=r"^--batch-size must be from 1 to 10000"):
        rotate(batch_size=batch_size)


def test_a_database_that_there_is_not_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice: 'nope'"):
        call_command("rotate_keys", "--database", "nope")


def test_a_secret_that_is_changed_concurrently_is_not_overwritten(use_keys: Keys) -> None:
    credential = make_webhook(basic_password=PASSWORD).credential
    use_keys(SECOND_KEY, FIRST_KEY)

    def change() -> None:
        other = Credential.objects.get(pk=credential.pk)
        other.basic_password = "typed by a person meanwhile"
        other.save(update_fields=["basic_password"])

    with change_before_write(change):
        report = rotate()
    assert plain(credential, "basic_password") == "typed by a person meanwhile"
    assert "Every secret is under the first key" in report


def test_a_secret_cleared_concurrently_stays_cleared(use_keys: Keys) -> None:
    credential = make_webhook(basic_password=PASSWORD).credential
    use_keys(SECOND_KEY, FIRST_KEY)
    with change_before_write(
        lambda: Credential.objects.filter(pk=credential.pk).update(basic_password="")
    ):
        rotate()
    assert plain(credential, "basic_password") == ""


def test_a_row_deleted_concurrently_is_no_fault(use_keys: Keys) -> None:
    credential = make_webhook(basic_password=PASSWORD).credential
    use_keys(SECOND_KEY, FIRST_KEY)
    with change_before_write(lambda: Webhook.objects.filter(credential=credential.pk).delete()):
        assert "can be removed" in rotate()


def test_a_process_that_still_writes_with_the_old_key_is_noticed(use_keys: Keys) -> None:
    credential = make_webhook(basic_password=PASSWORD).credential
    use_keys(SECOND_KEY, FIRST_KEY)

    def write_with_the_old_key() -> None:
        use_keys(FIRST_KEY, SECOND_KEY)
        other = Credential.objects.get(pk=credential.pk)
        other.basic_password = PASSWORD
        other.save(update_fields=["basic_password"])
        use_keys(SECOND_KEY, FIRST_KEY)

    with (
        change_before_write(write_with_the_old_key, times=10),
        pytest.raises(CommandError, match=r"changed during the run: 1\. Run.*Keep the"),
    ):
        rotate()
    assert plain(credential, "basic_password") == PASSWORD


def test_what_no_key_reads_is_named_and_left_as_it_is(use_keys: Keys) -> None:
    lost, fine = (make_webhook(basic_password=PASSWORD).credential for _ in range(2))
    use_keys(THIRD_KEY)
    replant()
    alien = make_webhook(client_secret="", basic_password="x").credential
    foreign = stored(alien, "basic_password")
    Webhook.objects.filter(credential=alien.pk).delete()
    use_keys(SECOND_KEY, FIRST_KEY)
    replant()
    store(lost, "basic_password", foreign)
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"none of the keys reads.*: 1\. .*Keep the old"):
        call_command("rotate_keys", stdout=out)
    assert f"unreadable: webhooks_credential.basic_password of row {lost.pk}" in out.getvalue()
    assert stored(lost, "basic_password") == foreign
    use_keys(SECOND_KEY)
    # Everything else was rotated.
    assert plain(fine, "basic_password") == PASSWORD
    assert plain(lost, "client_secret") == plain(fine, "client_secret")


def test_ciphertext_moved_from_another_row_is_named_and_stays_refused(use_keys: Keys) -> None:
    owner, thief = (make_webhook(basic_password=text).credential for text in (PASSWORD, "own"))
    moved = stored(owner, "basic_password")
    store(thief, "basic_password", moved)
    use_keys(SECOND_KEY, FIRST_KEY)
    with pytest.raises(CommandError, match="belong to another row"):
        rotate()
    assert stored(thief, "basic_password") == moved
    with pytest.raises(SecretUnreadableError):
        plain(thief, "basic_password")


def test_a_key_list_that_reads_nothing_changes_nothing(use_keys: Keys) -> None:
    credential = make_webhook(basic_password=PASSWORD).credential
    before = stored(credential, "basic_password")
    use_keys(SECOND_KEY, THIRD_KEY)
    with pytest.raises(CommandError, match=r"cannot be decrypted.*Nothing was changed"):
        rotate()
    assert stored(credential, "basic_password") == before


# Secrets that were typed and not saved yet


def draft_in_a_session(secret: str = PASSWORD) -> tuple[SessionStore, str]:
    session = SessionStore()
    draft = Draft(session, form_key="7")
    draft.keep("basic_password", secret)
    session.save()
    return SessionStore(session.session_key), draft.id


def test_typed_secrets_of_open_forms_are_renewed(use_keys: Keys) -> None:
    session, draft_id = draft_in_a_session()
    use_keys(SECOND_KEY, FIRST_KEY)
    assert "django_session (typed, not yet saved): 1 re-encrypted" in rotate()
    use_keys(SECOND_KEY)
    assert Draft(session, draft_id=draft_id, form_key="7").get("basic_password") == PASSWORD


def test_a_session_that_is_saved_concurrently_is_not_overwritten(use_keys: Keys) -> None:
    session, draft_id = draft_in_a_session()
    use_keys(SECOND_KEY, FIRST_KEY)

    def save() -> None:
        now = SessionStore(session.session_key)
        now["typed"] = "meanwhile"
        now.save()

    # The first conditional update is the canary's.
    left = [2]

    def intrude(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('UPDATE "django_session"') and left[0]:
            left[0] -= 2
            save()
        return execute(sql, *rest)

    with connection.execute_wrapper(intrude):
        rotate()
    use_keys(SECOND_KEY)
    assert session["typed"] == "meanwhile"
    assert Draft(session, draft_id=draft_id, form_key="7").get("basic_password") == PASSWORD


def test_a_draft_that_no_key_reads_stops_nothing(use_keys: Keys) -> None:
    draft_in_a_session()
    use_keys(SECOND_KEY)
    replant()
    report = rotate()
    assert "django_session (typed, not yet saved): 0 re-encrypted, 0 under" in report
    assert "1 unreadable" in report
    assert "can be removed" in report


def test_a_session_stays_logged_in(use_keys: Keys) -> None:
    browser = Client()
    browser.force_login(make_user())
    draft = Draft(session := browser.session, form_key="7")
    draft.keep("basic_password", PASSWORD)
    session.save()
    expires = Session.objects.get().expire_date
    use_keys(SECOND_KEY, FIRST_KEY)
    rotate()
    assert browser.session["_auth_user_id"]
    assert Session.objects.get().expire_date == expires


# Killed


@pytest.mark.django_db(transaction=True)
def test_a_rotation_that_is_killed_ends_right_when_it_is_run_again(use_keys: Keys) -> None:
    Credential.objects.bulk_create(
        Credential(name=str(n), basic_password=f"p{n}", client_secret=f"s{n}") for n in range(300)
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": database_url(),
        "FIELD_ENCRYPTION_KEY": f"{SECOND_KEY},{FIRST_KEY}",
    }
    command = [sys.executable, "manage.py", "rotate_keys", "--verbosity=2", "--batch-size=1"]
    # A pipe of one page holds half of the output: the command cannot end before all is read.
    pipe = {"stdout": subprocess.PIPE, "bufsize": 0, "pipesize": 4096}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipe) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        assert any(b"webhooks_credential: 50 rows" in line for line in lines)
        process.send_signal(signal.SIGKILL)

    def readable_with(key: str) -> int:
        use_keys(key)
        return sum(map(_is_readable, Credential.objects.all()))

    done = readable_with(SECOND_KEY)
    assert 50 <= done < 300
    assert done + readable_with(FIRST_KEY) == 300
    use_keys(SECOND_KEY, FIRST_KEY)
    report = rotate()
    assert f"basic_password: {300 - done} re-encrypted, {done} under the first key" in report
    use_keys(SECOND_KEY)
    rows = Credential.objects.all()
    found = {(one.name, one.basic_password, one.client_secret) for one in rows}
    assert found == {(str(n), f"p{n}", f"s{n}") for n in range(300)}


def _is_readable(credential: Credential) -> bool:
    try:
        return bool(credential.basic_password and credential.client_secret)
    except SecretUnreadableError:
        return False


def database_url() -> str:
    """Return the URL of this test's own database."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{name}"


def test_tokens_of_deleted_webhooks_are_rotated_too(use_keys: Keys) -> None:
    webhook = make_webhook(deleted_at=timezone.now())
    token = make_token(webhook.credential, access_token="still a secret")
    use_keys(SECOND_KEY, FIRST_KEY)
    rotate()
    use_keys(SECOND_KEY)
    assert OAuthToken.objects.get(pk=token.pk).access_token == "still a secret"
