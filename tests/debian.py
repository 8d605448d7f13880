"""Packages of Debian for the tests: installed by root, unpacked into .venv for other users."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

# Where packages are unpacked for a user who may not install them; `make clean` removes it.
UNPACKED = Path(sys.prefix) / "debian"


class PackagesUnavailableError(Exception):
    """Packages cannot be had here; the text is apt-get's."""


def is_debian() -> bool:
    return shutil.which("apt-get") is not None


def is_root() -> bool:
    return os.geteuid() == 0


def advice(packages: Sequence[str]) -> str:
    """Return the command that installs packages, to be copied."""
    return f"sudo apt-get install -y {' '.join(sorted(set(packages)))}"


def install(packages: Sequence[str], *, timeout_seconds: float | None = None) -> None:
    """Install packages as root, without starting any service they bring.

    Raises PackagesUnavailableError, also when a step takes longer than `timeout_seconds`.
    """
    print(f"Installing {', '.join(packages)} (once) ...", flush=True)
    _apt_get(["update"], timeout_seconds)
    _apt_get(["install", "-y", "--no-install-recommends", *packages], timeout_seconds)


def unpack(packages: Sequence[str]) -> None:
    """Unpack packages, with what they need and this system lacks, into UNPACKED.

    Needs no rights: apt-get keeps its lists and files there too, and dpkg's database is only read.
    """
    print(f"Unpacking {', '.join(packages)} into {UNPACKED} (once) ...", flush=True)
    lists, cache = UNPACKED / "apt" / "lists", UNPACKED / "apt" / "cache"
    for folder in (lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    own = [f"Dir::State::lists={lists}", f"Dir::Cache={cache}", "Debug::NoLocking=1"]
    options = [word for option in own for word in ("-o", option)]
    _apt_get([*options, "update"])
    wanted = ["install", "-y", "--download-only", "--no-install-recommends", *packages]
    _apt_get([*options, *wanted])
    for archive in (cache / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, UNPACKED], check=True)
    shutil.rmtree(UNPACKED / "apt")


def wrapper_path(program: Path) -> Path:
    """Return the path of the script that `wrap` writes."""
    return UNPACKED / f"run-{program.name}"


def wrap(program: Path) -> None:
    """Write a script that runs a program with the libraries and fonts that were unpacked."""
    libraries = sorted({str(one.parent) for one in UNPACKED.rglob("*.so*")})
    script, fonts = wrapper_path(program), UNPACKED / "fonts.conf"
    # With FONTCONFIG_SYSROOT instead, Chromium ends at its first text on Debian 12.
    folder = escape(str(UNPACKED))
    fonts.write_text(
        f"<fontconfig><dir>{folder}/usr/share/fonts</dir>"
        f"<cachedir>{folder}/var/cache/fontconfig</cachedir></fontconfig>\n",
        encoding="utf-8",
    )
    script.write_text(
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH={shlex.quote(':'.join(libraries))}\n"
        f"export FONTCONFIG_FILE={shlex.quote(str(fonts))}\n"
        f'exec {shlex.quote(str(program))} "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)


def _apt_get(arguments: Sequence[str], timeout_seconds: float | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        done = subprocess.run(
            ["apt-get", "-qq", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackagesUnavailableError(str(error)) from error
    if done.returncode:
        raise PackagesUnavailableError(done.stderr.strip())
