"""The address policy without sockets: verdicts on URLs, names and addresses, and look-ups."""

import contextlib
import io
import ipaddress
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import example, given
from hypothesis import strategies as st

from tests.network.dns import Done, by_getaddrinfo, name_server, resolver_with
from tests.polling import PATIENCE_SECONDS, eventually
from webhooks import network
from webhooks.network import (
    HostResolver,
    NameNotResolvedError,
    Policy,
    UnsafeURLError,
    addresses,
    hosts,
    urls,
)
from webhooks.network.resolver import resolve

CLOSED = Policy()
TABLE = Path(__file__).parents[1] / "data" / "urls.tsv"
PUBLIC = "93.184.215.14"


@dataclass(frozen=True, kw_only=True)
class UrlRow:
    url: str
    verdict: str
    answers: tuple[str, ...] | None
    why: str


def url_rows() -> list[UrlRow]:
    """Return the rows of the shared table, decoded as its first line describes."""
    rows = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        url, verdict, why = line.split("\t")
        url = re.sub(
            r"\\(?:[\\nrt0]|u[0-9a-fA-F]{4})",
            lambda match: match[0].encode().decode("unicode_escape"),
            url,
        )
        dns = re.match(r"\[dns=([^\]]*)\]", why)
        answers = None if dns is None else tuple(filter(None, dns[1].split(",")))
        rows.append(UrlRow(url=url, verdict=verdict, answers=answers, why=why))
    return rows


def row_id(row: UrlRow) -> str:
    return f"{ascii(row.url)[1:60]} {row.why[:30]}"


