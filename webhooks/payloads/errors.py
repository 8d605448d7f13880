"""Errors in a payload or a mapping: the position, and a sentence that says what to do."""

from dataclasses import dataclass

from django.utils.translation import gettext as _


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One mistake. `row` counts from 0, `line` and `column` from 1; None if they do not apply.

    `field` is the part of the row: name, source, content, format, time_zone or default.
    """

    sentence: str
    row: int | None = None
    field: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.sentence


class PayloadError(ValueError):
    """Base of this package's errors: a retry with the same settings fails again."""

    permanent = True


class MappingError(PayloadError):
    """Parameters or a JSON body that give no valid request; `problems` lists each mistake."""

    def __init__(self, *problems: Violation) -> None:
        super().__init__(" ".join(problem.sentence for problem in problems))
        self.problems = problems


class BodyTooLargeError(MappingError):
    """The body for an event is larger than the limit."""

    def __init__(self, limit_bytes: int) -> None:
        sentence = _(
            "The body of this event would have more than the %(megabytes)s MB that are sent. "
            "Use its large variables fewer times."
        )
        super().__init__(Violation(sentence=sentence % {"megabytes": megabytes(limit_bytes)}))
        self.limit_bytes = limit_bytes


class TooManyItemsError(PayloadError):
    """JSON with more items than its reader accepts; the rest was not read."""


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f}".removesuffix(".0")


class DocumentError(PayloadError):
    """A payload that cannot be sent; has a sentence for people and a `code` for programs."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
