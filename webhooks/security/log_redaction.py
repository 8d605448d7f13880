"""Log lines without query strings or credentials, one line per message; tracebacks are indented.

All records of all libraries pass through here last. Text is cut before it is searched, and every
pattern is linear.
"""

import logging
import re

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, QueryDict

from webhooks.security.masker import Masker, NameMasker

# Libraries that write codes, tokens, headers or SQL statements below these levels.
_LIBRARY_LEVELS = {
    "requests_oauthlib": logging.WARNING,
    "oauthlib": logging.WARNING,
    "urllib3": logging.INFO,
    "requests": logging.INFO,
    "django.db.backends": logging.INFO,
    # Writes the whole context for each missing name in a template.
    "django.template": logging.INFO,
}
# Loggers whose messages need no traceback: requests with a wrong host or too many fields, which
# anyone can send, and Celery's broker errors, logged at each retry.
_NO_TRACEBACK_LOGGERS = ("django.security", "celery.beat", "celery.worker.consumer")
# The logger of failed tasks, and the errors that fail all tasks while the database is down.
_TASK_LOGGER, _DATABASE_DOWN_ERRORS = "celery.app.trace", (OperationalError, InterfaceError)
# Our own messages have a few hundred characters, tracebacks some thousand.
_MAX_LINE, _MAX_RECORD = 4_096, 65_536
# Query strings: in a URL, alone, and encoded in another query string.
_QUERY = re.compile(r"(?:(?<=[\w/.:%~\])-])\?|\?(?=[\w.-]+=)|%3[Ff](?=[\w.-]+%3[Dd]))[^\s\"'<>]+")
_SIGNING_SECRET = re.compile(r"\bwhsec_[\w+/=-]{4,}", re.ASCII)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----)[^-]*(?:-(?!----)[^-]*)*")
_FRAGMENT = re.compile(r"(?<=[\w/.:%~-])#[^\s\"'<>]+")
_USERINFO = re.compile(r"(?<=://)[^\s/@\"'<>]+@")
# Shorter values are often ordinary words in the text.
_SHORTEST = 8
# Line feeds, escape sequences and bidirectional marks could forge other lines.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class LineFormatter(logging.Formatter):
    """Format a record as one line, followed by its traceback, both without secrets."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(_escape, _cut(super().formatMessage(record), _MAX_LINE))

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and _needs_no_traceback(record):
            # Celery beat writes its own stack below its message.
            said = {"msg": record.getMessage().partition("\n")[0], "args": None}
            said |= {"exc_info": None, "exc_text": None}
            record = logging.makeLogRecord(vars(record) | said)
        text = super().format(record)
        # Django attaches the request to its records; the text of an error may quote its values.
        if (request := getattr(record, "request", None)) is not None and record.exc_info:
            text = masker_of(request).mask(text, limit=_MAX_RECORD)
        first, *rest = _cut(text, _MAX_RECORD).split("\n")
        # Indented, because an error's text may have a line that looks like a record.
        rest = [f"  {_CONTROL.sub(_escape, line)}" for line in rest]
        return without_secrets("\n".join(_cut(line, _MAX_LINE) for line in (first, *rest)))


class LibraryLevels(logging.Filter):
    """Drop debug records of some libraries even if their loggers are set to DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        least = next(
            (level for name, level in _LIBRARY_LEVELS.items() if _is_from(record, name)), 0
        )
        return record.levelno >= least


def _needs_no_traceback(record: logging.LogRecord) -> bool:
    """Return whether an error's message needs no traceback."""
    if _is_from(record, _TASK_LOGGER):
        return isinstance(record.exc_info and record.exc_info[1], _DATABASE_DOWN_ERRORS)
    return any(_is_from(record, name) for name in _NO_TRACEBACK_LOGGERS)


def without_secrets(text: str) -> str:
    """Return a text without query strings, credentials in URLs and values of secret fields."""
    text = _QUERY.sub("?…", text)
    text = _FRAGMENT.sub(_without_values, text)
    text = _USERINFO.sub("…@", text)
    text = _PRIVATE_KEY.sub(r"\1…", _SIGNING_SECRET.sub("…", text))
    return _NAMES.mask(text)


_NAMES = NameMasker(shown=lambda _: "…")


def masker_of(request: HttpRequest) -> Masker:
    """Return a masker for the values that came with a request."""
    sent = [*_values(request.GET), *_values(posted(request))]
    sent += [*request.COOKIES.values(), request.headers.get("Authorization", "")]
    words = [word for value in sent for word in (value, value.rpartition(" ")[2])]
    return Masker(word for word in words if len(word) >= _SHORTEST)


def posted(request: HttpRequest) -> QueryDict:
    """Return the form's fields, none if the body cannot be read (which may be the logged error)."""
    try:
        return request.POST
    except Exception:
        return QueryDict()


def _values(query: QueryDict) -> list[str]:
    return [str(value) for values in dict(query).values() for value in values]


def _is_from(record: logging.LogRecord, name: str) -> bool:
    return record.name == name or record.name.startswith(name + ".")


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more characters)"


def _without_values(found: re.Match[str]) -> str:
    return "#…" if "=" in found[0] else found[0]


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
