"""Parsing a pasted cURL command: quoting of every shell, options, and helpful errors."""

import os
import re
import subprocess
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu_time import LINEAR, TIMES, Work, growth
from tests.programs import need
from webhooks.curl import CurlError, parser, writer
from webhooks.curl.parser import CurlRequest, read
from webhooks.curl.tokenizer import split

URL = "https://crm.test/in"
# A backslash at the end, of which the next line is missing: unlike bash, read as nothing.
_CONTINUED = re.compile(r"(?<!\\)(?:\\\\)*\\ *\Z")


def body(text: str) -> str:
    return read(f"curl {URL} {text}").body


def notes(text: str) -> str:
    return " ".join(read(f"curl {URL} {text}").notes)


def refusal(text: str) -> str:
    with pytest.raises(CurlError) as error:
        read(text)
    return str(error.value)


# ---- Quoting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("'a b' \"c d\" e\\ f ''", ["a b", "c d", "e f", ""]),
        ("'a'\\''b' x\"y\"'z'", ["a'b", "xyz"]),
        ('"a\\"b\\\\c\\n"', ['a"b\\c\\n']),
        ("a \\\n  b \\\r\n c", ["a", "b", "c"]),
        ("a \\ \t\n  b", ["a", "b"]),
        ("a \\\n> b \\\n>  c\\\n> d", ["a", "b", "cd"]),
        ("a \\", ["a"]),
        ("a \\ \n", ["a"]),
        ("a \\ ", ["a"]),
        ("a \\\\", ["a", "\\"]),
        ("a\u00a0'b\u00a0c'\u202fd", ["a", "b\u00a0c", "d"]),
        ("$'it\\'s\\n\\x41\\u0456\\101\\\\'", ["it's\nAіA\\"]),
        ("$'\\xd0\\x9a\\xd0\\xb8\\xd1\\x97\\xd0\\xb2'", ["Київ"]),
        ("a # a comment", ["a"]),
        ("a#b", ["a#b"]),
        ("'Київ'", ["Київ"]),
        ("$'a\\d\\E\\cA\\?' $'\\x' $'\\u'", ["a\\d\x1b\x01?", "\\x", "\\u"]),
        ("$'a\\0b\\'c'd $'a\\u0000b'", ["ad", "a"]),
        ("$'\\c\\\\x\\c?\\x{41}b'", ["\x1cx\x7fAb"]),
        ('$"a b"c', ["a bc"]),
        ("$'\\c\\0'", ["\x1c0"]),
        ("a ${b\n c", ["a", "${b"]),
        ("# a comment\n\n  a b", ["a", "b"]),
        ("A=1 B='2 3'\nexport C=4; D=5 && a b", ["A=1", "B=2 3", "export", "C=4", "D=5", "a", "b"]),
        ("a 2>/dev/null", ["a"]),
        ("a 2>&1", ["a"]),
        ("a b2>x", ["a", "b2"]),
        ("a '2'>x", ["a", "2"]),
        ("a >x b 2>> 'y z' c &>d e 2>&1 f >|g 2>&- h", ["a", "b", "c", "e", "f", "h"]),
        ("a <<x b\nc\nx", ["a", "b"]),
        ("a <<<x b", ["a", "b"]),
        ("a >(b) c", ["a"]),
        ("a/<id>/b <user>:<pass> c=<api key>", ["a/<id>/b", "<user>:<pass>", "c=<api key>"]),
        ("a 'b'1<c> 2<d> <e.f-g>", ["a", "b1<c>", "2<d>", "<e.f-g>"]),
        ("a <b >c d", ["a", "d"]),
    ],
)
def test_words_are_those_of_a_shell(typed: str, words: list[str]) -> None:
    assert split(typed).words == words


@given(st.lists(st.text(alphabet="ab \n'\"\\$`!#&|;<>*?[]{}~^%=-єЇ", max_size=12), max_size=4))
@pytest.mark.slow
def test_what_our_own_quoting_writes_is_read_back(words: list[str]) -> None:
    typed = " ".join(writer.quote(word.encode()) for word in words)
    assert split(typed).words == words


