"""libcurl's error codes as kinds of failures, each with a code and its parameters.

Decides by libcurl's number, never by its message, which is only quoted.
Source: libcurl's error list, libcurl-errors(3).
"""

import pycurl

from webhooks.network.failures import NETWORK, PROTOCOL, TIMEOUT, TLS, Failure, Params

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
# CURLE_TOO_LARGE has no name in pycurl.
_TOO_LARGE = 100
_PROTOCOL_ERRORS = frozenset(
    {
        pycurl.E_UNSUPPORTED_PROTOCOL,
        # libcurl's CURLE_WEIRD_SERVER_REPLY, under its older name.
        pycurl.E_FTP_WEIRD_SERVER_REPLY,
        pycurl.E_PARTIAL_FILE,
        _TOO_LARGE,
        pycurl.E_BAD_CONTENT_ENCODING,
    }
)


def classify(
    number: int, message: str, *, host: str, timeout_seconds: int, is_connected: bool
) -> Failure:
    """Return why a transfer failed; `number` and `message` are libcurl's."""
    if number == pycurl.E_OPERATION_TIMEDOUT:
        if is_connected:
            return Failure(TIMEOUT, "answer_timeout", {"seconds": timeout_seconds})
        return Failure(TIMEOUT, "connect_timeout", {"host": host})
    if number == _TOO_LARGE and not message:
        # The only error that libcurl does not describe.
        return Failure(PROTOCOL, "header_too_long", {})
    if number in _PROTOCOL_ERRORS:
        return Failure(PROTOCOL, "broken_answer", {"reason": message})
    params: Params = {"host": host, "reason": message}
    if number in _TLS_ERRORS:
        return Failure(TLS, "tls", params)
    if number == pycurl.E_COULDNT_CONNECT:
        return Failure(NETWORK, "not_connected", params)
    return Failure(NETWORK, "connection_broke", params)
