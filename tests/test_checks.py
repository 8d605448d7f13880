"""Each system check reports its problem by id, and is silent otherwise."""

import os
import subprocess
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.db import connection, connections
from pytest_django import Settings

from tests.commands import manage
from webhooks import checks
from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.queue import postgres
from webhooks.models import EncryptionCanary
from webhooks.security import key_check
from webhooks.security.encryption import seal


def ids(*, deploy: bool = False) -> list[str]:
    found = run_checks(include_deployment_checks=deploy)
    return [message.id or "" for message in found if (message.id or "").startswith("webhooks.")]


def test_the_settings_of_the_tests_are_fine() -> None:
    assert run_checks() == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://hooks.example.com",
        "https://hooks.example.com/path",
        "https://hooks.example.com?query",
        "https://user@hooks.example.com",
        "https://",
        "https://hooks.example.com:99999",
        "https://[::1",
        "https://xn--ü.example",
        "https://hooks..example.com",
    ],
)
def test_public_url_is_scheme_and_host(settings: Settings, url: str) -> None:
    settings.PUBLIC_URL = url
    assert ids() == ["webhooks.E001"]
    settings.PUBLIC_URL = "https://hooks.example.com"
    settings.WEBHOOKS_PUBLIC_URLS = ["https://other.example.com:8443", url]
    assert ids() == ["webhooks.E001"]


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("https://hooks.example.com", True),
        ("http://hooks.example.com", False),
        ("http://127.0.0.1:8000", True),
        ("http://127.8.8.8:8000", True),
        ("http://LOCALHOST:8000", True),
        ("http://[::1]:8000", True),
        ("http://localhost.example.com", False),
    ],
)
def test_production_is_https_unless_it_is_this_machine(
    settings: Settings, url: str, is_fine: bool
) -> None:
    settings.PUBLIC_URL = url
    assert ("webhooks.E002" in ids(deploy=True)) is not is_fine
    assert "webhooks.E002" not in ids()


def test_secret_key_is_set(settings: Settings) -> None:
    settings.SECRET_KEY = ""
    assert ids() == ["webhooks.E016"]


@pytest.mark.parametrize(
    ("sender", "is_fine"),
    [
        ("webhooks@localhost", True),
        ("Служба <hooks@example.com>", True),
        ('"Служба, ТОВ" <hooks@пошта.укр>', True),
        ("", False),
        ("<>", False),
        ("webhooks", False),
        ("hooks@", False),
        ("Webhooks hooks@example.com", False),
        ("Служба, ТОВ <hooks@example.com>", False),
        ("hooks@example.com, ops@example.com", False),
        ("гачки@example.com", False),
    ],
)
def test_the_sender_of_mails_is_one_address(
    settings: Settings, sender: str, *, is_fine: bool
) -> None:
    settings.DEFAULT_FROM_EMAIL = sender
    assert ids() == ([] if is_fine else ["webhooks.E017"])


def test_encryption_keys_are_fernet_keys(settings: Settings) -> None:
    good = Fernet.generate_key().decode()
    for keys in ([], ["short"], [good, good[:-3] + "=="]):
        settings.FIELD_ENCRYPTION_KEY = keys
        assert ids() == ["webhooks.E003"]
    settings.FIELD_ENCRYPTION_KEY = [good, Fernet.generate_key().decode()]
    assert ids() == []


def test_a_bad_key_is_not_repeated_in_the_message(settings: Settings) -> None:
    settings.FIELD_ENCRYPTION_KEY = ["nearly-the-right-key"]
    (message,) = checks.check_encryption_keys()
    assert "nearly" not in f"{message.msg}{message.hint}"


@pytest.mark.django_db
def test_canary_is_planted_by_migrate_and_readable() -> None:
    assert EncryptionCanary.objects.get().canary == EncryptionCanary.TEXT
    assert key_check.problem() == ""
    assert checks.check_canary(databases=["default"]) == []


@pytest.mark.django_db
def test_unreadable_canary_stops_migrate_and_check() -> None:
    other_key = Fernet(Fernet.generate_key()).encrypt(b"webhooks_encryptioncanary.canary:1\0x")
    with connection.cursor() as cursor:
        table = EncryptionCanary._meta.db_table
        cursor.execute(f"UPDATE {table} SET canary = %s", [other_key.decode()])

    (message,) = checks.check_canary(databases=["default"])

    assert message.id == "webhooks.E004"
    assert "FIELD_ENCRYPTION_KEY" in message.msg
    assert checks.check_canary(databases=None) == []


@pytest.mark.database("postgres")
@pytest.mark.django_db
def test_a_pooler_that_gives_sessions_to_others_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_pooler(databases=["default"]) == []

    # Behind a transaction pooler, two client connections can share one server connection.
    shared = connections.create_connection("default")
    monkeypatch.setattr(connections, "create_connection", lambda _using: shared)

    (message,) = checks.check_pooler(databases=["default"])
    assert message.id == "webhooks.E013"
    assert "pool_mode to session" in message.msg


