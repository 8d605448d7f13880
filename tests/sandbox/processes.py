"""Start the sandbox servers as subprocesses that end with the context, also on errors."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.sandbox.provider.client import Provider
from tests.sandbox.receiver.client import Receiver

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def running_receiver(
    port: int = 0, *, provider: Provider | str | None = None, secrets: Sequence[str] = ()
) -> Iterator[Receiver]:
    """Run a receiver; `provider` checks the bearer tokens of `/bearer/`."""
    arguments = ["--port", str(port)]
    if provider is not None:
        arguments += ["--provider", provider if isinstance(provider, str) else provider.url]
    for secret in secrets:
        arguments += ["--secret", secret]
    with _running("tests.sandbox.receiver", arguments) as url:
        yield Receiver(url)


@contextmanager
def running_provider(
    callback_urls: Sequence[str],
    port: int = 0,
    *,
    token_seconds: int = 3600,
    pkce_required: bool = False,
    rotate: bool = True,
    reuse_protection: bool = True,
    grace_seconds: int = 0,
    database: Path | None = None,
) -> Iterator[Provider]:
    """Run a provider on a temporary database, or on `database` if given."""
    arguments = [f"--port={port}", f"--token-seconds={token_seconds}"]
    arguments += [f"--grace-seconds={grace_seconds}"]
    arguments += [f"--callback={callback_url}" for callback_url in callback_urls]
    arguments += ["--pkce-required" if pkce_required else "--no-pkce-required"]
    arguments += ["--rotate" if rotate else "--no-rotate"]
    arguments += ["--reuse-protection" if reuse_protection else "--no-reuse-protection"]
    with tempfile.TemporaryDirectory(prefix="sandbox-provider-") as directory:
        path = database or Path(directory) / "provider.sqlite3"
        arguments += [f"--database={path}"]
        with _running("tests.sandbox.provider", arguments) as url:
            yield Provider(url)


@contextmanager
def _running(module: str, arguments: list[str]) -> Iterator[str]:
    """Yield the URL that a server announces; end the server with the context, also on errors."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--exit-with-stdin"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        with process:
            try:
                yield _announced_url(module, process, errors)
            finally:
                process.terminate()
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()


def _announced_url(module: str, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    _, found, url = line.strip().partition(" listening on ")
    if not found:
        process.wait(timeout=5)
        errors.seek(0)
        raise RuntimeError(f"{module} did not start: {line}{errors.read().decode()}")
    return url
