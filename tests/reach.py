"""Find the tests that start a process, by their code and their fixtures' code."""

import sys
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis.core import HypothesisHandle

# Modules that start a server, a browser or a command.
_STARTERS = {"multiprocessing", "playwright", "subprocess"}


def starts_a_process(item: pytest.Item) -> bool:
    """Return whether the test, or a function of `tests` that it reaches, can start a process."""
    definitions = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
    fixtures = [one.func for several in definitions for one in several]
    return any(_reaches_a_starter(one) for one in (item.function, *fixtures))  # type: ignore[attr-defined]


# Objects known to reach no starter, by `id()`; keeping a reference keeps the id valid.
_harmless: dict[int, Any] = {}


@cache
def _reaches_a_starter(function: FunctionType) -> bool:
    waiting: list[Any] = [function]
    seen: dict[int, Any] = {}
    while waiting:
        thing = waiting.pop()
        if _is_starter(thing):
            return True
        if id(thing) not in seen and id(thing) not in _harmless:
            seen[id(thing)] = thing
            waiting += _references(thing)
    _harmless.update(seen)
    return False


def _is_starter(thing: Any) -> bool:
    module = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", "")
    return str(module).partition(".")[0] in _STARTERS


def _references(thing: Any) -> list[Any]:
    """Return the objects that a function or class of the tests refers to."""
    thing = getattr(thing, "__func__", None) or getattr(thing, "fget", None) or thing
    thing = getattr(thing, "__wrapped__", thing)
    if isinstance(handle := getattr(thing, "hypothesis", None), HypothesisHandle):
        thing = handle.inner_test
    if not str(getattr(thing, "__module__", "")).startswith("tests"):
        return []
    if isinstance(thing, type):
        return [*vars(thing).values(), *thing.__bases__]
    return _named_in(thing) if isinstance(thing, FunctionType) else []


@cache
def _named_in(function: FunctionType) -> list[Any]:
    names = set(_names(function.__code__))
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    modules = [one for one in found if isinstance(one, ModuleType)]
    return found + [getattr(one, name) for one in modules for name in names if hasattr(one, name)]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


_started: list[str] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        _started.append(str(arguments[1]))


def take_started() -> list[str]:
    """Return the processes that were started since the last call."""
    found = _started.copy()
    _started.clear()
    return found


@cache
def watch_for_processes() -> None:
    """Install the audit hook once: Python cannot remove it again."""
    sys.addaudithook(_note)


@pytest.fixture(autouse=True)
def _fail_on_undeclared_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a process although its code does not show it."""
    take_started()
    yield
    if started := take_started():
        assert request.node.get_closest_marker("process"), f"A process was started: {started}"
