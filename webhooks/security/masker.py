"""The masker: removes secrets from text of others before it is stored or shown.

`Masker` finds known secrets as they are, in Base64, in hex and cut off, each also escaped up to
twice as in URLs, JSON or HTML, in lines of Base64, or in UTF-16. It unescapes the text instead of
generating every spelling of a secret, so its time is linear in the length of the text and no
pattern backtracks. `NameMasker` masks values by the names of their fields. Both are pure and never
raise, so that an attempt is stored whatever its response contains.
"""

import base64
import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from typing import AnyStr, NamedTuple
from urllib.parse import quote_plus

# Shown in place of a secret.
MASK = "********"
# Shorter secrets occur in too many words to be masked.
SHORTEST = 4
# Length in characters at which the beginning of a longer secret is masked even without its end.
_CUT = 12
# Bytes of a secret that are searched for before the rest is compared.
_SEED = 8
# Shorter Base64 occurs in too many texts.
_SHORTEST_BASE64 = 6
# Bytes compared at once while a text matches a secret.
_CHUNK = 32
# Characters read beyond a limit, to recognize a secret that begins before it.
_LOOKAHEAD = 64
# Identical responses are searched once. The cache is shared by all maskers, as there may be one for
# each of thousands of webhooks.
_CACHE_SIZE, _MAX_CACHED_BYTES = 4096, 1024
# From this many searches on, a text is split into its parts, which costs as much as about fifty
# searches.
_SPLIT_AFTER_SEARCHES = 50
# A text in which more beginnings of secrets are found, in all its layers, was written to make this
# take long. It is masked as a whole.
_MOST_BEGINNINGS = 2000
# Charsets of responses in Western Europe and Ukraine, and those of two bytes.
_CHARSETS = ("latin-1", "cp1251", "koi8-u", "cp866", "iso8859-5", "utf-16-le", "utf-16-be")
# Fold URL-safe Base64 (RFC 4648 section 5) and form-encoded spaces to the usual forms.
_FOLDED = bytes.maketrans(b" -_", b"++/")


class _Needle(NamedTuple):
    """One form of a secret, folded; its first `least` bytes identify it."""

    whole: bytes
    least: int
    shown: bytes
    # Its first bytes, at most `_SEED`.
    seed: bytes

    @property
    def overlaps(self) -> int:
        """Return how many beginnings a text may have for each one that overlaps no other."""
        ends = (self.seed[length:] for length in range(1, len(self.seed)))
        is_periodic = self.seed in self.whole[1:] or any(map(self.seed.startswith, ends))
        return len(self.seed) if is_periodic else 1


class _Span(NamedTuple):
    start: int
    end: int
    is_whole: bool
    shown: bytes


# By id of the needles, text and whether it is cut: the masked text. The needles are kept so that
# their id is not reused.
_seen: dict[tuple[int, bytes, bool], tuple[bytes, tuple[_Needle, ...]]] = {}


