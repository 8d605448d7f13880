"""The part of Markdown that docs/receivers.md is written in, made into HTML.

Headings, paragraphs, lists, tables, code, `code`, **bold** and links. Every text is escaped.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import slugify

_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(([^)]+)\)")
_ITEM = re.compile(r"(?:-|\d+\.) +")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A page: its title, its HTML, and the id and text of each heading of the second level."""

    title: str
    body: SafeString
    sections: tuple[tuple[str, str], ...]


def read(text: str, *, pages: Mapping[str, str]) -> Document:
    """Return a document; `pages` are the addresses of other documents that it links to."""
    reader = _Reader(pages)
    title, *lines = text.split("\n")
    body = _joined(reader.blocks(lines))
    return Document(title=title.removeprefix("# "), body=body, sections=tuple(reader.sections))


class _Reader:
    def __init__(self, pages: Mapping[str, str]) -> None:
        self.pages = pages
        self.sections: list[tuple[str, str]] = []
        self._code_count = 0

    def blocks(self, lines: list[str]) -> Iterator[SafeString]:
        rest = list(lines)
        while rest:
            line = rest[0]
            if line.startswith("```"):
                end = rest.index("```", 1)
                yield self._code("\n".join(rest[1:end]))
                rest = rest[end + 1 :]
            elif line.startswith("## "):
                text = line.removeprefix("## ")
                self.sections.append((slugify(text), text))
                yield format_html('<h2 id="{}">{}</h2>', slugify(text), text)
                rest = rest[1:]
            elif line.startswith("### "):
                yield self._foldable(line.removeprefix("### "), rest[1 : (end := _end(rest))])
                rest = rest[end:]
            elif line.startswith("    "):
                taken = _while(rest, lambda one: one.startswith("    "))
                yield self._code("\n".join(one[4:] for one in taken))
                rest = rest[len(taken) :]
            elif line.startswith("|"):
                taken = _while(rest, lambda one: one.startswith("|"))
                yield self._table(taken)
                rest = rest[len(taken) :]
            elif line.strip():
                taken = _while(rest, lambda one: bool(one.strip()))
                yield self._list(taken) if _ITEM.match(line) else self._paragraph(taken)
                rest = rest[len(taken) :]
            else:
                rest = rest[1:]

    def _foldable(self, heading: str, lines: list[str]) -> SafeString:
        """Return a section of the third level, one of several of which one is read."""
        return format_html(
            '<details class="disclosure help-language" name="language">'
            "<summary><h3>{}</h3></summary>{}</details>",
            heading,
            _joined(self.blocks(lines)),
        )

    def _code(self, text: str) -> SafeString:
        self._code_count += 1
        name = f"code-{self._code_count}"
        return format_html(
            '<div class="help-code"><pre class="code" id="{}" tabindex="0">{}</pre>'
            '<button type="button" class="btn is-small" data-copy-from="#{}">{}</button></div>',
            name,
            text,
            name,
            "Copy",
        )

    def _table(self, lines: list[str]) -> SafeString:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        head = _joined(
            format_html('<th scope="col">{}</th>', self._line(cell))
            if cell
            else SafeString("<td></td>")
            for cell in rows[0]
        )
        body = format_html_join(
            "",
            "<tr>{}</tr>",
            (
                (format_html_join("", "<td>{}</td>", ((self._line(cell),) for cell in row)),)
                for row in rows[2:]
            ),
        )
        return format_html(
            '<div class="table-wrap" tabindex="0"><table class="table is-compact">'
            "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>",
            head,
            body,
        )

    def _list(self, lines: list[str]) -> SafeString:
        items: list[str] = []
        for line in lines:
            if _ITEM.match(line):
                items.append(_ITEM.sub("", line, count=1))
            else:
                items[-1] += f" {line.strip()}"
        tag = SafeString("ul" if lines[0].startswith("-") else "ol")
        made = format_html_join("", "<li>{}</li>", ((self._line(item),) for item in items))
        return format_html("<{}>{}</{}>", tag, made, tag)

    def _paragraph(self, lines: list[str]) -> SafeString:
        return format_html("<p>{}</p>", self._line(" ".join(lines)))

    def _line(self, text: str) -> SafeString:
        parts, start = [], 0
        for found in _INLINE.finditer(text):
            code, bold, label, address = found.groups()
            parts.append(conditional_escape(text[start : found.start()]))
            if code:
                parts.append(format_html("<code>{}</code>", code))
            elif bold:
                parts.append(format_html("<strong>{}</strong>", bold))
            else:
                address = self.pages.get(address, address)
                parts.append(format_html('<a href="{}">{}</a>', address, label))
            start = found.end()
        parts.append(conditional_escape(text[start:]))
        return _joined(parts)


def _end(lines: list[str]) -> int:
    """Return where the section that begins with the first line ends; code holds no heading."""
    is_code = False
    for number, line in enumerate(lines):
        is_code ^= line.startswith("```")
        if number and not is_code and line.startswith(("## ", "### ")):
            return number
    return len(lines)


def _while(lines: list[str], holds: Callable[[str], bool]) -> list[str]:
    number = next((number for number, line in enumerate(lines) if not holds(line)), len(lines))
    return lines[:number]


def _joined(parts: Iterable[SafeString]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts))
