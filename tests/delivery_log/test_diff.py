"""Differences between two attempts: those a person would notice, and bodies only for some."""

from typing import Any

from django.utils import translation

from webhooks.delivery_log.diff import Difference, compare
from webhooks.models import Attempt, Outcome


def attempt(**fields: Any) -> Attempt:
    given: dict[str, Any] = {
        "number": 1,
        "outcome": Outcome.SERVER_ERROR,
        "status_code": 503,
        "error": "The receiver answered 503.",
        "remote_address": "203.0.113.7",
        "total_ms": 50.0,
        "request_headers": "Host: a.example\nwebhook-timestamp: 1\nwebhook-signature: v1,a",
        "response_headers": "HTTP/1.1 503 Busy\nRetry-After: 30",
        "response_body": b'{"a": 1}',
    }
    return Attempt(**{**given, **fields})


def differences(before: Attempt, after: Attempt, *, with_bodies: bool = True) -> list[Difference]:
    return compare(before, after, payload=b'{"p": 1}', with_bodies=with_bodies)


def said(found: list[Difference]) -> dict[str, tuple[str, str]]:
    return {str(one.label): (one.before, one.after) for one in found}


def test_the_same_answer_in_about_the_same_time_is_no_difference() -> None:
    later = attempt(
        total_ms=60.0, request_headers="Host: a.example\nwebhook-timestamp: 2\nwebhook-signature: b"
    )
    assert differences(attempt(), later) == []


def test_another_answer_is_explained_in_words() -> None:
    after = attempt(
        outcome=Outcome.SUCCEEDED, status_code=200, error="", remote_address="192.0.2.1"
    )
    assert said(differences(attempt(), after)) == {
        "Outcome": ("Server error", "Succeeded"),
        "Response code": ("503", "200"),
        "Error": ("The receiver answered 503.", "none"),
        "Address": ("203.0.113.7", "192.0.2.1"),
    }


def test_headers_that_may_repeat_a_payload_are_compared_for_who_may_see_it_alone() -> None:
    first, second = (
        attempt(response_headers=f"HTTP/1.1 301 Moved\nLocation: /?caller=38044{n}\nServer: s{n}")
        for n in (1, 2)
    )
    assert said(differences(first, second, with_bodies=False)) == {
        "Response header server": ("s1", "s2")
    }
    assert "Response header location" in said(differences(first, second))


def test_no_answer_is_said_so() -> None:
    silent = attempt(status_code=None, remote_address="", response_headers="", response_body=b"")
    found = said(differences(attempt(), silent))
    assert found["Response code"] == ("503", "no response")
    assert found["Address"] == ("203.0.113.7", "not connected")
    assert found["Response header retry-after"] == ("30", "absent")
    assert found["Response body"] == ("8 bytes", "empty")


def test_only_a_time_that_a_person_would_notice_differs() -> None:
    assert differences(attempt(total_ms=5.0), attempt(total_ms=20.0)) == []
    assert differences(attempt(total_ms=1000.0), attempt(total_ms=1400.0)) == []
    found = said(differences(attempt(total_ms=50.0), attempt(total_ms=1500.0)))
    assert found == {"Total time": ("50 ms", "1.50 s")}
    with translation.override("uk"):
        found = said(differences(attempt(total_ms=50.0), attempt(total_ms=1500.0)))
    assert list(found.values()) == [("50 мс", "1,50 с")]
    assert differences(attempt(total_ms=None), attempt(total_ms=1500.0)) == []


def test_headers_of_one_name_are_compared_together_and_whatever_their_case() -> None:
    before = attempt(response_headers="HTTP/1.1 200 OK\nX-A: 1\nx-a: 2")
    after = attempt(response_headers="HTTP/2 200\nx-a: 1\nX-A: 3")
    found = said(differences(before, after))
    assert found == {"Response header x-a": ("1, 2", "1, 3")}


def test_json_is_compared_line_by_line_once_indented() -> None:
    [found] = differences(attempt(), attempt(response_body=b'{"a":2}'))
    lines = [(line["kind"], line["text"].strip()) for line in found.lines]
    assert lines == [("same", "{"), ("removed", '"a": 1'), ("added", '"a": 2'), ("same", "}")]


def test_an_attempt_without_a_body_of_its_own_sent_the_payload() -> None:
    same = differences(attempt(request_body=None), attempt(request_body=b'{"p": 1}'))
    assert same == []
    [found] = differences(attempt(request_body=None), attempt(request_body=b'{"p": 2}'))
    assert str(found.label) == "Request body"


def test_bodies_are_hidden_from_who_may_not_see_payloads() -> None:
    [found] = differences(attempt(), attempt(response_body=b'{"a":20}'), with_bodies=False)
    assert (found.lines, found.before, found.after) == ((), "8 bytes", "8 bytes")


def test_bytes_are_compared_by_their_size_alone() -> None:
    [found] = differences(attempt(), attempt(response_body=b"\x00\x01\x02"))
    assert (found.lines, found.after) == ((), "3 bytes")


def test_a_long_difference_is_cut_and_says_so() -> None:
    long = "\n".join(str(number) for number in range(500)).encode()
    [found] = differences(attempt(), attempt(response_body=long))
    assert len(found.lines) < 50
    assert found.lines[-1]["kind"] == "gap"
