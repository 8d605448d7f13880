"""Standard Webhooks signatures: the specification's vector, the official package, bad secrets."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from webhooks.security import signatures

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(
    secrets: list[str], body: bytes, at: datetime, message_id: str = "evt_1"
) -> dict[str, str]:
    timestamp = int(at.timestamp())
    keys = [signatures.secret_key(secret) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures.signature(keys, message_id, timestamp, body),
    }


def test_the_vector_of_the_specification_holds() -> None:
    key = signatures.secret_key(SECRET)
    assert signatures.signature([key], MESSAGE_ID, TIMESTAMP, BODY) == SIGNATURE


def test_each_key_adds_an_entry_in_the_given_order() -> None:
    old, new = signatures.secret_key(SECRET), signatures.secret_key(signatures.new_secret())
    both = signatures.signature([new, old], MESSAGE_ID, TIMESTAMP, BODY).split(" ")
    assert both == [signatures.signature([new], MESSAGE_ID, TIMESTAMP, BODY), SIGNATURE]


@given(st.binary(min_size=24, max_size=64), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_official_package_accepts_our_signatures(key: bytes, text: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = json.dumps({"text": text}, ensure_ascii=False).encode()
    sent = headers([secret], body, datetime.now(UTC))
    assert Verifier(secret).verify(body, sent) == {"text": text}


def test_receivers_with_the_old_or_the_new_secret_accept_a_rotation() -> None:
    old, new = signatures.new_secret(), signatures.new_secret()
    sent = headers([new, old], BODY, datetime.now(UTC))
    for secret in (old, new):
        Verifier(secret).verify(BODY, sent)
    with pytest.raises(WebhookVerificationError):
        Verifier(signatures.new_secret()).verify(BODY, sent)


@pytest.mark.parametrize(
    "changes",
    [{"webhook-id": "evt_2"}, {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()) + 9)}],
)
def test_a_changed_header_breaks_the_signature(changes: dict[str, str]) -> None:
    secret = signatures.new_secret()
    sent = headers([secret], BODY, datetime.now(UTC))
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(BODY, sent | changes)


def test_a_changed_body_breaks_the_signature() -> None:
    secret = signatures.new_secret()
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(BODY + b" ", headers([secret], BODY, datetime.now(UTC)))


def test_an_old_signature_is_refused_by_receivers() -> None:
    secret = signatures.new_secret()
    sent = headers([secret], BODY, datetime.now(UTC) - timedelta(minutes=10))
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(BODY, sent)


def test_a_body_need_not_be_text() -> None:
    assert signatures.signature([b"k" * 32], "evt_1", 1, b"\xff\0").startswith("v1,")


def test_a_new_secret_has_32_random_bytes() -> None:
    secrets = {signatures.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(signatures.secret_key(secret)) for secret in secrets} == {32}
    assert all(secret.startswith("whsec_") for secret in secrets)


def encoded(size: int) -> str:
    return "whsec_" + base64.b64encode(b"x" * size).decode()


@pytest.mark.parametrize("size", [24, 64])
def test_a_secret_of_24_to_64_bytes_is_good(size: int) -> None:
    assert signatures.secret_key(encoded(size)) == b"x" * size


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        SECRET.upper(),
        SECRET + "!",
        SECRET + " ",
        SECRET[:-1],
        "whsec_é" + SECRET[6:],
        encoded(23),
        encoded(65),
    ],
)
def test_a_malformed_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        signatures.secret_key(secret)
    assert SECRET[6:] not in str(raised.value)
