"""The searchable event catalogue, and the receiver's guide, which is docs/receivers.md."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import get_language

from webhooks import catalogue
from webhooks.catalogue import EVENT_TYPES, EventType
from webhooks.ui.help import markdown
from webhooks.ui.requests import page

_GUIDE = settings.BASE_DIR / "docs" / "receivers.md"


@page()
def events(request: HttpRequest) -> HttpResponse:
    """List the event types that match the words by key, label, description or variable."""
    words = request.GET.get("q", "").strip()[:100].lower()
    groups: list[tuple[Any, list[dict[str, Any]]]] = []
    for group in catalogue.groups():
        found = [_match(one, words) for one in group.types]
        if kept := [one for one in found if one]:
            groups.append((group, kept))
    return render(request, "webhooks/help/events.html", {"groups": groups, "words": words})


def _match(event_type: EventType, words: str) -> dict[str, Any]:
    """Return a type with its matching variables; empty if nothing matches."""
    own = f"{event_type.key} {event_type.label} {event_type.description}".lower()
    if words in own:
        return {"type": event_type, "variables": []}
    variables = [
        one.name
        for one in catalogue.variables_for(event_type.key)
        if words in f"{one.name} {one.label} {one.older_name or ''}".lower()
    ]
    return {"type": event_type, "variables": variables} if variables else {}


@page()
def event(request: HttpRequest, event_type: str) -> HttpResponse:
    if event_type not in EVENT_TYPES:
        raise Http404
    context = {
        "type": EVENT_TYPES[event_type],
        "variables": [
            (one, one.sample if isinstance(one.sample, str) else _json(one.sample))
            for one in catalogue.variables_for(event_type)
        ],
        "sample": _json(catalogue.sample_event(event_type)),
        "schema": _json(catalogue.schema(event_type)),
    }
    return render(request, "webhooks/help/event.html", context)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


@page()
def receivers(request: HttpRequest) -> HttpResponse:
    language = get_language() or "en"
    context = {"guide": _guide(language), "language": language if _translation(language) else "en"}
    return render(request, "webhooks/help/receivers.html", context)


@cache
def _guide(language: str) -> markdown.Document:
    """Return the guide in a language; in English if there is no translation."""
    pages = {"events.md": reverse("webhooks:help_events")}
    original = markdown.read(_GUIDE.read_text(encoding="utf-8"), pages=pages)
    if (path := _translation(language)) is None:
        return original
    ids = [id_ for id_, _ in original.sections]
    return markdown.read(path.read_text(encoding="utf-8"), pages=pages, ids=ids)


def _translation(language: str) -> Path | None:
    path = _GUIDE.with_suffix(f".{language}.md")
    return path if path.exists() else None
