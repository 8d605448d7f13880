"""Parts of a guarded request: an extended query string, and headers by name."""

import pytest

from webhooks.network import HEADER_NAME, header_line, merge_headers, with_query


@pytest.mark.parametrize(
    ("url", "longer"),
    [
        ("https://a.example/in", "https://a.example/in?b=1"),
        ("https://a.example", "https://a.example?b=1"),
        ("https://a.example/in?", "https://a.example/in?b=1"),
        ("https://a.example/in?key=1", "https://a.example/in?key=1&b=1"),
        ("https://a.example/in?key=1&", "https://a.example/in?key=1&b=1"),
        ("https://a.example/in&", "https://a.example/in&?b=1"),
        ("https://a.example/in#part", "https://a.example/in?b=1#part"),
        ("https://a.example/in?key=1#a?b", "https://a.example/in?key=1&b=1#a?b"),
    ],
)
def test_a_query_gets_a_further_part(url: str, longer: str) -> None:
    assert with_query(url, "b=1") == longer
    assert with_query(url, "") == url


def test_headers_of_one_name_are_one_list() -> None:
    headers = [("Accept", "a"), ("X-Id", ""), ("accept", "b"), ("x-id", "1"), ("ACCEPT", "c")]
    assert merge_headers(headers) == [("Accept", "a, b, c"), ("X-Id", "1")]


def test_a_header_without_a_value_is_a_line_of_its_own_kind() -> None:
    assert header_line("X-Id", "1") == "X-Id: 1"
    assert header_line("X-Id", "") == "X-Id;"


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\n", "(a)", "@a/b"])
def test_what_is_no_token_is_no_name(name: str) -> None:
    assert HEADER_NAME.fullmatch("!#$%&'*+-.^_`|~X9")
    assert not HEADER_NAME.fullmatch(name)
