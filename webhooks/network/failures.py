"""Why a request was not sent or got no answer: a kind, a code with parameters, and its sentence.

What is stored is the code and the parameters; SENTENCES makes the sentence when it is shown.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

# The code of what this machine lacks: no fault of any receiver.
NO_RESOURCES = "no_resources"
# The values of `models.Outcome`, which this package does not import.
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
    return gettext("%(host)s leads to an address that is refused: %(problem)s") % {
        "host": host,
        "problem": _render(problem, {"host": host, **params}),
    }


SENTENCES: Mapping[str, str | Promise | Callable[..., str]] = {
    # The URL.
    "url_empty": _("The URL is empty."),
    "url_too_long": _("The URL is longer than %(limit)d characters."),
    "scheme": _("The URL must start with http:// or https://."),
    "invisible_character": _("The URL has a space or an invisible character in it."),
    "character": _("The URL may not have the character %(character)s in it."),
    "percent": _percent,
    "userinfo": _("The URL may not have a login or password in it: use the authorization below."),
    "authority": _("The URL has no valid host name and port."),
    "port_number": _("The port must be a number from 1 to 65535."),
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
    "answer_timeout": _("The receiver did not finish its answer in %(seconds)d s."),
    "tls": _("The TLS connection to %(host)s failed: %(reason)s."),
    "connection_broke": _("The connection to %(host)s broke: %(reason)s."),
    "broken_answer": _("The receiver's answer is broken: %(reason)s."),
    "header_too_long": _("The receiver's answer is broken: a header is too long."),
    "headers_too_large": _("The receiver sent more than 64 KiB of headers."),
    "interim_answers": _("The receiver sent more than %(limit)d interim answers."),
    "switched_protocol": _("The receiver switched to another protocol (101)."),
    # Of OAuth, which has one deadline and limit for each exchange.
    "deadline": _("The exchange took longer than %(seconds)s s."),
    "body_too_large": _("The answer is longer than %(limit)d bytes."),
}
