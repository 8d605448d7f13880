"""The event document and the request it becomes: frozen bytes in, URL and body out.

Owns the document's shape (one flat JSON object), what a payload may hold, and the three body
formats. The document's bytes are made once and never change; the number of the attempt is
therefore no part of it and appears only in a query string. Knows no model and sends nothing.
"""

from webhooks.payloads.document import (
    MAX_DEPTH,
    InvalidPayload,
    build_document,
    fingerprint,
    instant,
    load_json,
    shown,
)
from webhooks.payloads.rendering import (
    Format,
    Rendered,
    date_writer,
    render,
    renders_verbatim,
)

__all__ = [
    "MAX_DEPTH",
    "Format",
    "InvalidPayload",
    "Rendered",
    "build_document",
    "date_writer",
    "fingerprint",
    "instant",
    "load_json",
    "render",
    "renders_verbatim",
    "shown",
]
