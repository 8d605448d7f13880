"""The event document and the request it becomes: frozen bytes in, URL and body out.

Owns the document's shape (one flat JSON object), what a payload may hold, the three body formats,
and what a webhook makes of a document: every variable, mapped rows (`rows`) or a JSON body with
places (`places`). The document's bytes are made once and never change; the number of the attempt
is therefore no part of it and appears only in a query string and where it is mapped. Knows no
model and sends nothing.
"""

from webhooks.payloads.document import (
    MAX_DEPTH,
    InvalidPayload,
    build_document,
    fingerprint,
    instant,
    read_document,
    shown,
)
from webhooks.payloads.json_loader import load_json
from webhooks.payloads.paths import escape, parse_path
from webhooks.payloads.placeholders import (
    MAX_PLACES,
    MAX_TEMPLATE_LENGTH,
    has_place,
    only_variable,
    template_problems,
    template_variables,
)
from webhooks.payloads.problems import InvalidMapping, Problem
from webhooks.payloads.renderer import (
    Format,
    Rendered,
    compile_request,
    render,
    renders_verbatim,
    rows_as_places,
    sent_as,
)
from webhooks.payloads.rows import (
    FORMATS,
    MAX_ROWS,
    MAX_VALUE_LENGTH,
    ValueType,
    rows_problems,
    value_as_typed,
)
from webhooks.payloads.values import date_writer
from webhooks.payloads.variables import WHOLE_EVENT, as_text, finder, known_names, variable_problem

__all__ = [
    "FORMATS",
    "MAX_DEPTH",
    "MAX_PLACES",
    "MAX_ROWS",
    "MAX_TEMPLATE_LENGTH",
    "MAX_VALUE_LENGTH",
    "WHOLE_EVENT",
    "Format",
    "InvalidMapping",
    "InvalidPayload",
    "Problem",
    "Rendered",
    "ValueType",
    "as_text",
    "build_document",
    "compile_request",
    "date_writer",
    "escape",
    "finder",
    "fingerprint",
    "has_place",
    "instant",
    "known_names",
    "load_json",
    "only_variable",
    "parse_path",
    "read_document",
    "render",
    "renders_verbatim",
    "rows_as_places",
    "rows_problems",
    "sent_as",
    "shown",
    "template_problems",
    "template_variables",
    "value_as_typed",
    "variable_problem",
]
