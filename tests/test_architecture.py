"""The import order of the product, read from its sources: the package list is the architecture.

A package imports only from the rows above its own; SAME_ROW lists the exceptions.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "webhooks"

# From the top row down. The package's root holds only these.
ROWS: list[set[str]] = [
    {"network", "security", "catalogue", "curl"},
    {"models", "payloads", "filters"},
    {"audit"},
    {"oauth"},
    {"delivery"},
    {"delivery_log", "alerts"},
    {"tasks", "events"},
    {"api"},
    {"ui", "admin", "templatetags"},
    {"urls", "middleware", "management", "checks", "apps"},
]
FIXED = {"migrations", "locale"}
# Allowed imports within a row: (importer, imported).
SAME_ROW = {
    # A copied command masks secrets with the same code as all other output.
    ("curl", "security"),
    # A copied command names headers and joins the query string as requests do.
    ("curl", "network"),
    # Conditions look up variables as templates do.
    ("filters", "payloads"),
    # A mail shows invisible characters as the log does.
    ("alerts", "delivery_log"),
    # The public functions notify the engine through its task.
    ("events", "tasks"),
    # Django admin shows the delivery log as its screen does.
    ("admin", "ui"),
    ("admin", "templatetags"),
    ("templatetags", "ui"),
    # Django loads the checks with the app.
    ("apps", "checks"),
}
SCREENS = {
    "account",
    "alerts",
    "connections",
    "deliveries",
    "help",
    "project_status",
    "resends",
    "transfer",
    "trash",
    "webhook_detail",
    "webhook_form",
    "webhook_list",
}
# Screens that use another one's parts: (importer, imported).
SCREEN_IMPORTS = {
    # A connection is edited with the webhook form's section of credentials, by the same steps.
    ("connections", "webhook_form"),
    ("webhook_form", "connections"),
    # An import checks each entry with the webhook form.
    ("transfer", "webhook_form"),
    # A duplicate shows its signing secret as a new webhook does.
    ("webhook_detail", "webhook_form"),
    # Its deliveries are rows of the log, and are sent again as there.
    ("webhook_detail", "deliveries"),
    ("resends", "deliveries"),
    # Bulk actions resume and restore as the pages of one webhook do.
    ("webhook_list", "webhook_detail"),
    ("webhook_list", "trash"),
}

# What a package must never import; a name includes its submodules.
_HTTP_CLIENTS = {"requests", "urllib3", "http.client", "urllib.request"}
_WEB = {"django.http", "django.views", "django.forms", "django.shortcuts"}
NEVER: dict[str, set[str]] = {
    "network": {"django.db"},
    "curl": {"django.db", "django.template"},
    "catalogue": {"django.db", "django.template"},
    "models": _HTTP_CLIENTS | {"celery", "webhooks.network"},
    "payloads": {"django.db", "django.template", "string.Template", "webhooks.models"},
    "filters": {"django.db", "django.template", "string.Template", "webhooks.models"},
    "oauth": _WEB | {"celery"},
    "delivery": _WEB | {"celery"},
    "tasks": _WEB | _HTTP_CLIENTS,
    "events": _WEB,
    "api": _HTTP_CLIENTS | {"webhooks.tasks"},
    "ui": _HTTP_CLIENTS | {"webhooks.tasks", "celery"},
    "admin": _HTTP_CLIENTS | {"webhooks.tasks"},
    "checks": _HTTP_CLIENTS | {"webhooks.tasks"},
}
# Only these open sockets, drive libcurl or connect to Redis; all other code goes through them.
ALLOWED: dict[str, set[str]] = {
    "webhooks.network": {"pycurl", "socket"},
    "webhooks.delivery.sender": {"pycurl"},
    "webhooks.delivery.transport": {"pycurl"},
    "webhooks.delivery.wakeup": {"redis"},
    # A drain runs in a Celery worker and ends with it.
    "webhooks.delivery.drains": {"celery"},
    # `/readyz` checks whether the broker responds.
    "webhooks.api.health": {"redis"},
    # The deadline of a mail shuts down the connection that smtplib opened.
    "webhooks.alerts.mail": {"socket"},
    # `run` checks whether the sandbox's ports are free.
    "webhooks.management": {"socket"},
}

NOT_NAMES = {
    "anew",
    "leash",
    "meanwhile",
    "nobody",
    "ourselves",
    "retelling",
    "told",
    "unseen",
    "whoever",
}
NOT_PROSE = re.compile(r"\b(anew|by itself|in vain|meanwhile|nobody|so many|whoever)\b", re.I)


def sources() -> list[Path]:
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return [path for path in files if "migrations" not in path.parts]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """Return the part of a dotted module name that has a row: `webhooks.ui.fields` -> `ui`."""
    return name.split(".")[1] if name.startswith(PACKAGE + ".") else ""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


tree = cache(parse)


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Return the line and the dotted name of everything a module imports, also in functions."""
    package = module_name(path)
    return [*names(tree(path), package if is_package(path) else package.rpartition(".")[0])]


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
    function = node.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called not in ("import_module", "__import__", "import_string") or not node.args:
        return ""
    first = node.args[0]
    is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return str(first.value) if is_text else ""