def answer_with(*addresses: str, asked: list[str] | None = None) -> Callable[..., list[object]]:
    """Return a stand-in for getaddrinfo that gives these addresses for every name."""

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        if asked is not None:
            asked.append(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    return getaddrinfo


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that sets what every name resolves to and returns the names looked up."""

    def resolve_to(*addresses: str) -> list[str]:
        asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", answer_with(*addresses, asked=asked))
        return asked

    return resolve_to


def refusal(url: str, policy: Policy = CLOSED) -> UnsafeURLError:
    with pytest.raises(UnsafeURLError) as caught:
        network.parse_url(url, policy=policy)
    return caught.value


def opening(*networks: str) -> Policy:
    return Policy(allowed_networks=tuple(map(network.parse_allowed_network, networks)))


# The table.


@pytest.mark.parametrize("row", url_rows(), ids=row_id)
def test_each_url_of_the_table_gets_its_verdict(
    row: UrlRow, names: Callable[..., list[str]]
) -> None:
    asked = names(*(row.answers or ()))
    reason = sentence = ""
    try:
        network.check_url(row.url, policy=CLOSED)
        verdict = "allow"
    except (UnsafeURLError, NameNotResolvedError) as error:
        verdict, reason = "block", error.reason
        sentence = str(error)
    assert (reason, reason[-1:]) == (sentence, "." if reason else "")
    assert verdict == row.verdict
    if row.answers is None:
        assert asked == []


def test_the_table_has_all_of_its_rows() -> None:
    verdicts = [row.verdict for row in url_rows()]
    assert (verdicts.count("allow"), verdicts.count("block")) == (28, 175)


# URLs.


def test_a_url_is_normalized() -> None:
    target = network.parse_url("HTTP://Bücher.Example.COM.:80/ä b".replace(" b", "?[ß]#part"))
    assert target.url == "http://xn--bcher-kva.example.com/%C3%A4?%5B%C3%9F%5D"
    assert (target.scheme, target.host, target.port) == ("http", "xn--bcher-kva.example.com", 80)
    assert (target.origin, target.is_literal) == ("http://xn--bcher-kva.example.com", False)


def test_an_ipv6_target_has_brackets_in_the_url_only() -> None:
    target = network.parse_url("https://[2001:4860:4860::8888]:8443/a")
    assert target.host == "2001:4860:4860::8888"
    assert target.origin == "https://[2001:4860:4860::8888]:8443"
    assert target.is_literal


def test_an_origin_names_a_port_other_than_the_default() -> None:
    assert network.parse_url("https://example.com:80/").origin == "https://example.com:80"


def test_what_is_percent_encoded_already_stays_as_it_is() -> None:
    url = "https://example.com/a%2Fb%0d%0a?x=%41&y=a+b"
    assert network.parse_url(url).url == url


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/%", "percent"),
        ("https://example.com/%zz", "percent"),
        ("https://example.com/{{call_id}}", "character"),
        ("https://example.com/\ud800", "invisible_character"),
        ("https://example.com/a\u2028b", "invisible_character"),
        ("https://examp\u212ae.com/", "host_part"),
        ("https://\u212aiev.example.com/", "host_part"),
        ("https://\u017ferver.example.com/", "host_part"),
        ("https://\u0130stanbul.example.com/", "host_part"),
        ("https://\u212bngstrom.example.com/", "host_part"),
        ("https://STRA\u1e9eE.example.com/", "host_part"),
        ("https://\uff21\uff22.example.com/", "host_part"),
        ("https://\u24b6.example.com/", "host_part"),
        ("https://BU\u0308CHER.example.com/", "host_part"),
        ("https://example.com:/", "authority"),
        ("https://example.com:\u0661/", "authority"),
        ("https://example.com:0/", "port_number"),
        ("https://example.com:000/", "port_number"),
        ("https://example.com:065536/", "port_number"),
        ("https://example.com:1023/", "port_closed"),
        ("https://example.com:022/", "port_closed"),
        ("https://example.com:0443/", "port_spelling"),
        ("https://example.com:0000000080/", "port_spelling"),
        ("https://example.com../", "host_name"),
        ("https://xn--localhost-/", "host_part"),
        ("https://xn--a.example.com/", "host_part"),
        ("https://exa\u0301mple.com/", "host_part"),
        ("https://example.com\uff0fevil.com/", "host_part"),
        ("https://[2001:4860:4860:0:0:0:0:8888]/", "literal_spelling"),
        ("https://[fe80::1%eth0]/", "interface"),
        ("https://[fe80::1%25eth0]:8443/", "interface"),
        ("https://[2001:4860:4860::8888%]/", "interface"),
        ("https://fe80::1%eth0/", "interface"),
        ("https://[%3A%3A1]/", "authority"),
        ("https://exa%6dple.com/", "authority"),
        ("https://%/", "authority"),
        ("https://127.1./", "literal"),
        # Digits that IDNA allows in a name, and how they are written in ASCII.
        ("http://\u0967\u0968\u096d.\u0966.\u0966.\u0967/", "literal"),
        ("http://\u17e8.\u17e8.\u17e8.\u17e8/", "literal"),
        ("http://example.\u06f1/", "literal"),
        ("http://127.0.0.xn--e4b/", "literal"),
        ("http://XN--E4B./", "literal"),
        ("https://" + "a." * 130 + "com/", "host_name"),
        ("https://example.com/" + "ä" * 1000, "encoded_url_too_long"),
        ("http:///example.com/", "authority"),
        ("javascript://example.com/%0aalert(1)", "scheme"),
    ],
)
def test_a_url_that_parsers_read_differently_is_refused(url: str, code: str) -> None:
    assert refusal(url).code == code


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("2001:4860:4860::8888", "[2001:4860:4860::8888]"),
        ("2001:4860:4860:0::8888", "[2001:4860:4860::8888]"),
        ("93.184.215.14.", "93.184.215.14"),
        ("[93.184.215.14]", "93.184.215.14"),
        ("[::ffff:93.184.215.14]", "93.184.215.14"),
        ("::FFFF:93.184.215.14", "93.184.215.14"),
        ("[::ffff:5db8:d70e]", "93.184.215.14"),
        ("[::93.184.215.14]", "93.184.215.14"),
        ("[::5db8:d70e]", "93.184.215.14"),
    ],
)
def test_the_refusal_of_another_spelling_names_the_right_one(host: str, right: str) -> None:
    assert refusal(f"http://{host}/").reason == f"Write the IP address as {right}."
    assert network.parse_url(f"http://{right}/", policy=CLOSED).is_literal


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://[64:ff9b::8.8.8.8]/", "64:ff9b::808:808 is outside of the global IPv6 range"),
        ("https://[0:0:0:0:0:0:0:1]/", "::1 is outside of the global IPv6 range"),
        ("https://[::0808]/", "::808 is outside of the global IPv6 range"),
        ("https://::1/", "::1 is outside of the global IPv6 range"),
        ("https://2002:808::/", "2002:808:: is a 6to4 address"),
        ("https://10.0.0.1./", "10.0.0.1 is a private address"),
        ("https://[10.0.0.1]:8443/", "10.0.0.1 is a private address"),
        ("https://[2001:4860:4860:0::8888]:22/", "Port 22 is not open for webhooks"),
    ],
)
def test_no_spelling_is_named_for_an_address_that_is_refused(url: str, reason: str) -> None:
    assert refusal(url).reason.startswith(reason)


def test_a_spelling_is_named_for_an_address_that_an_operator_opened() -> None:
    opened = Policy(allowed_networks=(network.parse_allowed_network("[::1]/128:8443"),))
    with pytest.raises(UnsafeURLError) as error:
        network.parse_url("https://[0::1]:8443/", policy=opened)
    assert error.value.reason == "Write the IP address as [::1]."
    with pytest.raises(UnsafeURLError) as error:
        network.parse_url("https://[0::1]/", policy=opened)
    assert error.value.opened_by == "[::1]/128:443"


def test_a_port_with_leading_zeros_is_named_without_them() -> None:
    said = refusal("https://example.com:0443/").reason
    assert said == "Write the port without leading zeros: 443."


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://BÜCHER.example.com/", "xn--bcher-kva.example.com"),
        ("https://Bücher.EXAMPLE.com/", "xn--bcher-kva.example.com"),
        ("https://Пример.рф/", "xn--e1afmkfd.xn--p1ai"),
        ("https://ПРИМЕР.РФ/", "xn--e1afmkfd.xn--p1ai"),
        ("https://ΣΟΦΟΣ.example.com/", "xn--0xaakcn.example.com"),
        # Cherokee is written in capitals, and so it is in the DNS.
        ("https://ᏣᎳᎩ.example.com/", "xn--f9dt7l.example.com"),
    ],
)
def test_a_name_in_capitals_is_the_same_name(url: str, host: str) -> None:
    assert network.parse_url(url, policy=CLOSED).host == host


@pytest.mark.parametrize(
    "url",
    ["https://my_app.example.com/", "https://r1---sn.example.com/", "https://xn--e4b.example.com/"],
)
def test_names_that_dns_knows_beyond_the_letter_of_the_rfc_are_accepted(url: str) -> None:
    assert network.parse_url(url).url == url


_HOSTISH = st.text(
    st.sampled_from("abzAZ019.-_:@[]%/\\?# xn—ßéİK①。\u00ad\u200d\u0661\u05d0\ud800\x00\t"),
    max_size=24,
)


@given(
    st.one_of(
        st.text(max_size=80),
        st.builds("{}://{}{}{}".format, st.sampled_from(["http", "https", "HTTP"]), _HOSTISH,
                  st.sampled_from(["", ":80", ":65535", ":0", "/", "/a?b#c"]), st.text(max_size=9)),
    )
)  # fmt: skip
@example("http://xn--0.com/")
@example("http://xn--.com/")
@example("http://xn--a-.com/")
@example("http://[::ffff:1.2.3.4]/")
@example("http://1.2.3.4:65535?#")
@pytest.mark.slow
def test_any_text_is_refused_or_parses_again_to_the_same_target(text: str) -> None:
    try:
        target = network.parse_url(text, policy=CLOSED)
    except UnsafeURLError:
        return
    assert network.parse_url(target.url, policy=CLOSED) == target
    assert target.url.isascii()


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(1, 65535))
def test_no_address_that_python_calls_private_is_ever_open(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    if not ip.is_global or ip.is_multicast:
        assert addresses.address_problem(str(ip), port, CLOSED) is not None


# Addresses.


@pytest.mark.parametrize(
    "address",
    [
        "fe80::1%eth0", "2606:4700:4700::1111%1", "127.1", "0x7f.1", "", "localhost",
        "::ffff:8.8.8.8",
        "2620:4f:8000::1", "2001:470::5efe:7f00:1", "2001:470::200:5efe:7f00:1", "2001:1ff:ffff::1",
        "3fff:fff:ffff::1", "2002:ffff::1", "192.80.8.124", "255.255.255.255", "198.51.100.7",
    ],
)  # fmt: skip
def test_an_address_off_the_public_internet_is_refused(address: str) -> None:
    assert addresses.address_problem(address, 443, CLOSED)


@pytest.mark.parametrize(
    "address",
    ["2003::1", "2001:db7:ffff::1", "2001:db9::1", "3fff:1000::1", "2a00:1450::1", "128.0.0.1",
     "192.88.98.255", "192.0.1.0", "168.63.129.15", "168.63.129.17", "100.128.0.0"],
)  # fmt: skip
def test_an_address_beside_a_refused_network_is_open(address: str) -> None:
    assert addresses.address_problem(address, 443, CLOSED) is None


@pytest.mark.parametrize("port", [1, 22, 25, 79, 444, 1023, 0, 65536])
def test_a_service_port_is_refused_at_the_address_too(port: int) -> None:
    assert addresses.address_problem(PUBLIC, port, CLOSED)


# Allowed networks.


@pytest.mark.parametrize(
    ("text", "is_open", "is_closed"),
    [
        ("127.0.0.0/8:8001", ("127.9.9.9", 8001), ("127.0.0.1", 8002)),
        ("10.0.0.0/8", ("10.1.2.3", 22), ("11.0.0.1", 22)),
        ("[::1]/128:9000", ("::1", 9000), ("::1", 9001)),
        ("[::1]:9000", ("::1", 9000), ("::2", 9000)),
        ("fd00::/8", ("fd12::1", 25), ("fe80::1", 25)),
        ("10.1.2.3:8080", ("10.1.2.3", 8080), ("10.1.2.4", 8080)),
        ("10.0.0.0/8:8000-8099", ("10.0.0.1", 8099), ("10.0.0.1", 8100)),
        ("192.0.2.7", ("192.0.2.7", 443), ("192.0.2.8", 443)),
    ],
)
def test_an_allowed_network_opens_itself_and_its_ports_only(
    text: str, is_open: tuple[str, int], is_closed: tuple[str, int]
) -> None:
    policy = opening(text)
    assert addresses.address_problem(*is_open, policy) is None
    assert addresses.address_problem(*is_closed, policy) is not None


@pytest.mark.parametrize(
    "text",
    ["", "ten", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8:", "10.0.0.0/8:0", "10.0.0.0/8:99999",
     "10.0.0.0/8:90-80", "::1:9000/200", "localhost:80", "10.0.0.0/8:80,443", "fe80::1%eth0"],
)  # fmt: skip
def test_a_wrong_allowed_network_is_explained_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^“.*\.$"):
        network.parse_allowed_network(text)


def test_localhost_works_on_the_allowed_port_only(names: Callable[..., list[str]]) -> None:
    asked = names("127.0.0.1")
    policy = opening("127.0.0.0/8:8001")
    assert network.check_url("http://localhost:8001/", policy=policy).host == "localhost"
    assert network.check_url("http://127.0.0.1:8001/", policy=policy).is_literal
    for url in ("http://localhost/", "http://127.0.0.1:8002/", "http://127.1:8001/"):
        with pytest.raises(UnsafeURLError):
            network.check_url(url, policy=policy)
    assert asked == ["localhost"]


def test_a_private_name_must_lead_into_an_allowed_network(names: Callable[..., list[str]]) -> None:
    names(PUBLIC)
    with pytest.raises(UnsafeURLError, match="private name"):
        network.check_url("http://receiver:9000/", policy=opening("10.0.0.0/8:9000"))


def test_a_name_of_a_home_network_is_a_private_one(names: Callable[..., list[str]]) -> None:
    names("192.168.1.9")
    for host in ("nas.home.arpa", "nas.home.internal"):
        with pytest.raises(UnsafeURLError, match="is a name of a private network"):
            network.check_url(f"http://{host}/", policy=CLOSED)
        opened = opening("192.168.0.0/16")
        assert network.check_url(f"http://{host}/", policy=opened).host == host
    with pytest.raises(UnsafeURLError, match="is not a name on the public internet"):
        network.check_url("http://9.1.168.192.in-addr.arpa/", policy=opening("192.168.0.0/16"))


def test_a_public_name_with_one_allowed_and_one_refused_answer_is_refused(
    names: Callable[..., list[str]],
) -> None:
    names("127.0.0.1", "10.0.0.1")
    with pytest.raises(UnsafeURLError):
        network.check_url("http://example.com:9000/", policy=opening("127.0.0.0/8:9000"))


def test_a_low_port_named_by_an_allowed_network_is_open_there_only(
    names: Callable[..., list[str]],
) -> None:
    names(PUBLIC)
    policy = opening("10.0.0.0/8:81")
    assert network.check_url("http://10.0.0.1:81/", policy=policy).port == 81
    with pytest.raises(UnsafeURLError, match="Port 81"):
        network.check_url("http://example.com:81/", policy=policy)


@pytest.mark.parametrize(
    "host",
    ["metadata.google.internal", "metadata.tencentyun.com", "api.metadata.cloud.ibm.com",
     "METADATA.exoscale.com."],
)  # fmt: skip
def test_metadata_names_stay_refused_whatever_is_allowed(
    host: str, names: Callable[..., list[str]]
) -> None:
    asked = names("169.254.169.254")
    with pytest.raises(UnsafeURLError, match="is not a name on the public internet"):
        network.check_url(f"http://{host}/", policy=opening("169.254.169.254/32"))
    assert asked == []


METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "100.96.0.96",
    "100.80.80.80",
    "192.0.0.192",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fe80::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::6464:64c8",
    "::ffff:169.254.169.254",
    "2002:a9fe:a9fe::1",
    "192.80.8.124",
    "fd00:ec2::23",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    # IPv4-mapped, -compatible and translated, by well-known and local prefixes of each length.
    "::ffff:100.100.100.200",
    "::a9fe:a9fe",
    "::ffff:0:a9fe:a9fe",
    "64:ff9b::a83f:8110",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "fd64:ff9b::a9fe:a9fe",
    "fd12:3456:789a:1::6464:64c8",
    # Teredo's server and its client, ISATAP with either value of its universal bit.
    "2001:0:a9fe:a9fe::1",
    "2001:0:102:304::5601:5601",
    "fd00::5efe:a9fe:a9fe",
    "fd00::200:5efe:a9fe:a9fe",
    "2001:db8::5efe:a9fe:aa02",
]
AROUND = [
    "0.0.0.0/0", "::/0", "169.254.0.0/16", "169.254.169.254/31", "100.64.0.0/10", "192.0.0.0/24",
    "168.63.0.0/16", "fc00::/7", "fe80::/10", "fd00:ec2::/32", "64:ff9b::/96", "2002::/16",
    "192.80.8.0/24", "64:ff9b:1::/48", "::ffff:0:0/96", "::/8", "2000::/3", "2001::/23",
]  # fmt: skip


@pytest.mark.parametrize("address", METADATA)
def test_cloud_metadata_stays_shut_whatever_network_around_it_is_opened(address: str) -> None:
    for network_around in AROUND:
        assert addresses.address_problem(address, 80, opening(network_around)), network_around


@pytest.mark.parametrize("address", METADATA)
def test_cloud_metadata_is_opened_by_its_address_alone_and_never_recommended(address: str) -> None:
    spelled = str(ipaddress.ip_address(address))
    alone = f"[{spelled}]/128:80" if ":" in spelled else f"{spelled}/32:80"
    assert addresses.address_problem(spelled, 80, opening(alone)) is None
    assert addresses.address_problem(spelled, 8080, opening(alone))
    assert addresses.opened_by(spelled, 80) == ""


def test_what_is_beside_metadata_is_opened_with_its_network() -> None:
    assert addresses.address_problem("100.100.100.201", 8080, opening("100.64.0.0/10")) is None
    assert addresses.address_problem("fd00:1::1", 8080, opening("fc00::/7")) is None
    assert addresses.address_problem("64:ff9b:1::808:808", 80, opening("64:ff9b:1::/48")) is None
    assert addresses.address_problem("64:ff9b::a01:203", 80, opening("64:ff9b::/96")) is None
    assert addresses.address_problem("2002:808:808::1", 80, opening("2002::/16")) is None


@pytest.mark.slow
def test_many_names_are_looked_up_side_by_side_with_one_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def slow(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        time.sleep(30 if host == "hangs.example.com" else 0.05)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    names = [f"a{number}.example.com" for number in range(64)]
    everything = [*(f"https://{name}/x" for name in names), "https://hangs.example.com/", "no url"]
    began = time.monotonic()
    with network.looked_up(everything, seconds=3):
        for name in names:
            assert network.check_url(f"https://{name}/y").host == name
        with pytest.raises(NameNotResolvedError, match="hangs"):
            network.check_url("https://hangs.example.com/")
    assert time.monotonic() - began < 10
    assert sorted(asked) == sorted([*names, "hangs.example.com"])


def test_the_policy_follows_the_settings(settings: object) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = ["10.0.0.0/8:8080"]  # type: ignore[attr-defined]
    assert Policy.from_settings() == opening("10.0.0.0/8:8080")
    assert Policy.from_settings() is Policy.from_settings()


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "redis", "a.svc", "a.svc.cluster.local", "kubernetes.default",
     "x.test", "x.example", "x.invalid", "x.home.arpa", "fritz.box", "a.b.kube-system", "x.y2",
     "host.docker.internal", "localhost.localdomain", "vault.service.consul", "metadata.goog"],
)  # fmt: skip
def test_a_name_off_the_public_internet_is_refused(host: str) -> None:
    with pytest.raises(UnsafeURLError):
        urls.check_name(host, policy=CLOSED)


@pytest.mark.parametrize(
    "host",
    ["example.com", "hooks.example.com", "internal.example.com", "local.com",
     "xn--e1afmkfd.xn--p1ai",
     "localhost.com", "test.io", "a.app", "svc.dev"],
)  # fmt: skip
def test_a_public_name_is_accepted(host: str) -> None:
    urls.check_name(host, policy=CLOSED)


# This site and this machine.

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 203.0.0.0/8 2 0 2
        |-- 93.184.215.14
           /32 host LOCAL
        |-- 93.184.215.255
           /32 link BROADCAST
        |-- 93.184.215.0
           /24 link UNICAST
"""
IF_INET6 = (
    "2606280002200001024818931b2c3d4e 02 40 00 80     eth0\n"
    "00000000000000000000000000000001 01 80 10 80       lo\n"
)
OWN_IPV6 = "2606:2800:220:1:248:1893:1b2c:3d4e"


@pytest.fixture
def own_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this machine public addresses, like a rented server."""
    found = hosts.parse_interfaces(FIB_TRIE, IF_INET6)
    monkeypatch.setattr(addresses, "own_addresses", lambda: found)


def test_the_interfaces_of_this_machine_are_read() -> None:
    assert hosts.parse_interfaces(FIB_TRIE, IF_INET6) == {PUBLIC, OWN_IPV6, "::1"}
    assert "127.0.0.1" in hosts.own_addresses()


def test_a_machine_without_these_tables_is_asked_by_its_name(
    monkeypatch: pytest.MonkeyPatch, names: Callable[..., list[str]], tmp_path: Path
) -> None:
    monkeypatch.setattr(hosts, "IPV4_ROUTES", tmp_path / "none")
    names(PUBLIC)
    assert hosts.read_own_addresses() == {PUBLIC}
    names()
    assert hosts.read_own_addresses() == frozenset()


@pytest.mark.parametrize("address", [PUBLIC, OWN_IPV6])
def test_a_public_address_of_this_machine_is_refused_unless_opened(
    address: str, own_interface: None
) -> None:
    problem = addresses.address_problem(address, 6379, CLOSED)
    assert problem is not None
    assert problem.sentence() == f"{address} is an address of this machine itself."
    opened = opening(f"[{address}]:6379" if ":" in address else f"{address}:6379")
    assert addresses.address_problem(address, 6379, opened) is None
    assert addresses.address_problem(address, 6380, opened) is not None


def test_a_name_that_leads_to_this_machine_is_refused(
    own_interface: None, names: Callable[..., list[str]]
) -> None:
    names(PUBLIC)
    with pytest.raises(UnsafeURLError, match="this machine itself") as refusal:
        network.check_url("https://example.com/", policy=CLOSED)
    assert refusal.value.opened_by == f"{PUBLIC}/32:443"


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example.com/", "http://HOOKS.example.com.:8080/x", "https://b.example.com/"],
)
def test_a_name_of_this_site_is_refused_unless_its_address_is_opened(
    url: str, names: Callable[..., list[str]], settings: Any
) -> None:
    settings.PUBLIC_URL = "https://hooks.example.com"
    settings.WEBHOOKS_PUBLIC_URLS = ["http://b.example.com:8080"]
    asked = names(PUBLIC)
    with pytest.raises(UnsafeURLError, match="is this site itself"):
        network.check_url(url, policy=CLOSED)
    assert asked == []
    with pytest.raises(UnsafeURLError, match="is this site itself"):
        network.check_url(url, policy=opening("10.0.0.0/8"))
    network.check_url(url, policy=opening(f"{PUBLIC}/32"))
    network.check_url("https://other.example.com/", policy=CLOSED)


@pytest.mark.parametrize(
    ("own", "url"),
    [
        ("https://bücher.example.com", "https://xn--bcher-kva.example.com/"),
        ("https://bücher.example.com", "https://BÜCHER.example.com/"),
        ("https://xn--bcher-kva.example.com", "https://bücher.example.com/hook"),
        ("https://Hooks.Example.net.", "https://hooks.example.net/"),
        ("https://BÜCHER.example.com.:8443", "http://bücher.example.com./"),
        ("https://bu\u0308cher.example.com", "https://bücher.example.com/"),
        ("http://[2606:4700:4700:0:0:0:0:1111]:8000", "http://[2606:4700:4700::1111]/"),
        ("http://[2606:4700:4700:0:0:0:0:1111]:8000", "http://[2606:4700:4700::1111]:8000/"),
    ],
)
@pytest.mark.parametrize("setting", ["PUBLIC_URL", "WEBHOOKS_PUBLIC_URLS"])
def test_this_site_is_known_in_whatever_spelling_it_was_set(
    own: str, url: str, setting: str, names: Callable[..., list[str]], settings: Any
) -> None:
    setattr(settings, setting, own if setting == "PUBLIC_URL" else ["https://a.example.org", own])
    asked = names(PUBLIC)
    with pytest.raises(UnsafeURLError, match="itself"):
        network.check_url(url, policy=CLOSED)
    assert asked == []


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("hooks.example.net", "https://hooks.example.net/"),
        ("Hooks.Example.net", "https://hooks.example.net:8443/"),
        ("bücher.example.com", "https://xn--bcher-kva.example.com/"),
        (PUBLIC, f"http://{PUBLIC}/"),
        ("[2606:4700:4700::1111]", "https://[2606:4700:4700::1111]/"),
    ],
)
def test_a_further_name_this_site_answers_to_is_its_own(
    name: str, url: str, names: Callable[..., list[str]], settings: Any
) -> None:
    names("1.1.1.1")
    network.check_url(url, policy=CLOSED)
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, name]
    with pytest.raises(UnsafeURLError, match="itself"):
        network.check_url(url, policy=CLOSED)


@pytest.mark.parametrize("name", ["*", ".example.com", "", "no name", "xn--a.example.com"])
def test_a_pattern_or_what_is_no_name_makes_no_other_name_this_sites_own(
    name: str, names: Callable[..., list[str]], settings: Any
) -> None:
    names(PUBLIC)
    settings.ALLOWED_HOSTS = [name]
    network.check_url("https://crm.example.com/", policy=CLOSED)


def test_loopback_among_the_names_of_this_site_stays_a_matter_of_the_policy(
    names: Callable[..., list[str]], settings: Any
) -> None:
    settings.PUBLIC_URL = "https://hooks.example.com"
    settings.ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
    names("127.0.0.1")
    with pytest.raises(UnsafeURLError, match="private network"):
        network.check_url("http://localhost:8001/", policy=CLOSED)
    policy = opening("127.0.0.0/8:8001", "[::1]:8001")
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert network.check_url(f"http://{host}:8001/", policy=policy).port == 8001
        with pytest.raises(UnsafeURLError):
            network.check_url(f"http://{host}:8000/", policy=policy)


def test_this_sites_own_literal_is_refused(settings: Any) -> None:
    settings.PUBLIC_URL = f"https://{PUBLIC}"
    with pytest.raises(UnsafeURLError, match="this machine itself"):
        network.check_url(f"https://{PUBLIC}/hook", policy=CLOSED)


# What an operator could open.


@pytest.mark.parametrize(
    ("address", "entry"),
    [
        ("10.0.0.1", "10.0.0.1/32:8080"),
        ("127.0.0.1", "127.0.0.1/32:8080"),
        ("100.64.0.9", "100.64.0.9/32:8080"),
        ("::1", "[::1]/128:8080"),
        ("fd00::1", "[fd00::1]/128:8080"),
        ("169.254.169.254", ""),
        ("168.63.129.16", ""),
        ("fe80::1", ""),
        ("64:ff9b::a00:1", ""),
        ("::ffff:10.0.0.1", ""),
        ("224.0.0.1", ""),
    ],
)
def test_a_refusal_names_the_entry_that_would_open_it_where_there_may_be_a_reason(
    address: str, entry: str
) -> None:
    url = f"http://[{address}]:8080/" if ":" in address else f"http://{address}:8080/"
    with pytest.raises(UnsafeURLError) as refusal:
        network.check_url(url, policy=CLOSED)
    assert refusal.value.opened_by == entry
    if entry:
        assert network.check_url(url, policy=opening(entry)).url == url


# Look-ups.


def test_the_answers_of_a_look_up_keep_their_order_without_repeats(
    names: Callable[..., list[str]],
) -> None:
    names("2606:2800::1", PUBLIC, PUBLIC)
    assert resolve("example.com", 443) == ("2606:2800::1", PUBLIC)


def test_a_scope_in_an_answer_is_kept_so_that_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2606:4700::1", 443, 0, 2))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
    assert resolve("example.com", 443) == ("2606:4700::1%2",)
    with pytest.raises(UnsafeURLError, match="network interface"):
        network.check_url("https://example.com/", policy=CLOSED)


@pytest.mark.parametrize("failure", [socket.gaierror(-3, "again"), UnicodeError("label"), None])
def test_a_failed_or_empty_look_up_may_succeed_later(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*args: object, **kwargs: object) -> list[object]:
        if failure is not None:
            raise failure
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(NameNotResolvedError) as caught:
        resolve("example.com", 443)
    assert caught.value.permanent is False
    assert isinstance(caught.value, OSError)


def test_a_look_up_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: done.wait(60) and [])
    started = time.monotonic()
    with pytest.raises(NameNotResolvedError, match="too long"):
        resolve("example.com", 443, seconds=0.05)
    done.set()
    assert time.monotonic() - started < 30


# The resolver of the sending loop.


class SetClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def resolver(clock: SetClock) -> Iterator[HostResolver]:
    made = HostResolver(CLOSED, ask=by_getaddrinfo, clock=clock)
    yield made
    made.close()


def looked_up(resolver: HostResolver, host: str, port: int = 443) -> network.Resolution:
    """Wait for the answer of a look-up in progress."""
    found = eventually(
        lambda: resolver.lookup(host, port), saw=lambda: resolver.missing_resource, every=0.002
    )
    assert found is not None
    return found


def kind(found: network.Resolution) -> str:
    return found.failure.kind if found.failure else ""


def test_a_first_look_up_is_in_progress_and_wakes_the_loop_when_done(
    names: Callable[..., list[str]],
) -> None:
    names(PUBLIC)
    woken = threading.Event()
    resolver = HostResolver(CLOSED, ask=by_getaddrinfo, wake=lambda *_: woken.set())
    assert resolver.lookup("example.com", 443) is None
    assert woken.wait(PATIENCE_SECONDS)
    found = resolver.lookup("example.com", 443)
    resolver.close()
    assert found is not None
    assert (found.addresses, found.failure) == ((PUBLIC,), None)
    assert found.duration_ms >= 0


def test_a_mixed_answer_is_a_problem_and_pins_nothing(
    resolver: HostResolver, names: Callable[..., list[str]]
) -> None:
    names(PUBLIC, "10.0.0.1")
    found = looked_up(resolver, "example.com")
    assert found.addresses == ()
    assert found.failure is not None
    assert found.failure.kind == "blocked"
    assert "10.0.0.1 is a private address" in found.failure.sentence()
    assert resolver.curl_resolve_entries("example.com", 443) == ["-example.com:443"]


def test_a_name_without_an_answer_is_an_error(
    resolver: HostResolver, names: Callable[..., list[str]]
) -> None:
    names()
    found = looked_up(resolver, "example.com")
    assert found.failure == ("network", "name_not_found", {"host": "example.com"})
    assert found.failure.sentence() == "The name example.com was not found."


def test_a_private_name_is_a_problem_without_a_look_up(
    resolver: HostResolver, names: Callable[..., list[str]]
) -> None:
    asked = names("127.0.0.1")
    assert kind(looked_up(resolver, "redis", 6379)) == "blocked"
    assert asked == []


def test_a_literal_is_judged_at_once(resolver: HostResolver) -> None:
    good, bad = resolver.lookup(PUBLIC, 443), resolver.lookup("::1", 443)
    assert good is not None
    assert bad is not None
    assert good.addresses == (PUBLIC,)
    assert kind(bad) == "blocked"


def test_an_answer_is_used_until_it_is_old_and_then_while_a_new_one_is_fetched(
    resolver: HostResolver, names: Callable[..., list[str]], clock: SetClock
) -> None:
    asked = names(PUBLIC)
    first = looked_up(resolver, "example.com")
    clock.now += 29
    assert resolver.lookup("example.com", 443) is first
    assert asked == ["example.com"]
    names("93.184.215.15")
    clock.now += 2
    assert resolver.lookup("example.com", 443) is first
    eventually(lambda: resolver.lookup("example.com", 443) is not first, every=0.002)
    second = looked_up(resolver, "example.com")
    assert second.addresses == ("93.184.215.15",)
    assert second.generation != first.generation


def test_an_answer_that_did_not_change_keeps_its_generation(
    resolver: HostResolver, names: Callable[..., list[str]], clock: SetClock
) -> None:
    names(PUBLIC)
    first = looked_up(resolver, "example.com")
    clock.now += 500
    assert resolver.lookup("example.com", 443) is None
    second = looked_up(resolver, "example.com")
    assert second is not first
    assert second.generation == first.generation


def test_a_name_that_turns_bad_is_refused_at_the_next_answer(
    resolver: HostResolver, names: Callable[..., list[str]], clock: SetClock
) -> None:
    names(PUBLIC)
    first = looked_up(resolver, "example.com")
    names("127.0.0.1")
    clock.now += 500
    second = looked_up(resolver, "example.com")
    assert kind(second) == "blocked"
    assert second.generation != first.generation


def test_the_last_good_answer_bridges_a_failing_name_server(
    resolver: HostResolver, names: Callable[..., list[str]], clock: SetClock
) -> None:
    names(PUBLIC)
    first = looked_up(resolver, "example.com")
    asked = names()
    clock.now += 60
    resolver.lookup("example.com", 443)
    eventually(lambda: asked, every=0.002)
    assert looked_up(resolver, "example.com") is first
    clock.now += 100
    assert resolver.lookup("example.com", 443) is None
    assert kind(looked_up(resolver, "example.com")) == "network"


def test_a_failure_is_asked_again_after_a_few_seconds(
    resolver: HostResolver, names: Callable[..., list[str]], clock: SetClock
) -> None:
    names()
    assert kind(looked_up(resolver, "example.com")) == "network"
    names(PUBLIC)
    clock.now += 4
    assert kind(looked_up(resolver, "example.com")) == "network"
    clock.now += 2
    assert looked_up(resolver, "example.com").addresses == (PUBLIC,)


def test_names_whose_server_is_silent_hold_up_no_other_and_take_no_files() -> None:
    with name_server(PUBLIC) as port:
        before = threading.active_count()
        resolver = resolver_with(CLOSED, port)
        # No more: once this server is gone, c-ares opens sockets for each name, even after `close`.
        for number in range(150):
            assert resolver.lookup(f"dead{number}.example.com", 443) is None
        for number in range(20):
            assert looked_up(resolver, f"live{number}.example.com").addresses == (PUBLIC,)
        # Still unresolved, which is not a failure.
        assert resolver.lookup("dead0.example.com", 443) is None
        assert threading.active_count() <= before + 2
        resolver.close()


def test_a_name_whose_server_is_silent_has_failed_after_its_own_deadline(clock: SetClock) -> None:
    with name_server(PUBLIC) as port:
        resolver = resolver_with(CLOSED, port, clock=clock)
        assert resolver.lookup("dead.example.com", 443) is None
        clock.now += 9
        assert resolver.lookup("dead.example.com", 443) is None
        clock.now += 2
        found = resolver.lookup("dead.example.com", 443)
        resolver.close()
    assert found is not None
    assert found.failure == ("network", "lookup_slow", {"host": "dead.example.com"})


def test_answers_that_cannot_be_read_fail_no_other_name_asked_at_the_same_moment() -> None:
    with name_server(PUBLIC) as port:
        resolver = resolver_with(CLOSED, port)
        for number in range(20):
            resolver.lookup(f"garbled{number}.example.com", 443)
            resolver.lookup(f"crm{number}.example.com", 443)
        found = [looked_up(resolver, f"crm{number}.example.com") for number in range(20)]
        garbled = looked_up(resolver, "garbled.example.com")
        resolver.close()
    assert {one.addresses for one in found} == {(PUBLIC,)}
    assert garbled.failure == ("network", "lookup_failed", {"host": "garbled.example.com"})


def test_names_known_as_unreadable_take_few_files_and_hold_up_no_other(clock: SetClock) -> None:
    garbled = [f"garbled{number}.example.com" for number in range(200)]
    with name_server(PUBLIC) as port:
        before = most = _files()
        resolver = resolver_with(CLOSED, port, clock=clock)
        for name in garbled:
            resolver.lookup(name, 443)
        for name in garbled:
            most = max(most, _files())
            assert kind(looked_up(resolver, name)) == "network"
        # Each name is looked up again.
        clock.now += 6
        for name in garbled:
            assert resolver.lookup(name, 443) is None
            most = max(most, _files())
        assert looked_up(resolver, "crm.example.com").addresses == (PUBLIC,)
        for name in garbled:
            looked_up(resolver, name)
            most = max(most, _files())
        resolver.close()
    assert most - before < 60


def _files() -> int:
    """Return how many open files are not sockets: each c-ares channel has some.

    Sockets come and go, also those of a resolver that an earlier test has closed.
    """
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += not os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return found


def test_a_name_server_leads_nowhere_that_the_policy_refuses() -> None:
    with name_server("10.0.0.1") as port:
        resolver = resolver_with(CLOSED, port)
        found = looked_up(resolver, "example.com")
        resolver.close()
    assert found.addresses == ()
    assert kind(found) == "blocked"


@pytest.mark.parametrize(
    ("policy", "host", "found"),
    [
        (CLOSED, "crm.example.com", False),
        (CLOSED, "crm.corp.example.net", True),
        # A cluster's service is known only below the cluster's domain.
        (opening("10.0.0.0/8"), "receiver", True),
        (opening("10.0.0.0/8"), "receiver.production", True),
    ],
)
def test_a_name_is_looked_for_below_a_search_domain_only_where_it_may_be_private(
    policy: Policy, host: str, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = PUBLIC if policy is CLOSED else "10.0.0.1"
    with name_server(address, below="corp.example.net") as port:
        options = {"servers": ["127.0.0.1"], "udp_port": port, "domains": ["corp.example.net"]}
        monkeypatch.setattr("webhooks.network.resolver.DNS_OPTIONS", options)
        resolver = HostResolver(policy)
        resolution = looked_up(resolver, host)
        resolver.close()
    assert resolution.addresses == ((address,) if found else ())
    assert found or kind(resolution) == "network"


def test_without_a_server_to_ask_a_name_is_not_looked_up_yet_and_asked_again(
    names: Callable[..., list[str]], clock: SetClock
) -> None:
    lacks = iter([network.Failure("network", "no_resources", {"reason": "no server"})])

    def ask(host: str, port: int, done: Done) -> None:
        if lack := next(lacks, None):
            done(lack)
        else:
            by_getaddrinfo(host, port, done)

    names(PUBLIC)
    resolver = HostResolver(CLOSED, ask=ask, clock=clock)
    assert [resolver.lookup("example.com", 443) for _ in range(3)] == [None, None, None]
    assert resolver.missing_resource is not None
    assert resolver.missing_resource[1] == "no server"
    clock.now += 6
    assert looked_up(resolver, "example.com").addresses == (PUBLIC,)


def test_without_a_free_descriptor_a_name_is_not_looked_up_yet() -> None:
    """The channel to the name servers is opened with the first name."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 8
    resolver = HostResolver(CLOSED)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        assert resolver.lookup("example.com", 443) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)
    assert resolver.missing_resource is not None
    resolver.close()


