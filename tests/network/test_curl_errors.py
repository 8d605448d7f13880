"""libcurl's errors: what kind each is, and that each has a sentence for its parameters."""

import pycurl
import pytest

from webhooks.models import Outcome
from webhooks.network import curl_errors

# CURLE_TOO_LARGE has no name in pycurl.
TOO_LARGE = 100


@pytest.mark.parametrize(
    ("number", "message", "is_connected", "expected"),
    [
        (pycurl.E_OPERATION_TIMEDOUT, "late", True,
         (Outcome.TIMEOUT, "The receiver did not finish its answer in 7 s.")),
        (pycurl.E_OPERATION_TIMEDOUT, "late", False,
         (Outcome.TIMEOUT, "No connection to crm.example.com could be made in time.")),
        (pycurl.E_PEER_FAILED_VERIFICATION, "expired", False,
         (Outcome.TLS, "The TLS connection to crm.example.com failed: expired.")),
        (pycurl.E_PARTIAL_FILE, "5 bytes missing", True,
         (Outcome.PROTOCOL, "The receiver's answer is broken: 5 bytes missing.")),
        (TOO_LARGE, "", True,
         (Outcome.PROTOCOL, "The receiver's answer is broken: a header is too long.")),
        (TOO_LARGE, "too many headers", True,
         (Outcome.PROTOCOL, "The receiver's answer is broken: too many headers.")),
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
    failure = curl_errors.classify(
        number, message, host="crm.example.com", timeout_seconds=7, is_connected=is_connected
    )
    assert (Outcome(failure.kind), failure.sentence()) == expected
