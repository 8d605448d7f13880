"""Every marked text of the product's templates and Python, without GNU gettext's programs."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ("webhooks", "config")
TEMPLATES = ("templates", "webhooks")
_SINGULAR = {"gettext", "gettext_lazy", "gettext_noop", "_"}
_PLURAL = {"ngettext", "ngettext_lazy"}
_MODULE = "django.utils.translation"
# Django's texts, translated differently: “%s ago” needs the accusative, «годину тому».
_SPANS = ("year", "month", "week", "day", "hour", "minute")
_LITERAL = r"u?(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")"
_IN_TEMPLATE = re.compile(
    rf"\b(?P<call>n?gettext|_)\(\s*(?P<one>{_LITERAL})(?:\s*,\s*(?P<many>{_LITERAL}))?", re.DOTALL
)


@dataclass(frozen=True, slots=True, order=True)
class MarkedText:
    """A text in English, its location, and its plural if it has one."""

    text: str
    plural: str
    place: str


@cache
def every_text() -> tuple[MarkedText, ...]:
    found = [text for path in python_files() for text in _of_python(path)]
    found += [text for path in template_files() for text in _of_template(path)]
    found += [MarkedText(f"%(num)d {span}", f"%(num)d {span}s", "django/utils") for span in _SPANS]
    return tuple(sorted(found, key=lambda text: (text.place, text.text)))


def python_files() -> list[Path]:
    files = (path for name in PYTHON for path in sorted((ROOT / name).rglob("*.py")))
    return [path for path in files if "migrations" not in path.parts]


def template_files() -> list[Path]:
    return [path for name in TEMPLATES for path in sorted((ROOT / name).rglob("*.html"))]


def _of_python(path: Path) -> Iterator[MarkedText]:
    tree = ast.parse(path.read_text())
    names = _local_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            original = names.get(node.func.id, "")
            if original in _SINGULAR | _PLURAL:
                yield _called(path, node, is_plural=original in _PLURAL)


def _local_names(tree: ast.Module) -> dict[str, str]:
    """Return a module's local names of gettext's functions: `gettext_lazy as _`."""
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == _MODULE
        for alias in node.names
    }


def _called(path: Path, call: ast.Call, *, is_plural: bool) -> MarkedText:
    values = [one.value if isinstance(one, ast.Constant) else None for one in call.args]
    wanted = values[: 2 if is_plural else 1]
    if not wanted or not all(isinstance(value, str) for value in wanted):
        raise SyntaxError(f"{_place(path)}:{call.lineno}: gettext needs the text itself, no value")
    return MarkedText(str(wanted[0]), str(wanted[1]) if is_plural else "", _place(path))


def _of_template(path: Path) -> Iterator[MarkedText]:
    for found in _IN_TEMPLATE.finditer(templatize(path.read_text(), origin=str(path))):
        plural = ast.literal_eval(found["many"]) if found["call"] == "ngettext" else ""
        yield MarkedText(ast.literal_eval(found["one"]), plural, _place(path))


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
