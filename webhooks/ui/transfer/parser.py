"""What a file of webhooks may hold. Anything else is refused with a sentence that says where."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.db import models
from django.utils.translation import gettext as _

from webhooks.ui.transfer.portable import FIELDS, VERSION

MAX_BYTES = 2 * 1024 * 1024
# A plan checks each address; more would keep a page waiting.
MAX_WEBHOOKS = 500
_UID = re.compile(r"whk_[0-9A-Za-z]{1,26}")
# What the items of a list are.
_ITEMS: dict[str, type] = {
    "event_types": str,
    "alert_recipients": str,
    "reauthorization_words": str,
    "retry_schedule_seconds": int,
    "expired_status_codes": int,
    "parameters": dict,
}
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")
# Written into a file to say what has to be entered; it sets nothing.
_IGNORED = {"secrets"}
_SECRET_KEYS = {
    *("basic_password", "client_secret", "signing_secret", "previous_signing_secret"),
    *("headers_json", "access_token", "refresh_token", "password", "token"),
}


class Unreadable(ValueError):
    """The file as a whole is no list of webhooks; str() is a sentence for people."""


def read(content: bytes | str) -> list[Any]:
    """Return the entries of a file, not yet looked at. Raises Unreadable."""
    size = len(content) if isinstance(content, bytes) else len(content.encode())
    if size > MAX_BYTES:
        raise Unreadable(_("The file is larger than %d MB.") % (MAX_BYTES // 1024**2))
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        found = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Unreadable(_("The file is not text in UTF-8.")) from None
    except json.JSONDecodeError as error:
        place = {"line": error.lineno, "column": error.colno}
        raise Unreadable(
            _("This is not JSON: look at line %(line)d, column %(column)d.") % place
        ) from None
    except (ValueError, RecursionError):
        raise Unreadable(_("This is not JSON that can be read.")) from None
    return _entries(found)


def _entries(found: Any) -> list[Any]:
    if any(map(_UNSTORABLE.search, _texts(found))):
        raise Unreadable(_("The file holds characters that no text has, such as NUL."))
    entries = found.get("webhooks") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise Unreadable(
            _('The file is an object with a list, like {"version": 1, "webhooks": [...]}.')
        )
    if found.get("version") != VERSION:
        raise Unreadable(
            _("The version of the file is “%(found)s”; this site reads version %(known)d.")
            % {"found": str(found.get("version"))[:20], "known": VERSION}
        )
    if not entries:
        raise Unreadable(_("There is no webhook in the file."))
    if len(entries) > MAX_WEBHOOKS:
        text = _("There are %(count)d webhooks in the file; at most %(limit)d are read at once.")
        raise Unreadable(text % {"count": len(entries), "limit": MAX_WEBHOOKS})
    return entries


def _texts(value: Any) -> Iterator[str]:
    """Yield every string, keys too. As deep as the parser went, so no recursion."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def listed_secrets(entry: Mapping[str, Any]) -> frozenset[str]:
    """Return the secrets that an entry says its webhook had; none when it says it wrongly."""
    found = entry.get("secrets")
    return (
        frozenset(one for one in found if isinstance(one, str))
        if isinstance(found, list)
        else frozenset()
    )


def mistakes(entry: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each key that is unknown or has a value of another kind."""
    found = [sentence for key, value in entry.items() if (sentence := _mistake(key, value))]
    if not isinstance(entry.get("name"), str) or not entry["name"].strip():
        found.insert(0, _("It has no name."))
    return found


def _mistake(key: str, value: Any) -> str:
    if key in _IGNORED:
        return ""
    if key in _SECRET_KEYS:
        return _("“%s”: secrets are not imported. Enter it afterwards.") % key
    match key:
        case "uid":
            is_right = isinstance(value, str) and bool(_UID.fullmatch(value))
            return "" if is_right else _("“uid” is not one of a webhook. Leave it out.")
        case "connection":
            is_right = value is None or isinstance(value, str)
            return "" if is_right else _("“connection” is the name of a connection, or null.")
        case "headers":
            return "" if _are_headers(value) else _("“headers” is a list of names and values.")
    if key not in FIELDS:
        return _("There is no setting “%s”.") % key[:60]
    wanted = _wanted(FIELDS[key], value)
    return _("“%(key)s” has to be %(kind)s.") % {"key": key, "kind": wanted} if wanted else ""


def _are_headers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, dict)
        and row.keys() <= {"name", "value", "secret"}
        and isinstance(row.get("name"), str)
        and isinstance(row.get("value", ""), str)
        and isinstance(row.get("secret", False), bool)
        for row in value
    )


def _wanted(field: "models.Field[Any, Any]", value: Any) -> str:
    """Return in words what the value has to be; empty when it is."""
    if value is None and field.null:
        return ""
    if isinstance(field, models.BooleanField):
        return "" if isinstance(value, bool) else _("true or false")
    if isinstance(field, models.IntegerField):
        is_right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
        return "" if is_right else _("a whole number")
    if isinstance(field, models.JSONField):
        return _wanted_structure(field, value)
    return "" if isinstance(value, str) else _("text")


def _wanted_structure(field: "models.Field[Any, Any]", value: Any) -> str:
    if field.get_default() == {}:
        # A filter has its own grammar; the other objects are names with texts.
        is_right = isinstance(value, dict) and (
            field.name == "filter" or all(map(_is_flat, value.values()))
        )
        if not is_right:
            return _("an object of texts")
        is_right = field.name == "filter" or not any(map(_has_line_break, _texts(value)))
        return "" if is_right else _("an object of texts without line breaks")
    kind = _ITEMS.get(field.name, object)
    is_right = isinstance(value, list) and all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    )
    if not is_right:
        return _("a list of the right kind")
    # The form has each item on a line of its own.
    is_right = kind is not str or not any(map(_has_line_break, value))
    return "" if is_right else _("a list of texts without line breaks")


def _has_line_break(text: str) -> bool:
    return len(text.splitlines()) > 1


def _is_flat(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, str | int) for item in items)