@pytest.mark.database("postgres")
@pytest.mark.django_db
def test_a_database_that_does_not_hold_every_letter_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert checks.check_encoding(databases=["default"]) == []

    latin = connections.create_connection("default")
    name = f"{latin.settings_dict['NAME']}_latin"
    latin.settings_dict = {**latin.settings_dict, "NAME": name}
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        other.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            with monkeypatch.context() as patch:
                patch.setattr(checks, "connections", {"default": latin})
                patch.setattr(postgres, "connections", {"default": latin})
                (message,) = checks.check_encoding(databases=["default"])
        finally:
            latin.close()
            other.execute(f"DROP DATABASE {name}")
    assert message.id == "webhooks.E014"
    assert "LATIN1" in message.msg


@pytest.mark.database("postgres")
@pytest.mark.django_db
def test_a_role_for_which_no_trigger_runs_is_noticed() -> None:
    assert checks.check_triggers(databases=["default"]) == []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
    (message,) = checks.check_triggers(databases=["default"])
    assert message.id == "webhooks.E015"


@pytest.mark.database("postgres")
@pytest.mark.django_db
def test_a_log_of_many_partitions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_partitions(databases=["default"]) == []
    monkeypatch.setattr(checks, "MANY_PARTITIONS", 1)
    (message,) = checks.check_partitions(databases=["default"])
    assert message.id == "webhooks.W003"
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE webhooks_delivery RENAME TO elsewhere")
    assert checks.check_partitions(databases=["default"]) == []


@pytest.mark.database("postgres")
@pytest.mark.django_db
def test_a_statement_that_a_pooler_lost_says_so(caplog: pytest.LogCaptureFixture) -> None:
    session = DatabaseSession(postgres)

    def execute() -> None:
        with connection.cursor() as cursor:
            cursor.execute("EXECUTE lost")

    assert session.run(execute) is None
    assert "pool_mode to session" in caplog.text


@pytest.mark.django_db
def test_canary_with_another_text_is_noticed() -> None:
    EncryptionCanary.objects.update(canary=seal("other", "webhooks_encryptioncanary.canary:1"))
    assert key_check.problem() == "The encryption canary was changed."


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8:0"])
def test_allowed_networks_can_be_read(settings: Settings, text: str) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = ["10.0.0.0/8:8080", text]
    assert ids() == ["webhooks.E005"]


def test_egress_proxy_is_an_address(settings: Settings) -> None:
    settings.WEBHOOKS_EGRESS_PROXY = "proxy.example:3128"
    assert ids() == ["webhooks.E006"]
    for address in (
        *("http://proxy.example:3128", "https://login:p%40ss@proxy.example", "http://proxy:81"),
        *("http://proxy.svc.cluster.local.:3128", "http://[fd00::7]:3128", "http://10.0.0.7:3128"),
    ):
        settings.WEBHOOKS_EGRESS_PROXY = address
        assert ids() == []


@pytest.mark.parametrize(
    "address",
    [
        # libcurl rejects these, or parses a different host.
        *("http://login:p@ss@proxy.example:3128", "http://login:p/s@proxy.example:3128"),
        *("http://login:p#s@proxy.example:3128", "http://login:p s@proxy.example:3128"),
        *("http://bücher.example:3128", "http://12%37.0.0.1:3128", "http://[fd00::7%25eth0]:3128"),
        # The guard would not know the address that libcurl connects to.
        *("http://[fd00:0:0:0:0:0:0:7]:3128", "http:// proxy.example:3128"),
    ],
)
def test_an_egress_proxy_that_libcurl_cannot_use_is_reported(
    settings: Settings, address: str
) -> None:
    settings.WEBHOOKS_EGRESS_PROXY = address
    assert ids() == ["webhooks.E006"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("10.20.0.0/16:8000-8099", "opens 10.20.0.0/16, ports 8000 to 8099."),
        ("10.1.2.3:8080", "opens 10.1.2.3/32, port 8080."),
        ("[fd00::7]/128", "opens fd00::7/128, every port."),
    ],
)
def test_what_is_opened_is_shown_by_network_and_port(
    settings: Settings, entry: str, words: str
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = [entry]
    (message,) = checks.check_opened_networks()
    assert (message.id, message.msg) == ("webhooks.I001", f"WEBHOOKS_ALLOWED_NETWORKS {words}")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("0.0.0.0/0", "stays shut"),
        ("::/0", "stays shut"),
        ("fc00::/7", "stays shut"),
        ("100.64.0.0/10", "stays shut"),
        ("192.0.0.0/24", "stays shut"),
        ("169.254.169.254:80", "credentials"),
        ("168.63.129.16", "credentials"),
        ("100.100.100.200", "credentials"),
        ("[fd00:ec2::254]:80", "credentials"),
    ],
)
def test_opening_cloud_metadata_is_warned_about(settings: Settings, entry: str, words: str) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = [entry, "nonsense"]
    (message,) = checks.check_opened_networks()
    assert message.id == "webhooks.W001"
    assert words in message.msg


