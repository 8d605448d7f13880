"""Header rules: an accepted header is one line on the wire, and none of the product's own."""

from typing import Any

from django.core.exceptions import ValidationError
from hypothesis import strategies as st

from tests.fuzz.target import FuzzTarget
from webhooks.delivery.auth import BasicAuthorization
from webhooks.delivery.requests import make_plan
from webhooks.models import Header, Webhook, headers_as_json
from webhooks.ui.webhook_form import headers

_NAMES = (
    "X-Api-Key", "Authorization", "Host", "host", "Content-Length", "Transfer-Encoding", "Cookie",
    "webhook-id", "Webhook-Signature", "X-A:", "X A", "Expect", "TE", "Proxy-Authorization",
    "X-\u00e9", "\u212aey", ":authority", "X-A\r\nX-B", "X-A;", "", "@file", "Connection",
)  # fmt: skip
_VALUES = (
    "abc", "", " ", "a\r\nX-Evil: 1", "a\nb", "a\0b", "\u00e9", "{{event}}", "a\tb", "x" * 200,
    "Bearer secret", "a\x7f", "\u0130", "\ud800", ";", ": a", "a\r", "\u2028",
)  # fmt: skip
_TOKEN = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OURS = {"host", "content-length", "transfer-encoding", "authorization", "cookie", "connection",
         "webhook-id", "webhook-timestamp", "webhook-signature", "webhook-attempt", "webhook-test",
         "content-type", "expect"}  # fmt: skip
INPUTS = st.fixed_dictionaries(
    {
        "name": st.one_of(st.sampled_from(_NAMES), st.text(max_size=20)),
        "value": st.one_of(st.sampled_from(_VALUES), st.text(max_size=40)),
        "is_secret": st.booleans(),
    }
)
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_AUTHORIZATION = BasicAuthorization(login="l", password="p")


def check(given: dict[str, Any]) -> bool:
    name, value = given["name"].strip(" \t"), given["value"].strip(" \t")
    try:
        headers.check_name(name)
        headers.check_value(value)
    except ValidationError as error:
        assert str(error.messages[0])
        return False
    assert name
    assert set(name) <= _TOKEN
    assert name.lower() not in _OURS
    assert all(one == "\t" or " " <= one <= "~" for one in value)
    header = Header(name, value, given["is_secret"])
    stored = headers_as_json([header])
    assert _webhook(stored).read_headers() == [header]
    _check_lines(stored)
    return True


def _check_lines(stored: str) -> None:
    """Check that exactly one header is added, and that each is on one line."""
    plain, plan = (make_plan(_webhook(json), _AUTHORIZATION) for json in ("", stored))
    names = [_name(line) for line in plan.headers]
    assert not any(mark in line for line in map(str, plan.headers) for mark in "\r\n\0")
    assert len(set(names)) == len(names)
    assert set(map(_name, plain.headers)) <= set(names)
    assert len(names) == len(plain.headers) + 1
    # libcurl adds these and Host, unless the request has its own.
    added = {"user-agent", "accept"} - set(names)
    assert len(plan.logged_headers.split("\n")) == len(names) + len(added) + 1


def _name(line: str | bytes) -> str:
    text = line if isinstance(line, str) else line.decode()
    return text.replace(";", ":").partition(":")[0].lower()


def _webhook(stored: str) -> Webhook:
    webhook = Webhook(pk=1, url="https://example.com/hook", headers_json=stored)
    webhook.signing_secret = _SECRET
    return webhook


TARGET = FuzzTarget(name="headers", inputs=INPUTS, check=check)
