"""The event document: which payloads are valid, and the bytes they are frozen into."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from django.conf import settings
from django.utils.timezone import get_default_timezone
from django.utils.translation import gettext as _

from webhooks import catalogue
from webhooks.catalogue import INSTANT, OLDER_NAMES, VARIABLES, EventType, VariableType
from webhooks.payloads.errors import DocumentError

# Receivers' parsers often stop at 100 levels or fewer; events need less than a third of that.
MAX_DEPTH = 32
_PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
_DATETIME_NAMES = frozenset(
    name
    for current, variable in VARIABLES.items()
    if variable.type is VariableType.DATETIME
    for name in (current, OLDER_NAMES.get(current))
    # `build_document` writes occurred_at itself.
    if name is not None and name != "occurred_at"
)
# The shortest text read as a time: "2026-05-14T09:26". A bare date has no time zone.
_MIN_DATETIME_LENGTH = 16
# Java appends the zone to the offset (RFC 9557); Ruby and Go write a name instead of Z.
_ZONE_NAME = re.compile(r"(?<=[\dZ])\[[^\[\]]{1,64}\]\Z", re.ASCII)
_UTC_NAME = re.compile(r" (?:UTC|GMT)\Z")
# Go writes a blank before the offset, and after it an abbreviation, or the offset once more.
_OFFSET = re.compile(
    r"(:\d\d(?:\.\d{1,9})?) ([+-]\d\d:?\d\d)(?: (?:[A-Z]{2,5}|[+-]\d\d(?:\d\d)?))?\Z", re.ASCII
)
# A leap second, or one that was rounded up: read as the next second, as Unix time does.
_SECOND_60 = re.compile(r"([T ]\d\d:\d\d):60", re.ASCII)

Path = tuple[str | int, ...]


def read_document(data: bytes | memoryview) -> dict[str, Any]:
    """Return the fields of a frozen document, for filters."""
    loaded = json.loads(bytes(data))
    return loaded if isinstance(loaded, dict) else {}


def build_document(
    event_type: str,
    event_id: str,
    occurred_at: datetime,
    project_id: str,
    payload: Mapping[str, object],
) -> bytes:
    """Return the frozen document: compact UTF-8 JSON of one flat object.

    Reserved names come first and override the payload's own. Times are written as ISO 8601 in UTC;
    those without an offset are in TIME_ZONE. Raises DocumentError.
    """
    limit = settings.WEBHOOKS_MAX_PAYLOAD_BYTES
    _check_payload(payload, limit)
    head: dict[str, object] = {
        "event": event_type,
        "event_id": event_id,
        "occurred_at": instant(occurred_at),
        "project_id": project_id,
    }
    document = {**head, **payload, **head}
    document.pop("attempt", None)
    for name in _datetime_names(event_type) & document.keys():
        if isinstance(moment := document[name], str):
            document[name] = instant_of_text(moment)
    try:
        frozen = ENCODER.encode(document).encode()
    except (ValueError, OverflowError) as error:
        raise _explain(payload) from error
    if len(frozen) > limit:
        raise _too_large(limit)
    return frozen


def fingerprint(event_type: str, payload: Mapping[str, object]) -> str:
    """Return the SHA-256 of an event's type and payload, independent of the order of keys.

    Raises DocumentError like `build_document`, except for the size of the encoded text.
    """
    _check_payload(payload, settings.WEBHOOKS_MAX_PAYLOAD_BYTES)
    try:
        text = _SORTED_ENCODER.encode([event_type, dict(payload)])
        return hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, OverflowError) as error:
        raise _explain(payload) from error


def instant(moment: datetime) -> str:
    """Return a time as ISO 8601 in UTC; one without an offset is in TIME_ZONE."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=get_default_timezone())
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return _text_of(moment)


# Most events of a batch have the same time: that of the batch.
@lru_cache(maxsize=1)
def _text_of(moment: datetime) -> str:
    return moment.isoformat().removesuffix("+00:00") + "Z"


# By event type key: the type that the names were computed for, and the names.
_remembered: dict[str, tuple[EventType | None, frozenset[str]]] = {}


def _datetime_names(event_type: str) -> frozenset[str]:
    """Return the names of time fields: the catalogue's own, and those of a host project's type.

    A host project's time fields are recognized by their samples.
    """
    known = catalogue.EVENT_TYPES.get(event_type)
    of_type, names = _remembered.get(event_type, (None, _DATETIME_NAMES))
    if of_type is not known and known is not None:
        names = _DATETIME_NAMES | {
            name
            for name, sample in known.sample_values.items()
            if isinstance(sample, str) and name not in VARIABLES and INSTANT.fullmatch(sample)
        }
        _remembered[event_type] = (known, names)
    return names


