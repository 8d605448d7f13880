"""Imported files: rejected as a whole or by entry, with messages; accepted data can be stored."""

import json

from hypothesis import strategies as st

from tests.fuzz.mutations import VALUES
from tests.fuzz.target import FuzzTarget
from webhooks.ui.transfer import document

_JSON = st.recursive(
    st.one_of(st.sampled_from(VALUES), st.text(max_size=8), st.integers()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)
_DEFAULTS = {name: field.get_default() for name, field in document.FIELDS.items()}
_ENTRY = st.builds(
    lambda sound, odd: {"name": "CRM", **sound, **odd},
    st.sets(st.sampled_from(sorted(_DEFAULTS)), max_size=4).map(
        lambda names: {name: _DEFAULTS[name] for name in names - {"name"}}
    ),
    st.dictionaries(
        st.sampled_from([*sorted(_DEFAULTS), "uid", "headers", "connection", "client_secret", "x"]),
        _JSON,
        max_size=2,
    ),
)
INPUTS = st.one_of(
    st.lists(_ENTRY, max_size=3).map(lambda all: json.dumps({"version": 1, "webhooks": all})),
    _ENTRY.map(json.dumps),
    _JSON.map(json.dumps),
    st.text(max_size=30),
    st.sampled_from(["[" * 1200, '{"a":' * 1200, '{"webhooks": 1}', "\ufeff[]", "NaN", "9" * 6000]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


def check(given: bytes) -> bool:
    try:
        entries = document.read(given)
    except document.FileError as error:
        assert str(error)
        return False
    is_taken = False
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        errors = document.key_errors(entry)
        assert all(errors)
        is_taken |= not errors
        text = json.dumps(entry, ensure_ascii=False)
        text.encode()
        assert "\\u0000" not in text
        assert errors or not entry.keys() & {"client_secret", "access_token"}
    return is_taken


TARGET = FuzzTarget(name="imported files", inputs=INPUTS, check=check, share=2)