@pytest.mark.process
@given(st.text(alphabet="a '\"\\$nx4\n", min_size=1, max_size=14))
def test_words_are_what_bash_makes_of_them(text: str) -> None:
    """Checks texts that bash accepts without an error and without expanding anything."""
    if "$" in text or "\n" in text or _CONTINUED.search(text):
        return
    command = ["bash", "-c", f"printf '%s\\0' {text}"]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode or made.stderr:
        return
    expected = made.stdout.decode().split("\0")[:-1]
    # Without arguments printf prints its format once.
    assert (split(text).words or [""]) == expected


@pytest.mark.process
@given(st.text(alphabet="a'\"\\?nx04ucE7é", max_size=12))
def test_escapes_are_what_bash_makes_of_them(text: str) -> None:
    script = f"set -f; printf '%s\\0' $'{text}'"
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    made = subprocess.run(["bash", "-c", script], capture_output=True, check=False, env=environment)
    if made.returncode or made.stderr:
        return
    try:
        words = split(f"$'{text}'").words
    except CurlError:
        words = []
    assert words == made.stdout.decode(errors="replace").split("\0")[:-1]


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        ("cmd", 'curl ^"https://a.test/^" ^\n  -H ^"a: b^"'),
        ("cmd", 'curl -d "{""a"":1}" ^\r\n -k https://a.test/'),
        ("cmd", 'curl "https://a.test/" -d "{""a"": ""b""}"'),
        ("cmd", 'curl "https://a.test/" -d "[{""a"": ""it\'s""}]"'),
        ("cmd", 'curl -o "C:\\dir\\f" ^\n -k https://a.test/'),
        (
            "PowerShell",
            'Invoke-WebRequest -Uri "https://a.test/" `\n-Method "POST"',
        ),
        ("PowerShell", "$session = New-Object Microsoft.PowerShell.Commands.WebRequestSession"),
        ("PowerShell", 'curl.exe "https://a.test/" `\n -k'),
    ],
)
def test_a_command_for_another_shell_says_which_copy_to_choose(shell: str, command: str) -> None:
    said = refusal(command)
    assert said.startswith(f"This command is for {shell}.")
    assert "“Copy as cURL (bash)”" in said


@pytest.mark.parametrize(
    "words", ["-d 'a ^\nb'", "-d 'a ^\"b' \\\n -k", "-d 'x `\n Invoke-WebRequest'", '-d "a^"']
)
def test_signs_of_other_shells_inside_quotes_are_text(words: str) -> None:
    assert read(f"curl {URL} {words}").url == URL


def test_what_follows_the_command_is_named() -> None:
    assert "was left out: | jq …" in notes("-d a=b | jq .")
    assert "was left out: ; rm …" in notes("; rm -rf /")
    assert read(f"curl {URL}\nls").notes == ["What follows the command was left out: ls"]


def test_a_lost_backslash_at_the_end_of_a_line_does_no_harm() -> None:
    assert read(f"curl {URL}\n  -d a=b").body == "a=b"


def test_what_a_shell_would_fill_in_is_named() -> None:
    assert "$TOKEN, ${HOME}, $(date), `id`" in notes('-H "A: $TOKEN ${HOME}" -d $(date)`id`')
    assert ": ${A…}, $(b …)." in notes('-d "${A:-c}" -H "D: $(b c)"')
    assert notes("-d '$TOKEN'") == ""


def test_placeholders_in_angle_brackets_are_values_to_fill_in() -> None:
    request = read("curl https://crm.test/users/<id>/calls -u <user>:<pass> -d name=<name> -d a=1")
    assert request.url == "https://crm.test/users/<id>/calls"
    assert (request.login, request.password) == ("<user>", "<pass>")
    assert request.body == "name=<name>&a=1"
    assert any("fills in: <id>, <user>, <pass>, <name>." in note for note in request.notes)