def instant_of_text(text: str) -> str:
    """Return a text as `instant` writes it if it is a time, else unchanged."""
    if len(text.strip()) < _MIN_DATETIME_LENGTH:
        return text
    try:
        return instant(read_moment(text))
    except (ValueError, OverflowError):
        return text


def read_moment(text: str) -> datetime:
    """Parse a time in ISO 8601 or RFC 3339. Raise ValueError or OverflowError.

    Python accepts neither lower case (RFC 3339 section 5.6) nor leap seconds, surrounding spaces,
    or names of zones: UTC, GMT, and any other after an offset, which takes precedence.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        written = text.strip().upper()
        text = _OFFSET.sub(r"\1\2", _ZONE_NAME.sub("", written))
        text = _UTC_NAME.sub("Z", text)
        shorter = _SECOND_60.sub(r"\1:59", text)
        moment = datetime.fromisoformat(shorter) + timedelta(seconds=int(shorter != text))
        if moment.tzinfo is None and written.endswith("]"):
            raise
        return moment


_make_encoder = partial(
    json.JSONEncoder,
    ensure_ascii=False,
    # Cycles are refused at MAX_DEPTH, before the encoder runs.
    check_circular=False,
    allow_nan=False,
    separators=(",", ":"),
    default=instant,
)
ENCODER = _make_encoder()
_SORTED_ENCODER = _make_encoder(sort_keys=True)


def _check_payload(payload: object, limit: int) -> None:
    if not _is_mapping(payload):
        raise DocumentError(_("The payload is not a JSON object."), code="not_object")
    _check_container(payload, (), [limit])


def _is_mapping(value: object) -> bool:
    # Fast path: nearly always a dict.
    return type(value) is dict or isinstance(value, Mapping)


def _check_container(container: Any, path: Path, nodes_left: list[int]) -> None:
    """Refuse what the encoder would accept: keys or values of other types, and deep nesting."""
    if len(path) >= MAX_DEPTH:
        message = _("The payload is nested more than %d levels deep.") % MAX_DEPTH
        raise DocumentError(message, code="too_deep")
    # Each value takes at least one byte, so this also limits shared references that multiply.
    nodes_left[0] -= len(container)
    if nodes_left[0] < 0:
        raise _too_large(settings.WEBHOOKS_MAX_PAYLOAD_BYTES)
    if _is_mapping(container):
        for key, value in container.items():
            if not isinstance(key, str):
                message = _("The key %(key)s %(where)s is not text.") % {
                    "key": shown(repr(key)),
                    "where": _where(path),
                }
                raise DocumentError(message, code="key_not_text")
            if type(value) not in _PLAIN_TYPES:
                _check_other(value, (*path, key), nodes_left)
    else:
        for index, value in enumerate(container):
            if type(value) not in _PLAIN_TYPES:
                _check_other(value, (*path, index), nodes_left)


def _check_other(value: object, path: Path, nodes_left: list[int]) -> None:
    if isinstance(value, dict | list | tuple):
        _check_container(value, path, nodes_left)
    elif not isinstance(value, str | int | float | datetime):
        message = _("The value %(where)s is of type %(type)s, which is not JSON.") % {
            "where": _where(path),
            "type": type(value).__name__,
        }
        raise DocumentError(message, code="not_json")


def _explain(payload: Mapping[str, object]) -> DocumentError:
    """Return the error for the value that the encoder refused."""
    for path, value in _leaves(payload, ()):
        if isinstance(value, float) and not math.isfinite(value):
            message = _("The number %s is NaN, which is not JSON.")
            if math.isinf(value):
                # Also what a double makes of 1e400.
                message = _("The number %s is too large: the largest is about 1.8e308.")
            return DocumentError(message % _where(path), code="not_finite")
        if isinstance(value, str) and not is_encodable(value):
            message = _("The text %s holds half of a surrogate pair.") % _where(path)
            return DocumentError(message, code="invalid_text")
    message = _("A number has too many digits, or a time is outside the years 1 to 9999.")
    return DocumentError(message, code="not_json")


def _leaves(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield (*path, key), key
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def is_encodable(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8; a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _where(path: Path) -> str:
    if not path:
        return _("at the top")
    return _("at “%s”") % shown(".".join(str(step) for step in path))


def shown(text: str) -> str:
    """Return at most 100 characters of a text, safe to store and show."""
    return text[:100].encode(errors="backslashreplace").decode()


def _too_large(limit: int) -> DocumentError:
    message = _("The event is larger than %d bytes.") % limit
    return DocumentError(message, code="too_large")
