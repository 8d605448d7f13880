"""An attempt as a cURL command: real bash runs it, and nothing but curl is executed."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.programs import need
from tests.sandbox import Receiver
from webhooks.curl import CurlError, writer
from webhooks.security.masker import MASK

needs_shell = pytest.mark.usefixtures("_shell")
pytestmark = pytest.mark.once


@pytest.fixture
def _shell() -> None:
    need("bash", "curl")


# Each would run a command, read a file, leave its quotes or control a terminal if it could.
ATTACKS = [
    "'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "\n touch pwned\n",
    "\r\ntouch pwned\r\n",
    "' $(touch pwned) `touch pwned` '",
    "\\'; touch pwned; \\'",
    "\\x27; touch pwned",
    "$'\\''; touch pwned",
    "!touch pwned",
    "it's !! and !$ and ^a^b",
    "@/etc/passwd",
    "<(touch pwned)",
    "-K pwned",
    "; touch pwned #",
    "a && touch pwned || touch pwned & touch pwned |",
    "${IFS}touch${IFS}pwned ${PATH} $HOME ~ * ? [a] {a,b}",
    "\\\n touch pwned",
    "\x03\x04\x15\x16\x17\x1a\x1b[201~\ntouch pwned\n\x1b[200~",
    "\x07\x08\x09\x0b\x0c\x7f\x9b31m",
    "\u202etouch pwned\u2066",
    "Привіт 🙂 \ufeff",
    "EOF\ntouch pwned\nEOF",
    "%s %n %x \\0 \\c",
]


def written(body: bytes, *, url: str = "http://127.0.0.1:9/", headers: str = "") -> str:
    lines = [(name, value) for name, _, value in (h.partition(": ") for h in headers.split("\n"))]
    return writer.build(f"POST {url}", lines, body).text


def run(command: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Paste a command into a bash that could run anything, in an empty directory."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", command + " --silent --noproxy '*'"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@needs_shell
@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_the_body_holds_arrives_and_runs_nothing(
    attack: str, receiver: Receiver, tmp_path: Path
) -> None:
    body = json.dumps({"text": attack}, ensure_ascii=False).encode()
    for sent in (body, attack.encode()):
        receiver.clear()
        done = run(written(sent, url=f"{receiver.url}/open/"), tmp_path)
        assert done.returncode == 0, done.stderr
        assert [request.body for request in receiver.requests("/open/")] == [sent]
    assert list(tmp_path.iterdir()) == []


@needs_shell
def test_every_byte_but_zero_arrives_as_it_is(receiver: Receiver, tmp_path: Path) -> None:
    body = bytes(range(1, 256)) * 2
    assert run(written(body, url=f"{receiver.url}/open/"), tmp_path).returncode == 0
    assert receiver.requests("/open/")[0].body == body


@needs_shell
@pytest.mark.parametrize("attack", [one for one in ATTACKS if one.isprintable()])
def test_headers_and_the_address_run_nothing_either(
    attack: str, receiver: Receiver, tmp_path: Path
) -> None:
    address = f"{receiver.url}/open/a[1-2]{{x,y}}?q=" + attack.replace(" ", "%20")
    if not address.isascii():
        address = f"{receiver.url}/open/"
    headers = f"X-Text: {attack}\nContent-Type: text/plain"
    done = run(written(b"x", url=address.partition("#")[0], headers=headers), tmp_path)
    assert done.returncode == 0, done.stderr
    [request] = receiver.requests("/open/")
    assert (request.header("X-Text") or "").encode("latin-1") == attack.strip().encode()
    assert list(tmp_path.iterdir()) == []


@needs_shell
def test_secrets_are_variables_that_the_shell_fills_in(receiver: Receiver, tmp_path: Path) -> None:
    headers = [("Authorization", f"Bearer {MASK}"), ("X-Api-Key", MASK), ("Path", MASK)]
    made = writer.build(f"POST {receiver.url}/open/?token={MASK}", headers, b"{}")
    assert made.variables == ("TOKEN", "SECRET_X_API_KEY", "SECRET_PATH")
    assert MASK not in made.text
    secret = 'a\'b $(touch pwned) `c` "d"'
    filled = {"TOKEN": "abc", "SECRET_X_API_KEY": secret}
    assert run(made.text, tmp_path, **filled).returncode == 0
    [request] = receiver.requests("/open/")
    assert request.header("Authorization") == "Bearer abc"
    assert request.header("X-Api-Key") == secret
    # Never the PATH of the user's shell.
    assert request.header("Path") is None
    assert request.query == "token=abc"
    assert list(tmp_path.iterdir()) == []


@needs_shell
def test_basic_credentials_are_the_login_and_a_variable(receiver: Receiver, tmp_path: Path) -> None:
    headers = [("Authorization", f"Basic {MASK}")]
    made = writer.build(f"POST {receiver.url}/basic/", headers, b"{}", login="sandbox")
    assert "--user 'sandbox:'\"$PASSWORD\"" in made.text
    assert run(made.text, tmp_path, PASSWORD="wrong").returncode == 0
    [request] = receiver.requests("/basic/")
    assert request.header("Authorization") == "Basic c2FuZGJveDp3cm9uZw=="


@needs_shell
def test_the_request_is_the_one_that_was_sent(receiver: Receiver, tmp_path: Path) -> None:
    headers = (
        f"Host: {receiver.url.removeprefix('http://')}\nUser-Agent: Webhooks/2.0\nAccept: */*\n"
        "X-Empty: \nContent-Type: application/json\nwebhook-id: evt_1"
    )
    command = written(b'{"a": 1}', url=f"{receiver.url}/open/", headers=headers)
    command = command.replace("--request POST", "--request PUT")
    assert run(command, tmp_path).returncode == 0
    [request] = receiver.requests("/open/")
    assert request.method == "PUT"
    for name, value in (
        ("User-Agent", "Webhooks/2.0"), ("Content-Type", "application/json"),
        ("webhook-id", "evt_1"), ("X-Empty", ""),
    ):  # fmt: skip
        assert request.header(name) == value


@needs_shell
def test_an_address_keeps_its_dots(receiver: Receiver, tmp_path: Path) -> None:
    assert run(written(b"", url=f"{receiver.url}/open/a/../b/./c"), tmp_path).returncode == 0
    assert receiver.requests("/open/")[0].path == "/open/a/../b/./c"


@needs_shell
def test_a_body_without_a_type_gets_none(receiver: Receiver, tmp_path: Path) -> None:
    assert run(written(b"a=b", url=f"{receiver.url}/open/"), tmp_path).returncode == 0
    assert receiver.requests("/open/")[0].header("Content-Type") is None


@needs_shell
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_an_empty_body_is_sent_as_an_empty_body(
    method: str, receiver: Receiver, tmp_path: Path
) -> None:
    made = writer.build(f"{method} {receiver.url}/open/?a=b", [], b"")
    assert run(made.text, tmp_path).returncode == 0
    [request] = receiver.requests("/open/")
    assert (request.method, request.body) == (method, b"")
    assert request.header("Content-Length") == "0"
    assert request.header("Content-Type") is None
    assert "data" not in writer.build(f"GET {receiver.url}/", [], b"").text


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_command_is_printable_ascii_whatever_it_holds(attack: str) -> None:
    text = written(attack.encode(), headers=f"X-Text: {attack}")
    assert text.isascii()
    assert text.replace(" \\\n  ", " ").isprintable()


@needs_shell
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_interactive_history_finds_nothing_to_expand(attack: str, tmp_path: Path) -> None:
    """Bash expands `!` before it parses `$'...'`; an expandable `!` is never outside of one."""
    word = writer.quote(attack.encode())
    script = f"set -o history -o histexpand\nhistory -s 'touch pwned'\nprintf %s {word} > out\n"
    subprocess.run(
        ["bash", "--noprofile", "--norc"],
        input=script, cwd=tmp_path, text=True, capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    assert (tmp_path / "out").read_bytes() == attack.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["@/etc/passwd", "-K", "a b", "", "a\nb", "X:"])
def test_a_header_name_that_is_none_is_left_out(name: str) -> None:
    made = writer.build("GET http://127.0.0.1/", [(name, "value")], b"")
    assert "value" not in made.text or name == "-K"


@pytest.mark.parametrize(
    ("line", "body", "reason"),
    [
        ("POST http://127.0.0.1/", b"a\0b", "zero byte"),
        ("POST http://127.0.0.1/", b"x" * 30_001, "too long"),
        ("POST http://127.0.0.1/\0", b"", "zero byte"),
        ("", b"", "No request"),
        ("POST /etc/passwd", b"", "No request"),
        ("$(id) http://127.0.0.1/", b"", "No request"),
    ],
)
def test_what_no_command_line_can_hold_is_refused(line: str, body: bytes, reason: str) -> None:
    with pytest.raises(CurlError, match=reason):
        writer.build(line, [], body)


@needs_shell
def test_the_longest_body_still_fits_a_command_line(receiver: Receiver, tmp_path: Path) -> None:
    body = b"\xff" * writer.MAX_BODY_BYTES
    assert run(written(body, url=f"{receiver.url}/open/"), tmp_path).returncode == 0
    assert receiver.requests("/open/")[0].body == body


def test_a_signed_request_says_so() -> None:
    made = writer.build("POST http://127.0.0.1/", [("webhook-signature", "v1,a")], b"")
    assert made.is_signed
    assert not writer.build("POST http://127.0.0.1/", [], b"").is_signed
