"""Every URL of the site, read from the URLconf: new pages are included automatically."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern

Rows = dict[str, list[dict[str, Any]]]
# The kind of row that each set of parameters names; a page with new parameters must be added here.
_ROW_KINDS = {
    ("delivery_id",): "delivery",
    ("delivery_id", "pk"): "test",
    ("form", "uid"): "public key",
    ("event_id",): "event",
    ("event_type",): "event type",
    ("address",): "no address",
    ("kind",): "channel kind",
    ("entry", "pk"): "version",
    ("attempt_id", "delivery_id", "part"): "attempt",
}
_ROW_KINDS_BY_FOLDER = {
    "connections": "connection",
    "credentials": "credential",
    "resends": "resend",
}


class Route(NamedTuple):
    """One URL pattern: its name, its text without converters, and its parameter names."""

    name: str
    text: str
    parameters: tuple[str, ...]

    def addresses(self, rows: Rows) -> Iterator[str]:
        """Yield the URL for each row that the pattern can show."""
        for row in rows[self._row_kind()] if self.parameters else [{}]:
            address = self.text
            for name in self.parameters:
                address = address.replace(f"<{name}>", str(row[name]))
            yield f"/{address}"

    def _row_kind(self) -> str:
        """Return the kind of row that the parameters name; KeyError if the tables above lack it."""
        if self.text.startswith("admin/") and self.parameters not in _ROW_KINDS:
            return f"admin {self.text.split('/')[2]}"
        if self.parameters == ("pk",):
            before = self.text.partition("<")[0].rstrip("/").rpartition("/")[2]
            return _ROW_KINDS_BY_FOLDER.get(before, "webhook")
        return _ROW_KINDS[self.parameters]


def routes() -> list[Route]:
    """Return every URL pattern of the site except those that end the session."""
    found = list(_walk(get_resolver("config.urls"), "", ""))
    assert len(found) > 60, "the URL map is not where it was"
    return [one for one in found if "logout" not in one.name]


def _walk(resolver: URLResolver, before: str, namespace: str) -> Iterator[Route]:
    for pattern in resolver.url_patterns:
        if not isinstance(pattern.pattern, RoutePattern):
            # The admin's catch-all pattern.
            continue
        text = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from _walk(pattern, text, inner)
        elif isinstance(pattern, URLPattern) and not text.startswith("admin/r/"):
            yield _route(f"{namespace}{pattern.name}", text)


def _route(name: str, text: str) -> Route:
    parameters = []
    for part in text.split("<")[1:]:
        inside = part.partition(">")[0]
        parameters.append(inside.rpartition(":")[2])
        text = text.replace(f"<{inside}>", f"<{parameters[-1]}>")
    return Route(name, text, tuple(sorted(parameters)))
