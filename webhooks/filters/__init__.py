"""Filters: a tree of conditions on an event's variables, compiled once and matched often.

Owns the language, its limits, and the words that say which condition refused an event. A tree is
`{}` (everything passes), `{"all": [...]}`, `{"any": [...]}`, or one condition
`{"variable": "duration_seconds", "operator": "at_least", "value": 60}`. Nothing is evaluated as
code or as a regular expression. Knows no model.
"""

from webhooks.filters.durations import duration_text, parse_duration
from webhooks.filters.kinds import Kind, kind_of, known, label_of
from webhooks.filters.operators import OPERATOR_LABELS, InvalidFilter, Operator
from webhooks.filters.presets import PRESETS, Preset
from webhooks.filters.tree import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    Filter,
    Judgement,
    Refusal,
    compile_filter,
    validate,
)
from webhooks.filters.words import condition_words, found_words, refusal_words, sentence

__all__ = [
    "MAX_CONDITIONS",
    "MAX_DEPTH",
    "OPERATOR_LABELS",
    "PRESETS",
    "Filter",
    "InvalidFilter",
    "Judgement",
    "Kind",
    "Operator",
    "Preset",
    "Refusal",
    "compile_filter",
    "condition_words",
    "duration_text",
    "found_words",
    "kind_of",
    "known",
    "label_of",
    "parse_duration",
    "refusal_words",
    "sentence",
    "validate",
]