def is_covered(name: str, by: str) -> bool:
    return name == by or name.startswith(by + ".")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_root_holds_the_packages_and_the_door() -> None:
    entries = {
        path.name.removesuffix(".py") for path in (ROOT / PACKAGE).iterdir() if _has_content(path)
    }
    listed = [name for row in ROWS for name in row]
    assert sorted(listed) == sorted(set(listed))
    assert entries - {"__init__"} - FIXED == set(listed)


def test_the_document_has_the_same_rows() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed: dict[int, set[str]] = {}
    for number, cell in re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE):
        found = re.findall(r"`(\w+)(?:/|\.py)`", cell)
        listed.setdefault(int(number), set()).update(found)
    assert list(listed.items()) == list(enumerate(ROWS, start=1))
    drawn = (ROOT / "docs" / "architecture.svg").read_text()
    assert {name for row in ROWS for name in row if name not in drawn} == set()


def test_the_screens_are_the_agreed_ones() -> None:
    assert _folders(ROOT / PACKAGE / "ui") == SCREENS
    for place in ("templates/webhooks", "static", "tests/ui"):
        assert _folders(ROOT / place) - {"ui", "icons", "fonts", "admin"} <= SCREENS, place


def _folders(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if path.is_dir() and _has_content(path)}


def _has_content(path: Path) -> bool:
    """Return whether a path is a file, or a folder with files other than compiled ones."""
    return path.is_file() or any(one.is_file() and one.suffix != ".pyc" for one in path.rglob("*"))


def test_packages_import_only_from_the_rows_above() -> None:
    rows = {name: number for number, row in enumerate(ROWS) for name in row}
    wrong = []
    for path in sources():
        own = room(module_name(path))
        for line, name in imports(path):
            other = room(name)
            if not own or other in ("", own) or other not in rows or (own, other) in SAME_ROW:
                continue
            if rows[other] >= rows[own]:
                wrong.append(f"{relative(path)}:{line} imports {name}")
    assert wrong == []


def test_what_screens_share_imports_no_screen() -> None:
    found = [
        f"{relative(path)}:{line} imports {name}"
        for path in (ROOT / PACKAGE / "ui").glob("*.py")
        for line, name in imports(path)
        if name.startswith(f"{PACKAGE}.ui.") and name.split(".")[2] in SCREENS
    ]
    assert found == []


def test_screens_import_from_each_other_only_what_is_listed() -> None:
    found = {
        (own, other)
        for path in sources()
        for own in [_screen(module_name(path))]
        for _, name in imports(path)
        for other in [_screen(name)]
        if own and other and own != other
    }
    assert found == SCREEN_IMPORTS


def _screen(name: str) -> str:
    """Return the screen that a module belongs to, or ""."""
    parts = name.split(".")
    return (
        parts[2] if parts[:2] == [PACKAGE, "ui"] and len(parts) > 2 and parts[2] in SCREENS else ""
    )


def test_a_class_name_exists_once_and_an_exception_ends_in_error() -> None:
    found: dict[str, list[str]] = {}
    misnamed = []
    for path in [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "config").rglob("*.py")]:
        # Not kept: that many trees would slow down the garbage collector.
        for node in ast.walk(parse(path)):
            # Django finds a command by this name.
            if not isinstance(node, ast.ClassDef) or node.name in ("Meta", "Command"):
                continue
            found.setdefault(node.name, []).append(relative(path))
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            is_error = any(base.endswith(("Error", "Exception")) for base in bases)
            if is_error and not node.name.endswith("Error"):
                misnamed.append(node.name)
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}
    assert misnamed == []


