"""The event document: what a payload may hold, and the bytes it is frozen into."""

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

# Receivers' parsers often stop at 100 levels or fewer; no event needs a third of that.
MAX_DEPTH = 32
_PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
_DATETIME_NAMES = frozenset(
    name
    for current, variable in VARIABLES.items()
    if variable.type is VariableType.DATETIME
    for name in (current, OLDER_NAMES.get(current))
    # Which `build_document` writes itself.
    if name is not None and name != "occurred_at"
)
# The shortest text taken for a moment: "2026-05-14T09:26". A bare date has no time zone.
_MIN_DATETIME_LENGTH = 16
# What Java adds to an offset (RFC 9557), and what Ruby and Go write for Z.
_ZONE_NAME = re.compile(r"(?<=[\dZ])\[[^\[\]]{1,64}\]\Z", re.ASCII)
_UTC_NAME = re.compile(r" (?:\+0000 )?UTC\Z")
# A leap second, or one that was rounded up: the next one, as for everything that counts seconds.
_SECOND_60 = re.compile(r"([T ]\d\d:\d\d):60", re.ASCII)

Path = tuple[str | int, ...]


def read_document(data: bytes | memoryview) -> dict[str, Any]:
    """Return the values of a frozen document, as a filter reads them."""
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

    The reserved names come first and win over the payload's own. Moments are written as ISO 8601
    in UTC; one without an offset is in TIME_ZONE. Raises DocumentError.
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
    """Return the SHA-256 of what an event says, whatever the order of its keys.

    Raises DocumentError as `build_document` does, but for the size of the text.
    """
    _check_payload(payload, settings.WEBHOOKS_MAX_PAYLOAD_BYTES)
    try:
        text = _SORTED_ENCODER.encode([event_type, dict(payload)])
        return hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, OverflowError) as error:
        raise _explain(payload) from error


def instant(moment: datetime) -> str:
    """Write a moment as ISO 8601 in UTC; one without an offset is in TIME_ZONE."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=get_default_timezone())
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return _text_of(moment)


# The events of a batch mostly happened at one moment: that of the batch.
@lru_cache(maxsize=1)
def _text_of(moment: datetime) -> str:
    return moment.isoformat().removesuffix("+00:00") + "Z"


# For each type what it was made of, and the names.
_remembered: dict[str, tuple[EventType | None, frozenset[str]]] = {}


def _datetime_names(event_type: str) -> frozenset[str]:
    """Return the names of moments: the catalogue's own, and those that a host project's type has.

    A sample shows which they are.
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
    """Return a typed moment as `instant` writes it; any other text as it is."""
    if len(text.strip()) < _MIN_DATETIME_LENGTH:
        return text
    try:
        return instant(read_moment(text))
    except (ValueError, OverflowError):
        return text


def read_moment(text: str) -> datetime:
    """Read a moment in ISO 8601 or RFC 3339; raise ValueError or OverflowError.

    Python knows neither small letters (RFC 3339 section 5.6) nor leap seconds, nor spaces around,
    nor names of zones: UTC, and any other behind an offset, which decides.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        written = text.strip().upper()
        text = _ZONE_NAME.sub("", _UTC_NAME.sub("Z", written))
        shorter = _SECOND_60.sub(r"\1:59", text)
        moment = datetime.fromisoformat(shorter) + timedelta(seconds=int(shorter != text))
        if moment.tzinfo is None and written.endswith("]"):
            raise
        return moment


_make_encoder = partial(
    json.JSONEncoder,
    ensure_ascii=False,
    # Cycles end at MAX_DEPTH before the encoder sees them.
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
    # Nearly always a dictionary, which is seen at once.
    return type(value) is dict or isinstance(value, Mapping)


def _check_container(container: Any, path: Path, nodes_left: list[int]) -> None:
    """Refuse what the encoder would let through: odd keys, odd types, endless nesting."""
    if len(path) >= MAX_DEPTH:
        message = _("The payload is nested more than %d levels deep.") % MAX_DEPTH
        raise DocumentError(message, code="too_deep")
    # Each value takes a byte or more, so this bounds shared references that multiply.
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
    """Return the error about the value that the encoder refused."""
    for path, value in _leaves(payload, ()):
        if isinstance(value, float) and not math.isfinite(value):
            message = _("The number %s is NaN or infinite, which is not JSON.") % _where(path)
            return DocumentError(message, code="not_finite")
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
    """Return whether a text is UTF-8: half of a surrogate pair is not."""
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
    """Return at most 100 characters that can be stored and shown anywhere."""
    return text[:100].encode(errors="backslashreplace").decode()


def _too_large(limit: int) -> DocumentError:
    message = _("The event is larger than %d bytes.") % limit
    return DocumentError(message, code="too_large")
