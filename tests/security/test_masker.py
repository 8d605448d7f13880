"""Secrets in foreign text are found in every spelling, and nothing else is changed."""

import base64
import html
import json
import random
import tracemalloc
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.leaks.forms import forms, leaks
from webhooks.security.masker import MASK, Masker

SECRETS = {
    "token": "ya29.A0AfH6SMBx_7-fQ~k3",
    "jwt": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig-1",
    "odd": "pa/ss+wörd=\"q\\u'<&> %41",
    "cyrillic": "пароль-12345",
    "short": "abcd1",
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize("secret", SECRETS.values())
@pytest.mark.parametrize("is_wire", [False, True])
def test_every_spelling_is_masked(secret: str, is_wire: bool) -> None:
    for form, spelled in forms(secret).items():
        text = f'{{"you sent": "{spelled}"}} and {spelled}'
        if is_wire:
            text, spelled = (one.encode().decode("latin-1") for one in (text, spelled))
            masked = Masker([secret]).mask_bytes(text.encode("latin-1")).decode("latin-1")
        else:
            masked = Masker([secret]).mask(text)
        assert spelled not in masked, form
        assert masked.startswith('{"you sent": "'), form
        assert MASK in masked, form


BASE64, ODD = "k+Zq9+a/B7xY2wQ", "p!a/b=c&d$longer"
TAGS = "<b>wörd's \"9"


@pytest.mark.parametrize(
    ("secret", "spelled"),
    [
        # .NET, with upper-case hexadecimal digits.
        (BASE64, r"k\u002BZq9\u002Ba/B7xY2wQ"),
        (BASE64, r"k\u002bZq9\u002ba/B7xY2wQ"),
        ("пароль-12345", r"\u043F\u0430\u0440\u043E\u043B\u044C-12345"),
        (TAGS, r"\u003Cb\u003Ew\u00F6rd\u0027s \u00229"),
        # PHP, with lower-case hexadecimal digits; Gson; Go.
        (TAGS, r"\u003Cb\u003Ew\u00f6rd\u0027s \u00229"),
        (ODD, r"p!a/b\u003dc\u0026d$longer"),
        (TAGS, r"\u003cb\u003ewörd's \"9"),
        # JSON from .NET inside JSON.
        (BASE64, r"k\\u002BZq9\\u002Ba/B7xY2wQ"),
        # encodeURIComponent, encodeURI, and a browser's form.
        (ODD, "p!a%2Fb%3Dc%26d%24longer"),
        ("p!a b=c&d?(longer)#", "p!a%20b=c&d?(longer)#"),
        ("p!a ~*longer*", "p%21a+%7E*longer*"),
        # Encoded twice.
        (BASE64, "k%252BZq9%252Ba%252FB7xY2wQ"),
        (ODD, "p!a%252fb%253dc%2526d%2524longer"),
        # Text, MarkupSafe and Go, PHP, XML, OWASP, Mustache, filters of PHP.
        (TAGS, "&lt;b&gt;wörd's \"9"),
        (TAGS, "&lt;b&gt;wörd&#39;s &#34;9"),
        (TAGS, "&lt;b&gt;wörd&#039;s &quot;9"),
        (TAGS, "&lt;b&gt;wörd&apos;s &quot;9"),
        (BASE64, "k+Zq9+a&#x2F;B7xY2wQ"),
        (ODD, "p!a&#x2F;b&#x3D;c&amp;d$longer"),
        (TAGS, "&#60;b&#62;wörd&#39;s &#34;9"),
        # Go templates, .NET.
        (BASE64, "k&#43;Zq9&#43;a/B7xY2wQ"),
        (BASE64, "k&#x2B;Zq9&#x2B;a/B7xY2wQ"),
        # Character references for letters.
        ("пароль-12345", "&#1087;&#1072;&#1088;&#1086;&#1083;&#1100;-12345"),
        ("пароль-12345", "&#x43F;&#x430;&#x440;&#x43E;&#x43B;&#x44C;-12345"),
        ("пароль-12345", "&#x43f;&#x430;&#x440;&#x43e;&#x43b;&#x44c;-12345"),
        (TAGS, "&lt;b&gt;w&ouml;rd&#039;s &quot;9"),
    ],
)
def test_what_usual_libraries_make_of_a_secret_is_masked_whole(secret: str, spelled: str) -> None:
    assert Masker([secret]).mask(f"before {spelled} after") == f"before {MASK} after"


@pytest.mark.parametrize("encoder", [r"\u002B", r"\u002b", "&#43;", "&#x2B;"])
def test_credentials_in_base64_leave_no_tail_behind_an_escape(encoder: str) -> None:
    credentials = base64.b64encode("demo:pä>ss>wörd~1".encode()).decode()
    assert "+" in credentials
    spelled = credentials.replace("+", encoder)
    assert Masker([credentials]).mask(f"Basic {spelled}.") == f"Basic {MASK}."


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-be"])
@pytest.mark.parametrize("name", ["token", "jwt"])
def test_a_secret_in_utf_16_is_masked(name: str, charset: str) -> None:
    secret = SECRETS[name]
    for text in (secret, json.dumps({"sent": secret}), quote(secret, safe="")):
        masked = Masker([secret]).mask_bytes(f"before {text} after".encode(charset))
        assert secret not in masked.replace(b"\0", b"").decode("latin-1")
        assert MASK.encode() in masked


@pytest.mark.parametrize("charset", ["cp1251", "koi8-u", "cp866", "utf-16", "utf-16-be"])
def test_a_secret_that_is_not_ascii_is_masked_in_the_charsets_of_its_letters(charset: str) -> None:
    secret = SECRETS["cyrillic"]
    assert secret.encode(charset)[-10:] not in Masker([secret]).mask_bytes(secret.encode(charset))


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n "])
@pytest.mark.parametrize("is_json", [False, True])
def test_a_secret_in_lines_of_base64_is_masked_whole(width: int, end: str, is_json: bool) -> None:
    secret = random.Random(1).randbytes(100).hex()
    for alignment in range(3):
        echo = base64.b64encode(b"GET /"[:alignment] + secret.encode()).decode()
        lines = end.join(echo[start : start + width] for start in range(0, len(echo), width))
        masked = Masker([secret]).mask(json.dumps(lines) if is_json else lines)
        assert MASK in masked
        assert len(masked) < 20, masked


@pytest.mark.parametrize("alignment", range(6))
def test_base64_of_a_longer_text_is_masked_at_every_place(alignment: int) -> None:
    for secret in SECRETS.values():
        data = b"GET / HTTP/1.1\r\nX-Key: "[:alignment] + secret.encode() + b"\r\nHost: x"
        for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
            masked = Masker([secret]).mask(text)
            assert not list(leaks(masked, {"it": secret}, sink="text")), (secret, masked)


def test_what_a_server_reads_as_latin_1_and_answers_as_utf_8_is_masked() -> None:
    secret = SECRETS["odd"]
    mistaken = secret.encode().decode("latin-1")
    for answer in (mistaken, json.dumps(mistaken), base64.b64encode(mistaken.encode()).decode()):
        assert MASK in Masker([secret]).mask(answer)


def test_text_without_secrets_stays_as_it_is() -> None:
    masker = Masker(SECRETS.values())
    text = 'HTTP/1.1 200 OK\r\nServer: nginx\r\n{"received": true, "id": "evt_01"}'
    assert masker.mask(text) == text
    assert masker.mask(text * 100) == text * 100
    assert masker.mask("") == ""


def test_a_secret_too_short_to_tell_from_a_word_is_left() -> None:
    assert Masker(["abc", ""]).mask("abc abc") == "abc abc"


@pytest.mark.parametrize("kept", [12, 15, 22])
def test_a_secret_that_the_receiver_cut_is_masked_as_far_as_it_goes(kept: int) -> None:
    secret = SECRETS["token"]
    masked = Masker([secret]).mask(f'Unknown token "{secret[:kept]}…"')
    assert masked == f'Unknown token "{MASK}…"'


@pytest.mark.parametrize("kept", [4, 7, 12, 22])
def test_a_secret_that_the_end_of_an_answer_cut_is_masked(kept: int) -> None:
    secret = SECRETS["token"]
    spelled = base64.b64encode(secret.encode()).decode()
    for text in (secret, spelled):
        masked = Masker([secret]).mask(f"You sent {text[:kept]}", is_cut=True)
        assert masked == f"You sent {MASK}"


@pytest.mark.parametrize("limit", range(40, 75))
def test_our_own_limit_leaves_no_part_of_a_secret(limit: int) -> None:
    secret = SECRETS["token"]
    text = "x" * 50 + secret + "y" * 500
    masked = Masker([secret]).mask(text, limit=limit)
    assert len(masked) <= limit
    assert masked == ("x" * 50 + MASK + "y" * 500)[:limit]


def test_what_moves_before_the_limit_is_masked_too() -> None:
    secret = SECRETS["jwt"]
    text = (secret + " ") * 40
    for limit in range(1, 400):
        assert secret[:5] not in Masker([secret]).mask(text, limit=limit)


def test_two_secrets_that_begin_alike_are_both_masked_whole() -> None:
    long, short = SECRETS["jwt"] + "-and-much-longer", SECRETS["jwt"][:36] + "other-sig"
    masked = Masker([long, short]).mask(f"{short} {long} {short}")
    assert masked == f"{MASK} {MASK} {MASK}"


def test_of_secrets_that_begin_alike_each_is_masked_as_far_as_it_goes() -> None:
    masker = Masker(["a-common-head-of-one", "a-common-head-of-the-other"])
    masked = masker.mask("a-common-head-of-the-oth… a-common-head-of-o… a-common-head-of-th")
    assert masked == f"{MASK}… {MASK}… {MASK}"


@pytest.mark.parametrize("kept", range(12, 35))
def test_a_spelling_that_the_receiver_cut_is_masked_as_far_as_it_goes(kept: int) -> None:
    spelled = "abcdefgh-w%C3%B6rd%3Drest-of-secret"[:kept]
    assert Masker(["abcdefgh-wörd=rest-of-secret"]).mask(f"{spelled}… no") == f"{MASK}… no"


def test_of_secrets_that_go_as_far_the_one_that_is_whole_is_shown() -> None:
    masker = Masker(["a-common-head-of-one", "a-common-head"], shown=lambda one: f"<{len(one)}>")
    assert masker.mask("a-common-head, a-common-head-of-one") == "<13>, <20>"


def test_a_secret_that_begins_inside_what_looked_like_it_is_masked_too() -> None:
    secret = "ab" * 7 + "-and-the-rest"
    assert Masker([secret]).mask(f"ab{secret[:20]} is cut") == f"{MASK} is cut"


@given(
    secret=st.text("ab/+=ö&", min_size=4, max_size=40),
    before=st.text("ab/+=ö&", max_size=20),
    form=st.sampled_from(["raw", "json", "percent", "html"]),
)
def test_no_repetition_hides_a_secret(secret: str, before: str, form: str) -> None:
    spelled = forms(secret).get(form, secret)
    masked = Masker([secret], shown=lambda _: "~").mask(before + spelled + before)
    assert spelled not in masked


def test_the_whole_credentials_go_before_the_password_inside() -> None:
    credentials = base64.b64encode(b"demo:a-long-password").decode()
    assert Masker(["a-long-password", credentials]).mask(f"Basic {credentials}") == f"Basic {MASK}"


ESCAPES: dict[str, Callable[[str], str]] = {
    "percent": lambda text: quote(text, safe=""),
    "json": lambda text: json.dumps(text)[1:-1],
    "html": html.escape,
}


@pytest.mark.parametrize("inner", ESCAPES)
@pytest.mark.parametrize("outer", ESCAPES)
@given(secret=st.text(min_size=4, max_size=20), before=TEXTS, after=TEXTS)
def test_a_secret_that_is_escaped_twice_in_any_mixture_is_masked_whole(
    inner: str, outer: str, secret: str, before: str, after: str
) -> None:
    spelled, first, last = (
        ESCAPES[outer](ESCAPES[inner](one.encode("utf-8", "replace").decode()))
        for one in (secret, before, after)
    )
    masked = Masker([secret], shown=lambda _: "~").mask(f"{first} {spelled} {last}")
    assert spelled not in masked


@pytest.mark.parametrize("spelled", ["61622d63642f31c3b6", "61622D63642F31C3B6"])
def test_hexadecimal_digits_are_masked(spelled: str) -> None:
    assert Masker(["ab-cd/1ö"]).mask(f"key={spelled}.") == f"key={MASK}."


@given(secret=st.text(max_size=40), text=st.text(max_size=200), limit=st.integers(0, 100))
def test_any_text_can_be_masked(secret: str, text: str, limit: int) -> None:
    masker = Masker([secret, text[5:20], text[-9:-2]])
    assert len(masker.mask(text + secret[:5], limit=limit, is_cut=True)) <= limit


@given(before=TEXTS, after=TEXTS, form=st.sampled_from(sorted(forms(SECRETS["odd"]))))
def test_wherever_a_spelling_stands_it_is_masked(before: str, after: str, form: str) -> None:
    spelled = forms(SECRETS["odd"])[form]
    assert spelled not in Masker([SECRETS["odd"]]).mask(before + spelled + after)


@given(
    secret=st.text(max_size=40),
    text=st.binary(max_size=200),
    limit=st.integers(0, 100),
    is_cut=st.booleans(),
)
def test_nothing_that_is_answered_raises(
    secret: str, text: bytes, limit: int, is_cut: bool
) -> None:
    masked = Masker([secret]).mask_bytes(text, limit=limit, is_cut=is_cut)
    assert len(masked) <= limit


@pytest.mark.parametrize("form", ["as it is", "JSON", "in an address"])
def test_one_answer_to_very_many_receivers_shows_each_its_own_secret(form: str) -> None:
    # Above some number of maskers the text is parsed once for all of them.
    maskers = [Masker([f'secret-{number}/"{form}', f"ab{number:02}"]) for number in range(80)]
    spelled = {
        "as it is": lambda secret: secret,
        "JSON": lambda secret: json.dumps(secret)[1:-1],
        "in an address": lambda secret: quote(secret, safe=""),
    }[form]
    known = [spelled(f'secret-{number}/"{form}') for number in (3, 40, 79)]
    text = f"{form}: {known[0]} {known[1]}, ab79 {known[2]}."
    left = {number: masker.mask(text) for number, masker in enumerate(maskers)}
    changed = {number: one for number, one in left.items() if one != text}
    assert changed == {
        3: text.replace(known[0], MASK),
        40: text.replace(known[1], MASK),
        79: text.replace(known[2], MASK).replace("ab79", MASK),
    }


@pytest.mark.slow
def test_answers_to_many_receivers_take_little_memory_however_they_are_escaped() -> None:
    maskers = [
        Masker([f"secret-of-{number}", f"ab{number:02}", f"abc-{number}"]) for number in range(60)
    ]
    escapes = "%2525 \\u005cn &amp;lt; %5Cn &#37;41 "
    tracemalloc.start()
    try:
        for number in range(64):
            rest = random.Random(number).randbytes(500).hex()
            text = f"{escapes * 3}{rest}"[:1000]
            for masker in maskers:
                masker.mask(text)
        kept, _most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 25_000_000


@pytest.mark.parametrize("between", [b" ", b"%25", b"\\u0025", b"&amp;"])
def test_a_text_of_nothing_but_beginnings_of_a_secret_is_masked_as_a_whole(between: bytes) -> None:
    """Its receiver knows the secret, and wrote it so that to look at each of them takes long."""
    secret = "k3y-of-the-receiver-0123456789"
    masker = Masker([secret])
    begun = secret[:9].encode() + between
    assert masker.mask_bytes(b"said: " + begun * 2001) == MASK.encode()
    # As a page full of links is kept, if the secret is a URL.
    assert masker.mask_bytes(b"said: " + begun * 100).startswith(b"said: ")
