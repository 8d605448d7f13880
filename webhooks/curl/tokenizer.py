"""Split a pasted command into the words of bash (its manual, section Quoting).

Nothing is run or expanded; expansions stay as they are and are listed. Unlike in bash, blanks may
follow the backslash at the end of a line, a prompt may begin the next line, the last line may end
in a backslash, and no-break spaces separate words: text copied from terminals and web pages has
these. `shlex` cannot read `$'...'`, which browsers write, and takes quadratic time for long words.
"""

import re
from dataclasses import dataclass, field

from django.utils.translation import gettext as _

from webhooks.curl import CurlError

# The length is limited so that an unclosed expansion is not searched to the end of the text.
_EXPANSION = r"\$(?:\{[^}]{0,500}\}|[A-Za-z_]\w*|\([^)]{0,500}\))|`[^`]{0,500}`"
# A value to fill in, as documentation writes it: “<user id>”. A shell reads two redirections.
_PLACEHOLDER = r"<[A-Za-z](?:[\w .-]{0,59}[\w.-])?>"
# Parts of words, and what separates words.
_PIECE = re.compile(
    rf"""(?P<space>[ \t\u00a0\u202f]+)
    |(?P<line>\n\s*)
    |\\[ \t\u00a0\u202f]*(?:\n(?:>[ \t])?|\Z)
    |'(?P<single>[^']*)'
    |\$'(?P<ansi>(?:[^'\\]++|\\[\s\S])*+)'
    |\$?"(?P<double>(?:[^"\\$`]++|\\[\s\S]|{_EXPANSION}|[$`])*+)"
    |(?P<unclosed>\$?["'])
    |\\(?P<escaped>[\s\S])
    |(?P<expansion>{_EXPANSION})
    |(?P<herestring><<<[ \t]*)
    |(?P<heredoc><<(?P<tabs>-?)[ \t]*(?:'(?P<quoted>[^'\n]+)'|"(?P<in_double>[^"\n]+)"
        |(?P<is_escaped>\\?)(?P<plain>\w+)))
    |(?P<placeholder>{_PLACEHOLDER})
    |(?P<number>[0-9]{{0,3}})(?!{_PLACEHOLDER})(?P<redirection>(?:&>>?|>>|>\||>&|<&|<>|[<>])(?![<(]))
        [ \t]*
    |(?P<end>[|;&<>])
    |(?P<comment>\#)
    |(?P<bare>[^ \t\u00a0\u202f\n'"\\$`|;&<>\#]+|[$`])""",
    re.VERBOSE,
)
_IN_DOUBLE = re.compile(rf'\\(?P<escaped>[$`"\\\n])|(?P<expansion>{_EXPANSION})')
_IN_HEREDOC = re.compile(rf"\\(?P<escaped>[$`\\\n])|(?P<expansion>{_EXPANSION})")
_IN_ANSI = re.compile(
    rb"\\(x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{1,4}|U[0-9A-Fa-f]{1,8}|[0-7]{1,3}"
    rb"|c\\.|c[^'\\]|.)",
    re.DOTALL,
)
_LETTERS = dict(zip(b"'\"\\?ntrabeEfv", b"'\"\\?\n\t\r\a\b\x1b\x1b\f\v", strict=True))
# Ignored before a command; the last is the byte order mark that some editors write.
_SPACES = " \t\n\u00a0\u202f\ufeff"
# Quotes and hyphens as changed by text editors.
_TYPOGRAPHIC = frozenset("“”„‟‘’‚‛«»‐‑–—―−")
# An assignment that may precede a command: “TOKEN=abc”.
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)


@dataclass(slots=True)
class Words:
    """The words of the first command, the expansions in it, and the text after it.

    `redirections` are the signs of those that may have been meant as values; of files that a shell
    writes there are none.
    `stdin` is the text of its here-document or here-string.
    """

    words: list[str] = field(default_factory=list)
    expansions: list[str] = field(default_factory=list)
    redirections: list[str] = field(default_factory=list)
    rest: str = ""
    stdin: str | None = None


def split(text: str) -> Words:
    """Return the words of a command. Raise CurlError for an unclosed quote."""
    return _Bash(text.replace("\r\n", "\n").replace("\r", "\n").lstrip(_SPACES)).read()


