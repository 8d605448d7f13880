"""A pasted command as words: the quoting of bash, of PowerShell's line ends and of cmd.exe.

Nothing is run or expanded; what a shell would expand stays as it is and is named. Knows no option.
"""

import re
from dataclasses import dataclass, field

_VARIABLE = re.compile(r"\$(?:\{[^}]*\}|[A-Za-z_]\w*)|\$\([^)]*\)|`[^`]*`")
# What comes first tells the shells apart: cmd.exe escapes by ^ and knows no single quotes.
_SHELL = re.compile(r"\^\"|\^[ \t]*\n|'|\\\n")
_SIMPLE_ESCAPES = {
    "'": "'",
    '"': '"',
    "\\": "\\",
    "?": "?",
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "e": "\x1b",
    "E": "\x1b",
    "f": "\f",
    "v": "\v",
}
_ANSI = re.compile(
    r"\\(x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{1,4}|U[0-9A-Fa-f]{1,8}|[0-7]{1,3}"
    r"|c\\.|c[^'\\]|.)",
    re.S,
)
# Text that is given, or a command in the place of a file, ends what can be read.
_REDIRECTION = re.compile(r"(?:&>>?|>>|>\||>&|<&|<>|[<>])(?![<(])[ \t]*")
_SPACE = re.compile(r"\s*")
# What may stand before a command: “TOKEN=abc”.
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_ENDS = "|;&<>"


class UnclosedQuote(ValueError):
    """A quote that opens a word is never closed; `quote` is its sign."""

    def __init__(self, quote: str) -> None:
        super().__init__(quote)
        self.quote = quote


@dataclass(slots=True)
class Words:
    """The words of the first command, what a shell would have replaced, and what follows it."""

    words: list[str] = field(default_factory=list)
    expansions: list[str] = field(default_factory=list)
    rest: str = ""


def split(text: str) -> Words:
    """Return the words of a command; raise UnclosedQuote."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip()
    if (first := _SHELL.search(text)) and first[0].startswith("^"):
        return Words(words=_c_words(_without_carets(text)))
    # A line of PowerShell goes on after a backtick.
    return _Bash(re.sub(r"`[ \t]*\n", " ", text)).read()


class _Bash:
    """One pass over a command; a word is collected as bytes, as `$'\\xd0\\xb0'` gives bytes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._word: bytearray | None = None
        # Not by what a shell is told before it runs a command.
        self._has_begun = False
        # The next word is the file of a redirection, which is no word of the command.
        self._is_target = False
        self._found = Words()

    def read(self) -> Words:
        while self._at < len(self._text):
            if not self._step(self._text[self._at]):
                self._found.rest = self._text[self._at :].strip()
                break
        self._end_word()
        return self._found

    def _step(self, sign: str) -> bool:
        """Take what begins here; False where the command ends."""
        if sign in " \t":
            self._end_word()
            self._at += 1
        elif sign == "\n":
            self._end_word()
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at + 1
            # A line that begins with an option belongs to the command whose backslash was lost.
            return not self._has_begun or self._text[self._at : self._at + 1] in ("-", "")
        elif sign == "'":
            self._add(self._until("'", self._at + 1))
        elif sign == '"':
            self._double()
        elif self._text.startswith("$'", self._at):
            self._ansi()
        elif self._text.startswith('$"', self._at):
            # Text to be translated, for which nobody has a translation.
            self._at += 1
            self._double()
        elif sign == "\\":
            self._escape()
        elif sign in _ENDS:
            return self._end(sign)
        elif sign == "#" and self._word is None:
            self._at = (self._text + "\n").index("\n", self._at)
        elif found := _VARIABLE.match(self._text, self._at):
            self._expand(found)
        else:
            self._add(sign)
            self._at += 1
        return True

    def _end(self, sign: str) -> bool:
        """End the command; False unless it has not begun or goes on after a redirection."""
        if sign in "<>" and self._is_number():
            # Of “2>/dev/null”.
            self._word = None
        self._end_word()
        if found := _REDIRECTION.match(self._text, self._at):
            self._at, self._is_target = found.end(), True
            return True
        if self._has_begun or not self._found.words or sign not in ";&":
            return False
        self._at += 1
        return True

    def _is_number(self) -> bool:
        """Say whether the word that has been read is digits without quotes."""
        word = bytes(self._word or b"")
        start = self._at - len(word)
        is_bare = self._text[start : self._at].encode(errors="replace") == word
        return word.isdigit() and is_bare and self._text[start - 1 : start].isspace()

    def _until(self, quote: str, start: int) -> str:
        end = self._text.find(quote, start)
        if end < 0:
            raise UnclosedQuote(quote)
        self._at = end + 1
        return self._text[start:end]

    def _double(self) -> None:
        self._add("")
        self._at += 1
        while not self._text.startswith('"', self._at):
            if self._at >= len(self._text):
                raise UnclosedQuote('"')
            sign, following = self._text[self._at], self._text[self._at + 1 : self._at + 2]
            if sign == "\\" and following in ("$", "`", '"', "\\", "\n"):
                self._add("" if following == "\n" else following)
                self._at += 2
            elif found := _VARIABLE.match(self._text, self._at):
                self._expand(found)
            else:
                self._add(sign)
                self._at += 1
        self._at += 1

    def _ansi(self) -> None:
        self._add("")
        self._at += 2
        is_cut = False
        while not self._text.startswith("'", self._at):
            if self._at >= len(self._text):
                raise UnclosedQuote("'")
            found = _ANSI.match(self._text, self._at)
            piece = _unescaped(found[1]) if found else self._text[self._at]
            self._at = found.end() if found else self._at + 1
            # A zero byte ends the text of the quote, as in bash.
            is_cut = is_cut or piece in ("\0", b"\0")
            if not is_cut:
                self._add(piece)
        self._at += 1

    def _escape(self) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        if following != "\n":
            self._add(following or "\\")
        elif not self._text[self._at : self._at + 1].strip():
            self._end_word()

    def _expand(self, found: re.Match[str]) -> None:
        self._found.expansions.append(found[0])
        self._add(found[0])
        self._at = found.end()

    def _add(self, piece: str | bytes) -> None:
        if self._word is None:
            self._word = bytearray()
        self._word += piece if isinstance(piece, bytes) else piece.encode(errors="replace")

    def _end_word(self) -> None:
        if self._word is not None and not self._is_target:
            word = self._word.decode(errors="replace")
            self._found.words.append(word)
            self._has_begun |= word != "export" and not ASSIGNMENT.match(word)
        self._is_target = self._is_target and self._word is None
        self._word = None


