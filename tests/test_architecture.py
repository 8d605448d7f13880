"""The import order of the product, read from its sources: the file list is the architecture.

A module imports only from its own row and the rows above it. A module without a row fails.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "webhooks"
# What STYLE.md aims for is 250 and 30.
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 60

# Top first. A package has one row.
ROWS: list[set[str]] = [
    {
        "ids",
        "signing",
        "curl_command",
        "curl_options",
        "curl_reading",
        "curl_words",
        "readable",
        "retelling",
        "ourselves",
        "addresses",
        "targets",
        "resolving",
        "sessions",
        "network",
        "secrets",
        "masking",
        "log_lines",
        "catalogue",
        "payloads",
        "filters",
        "durations",
        "zones",
    },
    {"models"},
    {
        "audit",
        "oauth",
        "queue",
        "bell",
        "backlog",
        "canary",
        "session_store",
        "charts",
        "comparing",
        "delivery_log",
    },
    {
        "alerts",
        "problems",
        "authorizing",
        "claimer",
        "claims",
        "curl_errors",
        "delivery",
        "engine",
        "gone",
        "holds",
        "housekeeping",
        "lanes",
        "plans",
        "previews",
        "publishing",
        "recorder",
        "replays",
        "sender",
        "session",
        "slots",
        "watching",
        "writer",
        "trials",
        "verdicts",
    },
    {"tasks", "worker", "retention"},
    {"events", "connections"},
    {
        "forms",
        "admin",
        "checks",
        "api",
        "templatetags",
        "delivery_pages",
        "rotation",
        "transfer",
    },
    {"views", "headers", "second_factor", "health", "error_reports", "unseen"},
    {"urls", "apps", "management"},
]

# What a module must never import, directly or inside a function. A name also covers what is in it.
_DATABASE_ONLY = {"requests", "urllib3", "pycurl", "socket", "http", "ssl", "redis", "celery"}
_HTTP_CLIENTS = {"requests", "urllib3", "pycurl", "socket", "http.client", "urllib.request"}
NEVER: dict[str, set[str]] = {
    "models": _DATABASE_ONLY | {"webhooks.network"},
    "oauth": {
        "django.http",
        "django.views",
        "webhooks.delivery.requests",
        "webhooks.delivery.engine",
        "celery",
    },
    "delivery": {"celery", "webhooks.views", "django.http"},
    "engine": {"celery", "webhooks.views", "django.http"},
    "plans": {"celery", "webhooks.views", "django.http"},
    "recorder": {"celery", "webhooks.views", "django.http"},
    "sender": {"celery", "webhooks.views", "django.http", "django.db"},
    "tasks": _HTTP_CLIENTS | {"webhooks.forms", "django.forms"},
    "events": {"webhooks.views", "django.http"},
    "forms": {"webhooks.tasks"} | _HTTP_CLIENTS,
    "admin": {"webhooks.tasks"} | _HTTP_CLIENTS,
    "api": {"webhooks.tasks"} | _HTTP_CLIENTS,
    "checks": {"webhooks.tasks"} | _HTTP_CLIENTS,
    "views": {"webhooks.network", "celery"} | _HTTP_CLIENTS,
    # What people type is never a template.
    **{
        name: {"webhooks.models", "django.db.connection", "django.template", "string.Template"}
        for name in ROWS[0]
    },
}
# Only these open sockets or speak to Redis; everything else asks them.
ALLOWED: dict[str, set[str]] = {
    "network": {"pycurl", "socket"},
    "resolving": {"socket"},
    # Asks the system for this machine's own addresses.
    "ourselves": {"socket"},
    "sessions": {"socket"},
    # The loop is libcurl's; its sockets come from `network`.
    "sender": {"pycurl"},
    "slots": {"pycurl"},
    "watching": {"pycurl"},
    "curl_errors": {"pycurl"},
    "bell": {"redis"},
    # `/readyz` asks the broker whether it answers.
    "health": {"redis"},
    # `run` looks whether the sandbox's ports are free.
    "management": {"socket"},
}


def sources() -> list[Path]:
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return [path for path in files if "migrations" not in path.parts]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """Return the part of a dotted module name that has a row: `webhooks.ui.webhook_form.views` -> `views`."""
    return name.split(".")[1] if name.startswith(PACKAGE + ".") else ""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of everything a module imports, wherever it does."""
    package = module_name(path)
    return names(tree(path), package if is_package(path) else package.rpartition(".")[0])


def is_package(path: Path) -> bool:
    return path.name == "__init__.py"


def names(module: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node)
            # `from webhooks import tasks` imports webhooks.tasks.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            yield node.lineno, name


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    base = parents[: len(parents) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _imported_by_call(node: ast.Call) -> str:
    called = ast.unparse(node.func).rpartition(".")[2]
    if called not in ("import_module", "__import__", "import_string") or not node.args:
        return ""
    first = node.args[0]
    is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return str(first.value) if is_text else ""


def is_covered(name: str, by: str) -> bool:
    return name == by or name.startswith(by + ".")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_module_has_exactly_one_row() -> None:
    rooms = {room(module_name(path)) for path in sources()} - {""}
    listed = [name for row in ROWS for name in row]
    assert sorted(listed) == sorted(set(listed))
    assert rooms - set(listed) == set(), "give these a row in tests/test_architecture.py"
    assert set(listed) - rooms == set(), "these rows name modules that are gone"


def test_modules_import_only_from_their_row_and_above() -> None:
    rows = {name: number for number, row in enumerate(ROWS) for name in row}
    upward = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources()
        for line, name in imports(path)
        if rows.get(room(name), 0) > rows.get(room(module_name(path)), len(ROWS))
    ]
    assert upward == []


def test_modules_leave_alone_what_is_not_their_business() -> None:
    found = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources()
        for line, name in imports(path)
        for forbidden in never(room(module_name(path)))
        if is_covered(name, forbidden)
    ]
    assert found == []


def never(own: str) -> set[str]:
    everywhere = {"pycurl", "socket", "redis"} - ALLOWED.get(own, set())
    return NEVER.get(own, set()) | everywhere


def test_the_top_level_is_the_agreed_one() -> None:
    assert {path.parent.name for path in ROOT.glob("*/*.py")} == {"config", PACKAGE, "tests"}


def test_no_module_is_longer_than_it_may_be() -> None:
    sizes = {relative(path): len(path.read_text().splitlines()) for path in sources()}
    assert {path: size for path, size in sizes.items() if size > MAX_MODULE_LINES} == {}


def test_no_function_is_longer_than_it_may_be() -> None:
    sizes = {
        f"{relative(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {where: size for where, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def test_no_module_has_a_name_that_could_hold_anything() -> None:
    vague = {"utils", "helpers", "services", "managers", "constants", "signals", "common", "misc"}
    assert [relative(path) for path in sources() if vague & {*path.with_suffix("").parts}] == []


def test_imports_are_found_in_every_form() -> None:
    """The walk itself: a form it missed would make the tests above pass for nothing."""
    text = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom .. import f\nfrom ...tasks import g\n"
        "def h():\n    from webhooks.models import i\n    import_module('webhooks.views')\n"
    )
    assert {name for _, name in names(ast.parse(text), "webhooks.management.commands")} == {
        "a.b",
        "c.d",
        "webhooks.management.commands.e",
        "webhooks.management.f",
        "webhooks.tasks.g",
        "webhooks.models.i",
        "webhooks.views",
    }