class _Bash:
    """One-pass reader; collects words as bytes, because `$'\\xd0\\xb0'` gives bytes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._word: bytearray | None = None
        # Set at the first word that is neither an assignment nor `export`.
        self._has_begun = False
        # The next word is the file of a redirection, not a word of the command.
        self._is_target = False
        # The sign of that redirection if it may be part of a value.
        self._sign = ""
        self._is_stdin = False
        # A here-document that begins on the next line.
        self._heredoc: re.Match[str] | None = None
        self._found = Words()

    def read(self) -> Words:
        at = 0
        while piece := _PIECE.match(self._text, at):
            if piece["line"] and self._heredoc:
                at = self._read_heredoc(self._heredoc, at + 1)
                continue
            if self._ends(piece):
                rest = piece.end() if piece["line"] else at
                self._found.rest = self._text[rest:].strip()
                if self._heredoc and (line := self._text.find("\n", at)) >= 0:
                    self._read_heredoc(self._heredoc, line + 1)
                    self._found.rest = self._text[rest:line].strip()
                break
            at = piece.end()
            if piece["comment"] and self._word is None:
                end = self._text.find("\n", at)
                at = end if end >= 0 else len(self._text)
            else:
                self._take(piece)
        self._end_word()
        return self._found

    def _read_heredoc(self, piece: re.Match[str], start: int) -> int:
        """Read the here-document at `start` to its delimiter; return where that ends."""
        self._heredoc = None
        tabs = r"\t*" if piece["tabs"] else ""
        delimiter = piece["quoted"] or piece["in_double"] or piece["plain"]
        end = re.compile(rf"^{tabs}{re.escape(delimiter)}[ \t]*$", re.M).search(self._text, start)
        text = self._text[start : end.start() if end else None]
        if tabs:
            text = re.sub(r"^\t+", "", text, flags=re.M)
        if piece["plain"] and not piece["is_escaped"]:
            text = _IN_HEREDOC.sub(self._from_double, text)
        self._found.stdin = text
        return end.end() if end else len(self._text)

    def _ends(self, piece: re.Match[str]) -> bool:
        """Return whether the command ends before a piece."""
        if piece["line"]:
            self._end_word()
            # A line that begins with an option belongs to this command; the backslash before it was
            # lost.
            return self._has_begun and self._text[piece.end() : piece.end() + 1] not in ("-", "")
        if sign := piece["end"]:
            self._end_word()
            return self._has_begun or not self._found.words or sign not in ";&"
        return False

    def _take(self, piece: re.Match[str]) -> None:
        if quote := piece["unclosed"]:
            raise CurlError(_("A closing %s is missing.") % quote[-1])
        if piece["heredoc"]:
            self._end_word()
            self._heredoc = piece
        elif piece["herestring"]:
            self._end_word()
            self._is_target = self._is_stdin = True
        elif sign := piece["redirection"]:
            is_within_word = self._word is not None
            if is_within_word:
                # Digits within a word are part of it, not a descriptor.
                self._add(piece["number"])
            self._end_word()
            self._is_target = True
            self._sign = sign if is_within_word or sign.startswith("<") else ""
        elif piece["space"]:
            self._end_word()
        elif piece["double"] is not None:
            self._add(_IN_DOUBLE.sub(self._from_double, piece["double"]))
        elif piece["ansi"] is not None:
            content = _IN_ANSI.sub(_from_ansi, piece["ansi"].encode(errors="replace"))
            # A zero byte ends the quoted text, as in bash.
            self._add(content.partition(b"\0")[0])
        elif piece["escaped"] is not None:
            self._add(piece["escaped"])
        elif expansion := piece["expansion"] or piece["placeholder"]:
            self._found.expansions.append(expansion)
            self._add(expansion)
        elif piece.lastgroup in ("single", "comment", "bare"):
            if self._word is None and piece.lastgroup == "bare":
                _check_sign(piece[0][0])
            self._add(piece[piece.lastgroup])

    def _from_double(self, found: re.Match[str]) -> str:
        if found["expansion"]:
            self._found.expansions.append(found["expansion"])
            return found["expansion"]
        return found["escaped"].replace("\n", "")

    def _add(self, piece: str | bytes) -> None:
        if self._word is None:
            self._word = bytearray()
        self._word += piece if isinstance(piece, bytes) else piece.encode(errors="replace")

    def _end_word(self) -> None:
        word = (self._word or b"").decode(errors="replace")
        if self._word is not None and self._is_stdin:
            self._found.stdin, self._is_stdin = f"{word}\n", False
        elif self._word is not None and not self._is_target:
            self._found.words.append(word)
            self._has_begun |= word != "export" and not ASSIGNMENT.match(word)
        elif self._word is not None and self._sign:
            self._found.redirections.append(self._sign)
            self._sign = ""
        self._is_target = self._is_target and self._word is None
        self._word = None


def _check_sign(sign: str) -> None:
    if sign in _TYPOGRAPHIC:
        raise CurlError(
            _("A text editor changed quotes or hyphens of this command (%s). Type straight ones.")
            % sign
        )


def _from_ansi(found: re.Match[bytes]) -> bytes:
    escape = found[1]
    kind, digits = escape[:1], escape[1:]
    if kind == b"x" and digits:
        return bytes([int(digits.strip(b"{}"), 16) & 0xFF])
    if kind in (b"u", b"U") and digits:
        number = int(digits, 16)
        return (chr(number) if number < 0x110000 else "\ufffd").encode(errors="surrogatepass")
    if kind == b"c" and digits:
        # The backslash may be doubled.
        rest = b"" if digits == b"\\\\" else digits[1:]
        return b"\x7f" if digits == b"?" else bytes([digits.upper()[0] & 0x1F]) + rest
    if kind in b"01234567":
        return bytes([int(escape, 8) & 0xFF])
    # Bash keeps the backslash of unknown escapes.
    return bytes([_LETTERS[escape[0]]]) if escape[0] in _LETTERS else b"\\" + escape
