"""Selects and attributes: our fast templates render the same as Django's."""

import re
from typing import Any

import pytest
from django import forms
from django.forms.renderers import DjangoTemplates, TemplatesSetting
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

CHOICES = [
    ("", "Any"),
    (1, 'One & "only" <b>'),
    ("Group <1>", [("a'b", "A"), ("é", "Ü")]),
]


def drawn(widget: forms.Widget, value: object, renderer: Any) -> str:
    html = widget.render("field", value, attrs={"id": "f"}, renderer=renderer)
    # Whitespace between tags and line breaks within a tag do not count.
    text = re.sub(r"\s+", " ", str(html)).replace(" >", ">").strip()
    return re.sub(r"> ?(.*?) ?<", r">\1<", text)


@pytest.mark.parametrize("value", ["", 1, "1", "a'b", None, "nothing of it"])
def test_a_select_is_drawn_as_djangos(value: object) -> None:
    widget = forms.Select(choices=CHOICES)
    assert drawn(widget, value, TemplatesSetting()) == drawn(widget, value, DjangoTemplates())


def test_options_carry_their_attributes() -> None:
    class Marked(forms.Select):
        def create_option(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            option = super().create_option(*args, **kwargs)
            option["attrs"] |= {"disabled": option["value"] == 1, "data-kind": "x<y"}
            return option

    html = drawn(Marked(choices=CHOICES), "", TemplatesSetting())
    assert '<option value="" selected data-kind="x&lt;y">' in html
    assert '<option value="1" disabled data-kind="x&lt;y">' in html


def test_attributes_are_drawn_as_djangos() -> None:
    attrs = {"title": "\"a\" & 'b'", "size": 1234, "required": True, "disabled": False, "x": None}
    attrs |= {"data-html": mark_safe("&lt;"), "placeholder": gettext_lazy("Save"), "empty": ""}
    widget = forms.TextInput(attrs)
    assert drawn(widget, 'a"b', TemplatesSetting()) == drawn(widget, 'a"b', DjangoTemplates())
