"""libcurl's error codes as outcomes of an attempt, each with a sentence for the log.

Decides by code, never by message: the message is only quoted.
Source: libcurl's error list, libcurl-errors(3).
"""

import pycurl

from webhooks.models import Outcome

_TLS_ERRORS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_PROTOCOL_ERRORS = frozenset(
    {
        pycurl.E_UNSUPPORTED_PROTOCOL,
        # libcurl's CURLE_WEIRD_SERVER_REPLY, under its older name.
        pycurl.E_FTP_WEIRD_SERVER_REPLY,
        pycurl.E_PARTIAL_FILE,
        # CURLE_TOO_LARGE has no name in pycurl.
        100,
        pycurl.E_BAD_CONTENT_ENCODING,
    }
)


def classify(
    code: int, message: str, *, host: str, timeout_seconds: int, is_connected: bool
) -> tuple[Outcome, str]:
    """Return what a failed transfer came to and why."""
    if code == pycurl.E_OPERATION_TIMEDOUT:
        if is_connected:
            return (
                Outcome.TIMEOUT,
                f"The receiver did not finish its answer in {timeout_seconds} s.",
            )
        return Outcome.TIMEOUT, f"No connection to {host} could be made in time."
    if code in _TLS_ERRORS:
        return Outcome.TLS, f"The TLS connection to {host} failed: {message}."
    if code in _PROTOCOL_ERRORS:
        # Only for CURLE_TOO_LARGE does libcurl say nothing.
        reason = message or "a header is too long"
        return Outcome.PROTOCOL, f"The receiver's answer is broken: {reason}."
    if code == pycurl.E_COULDNT_CONNECT:
        return Outcome.NETWORK, f"{host} could not be connected to: {message}."
    return Outcome.NETWORK, f"The connection to {host} broke: {message}."
