"""Why a request was not sent or got no response: a kind, a code with parameters, a sentence.

The code and the parameters are stored; SENTENCES makes the sentence when it is shown. `permanent`
on each error tells whether a retry can help.
"""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import pycurl
import requests
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

# Code of a missing local resource, which is not the receiver's fault.
NO_RESOURCES = "no_resources"
# Values of `models.Outcome`, which this package does not import.
BLOCKED, TIMEOUT, NETWORK, TLS, PROTOCOL = "blocked", "timeout", "network", "tls", "protocol"

Params = dict[str, str | int]


class Failure(NamedTuple):
    """A kind, and a code of SENTENCES with its parameters."""

    kind: str
    code: str
    params: Params

    def sentence(self) -> str:
        """Return the sentence in the active language."""
        return _render(self.code, self.params)


def blocked(code: str, **params: str | int) -> Failure:
    """Return a refusal by the guard."""
    return Failure(BLOCKED, code, params)


def _render(code: str, params: Mapping[str, str | int]) -> str:
    sentence = SENTENCES[code]
    return sentence(**params) if callable(sentence) else str(sentence) % params


def _percent() -> str:
    return gettext("A % in the URL must be written as %25.")


def _denied_network(*, address: str, is_what: str, **_name: object) -> str:
    return gettext("%(address)s %(is_what)s, which is not on the public internet.") % {
        "address": address,
        "is_what": translation.gettext(is_what),
    }


def _name_refused(*, host: str, problem: str, **params: str | int) -> str:
    return gettext("%(host)s resolves to a blocked address: %(problem)s") % {
        "host": host,
        "problem": _render(problem, {"host": host, **params}),
    }


SENTENCES: Mapping[str, str | Promise | Callable[..., str]] = {
    # The URL.
    "url_empty": _("The URL is empty."),
    "url_too_long": _("The URL is longer than %(limit)d characters."),
    "encoded_url_too_long": _(
        "Encoded for the request, the URL is longer than %(limit)d characters."
    ),
    "scheme": _("The URL must start with http:// or https://."),
    "invisible_character": _("The URL has a space or an invisible character in it."),
    "character": _("The URL may not have the character %(character)s in it."),
    "percent": _percent,
    "userinfo": _("The URL may not have a login or password in it: use the authorization below."),
    "authority": _("The URL has no valid host name and port."),
    "port_number": _("The port must be a number from 1 to 65535."),
    "port_spelling": _("Write the port without leading zeros: %(port)d."),
    "port_closed": _("Port %(port)d is not open for webhooks: use 80, 443, or 1024 to 65535."),
    "host_name": _("“%(name)s” is not a valid host name."),
    "host_part": _("“%(part)s” is not a valid part of a host name."),
    "literal": _("“%(address)s” is not a valid IP address."),
    "literal_spelling": _("Write the IP address as %(address)s."),
    # The name.
    "no_public_name": _("%(host)s is not a name on the public internet."),
    "own_name": _("%(host)s is this site itself."),
    "private_name": _("%(host)s is a name of a private network: use a public host name."),
    "name_not_found": _("The name %(host)s was not found."),
    "name_without_address": _("The name %(host)s has no address."),
    "lookup_slow": _("Looking up the name %(host)s takes too long."),
    "lookup_failed": _("Looking up the name %(host)s failed."),
    # The address.
    "no_ip_address": _("%(address)s is not an IP address."),
    "interface": _("%(address)s names a network interface, which is not allowed."),
    "denied_network": _denied_network,
    "own_address": _("%(address)s is an address of this machine itself."),
    "private_name_outside": _(
        "%(address)s is outside of the allowed networks, and %(host)s is a private name."
    ),
    "own_name_outside": _(
        "%(address)s is outside of the allowed networks, and %(host)s is this site itself."
    ),
    "name_refused": _name_refused,
    "no_tcp": _("Only TCP connections are made."),
    "no_resources": _("This machine cannot open a connection now: %(reason)s."),
    "no_proxy": _("%(address)s is not the egress proxy."),
    # The transfer.
    "not_connected": _("%(host)s could not be connected to: %(reason)s."),
    "connect_timeout": _("No connection to %(host)s could be made in time."),
    "response_timeout": _("The receiver did not finish its response in %(seconds)d s."),
    "tls": _("The TLS connection to %(host)s failed: %(reason)s."),
    "connection_broke": _("The connection to %(host)s broke: %(reason)s."),
    "broken_answer": _("The receiver's response is broken: %(reason)s."),
    "header_too_long": _("The receiver's response is broken: a header is too long."),
    "headers_too_large": _("The receiver sent more than 64 KiB of headers."),
    "interim_answers": _("The receiver sent more than %(limit)d interim responses."),
    "switched_protocol": _("The receiver switched to another protocol (101)."),
    # OAuth exchanges, each with one deadline and one size limit.
    "deadline": _("The exchange took longer than %(seconds)s s."),
    "body_too_large": _("The response is longer than %(limit)d bytes."),
}

