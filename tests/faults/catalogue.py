"""Every process fault with its id, in order, and the databases it is made on."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.world import World

POSTGRES, SQLITE = "postgres", "sqlite"
BOTH = (POSTGRES, SQLITE)


@dataclass(frozen=True, slots=True)
class Fault:
    id: str
    title: str
    run: Callable[[World], None]
    databases: tuple[str, ...]
    # Too slow for the part that runs with the tests.
    is_slow: bool


_FAULTS: list[Fault] = []


def fault(
    id: str, title: str, *, databases: tuple[str, ...] = (POSTGRES,), is_slow: bool = False
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a function that makes a fault and raises unless the promises were kept."""

    def register(function: Callable[[World], None]) -> Callable[[World], None]:
        _FAULTS.append(Fault(id, title, function, databases, is_slow))
        return function

    return register


def faults() -> list[Fault]:
    from tests.faults import (  # noqa: F401
        broker,
        changes,
        crashes,
        crowds,
        front_door,
        starvation,
        storage,
        tokens,
        workers,
    )

    return sorted(_FAULTS, key=lambda fault: int(fault.id[1:]))
