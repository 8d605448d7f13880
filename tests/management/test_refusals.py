"""A command that cannot start gives the reason in one sentence, without a traceback."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, find_commands, load_command_class

from tests.commands import manage
from tests.faults.certificates import Authority
from tests.services import HOST, free_port
from webhooks.management.printable import PrintableCommand

_GONE = {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return manage(*arguments, environment={**os.environ, **environment}, given="{}")


@pytest.mark.parametrize(
    ("environment", "arguments", "sentence"),
    [
        (_GONE, ("publish", "form.submitted", "--payload=-"), "The database cannot be used: "),
        (_GONE, ("rotate_keys",), "The database cannot be used: "),
        (
            {"WEBHOOKS_ALLOWED_NETWORKS": "nonsense"},
            ("check_url", "https://example.com/"),
            "CommandError: WEBHOOKS_ALLOWED_NETWORKS cannot be read: “nonsense” is not a network",
        ),
    ],
)
def test_what_a_command_lacks_is_said(
    environment: dict[str, str], arguments: tuple[str, ...], sentence: str
) -> None:
    done = run(environment, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["migrate", "showmigrations", "clearsessions"])
def test_a_command_of_django_says_in_a_sentence_that_there_is_no_database(command: str) -> None:
    done = run(_GONE, command)
    assert done.returncode == 1
    assert done.stderr.startswith("The database cannot be used: ")
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("neither old nor new")
    address = {"DATABASE_URL": f"sqlite:///{tmp_path / 'other'}"}
    done = run(address, "publish", "form.submitted", "--payload=-")
    assert done.returncode == 1
    assert done.stderr == "The database cannot be used: file is not a database\n"


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("file", "Files cannot be created in '{}/file': File exists. Choose another directory"),
        ("file/in", "Files cannot be created in '{}/file/in': Not a directory. Choose another"),
        ("data", "{}/data/run.lock cannot be written: Is a directory."),
    ],
)
def test_a_data_directory_that_takes_no_files_is_named(
    folder: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "data" / "run.lock").mkdir(parents=True)
    # With PostgreSQL no lock is needed.
    database = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    environment = {"DATA_DIR": str(tmp_path / folder), "DATABASE_URL": database}
    done = run(environment, "run", f"--port={free_port()}")
    assert done.returncode == 1
    assert sentence.format(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("said", "ended_by", "code"),
    [
        # Restores the handler: background processes of a shell ignore SIGINT.
        (
            "signal.signal(signal.SIGINT, signal.default_int_handler); "
            "print('begun', flush=True); time.sleep(60)",
            "Ctrl-C",
            130,
        ),
        ("[print('begun', flush=True) for _ in range(100_000)]", "its reader", 1),
    ],
)
def test_a_command_that_is_ended_says_nothing(said: str, ended_by: str, code: int) -> None:
    said = f"import signal, time; {said}"
    process = subprocess.Popen(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", said],
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        if ended_by == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == code


def test_an_argument_that_there_is_not_is_repeated_without_control_characters() -> None:
    done = run({}, "rotate_keys", "--no\x1b[31m\u202esuch")
    assert done.returncode == 2
    assert done.stderr.endswith(r"unrecognized arguments: --no\x1b[31m\x202esuch" + "\n")


def test_every_command_repeats_no_control_characters() -> None:
    names = find_commands(str(settings.BASE_DIR / "webhooks" / "management"))
    for name in names:
        assert isinstance(load_command_class("webhooks", name), PrintableCommand), name


@pytest.mark.parametrize("port", ["0", "-1", "65534", "99999", "x"])
def test_a_port_that_there_is_not_is_refused(port: str, tmp_path: Path) -> None:
    done = run({"DATA_DIR": str(tmp_path)}, "run", f"--port={port}")
    assert done.returncode == 2
    assert done.stderr.endswith(f"argument --port: '{port}' is not a port from 1 to 65533\n")


def test_a_host_that_is_no_address_is_refused(tmp_path: Path) -> None:
    done = run({"DATA_DIR": str(tmp_path)}, "run", "--host=no such host", f"--port={free_port()}")
    assert done.returncode == 1
    assert done.stderr == "CommandError: Cannot listen on 'no such host': it is not an address.\n"


@pytest.mark.parametrize("address", ["8000", "host", ":", "127.0.0.1:65536", "127.0.0.1:8x"])
def test_an_address_that_the_web_cannot_listen_on_is_refused(address: str) -> None:
    """A port alone would listen on every network."""
    parser = load_command_class("webhooks", "web").create_parser("manage.py", "web")
    with pytest.raises(CommandError) as refused:
        parser.parse_args([f"--bind={address}"])
    assert str(refused.value).endswith(f"'{address}' is not host:port, such as 127.0.0.1:8000")


def test_the_web_does_not_start_with_such_an_address() -> None:
    done = run({}, "web", "--bind=8000")
    assert done.returncode == 2
    assert done.stderr.endswith("'8000' is not host:port, such as 127.0.0.1:8000\n")


def test_an_address_of_no_database_is_named() -> None:
    done = run({"DATABASE_URL": "nonsense"}, "check")
    assert done.returncode == 1
    assert "DATABASE_URL is not the address of a database" in done.stderr.splitlines()[-1]


NO_REDIS = [
    # The host is missing, so the error of the URL parser would contain the secret as the port.
    "redis://:secret",
    "redis+tls://host/0",
    "redis://host/x",
    "host:6379",
    # Options that only one of Celery and redis-py reads, or that each reads differently.
    "rediss://host/0?ssl_cert_reqs=CERT_NONE",
    "rediss://host/0?ssl_check_hostname=no",
    "rediss://host/0?socket_timeout=3",
    "redis://host/0?ssl_ca_certs=/ca.pem",
]
REDIS = [
    "rediss://:secret@host/0?ssl_ca_certs=/etc/a b/ca.pem&ssl_check_hostname=false",
    "redis://",
    "redis://[::1]:6379/0",
    "redis://name:p%40:s@s@host.example:6379/15",
    "rediss://host?ssl_certfile=/a.pem&ssl_keyfile=/a.key&ssl_cert_reqs=none",
]
# Reads the settings once for each address; prints what each address ends with.
READ_SETTINGS = """
import os, runpy, sys
for os.environ["REDIS_URL"] in sys.argv[1:]:
    try:
        print(runpy.run_path("config/settings.py")["CELERY_BROKER_URL"])
    except Exception as error:
        print(error)
