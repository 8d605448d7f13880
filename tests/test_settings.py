"""`.env.example` agrees with config/settings.py, and the keys file is created correctly."""

import ast
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config.environment import Env, make_keys, prepare, read_file
from tests.commands import ROOT, manage

EXAMPLE = ROOT / ".env.example"
# A setting with a number ends in its unit, which the example repeats, or is one of COUNTS.
UNIT = re.compile(r"_(SECONDS|MINUTES|HOURS|DAYS|BYTES|ROWS)$")
COUNTS = {
    "WEBHOOKS_MAX_PER_EVENT_TYPE",
    "WEBHOOKS_MAX_IN_FLIGHT",
    "WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK",
    "WEBHOOKS_DRAINS_PER_WORKER",
    "WEBHOOKS_SHARDS",
    "LOGIN_FAILURE_LIMIT",
    "TRUSTED_PROXY_COUNT",
}
# Derived from another setting, so the example explains it or gives a relative path.
DERIVED = {"DATA_DIR", "DATABASE_URL", "ENV_FILE"}


def settings_read() -> dict[str, object]:
    """Return every name the settings read from the environment, with its default."""
    defaults: dict[str, object] = {}
    for node in ast.walk(ast.parse((ROOT / "config" / "settings.py").read_text())):
        if not isinstance(node, ast.Call) or not re.fullmatch(r"env\.\w+", ast.unparse(node.func)):
            continue
        if isinstance(node.args[0], ast.Constant):
            default = next(word.value for word in node.keywords if word.arg == "default")
            defaults[str(node.args[0].value)] = _value(default)
    return defaults


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return int(str(_value(node.left))) * int(str(_value(node.right)))
    return ast.literal_eval(node) if isinstance(node, ast.Constant | ast.List) else None


