"""Failures: the kind of each libcurl error, and sentences in the reader's language."""

import socket

import pycurl
import pytest
from django.utils import translation

from tests.network.test_guard import answer_with
from webhooks import network
from webhooks.models import Outcome, messages
from webhooks.network import failures

# CURLE_TOO_LARGE and CURLE_SSL_CLIENTCERT have no names in pycurl.
TOO_LARGE = 100
CLIENT_CERTIFICATE = 98


@pytest.mark.parametrize(
    ("number", "message", "is_connected", "expected"),
    [
        (pycurl.E_OPERATION_TIMEDOUT, "late", True,
         (Outcome.TIMEOUT, "The receiver did not finish its response in 7 s.")),
        (pycurl.E_OPERATION_TIMEDOUT, "late", False,
         (Outcome.TIMEOUT, "No connection to crm.example.com could be made in time.")),
        (pycurl.E_PEER_FAILED_VERIFICATION, "expired", False,
         (Outcome.TLS, "The TLS connection to crm.example.com failed: expired.")),
        (CLIENT_CERTIFICATE, "certificate required", False,
         (Outcome.TLS, "The TLS connection to crm.example.com failed: certificate required.")),
        (pycurl.E_RECV_ERROR, "SSL_read: tlsv13 alert certificate required", True,
         (Outcome.TLS, "The TLS connection to crm.example.com failed: "
          "SSL_read: tlsv13 alert certificate required.")),
        (pycurl.E_PARTIAL_FILE, "5 bytes missing", True,
         (Outcome.PROTOCOL, "The receiver's response is broken: 5 bytes missing.")),
        (TOO_LARGE, "", True,
         (Outcome.PROTOCOL, "The receiver's response is broken: a header is too long.")),
        (TOO_LARGE, "too many headers", True,
         (Outcome.PROTOCOL, "The receiver's response is broken: too many headers.")),
        (pycurl.E_COULDNT_CONNECT, "refused", False,
         (Outcome.NETWORK, "crm.example.com could not be connected to: refused.")),
        (pycurl.E_GOT_NOTHING, "empty reply", True,
         (Outcome.NETWORK, "The connection to crm.example.com broke: empty reply.")),
        (9999, "unheard of", True,
         (Outcome.NETWORK, "The connection to crm.example.com broke: unheard of.")),
    ],
)  # fmt: skip
def test_an_error_of_libcurl_has_an_outcome_and_a_sentence(
    number: int, message: str, is_connected: bool, expected: tuple[Outcome, str]
) -> None:
    failure = failures.classify(
        number, message, host="crm.example.com", timeout_seconds=7, is_connected=is_connected
    )
    assert (Outcome(failure.kind), failure.sentence()) == expected


def test_a_failure_is_kept_as_its_code_and_shown_in_the_readers_language() -> None:
    with pytest.raises(network.UnsafeURLError) as caught:
        network.check_url("http://10.0.0.1/", policy=network.Policy())
    failure = caught.value.failure
    kept = messages.dump(failure.code, **failure.params)
    with translation.override("uk"):
        assert messages.render(kept, network.SENTENCES) == (
            "10.0.0.1 — це приватна адреса, тобто не належить до публічного інтернету."
        )
    assert messages.render(kept, network.SENTENCES) == caught.value.reason


def test_what_is_wrong_with_a_names_address_is_kept_with_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answer_with("10.0.0.1"))
    with pytest.raises(network.UnsafeURLError) as caught:
        network.check_url("https://crm.example.com/", policy=network.Policy())
    failure = caught.value.failure
    assert messages.render(messages.dump(failure.code, **failure.params), network.SENTENCES) == (
        "crm.example.com resolves to a blocked address: 10.0.0.1 is a private address, "
        "which is not on the public internet."
    )


def test_the_kind_of_every_failure_is_an_outcome() -> None:
    kinds = (failures.BLOCKED, failures.TIMEOUT, failures.NETWORK, failures.TLS, failures.PROTOCOL)
    assert set(kinds) <= set(Outcome.values)
