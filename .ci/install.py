"""Install requirement files with pip and say every few seconds how far it is.

pip alone prints either nothing or two lines for each package. What it prints on standard error,
its warnings and errors, is passed on; but when it did not reach its index, one sentence says so.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--require-hashes"]

# pip's warnings about a lost or refused connection, and about a certificate.
_UNREACHED = re.compile(
    r"after connection broken by '(.*)': /|Could not fetch URL \S+: (.*) - skip"
)
# What pip then reports: as if the index had been asked and did not have the package.
_MISLEADING = re.compile(r"\(from versions: none\)|No matching distribution found")


class Complaints:
    """pip's standard error: passed on, except for what it says about an unreachable index."""

    def __init__(self) -> None:
        self.cause = ""

    def note(self, line: str) -> None:
        if found := _UNREACHED.search(line):
            # The innermost reason: "... object at 0x7f>: [Errno 111] Connection refused')".
            text = (found[1] or found[2]).rstrip("')\"")
            text = re.sub(r".*(?:\[Errno -?\d+\]|object at \w+>:|port=\d+\):) ", "", text)
            self.cause = text.partition(". (")[0]
        elif not (self.cause and _MISLEADING.search(line)):
            print(line, end="", file=sys.stderr, flush=True)


class Progress:
    """What pip's lines have told so far."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._is_unpacking = False

    def note(self, line: str) -> None:
        words = line.split(maxsplit=1)
        # A package for other systems is ignored and counts as done.
        if words and words[0] in ("Collecting", "Ignoring"):
            self._count += 1
        self._is_unpacking = self._is_unpacking or line.startswith("Installing collected packages")

    def __str__(self) -> str:
        if self._is_unpacking:
            return "unpacking them"
        return f"{self._count} of {self._total} packages fetched"


def install(files: list[str], every_seconds: float) -> int:
    """Run pip until it ends and return its exit status."""
    started = time.monotonic()
    texts = [Path(file).read_text(encoding="utf-8") for file in files]
    progress = Progress(sum(line.count("==") > 0 for text in texts for line in text.splitlines()))
    complaints = Complaints()
    options = [option for file in files for option in ("-r", file)]
    with subprocess.Popen(
        [*PIP, "--progress-bar", "off", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as pip:
        readers = [
            threading.Thread(target=_read, args=(pip.stdout, progress.note)),
            threading.Thread(target=_read, args=(pip.stderr, complaints.note)),
        ]
        for reader in readers:
            reader.start()
        while readers[0].is_alive():
            readers[0].join(every_seconds)
            if readers[0].is_alive():
                _say(started, progress)
        readers[1].join()
        status = pip.wait()
    if status and complaints.cause:
        print(
            f"The package index cannot be reached: {complaints.cause}. Check the network; behind a"
            " proxy set HTTPS_PROXY, and for another index PIP_INDEX_URL.",
            file=sys.stderr,
        )
    _say(started, "done" if status == 0 else f"pip ended with exit status {status}")
    return status


def _read(lines: Iterable[str] | None, note: Callable[[str], None]) -> None:
    for line in lines or ():
        note(line)


def _say(started: float, text: object) -> None:
    print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--every-seconds", type=float, default=5.0)
    options = parser.parse_args()
    try:
        raise SystemExit(install(options.files, options.every_seconds))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
