""".ci/install.py, which `make` uses to install: it reports its progress and its result."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Stands in for pip: prints each line after a pause.
PIP = """
import sys, time
print(*sys.argv[1:], file=open("arguments", "w"))
for line in {lines!r}:
    time.sleep(0.3)
    print(line, flush=True)
if {status}:
    print("ERROR: no matching distribution", file=sys.stderr)
sys.exit({status})
"""


def run(directory: Path, *lines: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
    (directory / "pip.py").write_text(PIP.format(lines=lines, status=status))
    (directory / "some.txt").write_text("one==1 \\\n    --hash=sha256:0\ntwo==2 \\\n    --hash=x\n")
    (directory / "more.txt").write_text("three==3 ; sys_platform == 'win32' \\\n    --hash=x\n")
    command = [sys.executable, ROOT / ".ci" / "install.py", "some.txt", "more.txt"]
    return subprocess.run(
        [*command, "--every-seconds", "0.1"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_says_how_many_packages_are_there_and_when_it_is_done(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "Collecting one==1 (from -r some.txt (line 1))",
        "  Downloading one-1-py3-none-any.whl (14 kB)",
        "Collecting two==2 (from -r some.txt (line 3))",
        "Ignoring three: markers don't match your environment",
        "Installing collected packages: two, one",
        "Successfully installed one-1 two-2",
    )
    assert done.returncode == 0
    said = re.findall(r"^ +\d+ s  (.+)$", done.stdout, re.M)
    assert said[0] == "0 of 3 packages fetched"
    assert {"1 of 3 packages fetched", "3 of 3 packages fetched", "unpacking them"} <= set(said)
    assert said[-1] == "done"
    assert "Collecting" not in done.stdout
    arguments = (tmp_path / "arguments").read_text().split()
    assert "--require-hashes" in arguments
    assert arguments[-4:] == ["-r", "some.txt", "-r", "more.txt"]


@pytest.mark.parametrize("status", [1, 2])
def test_a_failure_of_pip_is_one_of_make_and_says_why(tmp_path: Path, status: int) -> None:
    done = run(tmp_path, status=status)
    assert done.returncode == status
    assert "no matching distribution" in done.stderr
    assert f"pip ended with exit status {status}" in done.stdout


def test_make_installs_with_it() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "INSTALL := $(PYTHON) .ci/install.py" in makefile
    assert not re.search(r"pip\b.* install .*requirements", makefile)