def example() -> dict[str, str]:
    lines = re.findall(r"^# ([A-Z][A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a setting is listed twice"
    return dict(lines)


def comment_of(name: str) -> str:
    """Return the paragraph of the example that contains the setting."""
    paragraphs = EXAMPLE.read_text().split("\n\n")
    return next(text for text in paragraphs if re.search(rf"^# {name}=", text, re.MULTILINE))


def test_example_lists_every_setting_and_no_other() -> None:
    assert set(example()) == set(settings_read())


def test_example_shows_the_defaults() -> None:
    shown = example()
    for name, default in settings_read().items():
        if name not in DERIVED:
            expected = "" if default == [] else str(default)
            assert shown[name] == expected, name


def test_every_quantity_says_its_unit() -> None:
    for name, default in settings_read().items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            unit = UNIT.search(name)
            assert unit or name in COUNTS, f"{name} has no unit in its name"
            assert not unit or unit[1].lower() in comment_of(name), f"{name}: unit in .env.example"


def test_copied_example_changes_nothing() -> None:
    assert [line for line in EXAMPLE.read_text().splitlines() if not re.match(r"#|$", line)] == []


def test_every_setting_is_explained() -> None:
    assert [name for name in example() if not comment_of(name).startswith("# ")] == []


def run_check(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return manage("check", *arguments, environment={"PATH": os.environ["PATH"], **environment})


def test_example_as_it_stands_is_valid_but_for_the_keys(tmp_path: Path) -> None:
    text = re.sub(r"^# ([A-Z][A-Z_]+=)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "all.env").write_text(text.replace("DATA_DIR=.data", f"DATA_DIR={tmp_path}"))
    keys = {name: os.environ[name] for name in ("SECRET_KEY", "FIELD_ENCRYPTION_KEY")}

    checked = run_check({"ENV_FILE": str(tmp_path / "all.env"), **keys}, "--fail-level=WARNING")

    assert checked.returncode == 0, checked.stderr


def test_missing_encryption_key_is_said_in_one_sentence(tmp_path: Path) -> None:
    checked = run_check({"ENV_FILE": os.devnull, "DATA_DIR": str(tmp_path), "SECRET_KEY": "x" * 50})

    assert checked.returncode != 0
    assert "FIELD_ENCRYPTION_KEY" in checked.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", " 30 ", 30),
        ("int", "", 7),
        ("float", "1e2", 100.0),
        ("float", " ", 7),
        ("bool", " TRUE ", True),
        ("bool", "off", False),
        ("bool", "", 7),
        ("str", " $6d!x ", "$6d!x"),
        ("str", "", 7),
        ("list", "a.example, b.example,,", ["a.example", "b.example"]),
        ("list", "$a", ["$a"]),
        ("list", "", 7),
    ],
)
def test_a_value_is_what_it_says(
    kind: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SETTING", text)
    assert getattr(Env(), kind)("SOME_SETTING", default=7) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "30d"),
        ("int", "1.5"),
        ("float", "12h"),
        ("float", "90 # seconds"),
        ("float", '"90"'),
        ("bool", "Ture"),
        ("bool", "2"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(
    kind: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SETTING", text)
    with pytest.raises(ImproperlyConfigured, match=r"^SOME_SETTING is .* Write "):
        getattr(Env(), kind)("SOME_SETTING", default=1)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("LOG_LEVEL=loud", "LOG_LEVEL is 'LOUD'. Write DEBUG, INFO, WARNING or ERROR."),
        ("TIME_ZONE=Mars", "TIME_ZONE is 'Mars'. Write the name of a time zone"),
        ("TIME_ZONE=Europe", "TIME_ZONE is 'Europe'."),
        ("LANGUAGE_CODE=xx", "LANGUAGE_CODE is 'xx'. Write en or uk."),
        ("WEBHOOKS_EVENT_TYPES=no.types", "WEBHOOKS_EVENT_TYPES: No module named 'no'."),
        ("WEBHOOKS_EVENT_TYPES=os.types", 'WEBHOOKS_EVENT_TYPES: Module "os" does not define'),
        ("EMAIL_URL=smtp://me:secret@[mail", "EMAIL_URL is not the address of a mail server"),
        # The library would report an invalid port.
        ("DATABASE_URL=postgres://me:secret/1@host/name", "DATABASE_URL is not the address"),
        ("DATABASE_URL=mysql://me:secret@host/name", "DATABASE_URL is not the address"),
    ],
)
def test_a_wrong_setting_is_said_without_its_secret(
    setting: str, sentence: str, tmp_path: Path
) -> None:
    name, _, value = setting.partition("=")
    keys = {"SECRET_KEY": "x" * 50, "FIELD_ENCRYPTION_KEY": os.environ["FIELD_ENCRYPTION_KEY"]}
    checked = run_check({"ENV_FILE": os.devnull, "DATA_DIR": str(tmp_path), **keys, name: value})
    assert checked.returncode == 1
    last = checked.stderr.splitlines()[-1]
    assert last.startswith("The settings cannot be used. ")
    assert sentence in last
    assert "Traceback" not in checked.stderr
    assert "secret" not in checked.stderr


@pytest.mark.parametrize("seconds", [10**18, -(10**18)])
def test_a_number_that_no_clock_can_hold_is_named(seconds: int, tmp_path: Path) -> None:
    keys = {"SECRET_KEY": "x" * 50, "FIELD_ENCRYPTION_KEY": os.environ["FIELD_ENCRYPTION_KEY"]}
    given = {"LOGIN_LOCKOUT_SECONDS": str(seconds), **keys}
    checked = run_check({"ENV_FILE": os.devnull, "DATA_DIR": str(tmp_path), **given})
    assert checked.returncode == 1
    assert "LOGIN_LOCKOUT_SECONDS" in checked.stderr
    assert "Traceback" not in checked.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_of_settings_that_is_named_has_to_be_there(command: str, tmp_path: Path) -> None:
    environment = {"ENV_FILE": str(tmp_path / "typo.env"), "DATA_DIR": str(tmp_path / "data")}
    done = manage(command, environment={"PATH": os.environ["PATH"], **environment})
    assert done.returncode == 1
    assert done.stderr.endswith("typo.env', which does not exist.\n")
    # Neither a keys file nor another database was created.
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["a b#c?d%41", "дані", "a[b]@c:d"])
def test_the_database_is_in_its_folder_whatever_its_name(folder: str, tmp_path: Path) -> None:
    script = "from config import settings; print(settings.DATABASES['default']['NAME'])"
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull}
    environment["DATA_DIR"] = str(tmp_path / folder)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"{tmp_path / folder / 'webhooks.sqlite3'}\n", done.stderr


def test_the_folder_of_a_socket_may_be_the_host_of_the_database() -> None:
    script = "from config import settings; print(settings.DATABASES['default']['HOST'])"
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "LOG_LEVEL": "info"}
    environment["DATABASE_URL"] = "postgres://me@%2Frun%2Fpostgresql/webhooks"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "/run/postgresql\n", done.stderr


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("smtp://mail", "webhooks.alerts.mail.SmtpBackend"),
        ("smtp+tls://mail", "webhooks.alerts.mail.SmtpBackend"),
        ("smtp+ssl://mail", "webhooks.alerts.mail.SmtpBackend"),
        ("consolemail://", "django.core.mail.backends.console.EmailBackend"),
    ],
)
def test_mail_by_smtp_has_a_deadline(url: str, backend: str) -> None:
    script = "from config import settings; print(settings.EMAIL_BACKEND)"
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "EMAIL_URL": url}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"{backend}\n", done.stderr


