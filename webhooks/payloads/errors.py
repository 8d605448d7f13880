"""What is wrong with a payload or a mapping: where, and a sentence that says what to do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One mistake. `row` counts from 0, `line` and `column` from 1; None where there is none.

    `field` is the part of a row it is about: name, source, content, format, time_zone or default.
    """

    sentence: str
    row: int | None = None
    field: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.sentence


class PayloadError(ValueError):
    """The base of what this package raises: asking again with the same settings changes nothing."""

    permanent = True


class MappingError(PayloadError):
    """Parameters or a JSON body that make no request; `problems` names each mistake."""

    def __init__(self, *problems: Violation) -> None:
        super().__init__(" ".join(problem.sentence for problem in problems))
        self.problems = problems


class DocumentError(PayloadError):
    """A payload that cannot be sent: a sentence for people and a `code` for programs."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
