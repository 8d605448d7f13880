"""What the package raises. Each error carries the sentence for people and the decision."""

from datetime import datetime

from webhooks.models import Credential, HoldReason


class AuthorizationFailed(Exception):
    """There is no new token; the message says what to change and where."""

    permanent = True

    def __init__(self, message: object, credential: Credential | None = None) -> None:
        super().__init__(str(message))
        self.message = str(message)
        # None when the answer could not be tied to a credential of this person.
        self.credential = credential


class TokenUnavailable(Exception):
    """No token can be had now. With `hold_reason` a person must act, without it time will do."""

    def __init__(
        self,
        message: object,
        *,
        hold_reason: HoldReason | None = None,
        retry_at: datetime | None = None,
    ) -> None:
        super().__init__(str(message))
        self.message = str(message)
        self.hold_reason = hold_reason
        self.retry_at = retry_at

    @property
    def permanent(self) -> bool:
        return self.hold_reason is not None


class Misconfigured(ValueError):
    """What the admin entered cannot be used for a request; nothing was sent."""

    permanent = True