class Masker:
    """Some secrets in all their forms, computed once for many texts."""

    __slots__ = ("_needles", "_seeds", "_short_seeds")

    def __init__(
        self, secrets: Iterable[str], *, shown: Callable[[str], str] = lambda _: MASK
    ) -> None:
        """Take the secrets, and a function that returns the mask of one."""
        found: dict[bytes, _Needle] = {}
        for secret in secrets:
            mask = shown(secret).encode()
            for whole, least in _forms(secret):
                seed = whole[: min(_SEED, least)]
                found.setdefault(whole, _Needle(whole, least, mask, seed))
        self._needles = tuple(found.values())
        seeds = {needle.seed for needle in self._needles}
        self._seeds = tuple(seed for seed in seeds if len(seed) == _SEED)
        self._short_seeds = tuple(seed for seed in seeds if len(seed) < _SEED)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masker) and other._needles == self._needles

    def __hash__(self) -> int:
        return hash(self._needles)

    def mask(self, text: str, *, limit: int | None = None, is_cut: bool = False) -> str:
        """Return the text's first `limit` characters without the secrets.

        `is_cut`: the text was cut, so that a secret may begin at its end.
        """
        text, is_cut = _cut(text, limit, is_cut)
        data = self._masked(text.encode("utf-8", "surrogatepass"), is_cut)
        return data.decode("utf-8", "surrogatepass")[:limit]

    def mask_bytes(self, data: bytes, *, limit: int | None = None, is_cut: bool = False) -> bytes:
        """Mask bytes; `limit` is in bytes."""
        data, is_cut = _cut(data, limit, is_cut)
        return self._masked(data, is_cut)[:limit]

    def _masked(self, data: bytes, is_cut: bool) -> bytes:
        if len(data) < SHORTEST:
            return data
        if len(data) > _MAX_CACHED_BYTES:
            return _without(data, self._spans(data, is_cut))
        key = id(self._needles), data, is_cut
        if (seen := _seen.get(key)) is None:
            if len(_seen) >= _CACHE_SIZE:
                _seen.clear()
            may_be = is_cut or self._has_beginning(data)
            plain = _without(data, self._spans(data, is_cut)) if may_be else data
            seen = _seen[key] = plain, self._needles
        return seen[0]

    def _has_beginning(self, data: bytes) -> bool:
        """Return whether a short text may contain a secret: rarely true, and quick to check.

        With thousands of maskers only few texts are cached.
        """
        for layer, text in _cached_layers(data):
            if layer.has_any(self._seeds, text) or _has_any(self._short_seeds, text):
                return True
        return False

    def _spans(self, data: bytes, is_cut: bool) -> Iterator[_Span]:
        if not self._needles:
            return
        layers = _layers if len(data) > _MAX_CACHED_BYTES else _cached_layers
        left = _MOST_BEGINNINGS
        for layer, text in layers(data):
            cut_at = _cut_at(text) if is_cut else len(text) + 1
            for needle in self._needles:
                if needle.seed in text:
                    left -= text.count(needle.seed) * needle.overlaps
                    if left < 0:
                        yield _Span(0, len(data), True, MASK.encode())
                        return
                elif not is_cut:
                    continue
                yield from layer.spans(text, needle, cut_at=cut_at)


def _has_any(seeds: Iterable[bytes], text: bytes) -> bool:
    return any(seed in text for seed in seeds)


def _cut(text: AnyStr, limit: int | None, is_cut: bool) -> tuple[AnyStr, bool]:
    """Return the part of a text needed for its first `limit` characters, and whether it is cut."""
    if limit is None or len(text) <= limit + _LOOKAHEAD:
        return text, is_cut
    return text[: limit + _LOOKAHEAD], True


# ---- The forms of a secret ---------------------------------------------------------------------


def _forms(secret: str) -> Iterator[tuple[bytes, int]]:
    """Yield each form of a secret and the length that identifies it; none for a short secret."""
    if len(secret) < SHORTEST:
        return
    data = secret.encode("utf-8", "surrogatepass")
    # Also as echoed by servers that decode UTF-8 in headers as latin-1.
    plain = dict.fromkeys((data, data.decode("latin-1").encode()))
    for one in (*plain, *([] if data.isascii() else _in_charsets(secret))):
        yield one.translate(_FOLDED), len(one)
    for digits in (data.hex(), data.hex().upper()):
        yield digits.encode(), len(digits)
    # OAuth client credentials are form-encoded before Base64 (RFC 6749 section 2.3.1).
    for one in dict.fromkeys((*plain, quote_plus(data).encode())):
        yield from _in_base64(one)


def _in_charsets(secret: str) -> Iterator[bytes]:
    """Yield a secret that is not ASCII in other charsets that a response may declare."""
    for charset in _CHARSETS:
        with suppress(UnicodeError):
            yield secret.encode(charset)