@pytest.mark.parametrize(
    ("typed", "named"),
    [("-d id=<{id}> -d", "<…, >…"), ("-d id=>2", ">…"), ("< in.json", "<…")],
)
def test_a_redirection_that_may_be_a_value_is_named(typed: str, named: str) -> None:
    assert f"were left out: {named}. Put quotes" in notes(typed)


def test_bytes_that_are_no_text_are_named() -> None:
    request = read(f"curl {URL} --data-urlencode $'a=\\xff' -H $'X-A: \\xd0'")
    assert request.body == "a=%EF%BF%BD"
    assert "not UTF-8" in notes("-d $'a=\\ud800'")
    assert request.notes == ["Bytes that are not UTF-8 became �. Replace that sign in the form."]


@pytest.mark.parametrize("typed", ["-d a=b > out.json", "-d a=b >out 2>/dev/null", "2>&1", "&>x"])
def test_a_file_that_a_shell_writes_is_not_named(typed: str) -> None:
    assert notes(typed) == ""


# ---- Options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", {"method": "GET"}),
        ("-d a=b", {"method": "POST", "body": "a=b"}),
        ("-da=b --data c=d", {"body": "a=b&c=d"}),
        ("-X PUT --data-raw @x", {"method": "PUT", "body": "@x"}),
        ("-XPATCH", {"method": "PATCH"}),
        ("-sSLXdelete", {"method": "DELETE"}),
        ("-G -d a=b", {"method": "GET", "is_in_query": True, "body": "a=b"}),
        ("--data-urlencode 'a=b c' --data-urlencode 'x y'", {"body": "a=b%20c&x%20y"}),
        ("--data-urlencode '=b c'", {"body": "b%20c"}),
        ("""--json '{"a":' --json '1}'""", {"method": "POST", "is_json": True, "body": '{"a":1}'}),
        ("-u demo:pa:ss", {"login": "demo", "password": "pa:ss"}),
        ("-u demo", {"login": "demo", "password": ""}),
        ("-H 'Authorization: Basic ZGVtbzpwYXNz'", {"login": "demo", "password": "pass"}),
        ("-m 5", {"timeout_seconds": 5.0}),
        ("-H 'A: b' -H 'C;' -H 'Accept:'", {"headers": [("A", "b"), ("C", "")]}),
        ("-H '' -H ';' -H NoColon -H 'C; ' -H 'D;e' -H 'F;g;'", {"headers": []}),
        ("-A me -H 'user-agent: you' -e ''", {"headers": [("user-agent", "you")]}),
        ("-u a:b -H 'Authorization: Bearer z'", {"login": None, "password": ""}),
        ("-u a:b --oauth2-bearer z", {"login": None, "password": ""}),
        ("-u a:b -H 'Authorization:'", {"login": None, "password": "", "headers": []}),
        ("-H $'Authorization: Basic\\tZGVtbzpwYXNz'", {"login": "demo", "password": "pass"}),
        ("""--json '{"a":1}' -d b=2""", {"body": '{"a":1}&b=2'}),
        ("""-d b=2 --json '{"a":1}' --data-raw c""", {"body": 'b=2{"a":1}&c'}),
        ("-d '' -d a=1", {"body": "&a=1"}),
        ("-d ''", {"method": "POST", "data": [""]}),
        ("--no-location --no-compressed --no-get -d a", {"method": "POST", "notes": []}),
        ("-A me -e https://x", {"headers": [("User-Agent", "me"), ("Referer", "https://x")]}),
        ("--url-query a=b --url-query 'c=d e'", {"url": f"{URL}?a=b&c=d%20e"}),
        ("--url-query '+a=b&c'", {"url": f"{URL}?a=b&c"}),
        ("--json 1", {"headers": [("Accept", "application/json")]}),
        ("--json 1 -A me -e x -H Accept: -H user-agent:", {"headers": [("Referer", "x")]}),
        ("--expand-data 'a={{b}}'", {"body": "a={{b}}", "notes": []}),
        ("-u a:b --ntlm", {"login": None, "headers": [("Authorization", "NTLM")]}),
        ("--negotiate -u a:b", {"login": None, "headers": [("Authorization", "Negotiate")]}),
        ("--aws-sigv4 x -u a:b", {"login": None, "password": ""}),
    ],
)
def test_options_mean_what_curl_means(typed: str, expected: dict[str, Any]) -> None:
    request = read(f"curl {URL} {typed}")
    assert {name: getattr(request, name) for name in expected} == expected


