"""Render a document of docs/ for a page: linkable headings, foldable languages, code to copy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import slugify
from django.utils.translation import gettext
from markdown_it import MarkdownIt
from markdown_it.token import Token

_FOLD = '<details class="disclosure help-language" name="language"><summary><h3>{}</h3></summary>'
_CODE = (
    '<div class="help-code"><pre class="code" id="{id}" tabindex="0">{text}</pre>'
    '<button type="button" class="btn is-small" data-copy-from="#{id}">{copy}</button></div>'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A rendered document: title, HTML, and id and text of each second-level heading."""

    title: str
    body: SafeString
    sections: tuple[tuple[str, str], ...]


def read(text: str, *, pages: Mapping[str, str], ids: Sequence[str] = ()) -> Document:
    """Render a document; `pages` maps the names of documents that it links to their URLs.

    `ids` are the heading ids of the original of a translation, so that a link to a heading works
    in every language. HTML in the document is escaped.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    for rule in ("fence", "code_block"):
        parser.add_render_rule(rule, _code)
    [_, title, _, *tokens] = parser.parse(text)
    titles = [
        inline.content
        for token, inline in pairwise(tokens)
        if (token.type, token.tag) == ("heading_open", "h2")
    ]
    own = [slugify(title, allow_unicode=True) for title in titles]
    sections = tuple(zip(ids or own, titles, strict=True))
    moved = {f"#{one}": f"#{id_}" for one, (id_, _) in zip(own, sections, strict=True)}
    addresses = {**moved, **pages}
    left = iter(sections)
    shown: list[Token] = []
    is_folded = False
    following = iter(tokens)
    for token in following:
        if token.type == "heading_open":
            heading = next(following)
            shown += [_html("</details>")] if is_folded else []
            if is_folded := token.tag == "h3":
                # A language; readers need only one of them.
                shown.append(_html(format_html(_FOLD, heading.content)))
                next(following)
                continue
            token.attrSet("id", next(left)[0])
            shown += [token, heading]
            continue
        for link in token.children or ():
            if link.type == "link_open":
                address = str(link.attrGet("href"))
                link.attrSet("href", addresses.get(unquote(address), address))
        shown.append(token)
    shown += [_html("</details>")] if is_folded else []
    body = parser.renderer.render(_tables(shown), parser.options, {})
    return Document(title=title.content, body=SafeString(body), sections=sections)


def _tables(tokens: list[Token]) -> list[Token]:
    """Make each table scrollable, and turn empty header cells into data cells."""
    shown: list[Token] = []
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            token.attrSet("class", "table is-compact")
            shown.append(_html('<div class="table-wrap" tabindex="0">'))
        elif token.type == "th_open":
            if tokens[number + 1].content:
                token.attrSet("scope", "col")
            else:
                token.tag = tokens[number + 2].tag = "td"
        shown.append(token)
        if token.type == "table_close":
            shown.append(_html("</div>"))
    return shown


def _html(content: str) -> Token:
    return Token("html_block", "", 0, content=content)


def _code(_renderer: object, tokens: list[Token], index: int, _options: Any, env: Any) -> str:
    env["code"] = env.get("code", 0) + 1
    text = tokens[index].content.removesuffix("\n")
    return format_html(_CODE, id=f"code-{env['code']}", text=text, copy=gettext("Copy"))