def test_an_isolation_level_in_the_address_of_the_database_is_not_used() -> None:
    script = "from config import settings; print(settings.DATABASES['default']['OPTIONS'])"
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull}
    environment["DATABASE_URL"] = "postgres://me@host/name?isolation_level=4&application_name=hooks"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "hooks" in done.stdout, done.stderr
    assert "isolation_level" not in done.stdout


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"# Keys\n\nSECRET_KEY = secret\n", "Line 3 of .* is not a setting"),
        (b"A=1\n  SECRET_KEY=secret\n", "Line 2 of .* is not a setting"),
        (b"SECRET_KEY=secret\xff\n", "cannot be read"),
    ],
)
def test_a_file_of_settings_is_never_read_in_part(
    data: bytes, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.env"
    file.write_bytes(data)
    with pytest.raises(ImproperlyConfigured, match=sentence) as refused:
        read_file(file)
    assert "secret" not in str(refused.value)


def test_a_file_of_settings_may_come_from_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_OF_FILE", "SECOND_OF_FILE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    file = tmp_path / "settings.env"
    text = b'\xef\xbb\xbfFIRST_OF_FILE=1\r\n \r\n  # text\r\nexport SECOND_OF_FILE="a b"\r\n'
    file.write_bytes(text)
    read_file(file)
    assert (os.environ["FIRST_OF_FILE"], os.environ["SECOND_OF_FILE"]) == ("1", "a b")


def test_keys_are_made_once_and_for_their_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIELD_ENCRYPTION_KEY")
    monkeypatch.delenv("SECRET_KEY")
    previous = os.umask(0)
    try:
        make_keys(tmp_path / "data")
    finally:
        os.umask(previous)
    path = tmp_path / "data" / "keys.env"
    first = path.read_text()
    make_keys(tmp_path / "data")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == first
    assert re.search(r"^SECRET_KEY=\S{50,}$", first, re.MULTILINE)
    assert re.search(r"^FIELD_ENCRYPTION_KEY=\S{43}=$", first, re.MULTILINE)
    assert [file.name for file in path.parent.iterdir()] == ["keys.env"]


def test_keys_of_the_environment_are_kept_out_of_the_file(tmp_path: Path) -> None:
    make_keys(tmp_path / "data")

    assert list((tmp_path / "data").iterdir()) == []


def test_addresses_follow_the_port_unless_a_person_set_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PUBLIC_URL", "WEBHOOKS_SANDBOX_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("WEBHOOKS_ALLOWED_NETWORKS", "10.0.0.0/8:8080")

    prepare(["--port", "9000", "--sandbox", "--verbosity", "2"])

    assert os.environ["PUBLIC_URL"] == "http://127.0.0.1:9000"
    assert os.environ["WEBHOOKS_SANDBOX_URL"] == "http://127.0.0.1:9001"
    networks = os.environ["WEBHOOKS_ALLOWED_NETWORKS"].split(",")
    assert networks == ["10.0.0.0/8:8080", "127.0.0.1/32:9001", "127.0.0.1/32:9002"]
    prepare(["--port", "9500"])
    assert os.environ["PUBLIC_URL"] == "http://127.0.0.1:9000"


def test_addresses_follow_the_port_of_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PUBLIC_URL", "PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    file = tmp_path / "settings.env"
    file.write_text("PORT=9000")
    monkeypatch.setenv("ENV_FILE", str(file))
    prepare([])
    assert os.environ["PUBLIC_URL"] == "http://127.0.0.1:9000"


def test_an_empty_variable_counts_as_not_set_for_what_run_derives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("PUBLIC_URL", "PORT", "HOST", "SECRET_KEY", "FIELD_ENCRYPTION_KEY")
    for name in names:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    file = tmp_path / "settings.env"
    file.write_text("\n".join(f"{name}=" for name in names))
    monkeypatch.setenv("ENV_FILE", str(file))
    prepare([])
    assert os.environ["PUBLIC_URL"] == "http://127.0.0.1:8000"
    read_file(tmp_path / "keys.env")
    assert os.environ["SECRET_KEY"]
    assert os.environ["FIELD_ENCRYPTION_KEY"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Дзвінки.укр", "xn--b1adjfjr8o.xn--j1amh"),
        ("https://hooks.example.net.", "hooks.example.net"),
        ("http://[2001:db8::1]:8000", "[2001:db8::1]"),
    ],
)
def test_a_site_answers_to_its_public_url_however_it_is_written(url: str, host: str) -> None:
    script = "from config import settings; print(settings.ALLOWED_HOSTS[-1])"
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "PUBLIC_URL": url}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == host, done.stderr


@pytest.mark.parametrize("url", ["http://[::1", "https://xn--ü.example"])
def test_a_public_url_that_is_no_url_is_named(tmp_path: Path, url: str) -> None:
    keys = {name: os.environ[name] for name in ("SECRET_KEY", "FIELD_ENCRYPTION_KEY")}
    place = {"ENV_FILE": os.devnull, "DATA_DIR": str(tmp_path)}
    done = run_check({**place, **keys, "PUBLIC_URL": url})
    assert f"PUBLIC_URL is “{url}”" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_clock_asks_for_expires_before_it_piles_up() -> None:
    for name, entry in settings.CELERY_BEAT_SCHEDULE.items():
        assert entry["schedule"] < entry["options"]["expires"] <= 3 * 300, name
