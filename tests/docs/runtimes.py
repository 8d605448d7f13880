"""The languages of docs/receivers.md, and how a snippet in each is run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HARNESS = Path(__file__).parent / "harness"
# Enough for a compiler with a cold cache on a busy machine.
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A language: its heading on the page, its programs, and the commands of one run."""

    language: str
    fence: str
    snippet: str
    harness: str
    programs: Sequence[str]
    # Run in the directory that holds snippet and harness; the last one reads the cases.
    commands: Sequence[Sequence[str]]
    extra: Sequence[tuple[str, str]] = ()

    def run(self, snippet: str, cases: str, directory: Path) -> str:
        """Run the snippet on lines of tab-separated cases and return what the harness printed."""
        (directory / self.snippet).parent.mkdir(parents=True, exist_ok=True)
        (directory / self.snippet).write_text(snippet, encoding="utf-8")
        shutil.copy(HARNESS / self.harness, directory / self.harness)
        for name, text in self.extra:
            (directory / name).write_text(text, encoding="utf-8")
        for command in self.commands:
            done = subprocess.run(
                command,
                cwd=directory,
                # The Go command must not download modules or another version of itself.
                env={**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": ""},
                input=cases,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
            if done.returncode:
                raise AssertionError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return done.stdout


RUNTIMES = [
    Runtime(
        language="Python",
        fence="python",
        snippet="snippet.py",
        harness="harness.py",
        programs=[sys.executable],
        commands=[[sys.executable, "harness.py"]],
    ),
    Runtime(
        language="JavaScript",
        fence="javascript",
        snippet="snippet.mjs",
        harness="harness.mjs",
        programs=["node"],
        commands=[["node", "harness.mjs"]],
    ),
    Runtime(
        language="PHP",
        fence="php",
        snippet="snippet.php",
        harness="harness.php",
        programs=["php"],
        commands=[["php", "harness.php"]],
    ),
    Runtime(
        language="Go",
        fence="go",
        snippet="receiver/snippet.go",
        harness="harness.go",
        programs=["go"],
        commands=[["go", "run", "."]],
        extra=[("go.mod", "module check\n\ngo 1.19\n")],
    ),
    Runtime(
        language="Ruby",
        fence="ruby",
        snippet="snippet.rb",
        harness="harness.rb",
        programs=["ruby"],
        commands=[["ruby", "-w", "harness.rb"]],
    ),
    Runtime(
        language="Java",
        fence="java",
        snippet="Signatures.java",
        harness="Harness.java",
        programs=["javac", "java"],
        commands=[["javac", "-Xlint:all", "-Werror", "Harness.java"], ["java", "Harness"]],
    ),
    Runtime(
        language="C#",
        fence="csharp",
        snippet="Signatures.cs",
        harness="Harness.cs",
        programs=["mcs", "mono"],
        commands=[
            ["mcs", "-warnaserror", "-out:check.exe", "Signatures.cs", "Harness.cs"],
            ["mono", "check.exe"],
        ],
    ),
]