def test_the_address_may_stand_anywhere() -> None:
    assert read(f"curl --url-query a=b {URL}?x=1").url == f"{URL}?x=1&a=b"
    # Not in the fragment, which is never sent.
    assert read(f"curl --url-query a=b '{URL}#c?d'").url == f"{URL}?a=b#c?d"
    for command in (f"curl -k {URL} -d a", f"curl --url {URL} -d a", f"curl -d a -- {URL}"):
        assert read(command).url == URL
    assert read("/usr/bin/curl crm.test/in").url == "https://crm.test/in"
    assert read("$ curl.exe 'https://crm.test/in'").url == URL


@pytest.mark.parametrize(
    "command",
    [
        "# the hook\ncurl https://crm.test/in",
        "TOKEN=abc\ncurl https://crm.test/in",
        "TOKEN=abc curl https://crm.test/in",
        "export A='b c'; B=1 && curl https://crm.test/in",
        "curl https://crm.test/in 2>/dev/null",
        "curl https://crm.test/in 2>&1",
    ],
)
def test_what_a_shell_is_given_beside_the_command_is_no_part_of_it(command: str) -> None:
    assert read(command).url == URL


def test_every_option_that_takes_a_value_takes_it() -> None:
    """The options are those listed by `curl --help all`."""
    need("curl")
    shown = subprocess.run(["curl", "--help", "all"], capture_output=True, check=True, text=True)
    printed = re.findall(r"^ (?:-(\S),)? +--(\S+)( <)?", shown.stdout, re.M)
    assert len(printed) > 200
    for short, long, sign in printed:
        if long == "help":
            continue
        takes_value = bool(sign) or long in ("proxy", "preproxy")
        assert (long in parser.TAKE_A_VALUE) == takes_value, long
        # curl 8.10 gave --include a second name, and lists that one.
        name = "include" if long == "show-headers" else long.removeprefix("no-")
        assert not short or parser.SHORT[short] == name


@pytest.mark.parametrize("option", ["--noproxy", "--proto", "--trace-ascii", "--dns-servers"])
def test_values_of_curls_own_work_are_no_addresses(option: str) -> None:
    assert read(f"curl {option} value {URL}").notes == []


def test_an_option_is_known_by_its_whole_name_only() -> None:
    assert "--dat" in notes("--dat")


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("example.com/?u=https://x", "https://example.com/?u=https://x"),
        ("HTTP://example.com", "HTTP://example.com"),
    ],
)
def test_a_scheme_stands_at_the_beginning(typed: str, url: str) -> None:
    assert read(f"curl '{typed}'").url == url