"""


def settings_of(urls: list[str]) -> list[str]:
    command = [sys.executable, "-c", READ_SETTINGS, *urls]
    done = subprocess.run(
        command, cwd=settings.BASE_DIR, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_an_address_of_no_redis_is_named() -> None:
    done = run({"REDIS_URL": NO_REDIS[0]}, "check")
    assert done.returncode == 1
    said = [done.stderr.splitlines()[-1], *settings_of(NO_REDIS)]
    assert len(said) == 1 + len(NO_REDIS)
    assert [one for one in said if "REDIS_URL is not the address of a Redis" not in one] == []
    assert "secret" not in done.stderr


def test_an_address_of_a_redis_is_taken() -> None:
    assert run({"REDIS_URL": REDIS[0]}, "check").returncode == 0
    assert settings_of(REDIS) == REDIS


def test_a_broker_with_a_certificate_of_no_one_gets_no_password(tmp_path: Path) -> None:
    context = Authority(tmp_path).context("stranger", is_self_signed=True)
    with closing(socket.create_server((HOST, 0))) as server:
        threading.Thread(target=_shake_hands, args=(server, context), daemon=True).start()
        port = server.getsockname()[1]
        connect = "from config.celery import app; app.connection().ensure_connection(max_retries=1)"
        url = f"rediss://:secret@{HOST}:{port}/0"
        done = run({"REDIS_URL": url}, "shell", "--no-imports", "-c", connect)
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr.splitlines()[-1]


def _shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            with suppress(OSError), context.wrap_socket(client, server_side=True) as encrypted:
                encrypted.recv(1000)
