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
for complaint in {complaints!r}:
    print(complaint, file=sys.stderr)
sys.exit({status})
"""


def run(
    directory: Path, *lines: str, status: int = 0, complaints: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    pip = PIP.format(lines=lines, status=status, complaints=complaints)
    (directory / "pip.py").write_text(pip)
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
    why = "ERROR: No matching distribution found for one==1"
    done = run(tmp_path, status=status, complaints=(why,))
    assert done.returncode == status
    assert done.stderr.strip() == why
    assert f"pip ended with exit status {status}" in done.stdout


RETRYING = (
    "WARNING: Retrying (Retry(total={}, connect=None, read=None, redirect=None, status=None))"
    " after connection broken by '{}': /simple/one/"
)
BROKEN = [
    (
        "NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f0>:"
        " Failed to establish a new connection: [Errno 111] Connection refused')",
        "Connection refused",
    ),
    (
        'NameResolutionError("<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f0>:'
        " Failed to resolve 'index.example' ([Errno -2] Name or service not known)\")",
        "Name or service not known",
    ),
    (
        "ReadTimeoutError(\"HTTPSConnectionPool(host='index.example', port=443): Read timed out."
        ' (read timeout=15)")',
        "Read timed out",
    ),
]


@pytest.mark.parametrize(("broken", "cause"), BROKEN, ids=[cause for _, cause in BROKEN])
def test_without_a_network_one_sentence_says_so(tmp_path: Path, broken: str, cause: str) -> None:
    done = run(
        tmp_path,
        status=1,
        complaints=(
            *(RETRYING.format(left, broken) for left in (4, 3, 2, 1, 0)),
            "ERROR: Could not find a version that satisfies the requirement one==1"
            " (from versions: none)",
            "ERROR: No matching distribution found for one==1",
        ),
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"The package index cannot be reached: {cause}. Check")


def test_a_lost_connection_that_pip_repaired_is_not_reported(tmp_path: Path) -> None:
    broken = BROKEN[0][0]
    done = run(tmp_path, "Successfully installed", complaints=(RETRYING.format(4, broken),))
    assert (done.returncode, done.stderr) == (0, "")


def make(directory: Path, *goals: str) -> "subprocess.CompletedProcess[str]":
    """The project's Makefile in another directory, up to the rule that makes .venv."""
    (directory / "Makefile").write_text((ROOT / "Makefile").read_text())
    command = ["make", "-C", str(directory), *goals]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("fault", ["interrupted", "other Python", "no pip"])
def test_a_virtual_environment_that_cannot_work_is_made_again(tmp_path: Path, fault: str) -> None:
    venv = tmp_path / ".venv"
    assert make(tmp_path, ".venv/bin/python").returncode == 0
    if fault == "interrupted":
        assert (venv / ".unfinished").exists()
    else:
        (venv / ".unfinished").unlink()
    if fault == "other Python":
        for link in venv.glob("bin/python*"):
            link.unlink()
            link.symlink_to("/usr/bin/python3.0")
    if fault == "no pip":
        for package in venv.glob("lib/*/site-packages/pip"):
            package.rename(package.with_name("gone"))
    (venv / "left").touch()
    assert make(tmp_path, ".venv/bin/python").returncode == 0
    assert not (venv / "left").exists()
    works = subprocess.run([venv / "bin" / "python", "-m", "pip", "--version"], check=False)
    assert works.returncode == 0


def test_a_virtual_environment_that_works_is_left_alone(tmp_path: Path) -> None:
    assert make(tmp_path, ".venv/bin/python").returncode == 0
    (tmp_path / ".venv" / ".unfinished").unlink()
    (tmp_path / ".venv" / "left").touch()
    assert make(tmp_path, ".venv/bin/python").returncode == 0
    assert (tmp_path / ".venv" / "left").exists()


def test_make_installs_with_it() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "INSTALL := $(PYTHON) .ci/install.py" in makefile
    assert not re.search(r"pip\b.* install .*requirements", makefile)
