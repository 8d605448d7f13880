"""Installs the provider once below build/, and runs it for the duration of a block."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.sandbox.clients import SandboxClient

CLIENT = SandboxClient("strict-client", "strict-secret")
_HERE = Path(__file__).resolve().parent
_CACHE = _HERE.parents[1] / "build" / "oidc"
_INSTALL = ["install", "--no-package-lock", "--omit=dev", "--ignore-scripts", "--no-audit"]
_INSTALL_SECONDS = 90


class ProviderUnavailableError(Exception):
    """The provider cannot run on this machine; the message says why."""


@contextmanager
def running_strict_provider(callback_url: str, keys: str) -> Iterator[str]:
    """Yield the issuer of a running provider; `keys`: a client's JWK set.

    Errors: ProviderUnavailableError.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise ProviderUnavailableError("There is no Node.js with npm on this machine.")
    script = _installed(npm)
    process = subprocess.Popen(
        [node, "--no-warnings", str(script), callback_url, keys],
        cwd=_CACHE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield _announced_issuer(process)
        finally:
            process.kill()


def _installed(npm: str) -> Path:
    """Return the script copied next to its packages, where Node.js looks for them."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        # Several workers of a test run may install at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = (_HERE / "package.json").read_text()
        stamp = _CACHE / "installed.json"
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.copy(_HERE / "package.json", _CACHE)
            _install(npm)
            stamp.write_text(wanted)
        script = _CACHE / "provider.mjs"
        copy = script.with_suffix(".new")
        shutil.copy(_HERE / "provider.mjs", copy)
        return copy.replace(script)


def _install(npm: str) -> None:
    command = [npm, *_INSTALL, "--no-fund", "--loglevel=error"]
    environment = {**os.environ, "NO_UPDATE_NOTIFIER": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=_CACHE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        seconds = f"{_INSTALL_SECONDS} s"
        raise ProviderUnavailableError(
            f"npm did not install oidc-provider within {seconds}."
        ) from error
    if done.returncode != 0:
        raise ProviderUnavailableError(
            f"npm could not install oidc-provider: {done.stderr.strip()[:300]}"
        )


def _announced_issuer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        _, found, issuer = line.strip().partition("listening on ")
        if found:
            return issuer
    raise RuntimeError(f"The strict provider did not start: node ended with {process.wait()}.")
