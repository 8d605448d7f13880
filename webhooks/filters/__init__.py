"""Filters: a tree of conditions on an event's variables, compiled once and matched often.

A tree is `{}` (everything passes), `{"all": [...]}`, `{"any": [...]}`, or one condition
`{"variable": "duration_seconds", "operator": "at_least", "value": 60}`. Nothing is evaluated as
code or as a regular expression. Start reading at `tree`.
"""

from webhooks.filters.durations import duration_text, parse_duration
from webhooks.filters.kinds import FITTING, PRESETS, Preset, kind_of, known, label_of
from webhooks.filters.operators import (
    EQUALITY,
    LISTS,
    NUMERIC,
    OPERATOR_LABELS,
    PRESENCE,
    FilterError,
    Folded,
    Kind,
    Operator,
    as_boolean,
)
from webhooks.filters.sentences import (
    condition_words,
    found_words,
    refusal_words,
    sentence,
    value_words,
)
from webhooks.filters.tree import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    Filter,
    Judgement,
    compile_filter,
)
