"""libcurl's error codes as outcomes of an attempt, each with a sentence for the log.

Decides by code, never by message: the message is only quoted.
Source: libcurl's error list, libcurl-errors(3).
"""

import pycurl
from django.utils.translation import gettext as _

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
                _("The receiver did not finish its answer in %(seconds)d s.")
                % {"seconds": timeout_seconds},
            )
        return Outcome.TIMEOUT, _("No connection to %(host)s could be made in time.") % {
            "host": host
        }
    if code in _TLS_ERRORS:
        return Outcome.TLS, _("The TLS connection to %(host)s failed: %(reason)s.") % {
            "host": host,
            "reason": message,
        }
    if code in _PROTOCOL_ERRORS:
        # Only for CURLE_TOO_LARGE does libcurl say nothing.
        reason = message or _("a header is too long")
        return Outcome.PROTOCOL, _("The receiver's answer is broken: %(reason)s.") % {
            "reason": reason
        }
    if code == pycurl.E_COULDNT_CONNECT:
        return Outcome.NETWORK, _("%(host)s could not be connected to: %(reason)s.") % {
            "host": host,
            "reason": message,
        }
    return Outcome.NETWORK, _("The connection to %(host)s broke: %(reason)s.") % {
        "host": host,
        "reason": message,
    }
