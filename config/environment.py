"""Reads environment variables, and sets those that `manage.py run` derives before settings load.

Owns the parsing of values, the options of that command, the keys created on the first start, and
the URLs derived from the port. Must not import Django's models: the settings they need are not
loaded yet.
"""

import argparse
import contextlib
import io
import os
import re
import secrets
from pathlib import Path
from typing import Any

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
# The sandbox uses the next two ports.
_LAST_PORT = 65_533
_KEYS = ("SECRET_KEY", "FIELD_ENCRYPTION_KEY")
_LINE = re.compile(r"(export )?[A-Za-z_0-9]+=.*")
_TRUTH = dict.fromkeys(("true", "on", "yes", "y", "ok", "1"), True)
_TRUTH |= dict.fromkeys(("false", "off", "no", "n", "0"), False)


class Env(environ.Env):  # type: ignore[misc]
    """Parses values strictly, without blanks around them; an empty value counts as not set.

    django-environ reads 12h and 1e2 as 12, a misspelled True as False, and a text that begins
    with $ as the name of another variable.
    """

    def get_value(self, var: str, cast: Any = None, *args: Any, **options: Any) -> Any:
        text = self.ENVIRON.get(var)
        if text is None:
            return super().get_value(var, cast, *args, **options)
        text = text.strip()
        # db_url() passes no cast; the settings reject an invalid or empty database URL.
        if cast is None:
            return text
        if not text:
            return options["default"]
        if cast is list:
            return [item.strip() for item in text.split(",") if item.strip()]
        if cast in (bool, int, float):
            return _parse(var, text, cast)
        return cast(text)


def _parse(name: str, text: str, kind: type[bool | int | float]) -> bool | int | float:
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "True or False", int: "a whole number", float: "a number"}[kind]
        message = f"{name} is {text!a}. Write {wanted}, without quotes, unit or comment."
        raise ImproperlyConfigured(message) from None


def settings_file(named: str) -> Path:
    """Return the path of the settings file, which must exist only if ENV_FILE names it."""
    if named and not Path(named).exists():
        raise ImproperlyConfigured(f"ENV_FILE is {named!a}, which does not exist.")
    return Path(named or BASE_DIR / ".env")


def read_file(path: Path) -> None:
    """Load a settings file into the environment without replacing variables that are set.

    A key that is empty counts as not set: `keys.env` has it.
    """
    if not path.is_file():
        return
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        # Without the file the site would use other settings, and another database.
        raise ImproperlyConfigured(f"The settings in {path} cannot be read: {error}.") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if _LINE.fullmatch(line):
            lines.append(line)
            name = line.removeprefix("export ").partition("=")[0]
            if name in _KEYS and not _is_set(name):
                os.environ.pop(name, None)
        elif line.strip() and not line.lstrip().startswith("#"):
            # The message leaves out the line, which may contain a key.
            raise ImproperlyConfigured(
                f"Line {number} of {path} is not a setting. Write NAME=value, without blanks "
                "before NAME and around =."
            )
    Env.read_env(io.StringIO("\n".join(lines)))


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name, "").strip())


def _set_if_missing(name: str, value: str) -> None:
    if not _is_set(name):
        os.environ[name] = value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default=os.environ.get("HOST") or LOOPBACK)
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT") or "8000")
    parser.add_argument(
        "--sandbox",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="run the sandbox receiver and OAuth provider on the next two ports",
    )


def _port(text: str) -> int:
    """Return the port. The range is checked here: the resolver maps 99999 to another port."""
    if not (text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError(f"{text!a} is not a port from 1 to {_LAST_PORT}")
    return int(text)


def prepare(arguments: list[str]) -> None:
    """Create the data directory and the keys, and set the URLs that are not configured."""
    # Read here too: .env may have the port, and takes precedence over the URLs derived below.
    read_file(settings_file(os.environ.get("ENV_FILE", "")))
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    options, _ = parser.parse_known_args(arguments)
    data_dir = Path(Env().str("DATA_DIR", default=str(BASE_DIR / ".data")))
    try:
        make_keys(data_dir)
    except OSError as error:
        raise ImproperlyConfigured(
            f"Files cannot be created in {str(data_dir)!a}: {error.strerror}. Choose another "
            "directory with DATA_DIR."
        ) from None
    _set_if_missing("PUBLIC_URL", f"http://{LOOPBACK}:{options.port}")
    if options.sandbox:
        _open_sandbox(receiver_port=options.port + 1, provider_port=options.port + 2)


def make_keys(data_dir: Path) -> None:
    """Make the directory, and `keys.env` in it unless that exists or the keys are set.

    Both are for their owner only. The file is first private and temporary, then renamed: no other
    user can read it at any moment, and a crash leaves no partial file.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / "keys.env"
    if path.exists() or all(map(_is_set, _KEYS)):
        return
    text = (
        "# Made on the first start. Without these keys the stored secrets cannot be read again.\n"
        f"SECRET_KEY={secrets.token_urlsafe(50)}\n"
        f"FIELD_ENCRYPTION_KEY={Fernet.generate_key().decode()}\n"
    )
    unfinished = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def keep_private(database: str) -> None:
    """Make an SQLite database readable by its owner only; create it with that mode if missing.

    SQLite copies the mode to its -wal and -shm files. A file that cannot be changed, such as one
    of another user, is left as it is.
    """
    path = Path(database)
    is_file = not database.startswith((":memory:", "file:"))
    if not is_file or not path.parent.is_dir():
        return
    with contextlib.suppress(OSError):
        path.touch(mode=0o600)
        for one in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if one.exists() and one.stat().st_mode & 0o077:
                one.chmod(0o600)


def _open_sandbox(*, receiver_port: int, provider_port: int) -> None:
    networks = os.environ.get("WEBHOOKS_ALLOWED_NETWORKS", "").split(",")
    networks += [f"{LOOPBACK}/32:{port}" for port in (receiver_port, provider_port)]
    os.environ["WEBHOOKS_ALLOWED_NETWORKS"] = ",".join(filter(None, networks))
    _set_if_missing("WEBHOOKS_SANDBOX_URL", f"http://{LOOPBACK}:{receiver_port}")
