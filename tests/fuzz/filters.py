"""The filter language: a tree is rejected with a message, or decides about every event."""

import json

from hypothesis import strategies as st

from tests.fuzz.mutations import VALUES, Json
from tests.fuzz.target import FuzzTarget
from webhooks import filters

_VARIABLES = ("duration_seconds", "event", "fields.city", "fields.a.b", "status", "direction",
              "caller_number", "occurred_at", "tags", "", "a[0]", "__class__", "no")  # fmt: skip
_SCALAR = st.one_of(
    st.sampled_from(VALUES),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=12),
    st.lists(st.text(max_size=4), max_size=3),
)
_CONDITION = st.fixed_dictionaries(
    {
        "variable": st.sampled_from(_VARIABLES),
        "operator": st.sampled_from([*map(str, filters.Operator), "nonsense"]),
        "value": _SCALAR,
    }
)
_TREE = st.recursive(
    _CONDITION,
    lambda inner: st.builds(
        lambda kind, children: {kind: children},
        st.sampled_from(["all", "any"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)
_DOCUMENT = st.dictionaries(
    st.sampled_from([*_VARIABLES, "fields"]),
    st.one_of(_SCALAR, st.dictionaries(st.sampled_from(["city", "a"]), _SCALAR, max_size=2)),
    max_size=6,
)
INPUTS = st.builds(
    lambda tree, document: (Json(tree=tree), Json(document=document)), _TREE, _DOCUMENT
)


def check(given: tuple[Json, Json]) -> bool:
    tree, document = given[0]["tree"], given[1]["document"]
    try:
        found = filters.compile_filter(tree)
    except filters.FilterError as error:
        assert str(error)
        return False
    assert isinstance(filters.sentence(tree), str)
    if not isinstance(document, dict):
        return False
    passes = found.matches(document)
    assert passes in (True, False)
    refusals = found.explain(document)
    assert (refusals == []) is passes
    assert passes or filters.refusal_words(refusals)
    judgement = found.judge(document)
    assert judgement is None or judgement.passes is passes
    again = filters.compile_filter(json.loads(json.dumps(tree)))
    assert again.matches(document) is passes
    return True


TARGET = FuzzTarget(name="filters", inputs=INPUTS, check=check, share=6)
