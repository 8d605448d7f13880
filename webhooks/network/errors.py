"""The errors of this package. Each says in `permanent` whether another try can help."""

from typing import ClassVar

import requests

from webhooks.network.failures import Failure


class NetworkError(Exception):
    """Base of every error here; `reason` is one sentence for people, `code` is its code."""

    permanent: ClassVar[bool] = False

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.reason = failure.sentence()
        super().__init__(self.reason)

    @property
    def code(self) -> str:
        return self.failure.code


class UnsafeURLError(NetworkError, ValueError):
    """Nothing may be sent to a URL or an address.

    `opened_by` is the entry of WEBHOOKS_ALLOWED_NETWORKS that would open it, or empty where
    nothing would or should.
    """

    permanent: ClassVar[bool] = True

    def __init__(self, failure: Failure, *, opened_by: str = "") -> None:
        super().__init__(failure)
        self.opened_by = opened_by


class SendError(NetworkError, requests.RequestException):
    """An exchange failed; callers of requests catch it as one of theirs."""

    # Whether the request had left this machine, so that the other side may have acted on it.
    is_sent = False


class NameNotResolvedError(SendError):
    """A name has no address now; it may have one later."""


class DeadlineExceededError(SendError):
    """An exchange took longer in total than it may."""


class ResponseTooLargeError(SendError):
    """A response has more bytes than the caller reads; its status was `status_code`."""

    def __init__(self, failure: Failure, *, status_code: int) -> None:
        super().__init__(failure)
        self.status_code = status_code


class TransferError(SendError, requests.ConnectionError):
    """The connection failed, or its answer is no HTTP.

    `is_refused` and `is_closed` say what the other side did, where that is known.
    """

    def __init__(
        self, failure: Failure, *, is_refused: bool = False, is_closed: bool = False
    ) -> None:
        super().__init__(failure)
        self.is_refused = is_refused
        self.is_closed = is_closed


class TLSError(TransferError, requests.exceptions.SSLError):
    """The certificate is not valid for the host, or the handshake failed."""