@pytest.mark.parametrize(
    ("typed", "login", "password"),
    [
        ("https://user:p%40s:s@crm.test/in", "user", "p@s:s"),
        ("user@crm.test/in", "user", ""),
        ("-u a:b https://user:pass@crm.test/in", "a", "b"),
        ("https://user:pass@crm.test/in -H 'Authorization: Bearer z'", None, ""),
        ("https://crm.test/in?a@b", None, ""),
    ],
)
def test_credentials_of_the_address_are_basic_ones(
    typed: str, login: str | None, password: str
) -> None:
    request = read(f"curl {typed}")
    assert request.url.removesuffix("?a@b") == URL
    assert (request.login, request.password) == (login, password)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("-d @- <<EOF\n{\n 1}\nEOF", "{ 1}"),
        ("--data-binary @- <<'EOF'\n$a \\$b\n EOF\nEOF\necho", "$a \\$b\n EOF\n"),
        ('--data-binary @- <<EOF\n\\$b \\\\ "\\n"\nEOF', '$b \\ "\\n"\n'),
        ("--json @- <<-'E F'\n\t1\n\t\t2\n\tE F\n", "1\n2\n"),
        ("-d @- <<EOF -H 'A: b' | jq .\n@a\nEOF", "@a"),
        ("-d @- <<\\EOF \\\n -H 'A: b'\n$a\nEOF", "$a"),
        ("-d @- <<EOF\nthe end is missing", "the end is missing"),
        ("-d @- <<< 'a b' -d c", "a b&c"),
        ("--data-binary @-<<<a -d 1", "a\n&1"),
        ("-d 'a<<b' <<EOF\nignored\nEOF", "a<<b"),
        ("--data-urlencode @- <<EOF\na b\n&\nEOF", "a%20b%0A%26%0A"),
        ("--data-urlencode text@- <<< 'a b'", "text=a%20b%0A"),
    ],
)
def test_a_here_document_is_the_body_that_is_read_from_standard_input(
    typed: str, expected: str
) -> None:
    assert body(typed) == expected


def test_what_stands_around_a_here_document_is_named() -> None:
    typed = f"curl -d @- <<EOF {URL} | jq .\n$TOKEN\nEOF\necho done"
    request = read(typed)
    assert (request.url, request.expansions) == (URL, ["$TOKEN"])
    assert "| jq …" in " ".join(request.notes)
    assert "(@-)" in refusal(f"curl -d @- {URL}")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "begins with “curl”"),
        ("wget https://crm.test/", "begins with “curl”"),
        ("curl", "no address"),
        ("curl https://a.test https://b.test", "two addresses"),
        ("curl https://a.test -d", "its value is missing"),
        ("curl https://a.test -d 'x", "A closing ' is missing"),
        ("curl https://a.test -F a=b", "multipart"),
        ("curl https://a.test -T file", "uploads a file"),
        ("curl https://a.test -I", "headers only"),
        ("curl https://a.test -d @body.json", "(@body.json)"),
        ("curl https://a.test --data-urlencode a@f", "(@f)"),
        ("curl https://a.test --data-urlencode a@f <<< b", "(@f)"),
        ("curl https://a.test --data-urlencode a@-", "(@-)"),
        ("curl https://a.test -H @headers", "(@headers)"),
        ("curl https://a.test -K conf", "from a file (-K)"),
        ("curl https://a.test --next https://b.test", "several requests"),
        ("curl " + "x" * parser.MAX_LENGTH, "at most 200000 characters"),
    ],
)
def test_what_no_webhook_can_send_is_refused_with_what_to_do(typed: str, words: str) -> None:
    assert words in refusal(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "--user=me:Hunter2",
        "--header='Authorization: Bearer Hunter2'",
        "--expand-data=Hunter2",
        "--teapot=Hunter2",
        "--teapot:Hunter2",
        "--silent=Hunter2",
        "-m Hunter2",
        "&token=Hunter2",
        "-u me:p&Hunter2",
        "-u 'me:p'|Hunter2",
        "-u me:p;Hunter2",
        "-u me:p<Hunter2",
        "-u me:p>Hunter2",
        ";TOKEN=Hunter2 curl",
        "\nTOKEN=Hunter2 curl",
        "\ncurl -u me:Hunter2",
        '-H "Authorization: Basic $(echo -n me:Hunter2 | base64)"',
        '-H "Authorization: Bearer $(TOKEN=Hunter2)"',
        '-H "Authorization: Bearer ${TOKEN:-Hunter2}"',
        '-H "Authorization: Bearer ${TOKEN=Hunter2}"',
        '-d "`echo ${Hunter2}`"',
        "-H 'Authorization: Basic Hunter2'",
    ],
)
def test_notes_quote_no_secret(typed: str) -> None:
    assert notes(typed)
    assert "Hunter2" not in notes(typed)


