"""Finds secrets in foreign text, however it spells them, and masks them.

Receivers and providers echo what they were sent: as it was, inside JSON or HTML, percent-encoded,
in Base64 at any place of a longer text, or cut off. Pure, and it raises nothing: whatever an answer
holds, its attempt is stored.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable
from html.entities import codepoint2name
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from webhooks.security.encryption import MASK

# Shorter texts are in too many words; masking them would only hide the words.
SHORTEST = 4
# So many first characters of a longer secret are masked also when the rest is missing.
_HEAD = 12
# Base64 of a short text is as common as the text.
_SHORTEST_BASE64 = 6
# Answers that are always the same are looked at once.
_REMEMBERED, _REMEMBERED_CHARACTERS = 64, 1024


class _Needle(NamedTuple):
    whole: str
    shown: str


class _Span(NamedTuple):
    start: int
    end: int
    shown: str


class Masker:
    """Some secrets in every spelling, worked out once for many texts."""

    __slots__ = ("_heads", "_longest", "_seen")

    def __init__(
        self,
        secrets: Iterable[str],
        *,
        shown: Callable[[str], str] = lambda _: MASK,
        is_wire: bool = False,
    ) -> None:
        """Take what to show for a secret; `is_wire` for bytes that are read as latin-1."""
        found: dict[str, str] = {}
        for secret in secrets:
            for spelling in spellings(secret):
                found.setdefault(_on_wire(spelling) if is_wire else spelling, shown(secret))
        heads: dict[str, list[_Needle]] = {}
        for whole in sorted(found):
            heads.setdefault(whole[:_HEAD], []).append(_Needle(whole, found[whole]))
        # Many spellings begin alike: a text is searched once for all of them.
        self._heads = tuple((head, tuple(needles)) for head, needles in heads.items())
        self._longest = max(map(len, found), default=0)
        self._seen: dict[tuple[str, bool], str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masker) and other._heads == self._heads

    def __hash__(self) -> int:
        return hash(self._heads)

    def mask(self, text: str, *, limit: int | None = None, is_cut: bool = False) -> str:
        """Return the text's first `limit` characters without the secrets.

        `is_cut` says that it ends where no one meant it to, so that a secret may begin there.
        """
        if limit is not None and len(text) > limit:
            # What begins before the limit is seen whole; what ends behind it is not kept.
            is_cut = is_cut or len(text) > limit + self._longest
            return self._masked(text[: limit + self._longest], is_cut)[:limit]
        if len(text) > _REMEMBERED_CHARACTERS:
            return self._masked(text, is_cut)
        key = (text, is_cut)
        if (masked := self._seen.get(key)) is None:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            masked = self._seen[key] = self._masked(text, is_cut)
        return masked

    def _masked(self, text: str, is_cut: bool) -> str:
        if hits := [(head, needles) for head, needles in self._heads if head in text]:
            spans = [span for head, needles in hits for span in _places(text, head, needles)]
            text = _without(text, spans)
        return self._without_tail(text) if is_cut else text

    def _without_tail(self, text: str) -> str:
        """Mask what a secret may begin with at the end of the text."""
        longest, shown = 0, ""
        for needle in (needle for _, needles in self._heads for needle in needles):
            for length in range(min(len(needle.whole), len(text)), max(SHORTEST - 1, longest), -1):
                if text.endswith(needle.whole[:length]):
                    longest, shown = length, needle.shown
                    break
        return text[:-longest] + shown if longest else text


def _places(text: str, head: str, needles: Iterable[_Needle]) -> Iterable[_Span]:
    """Give each place where secrets begin, as far as the one that goes furthest."""
    at = text.find(head)
    while at >= 0:
        ends = [(_end(text, at, len(head), needle.whole), needle) for needle in needles]
        # Of two that go as far, the one that is there to its end.
        end, _, shown = max((end, end - at == len(one.whole), one.shown) for end, one in ends)
        yield _Span(at, end, shown)
        # A secret that repeats itself may begin again inside.
        at = text.find(head, at + 1)


def _end(text: str, at: int, known: int, whole: str) -> int:
    """Return where a text stops to agree with a secret; `known` characters from `at` do agree."""
    least, most = known, len(whole)
    while least < most:
        middle = (least + most + 1) // 2
        if text.startswith(whole[:middle], at):
            least = middle
        else:
            most = middle - 1
    return at + least


def _without(text: str, spans: Iterable[_Span]) -> str:
    """Put one mask for each span, and for those that overlap the mask of the first."""
    parts, done = [], 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start >= done:
            parts += [text[done : span.start], span.shown]
        done = max(done, span.end)
    return "".join([*parts, text[done:]])


def spellings(secret: str) -> set[str]:
    """Return every form in which an echo may spell a secret; none of one that is too short."""
    if len(secret) < SHORTEST:
        return set()
    # Also as a server reads UTF-8 that takes header bytes for latin-1.
    plain = {secret, _on_wire(secret)}
    # Credentials of a client are form-encoded first (RFC 6749 section 2.3.1).
    packed = {*plain, quote_plus(secret, errors="surrogatepass")}
    encoded = {one for text in packed for one in _in_base64(text)}
    return {form for text in plain | encoded for form in _escaped(text)}


def _on_wire(text: str) -> str:
    """Return the UTF-8 bytes of a text, each as one character."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _in_base64(text: str) -> Iterable[str]:
    """Give what a text is in Base64, wherever in a longer one it begins (RFC 4648 4 and 5)."""
    data = text.encode("utf-8", "surrogatepass")
    for before in range(3):
        # The first characters also hold bits of what is before, the last of what follows.
        first, kept = (0, 2, 3)[before], (before + len(data)) * 8 // 6
        core = base64.b64encode(bytes(before) + data).decode()[first:kept]
        if len(core) >= _SHORTEST_BASE64:
            yield from (core, core.translate(_URL_SAFE))
    whole = base64.b64encode(data).decode()
    if len(whole) >= _SHORTEST_BASE64:
        yield from (whole, whole.translate(_URL_SAFE))


