"""Masking foreign text takes time in proportion to its length, whatever the text holds."""

import logging
import time
from collections.abc import Callable

import pytest

from webhooks.security.log_redaction import LineFormatter, without_secrets
from webhooks.security.masker import Masker, NameMasker

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
# Quadratic work takes four times as long.
BOUND = 3.2
TOKEN = "".join(chr(97 + i * i % 26) + str(i % 7) for i in range(4_000))
SECRETS = (
    "k+Zq9+a/B7xY2wQ",
    TOKEN,
    "ab" * 4_000,
    "aaaaaaaaaaaaaaaaaaaaaaab",
    "пароль-\"12'<34>%41",
)
PIECES = {
    "fragments": "a%23",
    "numbers signs": "a#",
    "a name": "token",
    "names": "token=",
    "names with spaces": "token = ",
    "names in quotes": "\"token': '",
    "open quotes": 'token="\\',
    "elements": "<token>",
    "escaped elements": "&lt;token a",
    "schemes": "Bearer ",
    "addresses": "http://a@",
    "queries": "/?",
    "spaces": "token" + " " * 4_000,
    "backslashes": "token" + "\\" * 4_000,
    "escapes": "\\u0026%25&amp;\\\\",
    "percent": "%2541",
    "references": "&#x26;amp;",
    "halves": "\\ud83d",
    "letters": "a",
    "a pair": "ab",
    "the beginning of a token": TOKEN[:-1],
    "a short beginning": TOKEN[:13],
    "a secret that repeats": "ab" * 3_999 + "b",
    "almost a secret": "aaaaaaaaaaaaaaaaaaaaaaac",
}


def ratio(work: Callable[[str], object], piece: str, length: int) -> float:
    """Return how many times longer twice the text takes; compares the quickest of several runs."""

    def seconds(text: str) -> float:
        began = time.thread_time()
        work(text)
        # Less than 5 ms for so long a text is noise; work that is not linear takes seconds.
        return max(time.thread_time() - began, 5e-3)

    short, long = ((piece * (n // len(piece) + 1))[:n] for n in (length // 2, length))
    quick_short, quick_long = seconds(short), seconds(long)
    for _ in range(15):
        if quick_long / quick_short < BOUND:
            break
        quick_short, quick_long = min(quick_short, seconds(short)), min(quick_long, seconds(long))
    return quick_long / quick_short


def _mask(text: str) -> object:
    return Masker(SECRETS).mask(text, is_cut=True)


def _format(text: str) -> object:
    record = logging.LogRecord("a", logging.INFO, "", 0, text, None, None)
    return LineFormatter().format(record)


WORK: dict[str, Callable[[str], object]] = {
    "known secrets": _mask,
    "names": NameMasker("code", "state").mask,
    "lines of the log": without_secrets,
    "the formatter": _format,
}


@pytest.mark.security
@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("piece", PIECES)
def test_twice_the_text_takes_twice_the_time(
    work: str, piece: str, security_figure: Callable[..., None]
) -> None:
    found = ratio(WORK[work], PIECES[piece], MEBIBYTE // 4)
    security_figure("linear", right=int(found < BOUND), of=1)
    assert found < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("work", WORK)
def test_a_mebibyte_of_everything_takes_twice_the_time_of_half(work: str) -> None:
    everything = "".join((piece * 2_000)[:2_000] for piece in PIECES.values())
    assert ratio(WORK[work], everything, MEBIBYTE) < BOUND


@pytest.mark.parametrize("piece", ["a", "ab", "aB3-"])
def test_a_secret_of_twice_the_length_takes_twice_the_time(piece: str) -> None:
    def mask(secret: str) -> object:
        return Masker([secret]).mask("x" * 4_000 + secret[:-1], is_cut=True)

    assert ratio(mask, piece, MEBIBYTE // 4) < BOUND