def test_a_receiver_beside_cloud_metadata_is_not_warned_about(settings: Settings) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = ["100.64.0.9:8080"]
    assert [message.id for message in checks.check_opened_networks()] == ["webhooks.I001"]


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("", True),
        ("redis://127.0.0.1:6379/0", True),
        ("redis://[::1]:6379/0", True),
        ("redis://user@localhost", True),
        ("redis://:p4ss@redis:6379/0", True),
        ("rediss://user:p4ss@redis.example.com/0", True),
        ("redis://redis:6379/0", False),
        ("rediss://user@redis.example.com/0", False),
    ],
)
def test_a_redis_on_another_machine_has_a_password(
    settings: Settings, url: str, is_fine: bool
) -> None:
    settings.REDIS_URL = url
    assert ("webhooks.W002" not in ids(deploy=True)) is is_fine


def test_insecure_oauth_transport_is_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "0")
    assert "webhooks.E007" in ids(deploy=True)
    monkeypatch.delenv("OAUTHLIB_INSECURE_TRANSPORT")
    assert "webhooks.E007" not in ids(deploy=True)


@pytest.mark.parametrize("name", sorted(checks.RANGES))
def test_every_quantity_has_a_lowest_and_a_highest_value(settings: Settings, name: str) -> None:
    lowest, highest = checks.RANGES[name]
    for value, is_fine in ((lowest, True), (lowest - 0.001, False), (highest + 1, False)):
        setattr(settings, name, value)
        assert ("webhooks.E008" not in ids()) is is_fine, value


_PREFIXES = (
    "WEBHOOKS_",
    "LOGIN_",
    "TRUSTED_",
    "SESSION_COOKIE_AGE_",
    "SECURE_HSTS_",
    "DATABASE_CONNECTION_",
)


def test_ranges_cover_every_number_of_the_settings() -> None:
    numbers = {
        name
        for name in dir(django_settings)
        if name.startswith(_PREFIXES)
        and isinstance(value := getattr(django_settings, name), int | float)
        and not isinstance(value, bool)
    }
    assert numbers == set(checks.RANGES)


def test_lease_is_longer_than_the_longest_request(settings: Settings) -> None:
    settings.WEBHOOKS_LEASE_SECONDS = 65
    (message,) = checks.check_ranges()
    assert "second time" in (message.hint or "")


def test_one_webhook_cannot_be_given_more_than_all(settings: Settings) -> None:
    settings.WEBHOOKS_MAX_IN_FLIGHT = 10
    settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK = 11
    assert ids() == ["webhooks.E009"]


def test_every_event_that_is_accepted_fits_a_body(settings: Settings) -> None:
    settings.WEBHOOKS_MAX_PAYLOAD_BYTES = 1_000_000
    settings.WEBHOOKS_MAX_BODY_BYTES = 2_999_999
    assert ids() == ["webhooks.E009"]


@pytest.mark.parametrize(
    ("path", "is_fine"),
    [
        ("", True),
        ("tests.security.test_second_factor.ask", True),
        ("tests.security.test_second_factor.nothing", False),
        ("nowhere", False),
        ("tests.security.test_second_factor.PATH", False),
    ],
)
def test_what_asks_for_a_second_factor_is_a_function(
    settings: Settings, path: str, is_fine: bool
) -> None:
    settings.SECOND_FACTOR_CHECK = path
    assert ("webhooks.E010" not in ids()) is is_fine


PRODUCTION = {
    "ENV_FILE": os.devnull,
    "PUBLIC_URL": "https://hooks.example.com",
    "BEHIND_TLS_PROXY": "1",
    "SECRET_KEY": "k9-Xw_2uB7vQzR4tYp1sNf6gHj3mLc8dEa5oKiVb0qWxZy-strong",
    "FIELD_ENCRYPTION_KEY": os.environ["FIELD_ENCRYPTION_KEY"],
}


def check_deploy(data_dir: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir)}
    environment = {**own, **PRODUCTION, **changes}
    return manage("check", "--deploy", "--fail-level=WARNING", environment=environment)


def test_production_settings_pass_every_check(tmp_path: Path) -> None:
    checked = check_deploy(tmp_path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"SECRET_KEY": "weak"}, "security.W009"),
        ({"DEBUG": "1"}, "security.W018"),
        ({"PUBLIC_URL": "http://hooks.example.com"}, "webhooks.E002"),
        ({"OAUTHLIB_INSECURE_TRANSPORT": "1"}, "webhooks.E007"),
    ],
)
def test_careless_production_settings_fail(
    tmp_path: Path, changes: dict[str, str], id: str
) -> None:
    checked = check_deploy(tmp_path, **changes)
    assert checked.returncode != 0
    assert id in checked.stderr
