"""Finds secrets in foreign text, however it spells them, and masks them.

Receivers and providers echo what they were sent: as it was, inside JSON or HTML, percent-encoded,
in Base64 at any place of a longer text, or cut off. Pure, and it raises nothing: whatever an answer
holds, its attempt is stored.
"""

import base64
import json
from collections.abc import Callable, Iterable
from html import escape
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from webhooks.secrets import MASK

# Shorter texts are in too many words; masking them would only hide the words.
SHORTEST = 4
# So many first characters of a longer secret are masked also when the rest is missing.
_HEAD = 12
# Base64 of a short text is as common as the text.
_SHORTEST_BASE64 = 6
# Answers that are always the same are looked at once.
_REMEMBERED, _REMEMBERED_CHARACTERS = 64, 1024


class _Needle(NamedTuple):
    head: str
    whole: str
    shown: str


class Masker:
    """Some secrets in every spelling, worked out once for many texts."""

    __slots__ = ("_longest", "_needles", "_seen")

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
        self._needles = tuple(
            _Needle(whole[:_HEAD], whole, found[whole])
            for whole in sorted(found, key=len, reverse=True)
        )
        self._longest = max(map(len, found), default=0)
        self._seen: dict[tuple[str, bool], str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masker) and other._needles == self._needles

    def __hash__(self) -> int:
        return hash(self._needles)

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
        if hits := [needle for needle in self._needles if needle.head in text]:
            # Whole ones first: two secrets may begin alike.
            for needle in hits:
                text = text.replace(needle.whole, needle.shown)
            for needle in hits:
                text = _without_heads(text, needle)
        return self._without_tail(text) if is_cut else text

    def _without_tail(self, text: str) -> str:
        """Mask what a secret may begin with at the end of the text."""
        longest, shown = 0, ""
        for needle in self._needles:
            for length in range(min(len(needle.whole), len(text)), max(SHORTEST - 1, longest), -1):
                if text.endswith(needle.whole[:length]):
                    longest, shown = length, needle.shown
                    break
        return text[:-longest] + shown if longest else text


def _without_heads(text: str, needle: _Needle) -> str:
    """Mask each place where a secret begins, as far as it goes."""
    parts, start = [], 0
    while (at := text.find(needle.head, start)) >= 0:
        end = at + len(needle.head)
        for ours, theirs in zip(needle.whole[len(needle.head) :], text[end:], strict=False):
            if ours != theirs:
                break
            end += 1
        parts += [text[start:at], needle.shown]
        start = end
    return "".join([*parts, text[start:]]) if parts else text


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
# What some serializers escape so that JSON can stand inside HTML.
_FOR_HTML = {ord(one): f"\\u{ord(one):04x}" for one in "<>&'"}


def _escaped(text: str) -> Iterable[str]:
    yield text
    yield escape(text)
    yield escape(text).replace("&#x27;", "&#39;")
    written = json.dumps(text)[1:-1]
    # JSON inside JSON, and inside a page.
    yield from (json.dumps(written)[1:-1], escape(written))
    for document in (written, json.dumps(text, ensure_ascii=False)[1:-1]):
        yield from (document, document.replace("/", "\\/"), document.translate(_FOR_HTML))
        yield document.translate(_FOR_HTML).replace("/", "\\/")
    percent = [
        quote(text, safe=safe, errors="surrogatepass") for safe in ("", "/", "/:@!$&'()*+,;=~")
    ]
    percent.append(quote_plus(text, errors="surrogatepass"))
    for form in percent:
        yield from (form, _lower_hex(form))


def _lower_hex(text: str) -> str:
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])