def _unescaped(escape: str) -> str | bytes:
    kind, digits = escape[0], escape[1:]
    if kind == "x" and digits:
        return bytes([int(digits.strip("{}"), 16) & 0xFF])
    if kind in "uU" and digits:
        number = int(digits, 16)
        return chr(number) if number < 0x110000 else "\ufffd"
    if kind == "c" and digits:
        return _control(digits)
    if kind in "01234567":
        return bytes([int(escape, 8) & 0xFF])
    # Bash keeps the backslash of what it does not know.
    return _SIMPLE_ESCAPES.get(kind, f"\\{escape}")


def _control(signs: str) -> bytes:
    if signs == "?":
        return b"\x7f"
    sign = signs.encode(errors="replace").upper()[0]
    # A backslash may be doubled.
    kept = b"" if signs == "\\\\" else signs.encode(errors="replace")[1:]
    return bytes([sign & 0x1F]) + kept


def _without_carets(text: str) -> str:
    """Do what cmd.exe does before a program sees its arguments."""
    made: list[str] = []
    is_quoted, position = False, 0
    while position < len(text):
        sign, following = text[position], text[position + 1 : position + 2]
        if sign == "^" and not is_quoted:
            if following == "\n":
                # An escaped line end and an empty line are a line break in the text.
                is_break = text.startswith("\n", position + 2)
                made.append("\n" if is_break else " ")
                position += 3 if is_break else 2
                continue
            made.append(following)
            position += 2
            continue
        if sign == '"':
            is_quoted = not is_quoted
        made.append(sign)
        position += 1
    return "".join(made)


def _c_words(text: str) -> list[str]:
    """Split as programs of Windows do: backslashes count only before a quote."""
    words: list[str] = []
    word: str | None = None
    is_quoted, position = False, 0
    while position < len(text):
        sign = text[position]
        if sign == "\\":
            slashes = len(text) - position - len(text[position:].lstrip("\\"))
            is_before_quote = text.startswith('"', position + slashes)
            word = (word or "") + "\\" * (slashes // 2 if is_before_quote else slashes)
            position += slashes
            if is_before_quote and slashes % 2:
                word += '"'
                position += 1
        elif sign == '"':
            if is_quoted and text.startswith('""', position):
                word, position = (word or "") + '"', position + 1
            else:
                is_quoted = not is_quoted
            word, position = word or "", position + 1
        elif sign.isspace() and not is_quoted:
            if word is not None:
                words.append(word)
            word, position = None, position + 1
        else:
            word, position = (word or "") + sign, position + 1
    if is_quoted:
        raise UnclosedQuote('"')
    return [*words, *([word] if word is not None else [])]
