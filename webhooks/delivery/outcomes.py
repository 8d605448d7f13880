"""What is stored about a failed attempt: a code with parameters, and the sentence of each code.

Attempts, the health of webhooks and tests that could not be sent keep these. `sentence` gives them
in the reader's language.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

from django.utils.translation import gettext_lazy as _

from webhooks import network, oauth, payloads
from webhooks.models.messages import Message, Sentence, cut, dump, render

# The size of the columns.
MAX_STORED = 500

SENTENCES: Mapping[str, Sentence] = {
    # A refused address, a name without an address, or a transfer that libcurl gave up.
    **network.SENTENCES,
    # A token that is needed and missing.
    **oauth.SENTENCES,
    # A response, by "http_" and its outcome.
    "http_server_error": _("The receiver failed with %(status)s."),
    "http_throttled": _("The receiver asked to wait (%(status)s)."),
    "http_unauthorized": _("The receiver refused the authorization (%(status)s)."),
    # RFC 6750 section 3.1.
    "insufficient_scope": _(
        "The access token lacks a scope that the receiver wants (%(status)s): its header "
        "WWW-Authenticate says which. Add it to Scope and press “Get new access token”."
    ),
    "http_refused": _("The receiver refused the request with %(status)s."),
    "http_redirect": _(
        "The receiver redirected (%(status)s); redirects are not followed. "
        "Enter the final address as the URL."
    ),
    "http_gone": _("The receiver is permanently gone (410), so the webhook is paused."),
    "http_protocol": _(
        "The receiver answered with status %(status)s, which does not end a request."
    ),
    # The response was rejected by the webhook's success rule.
    "response_says": _("The receiver answered %(status)s, but the response says “%(reason)s”."),
    "response_refused": _(
        "The receiver answered %(status)s, but the response does not meet the success rule."
    ),
    "response_unread": _(
        "The receiver answered %(status)s, but the response is too long for the success "
        "rule: only its first 64 KiB are read."
    ),
    "response_status": _(
        "The receiver answered %(status)s, which the success rule does not count as a success."
    ),
    "response_expired": _(
        "The receiver answered %(status)s and says “%(reason)s”: the access token has expired."
    ),
    # A request without a response.
    "not_built": _("The request could not be built (%(error)s)."),
    "not_sent": _("The request could not be sent: %(error)s."),
    "process_died": _(
        "The process that was sending this died, so it is not known whether the receiver got it."
    ),
    # A webhook that cannot be used with its present settings.
    "rendered_too_large": _(
        "The body of this event would have more than the %(megabytes)s MB that are sent. "
        "Use its large variables fewer times."
    ),
    # A sentence of another package.
    "said": "%(reason)s",
}


def sentence(stored: str) -> str:
    """Return the stored messages, one a line, in the active language."""
    return render(stored, SENTENCES)


def of_failure(failure: network.Failure) -> Message:
    return Message(failure.code, failure.params)


def of_error(error: Exception) -> Message:
    """Return the message of another package's error, which may have a sentence but no code."""
    if isinstance(error, network.NetworkError):
        return of_failure(error.failure)
    if isinstance(error, payloads.BodyTooLargeError):
        return Message("rendered_too_large", {"megabytes": payloads.megabytes(error.limit_bytes)})
    return Message("said", {"reason": str(error)})


@lru_cache(maxsize=1024)
def of_status(outcome: str, status_code: int) -> str:
    """Return what is stored about a response; "" for an outcome without a sentence."""
    code = f"http_{outcome}"
    return dump(code, status=status_code) if code in SENTENCES else ""


def stored(message: Message, clean: Callable[[str], str] = str) -> str:
    """Return what is stored for a message; `clean` removes secrets from its texts.

    The longest text is cut until everything fits.
    """
    params = {
        name: clean(value) if isinstance(value, str) else value
        for name, value in message.params.items()
    }
    return cut(dump(message.code, **params), MAX_STORED)
