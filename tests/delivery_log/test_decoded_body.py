"""Bodies as text or as a hex dump, by what is in them."""

import gzip

import pytest

from webhooks.delivery_log import decoded_body
from webhooks.delivery_log.decoded_body import BodyKind


@pytest.mark.parametrize("coding", ["gzip", "x-gzip"])
def test_a_compressed_body_that_is_stored_decompressed_is_text(coding: str) -> None:
    body = "Ви надіслали ******** нам."
    shown = decoded_body.read(body.encode(), content_encoding=coding)
    assert (shown.kind, shown.text, shown.compression) == (BodyKind.TEXT, body, "")


@pytest.mark.parametrize("coding", ["gzip", ""])
def test_a_body_in_gzip_is_dumped(coding: str) -> None:
    shown = decoded_body.read(gzip.compress(b"Hello"), content_encoding=coding)
    assert (shown.kind, shown.compression) == (BodyKind.BINARY, "gzip")