def test_a_look_up_that_breaks_is_a_failure_and_asked_again(
    names: Callable[..., list[str]], clock: SetClock
) -> None:
    faults = iter([RuntimeError("broken")])

    def ask(host: str, port: int, done: Done) -> None:
        if fault := next(faults, None):
            raise fault
        by_getaddrinfo(host, port, done)

    names(PUBLIC)
    resolver = HostResolver(CLOSED, ask=ask, clock=clock)
    failure = looked_up(resolver, "example.com").failure
    assert failure == ("network", "lookup_failed", {"host": "example.com"})
    clock.now += 6
    assert looked_up(resolver, "example.com").addresses == (PUBLIC,)


def test_the_entries_for_libcurl_bracket_ipv6_addresses(
    resolver: HostResolver, names: Callable[..., list[str]]
) -> None:
    names(PUBLIC, "2606:2800::1")
    looked_up(resolver, "example.com", 8443)
    assert resolver.curl_resolve_entries("example.com", 8443) == [
        f"example.com:8443:{PUBLIC},[2606:2800::1]"
    ]


# The command.


def run_check_url(*urls: str) -> tuple[int, list[str]]:
    output = io.StringIO()
    code = 0
    try:
        call_command("check_url", *urls, stdout=output)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, output.getvalue().splitlines()


