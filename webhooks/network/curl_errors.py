"""libcurl's error codes as kinds of failures, each with a code and its parameters.

Decides by libcurl's number, never by its message, which is only quoted.
Source: libcurl's error list, libcurl-errors(3).
"""

from collections.abc import Mapping
from typing import NamedTuple

import pycurl
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

# The values of `models.Outcome`, which this package does not import.
TIMEOUT, NETWORK, TLS, PROTOCOL = "timeout", "network", "tls", "protocol"

SENTENCES: Mapping[str, Promise | str] = {
    "answer_timeout": _("The receiver did not finish its answer in %(seconds)d s."),
    "connect_timeout": _("No connection to %(host)s could be made in time."),
    "tls": _("The TLS connection to %(host)s failed: %(reason)s."),
    "broken_answer": _("The receiver's answer is broken: %(reason)s."),
    "header_too_long": _("The receiver's answer is broken: a header is too long."),
    "switched_protocol": _("The receiver switched to another protocol (101)."),
    "interim_answers": _("The receiver sent more than %(limit)d interim answers."),
    "headers_too_large": _("The receiver sent more than 64 KiB of headers."),
    "not_connected": _("%(host)s could not be connected to: %(reason)s."),
    "connection_broke": _("The connection to %(host)s broke: %(reason)s."),
}

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


class Failure(NamedTuple):
    """Why a transfer failed: a kind, and a code of SENTENCES with its parameters."""

    kind: str
    code: str
    params: dict[str, str | int]

    def sentence(self) -> str:
        """Return the sentence in the active language."""
        return str(SENTENCES[self.code]) % self.params


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
    params: dict[str, str | int] = {"host": host, "reason": message}
    if number in _TLS_ERRORS:
        return Failure(TLS, "tls", params)
    if number == pycurl.E_COULDNT_CONNECT:
        return Failure(NETWORK, "not_connected", params)
    return Failure(NETWORK, "connection_broke", params)