# CURLE_SSL_CLIENTCERT has no name in pycurl: the server requires a client certificate.
_CLIENT_CERTIFICATE = 98
# libcurl-errors(3): the number decides, the message is only quoted.
_TLS_ERRORS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_INVALIDCERTSTATUS,
        _CLIENT_CERTIFICATE,
    }
)
# CURLE_TOO_LARGE has no name in pycurl.
_TOO_LARGE = 100
# After these words libcurl quotes the proxy setting, which may contain a login.
_QUOTED_PROXY = re.compile(r"(Unsupported proxy \w+).*", re.DOTALL)
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

# OpenSSL's text of the alert. Java servers report a missing certificate as a bad one.
_CERTIFICATE_ALERT = re.compile(r"alert (?:certificate required|bad certificate)")


def classify(
    number: int,
    message: str,
    *,
    host: str,
    timeout_seconds: int,
    is_connected: bool,
    is_read: bool = False,
) -> Failure:
    """Return why a transfer failed; `number` and `message` are libcurl's.

    `is_read`: a response began and no socket failed, so a receive error means that the response is
    invalid.
    """
    if number == pycurl.E_OPERATION_TIMEDOUT:
        if is_connected:
            return Failure(TIMEOUT, "response_timeout", {"seconds": timeout_seconds})
        return Failure(TIMEOUT, "connect_timeout", {"host": host})
    if number == _TOO_LARGE and not message:
        # The only error without a message from libcurl.
        return Failure(PROTOCOL, "header_too_long", {})
    if number in _PROTOCOL_ERRORS or (is_read and number == pycurl.E_RECV_ERROR):
        return Failure(PROTOCOL, "broken_answer", {"reason": message})
    params: Params = {"host": host, "reason": _QUOTED_PROXY.sub(r"\1", message)}
    # With TLS 1.3 the alert for a missing certificate arrives after the handshake.
    if number in _TLS_ERRORS or _CERTIFICATE_ALERT.search(message):
        return Failure(TLS, "tls", params)
    if number == pycurl.E_COULDNT_CONNECT:
        return Failure(NETWORK, "not_connected", params)
    return Failure(NETWORK, "connection_broke", params)


class NetworkError(Exception):
    """Base of this package's errors; `reason` is a sentence for people, `code` the failure's."""

    permanent: ClassVar[bool] = False

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.reason = failure.sentence()
        super().__init__(self.reason)

    @property
    def code(self) -> str:
        return self.failure.code


class UnsafeURLError(NetworkError, ValueError):
    """A URL or address that the guard refuses.

    `opened_by` is the entry of WEBHOOKS_ALLOWED_NETWORKS that would allow it, or empty if none
    would or should.
    """

    permanent: ClassVar[bool] = True

    def __init__(self, failure: Failure, *, opened_by: str = "") -> None:
        super().__init__(failure)
        self.opened_by = opened_by


class SendError(NetworkError, requests.RequestException):
    """A failed exchange; code written for requests catches it as a RequestException."""

    # Whether the request had left this machine, so that the server may have acted on it.
    is_sent = False


class NameNotResolvedError(SendError):
    """A name has no address at the moment."""


class DeadlineExceededError(SendError):
    """An exchange exceeded its total deadline."""


class ResponseTooLargeError(SendError):
    """A response is larger than the limit; `head` is the response as far as it was read."""

    def __init__(self, failure: Failure, *, head: requests.Response) -> None:
        super().__init__(failure)
        self.head = head
        self.status_code = head.status_code


class TransferError(SendError, requests.ConnectionError):
    """The connection failed, or the response is not valid HTTP.

    `is_refused` and `is_closed` tell what the server did, if known. `wants_certificate`: its TLS
    alert is about the client certificate (RFC 8446 section 6.2).
    """

    def __init__(
        self, failure: Failure, *, is_refused: bool = False, is_closed: bool = False
    ) -> None:
        super().__init__(failure)
        self.is_refused = is_refused
        self.is_closed = is_closed
        said = str(failure.params.get("reason", ""))
        self.wants_certificate = _CERTIFICATE_ALERT.search(said) is not None


class TLSError(TransferError, requests.exceptions.SSLError):
    """The certificate is not valid for the host, or the handshake failed."""