def test_the_words_are_those_of_the_field() -> None:
    """Names, comments and docstrings have none of the words that once meant something here."""
    found: list[str] = []
    for path in [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "config").rglob("*.py")]:
        # The Unix user that owns nothing; and this list.
        if path in (ROOT / "tests" / "services.py", Path(__file__)):
            continue
        with path.open() as file:
            for token in tokenize.generate_tokens(file.readline):
                is_name = token.type == tokenize.NAME
                words = set(token.string.split("_")) if is_name else set()
                is_prose = token.type == tokenize.COMMENT or token.string.startswith('"""')
                if words & NOT_NAMES or (is_prose and NOT_PROSE.search(token.string)):
                    found.append(f"{relative(path)}:{token.start[0]} {token.string[:40]}")
    assert found == []


def test_the_exceptions_of_a_package_have_one_base() -> None:
    # Package -> exception -> what it derives from. A screen is a package of its own.
    found: dict[str, dict[str, set[str]]] = {}
    for path in sources():
        package = _screen(module_name(path)) or room(module_name(path))
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                own = found.setdefault(package, {})
                own[node.name] = {ast.unparse(base) for base in node.bases}
    bases = {
        package: {name for name, above in own.items() if not above & own.keys()}
        for package, own in found.items()
    }
    assert {package: names for package, names in bases.items() if len(names) > 1} == {}


def test_no_import_hides_in_a_function() -> None:
    """Importing the product's modules inside a function hides a cycle instead of removing it."""
    hidden = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources()
        # Django's hook: models can only be imported when it is called.
        if module_name(path) != "webhooks.apps"
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for line, name in names(ast.Module(function.body, []), module_name(path))
        if name.startswith(PACKAGE + ".")
    ]
    assert hidden == []


def test_modules_import_in_no_circle() -> None:
    known = {module_name(path): path for path in sources()}
    uses = {
        name: {
            found
            for _, used in imports(path)
            # The longest module that is a prefix of the dotted name; parts of a package import
            # each other, not the package.
            for found in [next((one for one in _prefixes(used) if one in known), "")]
            if found and found != name and not name.startswith(found + ".")
        }
        for name, path in known.items()
    }
    done: set[str] = set()
    while ready := {name for name, used in uses.items() if name not in done and used <= done}:
        done |= ready
    assert {name: sorted(used - done) for name, used in uses.items() if name not in done} == {}


def _prefixes(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def test_no_package_imports_private_modules_of_another() -> None:
    found = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources()
        for line, name in imports(path)
        if name.startswith(PACKAGE + ".") and room(name) != room(module_name(path))
        if any(part.startswith("_") and part != "__init__" for part in name.split(".")[2:-1])
    ]
    assert found == []


def test_modules_leave_alone_what_is_not_their_business() -> None:
    found = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources()
        for line, name in imports(path)
        for forbidden in never(module_name(path))
        if is_covered(name, forbidden)
    ]
    assert found == []


def never(module: str) -> set[str]:
    allowed = {
        name for owner, names in ALLOWED.items() if is_covered(module, owner) for name in names
    }
    return (NEVER.get(room(module), set()) | {"pycurl", "socket", "redis"}) - allowed


def test_the_top_level_is_the_agreed_one() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert folders == {".ci", "config", PACKAGE, "tests"}
    config = {path.stem for path in (ROOT / "config").glob("*.py")} - {"__init__"}
    # `environment` has the parts that `manage.py run` needs before the settings exist.
    assert config == {"settings", "environment", "celery", "urls", "wsgi", "asgi"}


def test_every_package_says_what_it_owns() -> None:
    for path in sources():
        if path.name == "__init__.py" and path.read_text().strip():
            text = ast.get_docstring(tree(path))
            assert text, relative(path)


def test_no_module_has_a_name_that_could_hold_anything() -> None:
    vague = {"utils", "helpers", "services", "managers", "constants", "signals", "common", "misc"}
    assert [relative(path) for path in sources() if vague & {*path.with_suffix("").parts}] == []


def test_imports_are_found_in_every_form() -> None:
    """Checks the import scanner itself: if it missed a form, the tests above would pass wrongly."""
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