_URL_SAFE = str.maketrans("+/", "-_")


def _escaped(text: str) -> Iterable[str]:
    """Give a text as it is and as documents, pages and addresses escape it."""
    if text.isascii() and text.isalnum():
        # Nothing escapes letters and digits.
        return {text}
    documents = {*_in_json(text)}
    forms = {text, *documents, *_in_page(text), *_in_percent(text)}
    for document in documents:
        # JSON inside JSON, and inside a page.
        forms |= {json.dumps(document)[1:-1], json.dumps(document, ensure_ascii=False)[1:-1]}
        forms |= {document.translate(quotes) for quotes in _QUOTES}
    return {one for form in forms for one in (form, _HEX.sub(_lower, form), _HEX.sub(_upper, form))}


# The digits of %2b, \u002b and &#x2b;, which are written in either case.
_HEX = re.compile(
    r"(?<=%)[0-9A-F]{2}|(?<=%25)[0-9A-F]{2}|(?<=\\u)[0-9A-F]{4}|(?<=&#x)[0-9A-F]+(?=;)", re.I
)


def _lower(found: re.Match[str]) -> str:
    return found[0].lower()


def _upper(found: re.Match[str]) -> str:
    return found[0].upper()


# What serializers escape so that JSON can stand inside HTML.
_FOR_HTML = tuple(
    {ord(one): f"\\u{ord(one):04{case}}" for one in characters}
    for characters, case in (
        ("", "x"),
        # Go and Rails.
        ("<>&", "x"),
        # Jinja.
        ("<>&'", "x"),
        # Gson.
        ("<>&'=", "x"),
        # PHP, whose letters stay in lower case.
        ("<>&'", "X"),
        ("<>&'\"", "X"),
        # .NET.
        ("<>&'\"+`", "X"),
    )
)


def _in_json(text: str) -> Iterable[str]:
    for written in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        document = written[1:-1]
        for table in _FOR_HTML:
            # A quotation mark has its backslash already.
            form = document.replace('\\"', '"') if ord('"') in table else document
            form = form.translate(table)
            yield from (form, form.replace("/", "\\/"))


# How pages write what is special in HTML.
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_QUOTES = tuple(
    str.maketrans(_MARKUP | quotes)
    for quotes in (
        # Text between tags, and PHP before 8.1.
        {},
        {'"': "&quot;"},
        # Python; lodash, Ruby and Java; MarkupSafe and Go; PHP; XML.
        {'"': "&quot;", "'": "&#x27;"},
        {'"': "&quot;", "'": "&#39;"},
        {'"': "&#34;", "'": "&#39;"},
        {'"': "&quot;", "'": "&#039;"},
        {'"': "&quot;", "'": "&apos;"},
    )
)
_PAGES = (
    *_QUOTES,
    *(
        str.maketrans(_MARKUP | more)
        for more in (
            # OWASP; Mustache; templates of Go; .NET; filters of PHP.
            {'"': "&quot;", "'": "&#x27;", "/": "&#x2F;"},
            {'"': "&quot;", "'": "&#39;", "/": "&#x2F;", "`": "&#x60;", "=": "&#x3D;"},
            {'"': "&#34;", "'": "&#39;", "+": "&#43;"},
            {'"': "&quot;", "'": "&#x27;", "+": "&#x2B;"},
            {"&": "&#38;", "<": "&#60;", ">": "&#62;", '"': "&#34;", "'": "&#39;"},
        )
    ),
)
# &ouml; and what else has a name outside ASCII.
_NAMED = {code: f"&{name};" for code, name in codepoint2name.items() if code > 127}


def _in_page(text: str) -> Iterable[str]:
    for quotes in _PAGES:
        page = text.translate(quotes)
        yield page
        if not page.isascii():
            yield page.translate(_NAMED)
            for reference in ("&#%d;", "&#x%X;"):
                yield "".join(one if one.isascii() else reference % ord(one) for one in page)


# What stays as it is in an address, besides letters, digits and -._~.
_SAFE = (
    # RFC 3986; encodeURIComponent.
    "",
    "!'()*",
    # Python; what a path may hold; encodeURI; paths of Go.
    "/",
    "/:@!$&'()*+,;=",
    "/:@!$&'()*+,;=?#",
    ":@$&+=",
    # Forms of .NET; forms of browsers and Java.
    "!()*",
    "*",
)
# Those that are applied to their own outcome often enough.
_SAFE_TWICE = _SAFE[:2]


def _in_percent(text: str) -> Iterable[str]:
    for safe in _SAFE:
        form = quote(text, safe=safe, errors="surrogatepass")
        yield form
        # In a form; the tilde was not always safe (RFC 2396 and before).
        yield from (form.replace("%20", "+"), form.replace("%20", "+").replace("~", "%7E"))
        if safe in _SAFE_TWICE:
            yield form.replace("%", "%25")
