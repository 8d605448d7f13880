"""Origins are parsed as the sender parses URLs."""

import contextlib

import pytest

from tests.network.test_guard import url_rows
from webhooks import network
from webhooks.models import origin_of


@pytest.mark.parametrize(
    "url",
    [
        "https://ΟΔΟΣ-1.example/hook",
        "https://οδος-1.example/hook",
        "https://οδοσ-1.example/hook",
        "https://BÜCHER.example:443/",
        "https://ᏣᎳᎩ.example.com/",
        "http://[::1]:8080/x",
        "http://[::FFFF:127.0.0.1]/x",
        "https://crm.example./a?b#",
        "https://my_app.приклад.укр/hook",
        "https://r3---sn.приклад.укр:8443/hook",
        "https://ab--c.рф/",
        "https://xn--80aikifvh.укр/",
    ],
)
def test_an_origin_is_that_of_the_request(url: str) -> None:
    try:
        expected = network.parse_url(url).origin
    except network.UnsafeURLError:
        expected = url
    assert origin_of(url) == expected


def test_every_address_of_the_table_has_the_origin_that_the_guard_reads() -> None:
    for row in url_rows():
        with contextlib.suppress(network.UnsafeURLError):
            assert network.parse_url(row.url).origin == origin_of(row.url)


def test_names_that_are_sent_to_different_hosts_have_different_origins() -> None:
    assert origin_of("https://ΟΔΟΣ-1.example/") != origin_of("https://οδος-1.example/")