def test_the_command_prints_one_line_for_each_url_and_fails_if_any_is_blocked(
    names: Callable[..., list[str]],
) -> None:
    names(PUBLIC)
    code, lines = run_check_url("https://Example.com", "http://10.0.0.1/\x1b[31m", "http://redis/")
    assert code == 1
    assert lines[0] == "allow\t'https://Example.com'\tsent as https://example.com/"
    assert lines[1].startswith("block\t'http://10.0.0.1/\\x1b[31m'\t")
    assert lines[2].startswith("block\t'http://redis/'\t")


def test_the_command_names_the_setting_that_opens_a_private_address() -> None:
    _, lines = run_check_url("http://10.0.0.1:8080/")
    assert lines[0].endswith(" WEBHOOKS_ALLOWED_NETWORKS=10.0.0.1/32:8080 would open it.")


def test_the_command_succeeds_when_every_url_is_allowed(names: Callable[..., list[str]]) -> None:
    names(PUBLIC)
    assert run_check_url("https://example.com/")[0] == 0


def test_the_command_blocks_a_name_that_does_not_resolve(names: Callable[..., list[str]]) -> None:
    names()
    code, lines = run_check_url("https://nx.example.com/")
    assert (code, lines[0].split("\t")[0]) == (1, "block")


def test_a_name_that_is_looked_up_again_wakes_no_one_who_has_an_answer(clock: SetClock) -> None:
    answers: list[Callable[[tuple[str, ...]], None]] = []
    woken: list[tuple[str, int]] = []
    resolver = HostResolver(
        CLOSED,
        ask=lambda _host, _port, done: answers.append(done),
        wake=lambda *name: woken.append(name),
        clock=clock,
    )
    assert resolver.lookup("example.com", 443) is None
    answers[0]((PUBLIC,))
    clock.now += 31
    assert resolver.lookup("example.com", 443) is not None
    answers[1]((PUBLIC,))
    assert woken == [("example.com", 443)]