@pytest.mark.parametrize(
    ("typed", "addresses"),
    [
        ("https://me:Hunter2@a.com https://b.com", "https://a.com and https://b.com."),
        ("https://a.com/ HTTP://me:p@Hunter2@[::1]:80/", "https://a.com and HTTP://[::1]…."),
        ("https://me:p/Hunter2@a.com b", "https://… and …."),
        ("https://a.com/hooks/Hunter2 https://b.com?k=Hunter2", "https://a.com… and https://b.com"),
        ("-H Authorization: Bearer Hunter2 https://a.com", "B… and H…."),
        ("me:Hunter2 https://a.com", "me… and https://a.com."),
        ("https://me:Hunter2 -u https://a.com https://b.com", "https://me… and https://b.com."),
    ],
)
def test_an_error_quotes_hosts_and_no_secret(typed: str, addresses: str) -> None:
    said = refusal(f"curl {typed}")
    assert f"two addresses, {addresses}" in said
    assert "Hunter2" not in said


def test_an_option_with_an_equals_sign_is_named_with_what_curl_expects() -> None:
    said = read(f"curl --user=me:pw --user=me:pw --teapot=1 --silent=1 {URL}").notes
    assert said == [
        "--user was left out: curl expects a space, not “=”, before its value.",
        "These options are not known here and were left out: --teapot=…, --silent=…",
    ]


@pytest.mark.parametrize("typed", ["-d “a=b”", "-H ‘A: b’", "–data a=b", "—data a=b", "«x»"])
def test_what_a_text_editor_made_of_a_command_is_said(typed: str) -> None:
    assert "Type straight ones" in refusal(f"curl {URL} {typed}")
    assert body(f"-d '{typed}'") == typed


def test_what_has_no_meaning_here_is_named_and_curls_own_work_is_not() -> None:
    said = notes("-k -L --proxy p:1 -b a=b --teapot --digest -E c.pem:pw --key k.pem")
    for words in ("always checked", "Redirects", "Proxies", "Cookies", "--teapot", "Digest"):
        assert words in said
    assert (
        said.count(
            "client certificate from a file, so it was left out. Paste it with its private key"
        )
        == 1
    )
    assert "--key" not in said
    assert "c.pem" not in said
    assert notes("-s -S -v -i -f -o out.txt --compressed --http1.1 --globoff --tlsv1.2") == ""


def test_our_own_copy_is_read_back() -> None:
    headers = [("Host", "crm.test"), ("X-Key", "********"), ("Content-Type", "application/json")]
    made = writer.build(f"PUT {URL}?a=%27", headers, '{"місто": "it\'s"}'.encode())
    request = read(made.text)
    assert (request.method, request.url) == ("PUT", f"{URL}?a=%27")
    assert request.body == '{"місто": "it\'s"}'
    assert ("X-Key", "$SECRET_X_KEY") in request.headers


def test_credentials_that_are_no_base64_are_asked_for() -> None:
    request = read(f"curl {URL} -H 'Authorization: Basic $CREDENTIALS'")
    assert request.login == ""
    assert "could not be read" in request.notes[0]


def test_a_request_begins_empty() -> None:
    assert CurlRequest().body == ""


@pytest.mark.slow
@pytest.mark.parametrize("piece", [
    ">a ", "<a ", "<a", "2>", "\n", "A=\n", "A=1;", "-d a ", "--abc ", "x", "#", "#📞\n", "${",
    "$(", "` ", "\\", '"${', "$'\\x{", "^ ", "2", "<<A ", "<<A\n", "<<A\nA\n-d a ", "<<<",
])  # fmt: skip
def test_the_longest_command_is_read_at_once(piece: str) -> None:
    prefix = "" if piece.startswith(("A", "#📞")) else f"curl {URL} "

    def prepare(parts: int) -> Work:
        length = parser.MAX_LENGTH * parts // TIMES - len(prefix)
        text = prefix + piece * (length // len(piece))

        def parse() -> None:
            with suppress(CurlError):
                read(text)

        return parse

    assert growth(prepare, limit=LINEAR) < LINEAR
