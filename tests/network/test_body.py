"""The response body as text, in the charset that the response declares."""

import pytest

from webhooks.network import declared_charset, decode


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("Shift_JIS", "日本語"),
        ("EUC-KR", "한국어"),
        ("gb18030", "中文"),
        ("cp866", "привет"),
        ("windows-1251", "привіт"),
        ("utf-16", "привіт"),
        ("UTF-8", "привіт"),
    ],
)
def test_a_declared_charset_is_read(charset: str, text: str) -> None:
    assert decode(text.encode(charset), f'text/plain; charset="{charset}"') == text


@pytest.mark.parametrize("name", ["zip", "unicode_escape", "punycode", "idna", "hex", "", "é"])
def test_other_codecs_are_no_charsets(name: str) -> None:
    assert declared_charset(f"text/html; charset={name}") == ""
    assert decode(b"\xe9\\u0041", f"text/html; charset={name}") == "\ufffd\\u0041"
