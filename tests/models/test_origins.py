"""Origins are read as the sender reads addresses."""

import pytest

from webhooks import network
from webhooks.models import origin_of


@pytest.mark.parametrize(
    "url",
    [
        "https://ΟΔΟΣ-1.example/hook",
        "https://οδος-1.example/hook",
        "https://οδοσ-1.example/hook",
        "https://BÜCHER.example:443/",
        "http://[::1]:8080/x",
        "https://crm.example./a?b#",
    ],
)
def test_an_origin_is_that_of_the_request(url: str) -> None:
    try:
        expected = network.parse_url(url).origin
    except network.UnsafeURLError:
        expected = url
    assert origin_of(url) == expected


def test_names_that_are_sent_to_different_hosts_have_different_origins() -> None:
    assert origin_of("https://ΟΔΟΣ-1.example/") != origin_of("https://οδος-1.example/")
