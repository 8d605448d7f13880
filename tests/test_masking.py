"""Secrets in foreign text: found in every spelling, and nothing else is touched."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.leaks.forms import forms, leaks
from webhooks.masking import Masker, spellings
from webhooks.secrets import MASK

SECRETS = {
    "token": "ya29.A0AfH6SMBx_7-fQ~k3",
    "jwt": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig-1",
    "odd": "pa/ss+wörd=\"q\\u'<&> %41",
    "cyrillic": "пароль-12345",
    "short": "abcd1",
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize(
    ("secret", "form"), [(secret, form) for secret in SECRETS.values() for form in forms(secret)]
)
@pytest.mark.parametrize("is_wire", [False, True])
def test_every_spelling_is_masked(secret: str, form: str, is_wire: bool) -> None:
    spelled = forms(secret)[form]
    text = f'{{"you sent": "{spelled}"}} and {spelled}'
    if is_wire:
        text = text.encode().decode("latin-1")
        spelled = spelled.encode().decode("latin-1")
    masked = Masker([secret], is_wire=is_wire).mask(text)
    assert spelled not in masked
    assert masked.startswith('{"you sent": "')
    assert MASK in masked


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
    assert spellings("abc") == set()
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


def test_the_whole_credentials_go_before_the_password_inside() -> None:
    credentials = base64.b64encode(b"demo:a-long-password").decode()
    assert Masker(["a-long-password", credentials]).mask(f"Basic {credentials}") == f"Basic {MASK}"


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
    masker = Masker([secret], is_wire=True)
    masked = masker.mask(text.decode("latin-1"), limit=limit, is_cut=is_cut)
    assert len(masked.encode("latin-1")) <= max(limit, len(text)) + len(MASK)
