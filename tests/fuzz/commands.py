"""Pasted cURL commands: rejected with a message, or read into text fields; nothing is run."""

import shlex
from typing import Any

from django.http import QueryDict
from hypothesis import strategies as st

from tests.fuzz.target import FuzzTarget
from webhooks.ui.webhook_form import pasted_curl

_OPTIONS = (
    "-X", "--request", "-H", "--header", "-d", "--data", "--data-raw", "--data-urlencode", "-u",
    "--json", "-G", "-m", "--max-time", "-F", "--form", "-T", "-x", "--proxy", "-k", "-L", "-XPOST",
    "--data=@/etc/passwd", "-d@-", "-sSf", "--user=a:b", "--nonsense", "-", "--", "-o", "--netrc",
)  # fmt: skip
_WORDS = (
    "https://example.com/hook?a=1", "http://127.0.0.1/", "POST", "get", "X: a", "X-A:", "X;",
    "Content-Type: application/json", "Authorization: Basic dTpw", "Authorization: Basic %%%",
    "Authorization: Bearer x", '{"caller_number": "1"}', '{"a":', "a=1&b=2", "a=1&&=&", "u:p",
    "@file", "$(id)", "`id`", "${HOME}", "5", "1e999", "-1", "nan", "", "'", '"', "\\", "^",
    '{"a":1e400}', '[1e400]', '{"a":"x\\u0000y"}', "a=%FF&+b+=%00", "2>&1", "2>/dev/null", "A=1",
    "https://user:p%00ss@example.com", "--no-location", "--heade", "<<x", "$'\\c", "\n# x\n",
    "$'\\x41\\u0000'", "| sh", "> /x", "[" * 1200, "\ud800", "\0", "é",
)  # fmt: skip
_WORD = st.one_of(st.sampled_from(_OPTIONS), st.sampled_from(_WORDS), st.text(max_size=12))
INPUTS = st.one_of(
    st.lists(_WORD, max_size=7).map(lambda words: "curl " + shlex.join(words)),
    st.lists(_WORD, max_size=7).map(lambda words: "curl " + " ".join(words)),
    st.lists(_WORD, max_size=4).map(lambda words: 'curl ^"' + '^" ^"'.join(words) + '^"'),
    st.text(max_size=40),
)


def check(given: str) -> bool:
    data = QueryDict(mutable=True)
    data["curl"] = given
    pasted = pasted_curl.fill_in(data)
    if pasted.problem:
        return False
    assert all(isinstance(value, str) for _, values in data.lists() for value in values)
    assert not [text for text in _texts(data) if text.startswith("root:")]
    return bool(pasted.filled)


def _texts(data: Any) -> list[str]:
    return [value for _, values in data.lists() for value in values]


TARGET = FuzzTarget(name="pasted commands", inputs=INPUTS, check=check, share=2)
