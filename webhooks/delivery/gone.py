"""Receivers that said they are gone for good (410): their webhooks are paused before it is noted.

A row that is held for a pause that never came would wait for ever, so the answers wait here while
the database does not answer.
"""

from webhooks.delivery.db_session import Session
from webhooks.delivery.plans import present_versions
from webhooks.delivery.recorder import pause
from webhooks.delivery.requests import Answer, Request
from webhooks.models import Outcome, PauseReason


class Gone:
    """The answers that wait. Used by the keeper's thread alone."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Request, Answer]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, request: Request, answer: Answer) -> None:
        self._waiting.append((request, answer))

    def settle(self, session: Session) -> list[tuple[Request, Answer, Outcome]]:
        """Pause the webhooks and return what the answers come to; nothing on a database fault.

        A webhook that was changed since is not paused: a corrected address is none that answered.
        """
        asked = {request.plan.webhook_id: request.plan.version for request, _ in self._waiting}
        present = session.run(lambda: present_versions(asked))
        if present is None:
            return []
        gone = sorted(pk for pk, version in asked.items() if present[pk] == version)
        if gone and session.run(lambda: pause(gone, PauseReason.GONE)) is None:
            return []
        waiting, self._waiting = self._waiting, []
        return [
            (request, answer, Outcome.GONE if request.plan.webhook_id in gone else Outcome.REFUSED)
            for request, answer in waiting
        ]
