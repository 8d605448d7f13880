"""Install requirement files with pip and say every few seconds how far it is.

pip alone prints either nothing or two lines for each package. What it prints on standard error, its
warnings and errors, is passed on.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--require-hashes"]


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
    options = [option for file in files for option in ("-r", file)]
    with subprocess.Popen(
        [*PIP, "--progress-bar", "off", *options], stdout=subprocess.PIPE, text=True
    ) as pip:
        assert pip.stdout is not None
        reader = threading.Thread(target=lambda: [progress.note(line) for line in pip.stdout])
        reader.start()
        while reader.is_alive():
            reader.join(every_seconds)
            if reader.is_alive():
                _say(started, progress)
        status = pip.wait()
    _say(started, "done" if status == 0 else f"pip ended with exit status {status}")
    return status


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