def _in_base64(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the Base64 of bytes at each of the three offsets in a longer text (RFC 4648)."""
    for before in range(3):
        # The first characters also encode bits of what precedes, the last bits of what follows.
        first, kept = (0, 2, 3)[before], (before + len(data)) * 8 // 6
        whole = base64.b64encode(bytes(before) + data)[first:].translate(_FOLDED)
        if kept - first >= _SHORTEST_BASE64:
            yield whole, kept - first
        elif not before:
            # Too common as part of a longer text.
            yield whole, len(whole)


# ---- The text, unescaped -----------------------------------------------------------------------


class _Layer:
    """A text, original or unescaped, that maps positions back to the original."""

    __slots__ = ("_offsets", "_parent", "_parts", "_pieces", "_searches", "text")

    def __init__(
        self, text: bytes, parent: "_Layer | None" = None, pieces: tuple[list[bytes], ...] = ()
    ) -> None:
        self.text = text
        self._parent = parent
        # Text and escapes alternating: as in the parent, and as here.
        self._pieces = pieces
        self._offsets: list[list[int]] = []
        # Number of searches in this text, and its parts from `_SPLIT_AFTER_SEARCHES` searches on.
        self._searches = 0
        self._parts: set[bytes] | None = None

    def has_any(self, seeds: Sequence[bytes], text: bytes) -> bool:
        """Return whether one of the seeds, all of `_SEED` bytes, is in `text`, this layer folded.

        A response that many receivers send is split into parts once; then each seed is one lookup
        in a set. Unescaped layers are not split: a receiver could fill memory with them, at about a
        hundred times the size of each.
        """
        if self._parts is None:
            self._searches += 1
            if self._parent is not None or self._searches < _SPLIT_AFTER_SEARCHES:
                return _has_any(seeds, text)
            ends = range(_SEED, len(text) + 1)
            self._parts = {text[end - _SEED : end] for end in ends}
        return not self._parts.isdisjoint(seeds)

    def unescaped(self, escape: "_Escape") -> "_Layer | None":
        """Return the layer with one kind of escapes decoded, or None if it has none."""
        if escape.sign not in self.text:
            return None
        pieces = escape.pattern.split(self.text)
        if len(pieces) == 1:
            return None
        plain = {one: escape.plain(one) for one in set(pieces[1::2])}
        made = pieces.copy()
        made[1::2] = [plain[one] for one in pieces[1::2]]
        return _Layer(b"".join(made), self, (pieces, made))

    def spans(self, text: bytes, needle: _Needle, *, cut_at: int) -> Iterator[_Span]:
        """Yield where the secret is in the original, whole or cut; `text` is this layer folded.

        A match that reaches `cut_at` is at the end of a cut text.
        """
        end = 0
        for start, end, is_whole in _merged(_matches(text, needle), needle.least):
            span = self._original(start, end, needle, is_whole=is_whole)
            if is_whole or span.end - span.start >= _CUT or end >= cut_at:
                yield span
        if end < cut_at <= len(text):
            # The cut text ends with a beginning shorter than a seed.
            for end in (cut_at, len(text)):
                for length in range(SHORTEST, len(needle.seed)):
                    if text.endswith(needle.whole[:length], 0, end):
                        yield self._original(end - length, end, needle, is_whole=False)

    def _original(self, start: int, end: int, needle: _Needle, *, is_whole: bool) -> _Span:
        layer = self
        while layer._parent is not None:
            start, end = layer._before(start, end)
            layer = layer._parent
        if not is_whole and (rest := _PARTIAL.match(layer.text, end)):
            # Cut within an escape or a character.
            end = rest.end()
        return _Span(start, end, is_whole, needle.shown)

    def _before(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the parent; an escape is included completely or not at all."""
        if not self._offsets:
            self._offsets = [[0, *accumulate(map(len, pieces))] for pieces in self._pieces]
        there, here = self._offsets
        first, last = bisect_right(here, start) - 1, bisect_left(here, end)
        # An odd piece is an escape.
        start = there[first] + (0 if first % 2 else start - here[first])
        end = there[last] - (here[last] - end if last % 2 else 0)
        return start, end


class _Escape(NamedTuple):
    """One kind of escapes: a sign in each of them, their pattern, and a decoder for one."""

    sign: bytes
    pattern: re.Pattern[bytes]
    plain: Callable[[bytes], bytes]


def _from_percent(escape: bytes) -> bytes:
    return bytes.fromhex(escape[1:].decode())


def _from_backslash(escape: bytes) -> bytes:
    kind = escape[1:2]
    if kind == b"x":
        return bytes.fromhex(escape[2:].decode())
    if kind == b"u":
        # One code unit of UTF-16, or two for a character beyond U+FFFF.
        units = bytes.fromhex(escape.replace(b"\\u", b"").decode())
        return units.decode("utf-16-be", "surrogatepass").encode("utf-8", "surrogatepass")
    return _LETTERS.get(kind, kind)


_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _from_reference(escape: bytes) -> bytes:
    return html.unescape(escape.decode()).encode("utf-8", "surrogatepass")


_ESCAPES = (
    _Escape(b"%", re.compile(rb"(%[0-9A-Fa-f]{2})"), _from_percent),
    _Escape(
        b"\\",
        re.compile(
            rb"(\\u[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}"
            rb"|\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[\"'\\/bfnrt]))"
        ),
        _from_backslash,
    ),
    _Escape(
        b"&",
        re.compile(rb"(&(?:#(?:[Xx][0-9A-Fa-f]{1,6}|[0-9]{1,7})|[A-Za-z][A-Za-z0-9]{1,31});)"),
        _from_reference,
    ),
    # ASCII in UTF-16 or UTF-32.
    _Escape(b"\0", re.compile(rb"(\0+)"), lambda _zeros: b""),
    # Base64 in lines of 64 or 76 characters (RFC 7468, RFC 2045).
    _Escape(
        b"\n",
        re.compile(rb"((?:\r\n(?<=[\w+/-]{60}\r\n)|\n(?<=[\w+/-]{60}\n))[ \t]*+)(?=[\w+/=-])"),
        lambda _line_end: b"",
    ),
)
# A cut escape, not matched by any pattern above; also of twice escaped text.
_PART = (
    rb"(?:%(?:25)?[0-9A-Fa-f]?(?![0-9A-Fa-f])"
    rb"|\\{1,3}(?:u[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?(?![0-9A-Fa-f\"'\\/bfnrtux])"
    rb"|&(?:#(?:[Xx]?[0-9A-Fa-f]{0,6})|[A-Za-z0-9]{0,8})(?![0-9A-Za-z;#]))"
)
_PARTIAL = re.compile(_PART + rb"|[\x80-\xbf]{1,3}")
_PARTIAL_ESCAPE = re.compile(_PART + rb"\Z")


def _cut_at(text: bytes) -> int:
    """Return where a cut text ends, without its cut escape."""
    # No escape is longer than 12 bytes.
    found = _PARTIAL_ESCAPE.search(text, max(0, len(text) - 12))
    return found.start() if found else len(text)


def _layers(data: bytes) -> list[tuple[_Layer, bytes]]:
    """Return the layers of a text: as it is, unescaped once, and unescaped twice.

    Each comes with its folded text.
    """
    original = _Layer(data)
    layers = {data: original}
    for one in _ESCAPES:
        if (once := original.unescaped(one)) is not None:
            layers.setdefault(once.text, once)
            for other in _ESCAPES:
                if (twice := once.unescaped(other)) is not None:
                    # Two kinds of escapes give the same text in either order.
                    layers.setdefault(twice.text, twice)
    return [(layer, text.translate(_FOLDED)) for text, layer in layers.items()]


# Thousands of receivers send the same response within a second, each with its own secrets.
_cached_layers = lru_cache(maxsize=64)(_layers)


# ---- The search --------------------------------------------------------------------------------


def _matches(text: bytes, needle: _Needle) -> Iterator[tuple[int, int]]:
    """Yield where a secret begins and how far the text matches it, without backtracking.

    Source: Knuth, Morris and Pratt, for secrets that contain their beginning again.
    """
    whole, seed = needle.whole, needle.seed
    borders = _borders(whole) if seed in whole[1:] else None
    start, agreed = text.find(seed), len(seed)
    while start >= 0:
        agreed = _agreement(text, start, whole, agreed)
        end = start + agreed
        yield start, end
        if borders:
            agreed = borders[agreed]
            while agreed >= len(seed) and text[end : end + 1] != whole[agreed : agreed + 1]:
                agreed = borders[agreed]
            if agreed >= len(seed):
                start = end - agreed
                continue
        start, agreed = text.find(seed, max(start, end - len(seed)) + 1), len(seed)


def _merged(matches: Iterable[tuple[int, int]], least: int) -> Iterator[tuple[int, int, bool]]:
    """Merge overlapping matches; yield each with whether it contains the whole secret."""
    first = last = 0
    is_whole = False
    for start, end in matches:
        if start >= last:
            if last:
                yield first, last, is_whole
            first = start
        last, is_whole = end, end - start >= least or (is_whole and start < last)
    if last:
        yield first, last, is_whole


def _agreement(text: bytes, start: int, whole: bytes, agreed: int) -> int:
    """Return how many bytes from `start` match a secret, given that the first `agreed` match."""
    while (chunk := whole[agreed : agreed + _CHUNK]) and text.startswith(chunk, start + agreed):
        agreed += len(chunk)
    for expected, found in zip(chunk, text[start + agreed : start + agreed + _CHUNK], strict=False):
        if expected != found:
            break
        agreed += 1
    return agreed


def _borders(whole: bytes) -> list[int]:
    """Return for each prefix the length of its longest proper suffix that is also a prefix."""
    borders, length = [0, 0], 0
    for byte in whole[1:]:
        while length and whole[length] != byte:
            length = borders[length]
        length += whole[length] == byte
        borders.append(length)
    return borders


def _without(data: bytes, spans: Iterable[_Span]) -> bytes:
    """Mask each group of overlapping spans once: the mask of the first, longest, whole one."""
    parts, done = list[bytes](), 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end, not span.is_whole)):
        if span.start >= done:
            parts += (data[done : span.start], span.shown)
        done = max(done, span.end)
    return b"".join([*parts, data[done:]]) if parts else data


# ---- Names -------------------------------------------------------------------------------------

# Endings of names of secrets, singular or plural.
_ENDINGS = (
    r"(?:token|secret|password|passwd|pwd|assertion|(?:api|private|secret|client|access)[_-]?key)s?"
)
_NAMES = ("code[_-]verifier", "device[_-]code", "authorization", "bearer", "cookie", "sessionid")
# Quotes, also escaped or as HTML references, where JSON is inside a text or a page.
_QUOTE = r"""(?:\\{0,8}["']|&(?:quot|apos|\#[0-9]{1,7}|\#x[0-9a-f]{1,6});|%2[27])?"""
# Between a name and its value, also escaped for URLs or JSON.
_SEPARATOR = r"(?:[:=]>?|->|%3[ad]|\\{1,8}u003[ad])"
# The value after a scheme must not be a word of a sentence or the next `key=value`.
_SCHEME = re.compile(
    r"\b(?P<name>(?:Basic|Bearer|Digest|Token)\s+)(?![a-z_]+=\"?\w)"
    r"(?P<value>(?=[\w+/=.~-]*(?:[0-9+/=._~-]|(?-i:[a-z][A-Z])))[^\s,;\"'&<>]{6,})",
    re.IGNORECASE | re.ASCII,
)


class NameMasker:
    """Mask values by the names of their fields, and credentials by their scheme."""

    def __init__(self, *names: str, shown: Callable[[str], str] = lambda _: MASK) -> None:
        """Take names besides the usual ones, and a function that returns the mask of a value."""
        own = "|".join((*_NAMES, *names))
        # An element <code> is usually HTML's own.
        elements = "|".join(name for name in (*_NAMES, *names) if name != "code")
        self._shown = shown
        self._is_secret = re.compile(
            rf"[a-z0-9_.-]*{_ENDINGS}|{own}|proxy-authorization|set-cookie", re.IGNORECASE
        )
        self._field = re.compile(
            rf"""(?P<name>\b(?:[a-z0-9_]*{_ENDINGS}|{own}){_QUOTE}\s*{_SEPARATOR}\s*
            (?:\[\s*)?b?{_QUOTE})
            (?!(?:None|True|False|null)\b)
            (?P<value>(?<=[^\\]")(?:[^"\\]++|\\[\s\S])++|(?<=[^\\]')(?:[^'\\]++|\\[\s\S])++
            |[^\s"'&<>,;{{}}()\[\]]{{{SHORTEST},}})""",
            re.IGNORECASE | re.VERBOSE,
        )
        # ("X-Api-Key", "value"), as Python prints headers.
        self._pair = re.compile(
            rf"""(?P<name>(?<=\()["'](?:[a-z0-9_.-]*{_ENDINGS}|{own})["'],\s*b?["'])
            (?P<value>[^"'\\\s][^"']*+)(?=["']\s*\)|\Z)""",
            re.IGNORECASE | re.VERBOSE,
        )
        # The text of an XML element, also escaped within a page.
        self._element = re.compile(
            rf"""(?P<name>(?:<|&lt;)(?:[a-z0-9_.:-]*{_ENDINGS}|(?:[a-z0-9_.-]+:)?(?:{elements}))
            (?:\s[^<>&]*)?(?:>|&gt;)\s*(?:(?:<|&lt;)!\[CDATA\[\s*)?)
            (?P<value>[^<&\]\s][^<&\]]*)""",
            re.IGNORECASE | re.VERBOSE,
        )

    def is_secret(self, name: str) -> bool:
        return self._is_secret.fullmatch(name) is not None

    def mask(self, text: str) -> str:
        # Schemes first: the other rules would take the scheme itself for the value.
        for pattern in (_SCHEME, self._pair, self._element, self._field):
            text = pattern.sub(self._masked, text)
        return text

    def _masked(self, found: re.Match[str]) -> str:
        return found["name"] + self._shown(found["value"].rstrip())
