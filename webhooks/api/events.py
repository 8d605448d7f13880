"""The event API: `POST /api/v1/events` and `/events/batch` with a bearer API key.

Owns the HTTP side of these URLs: the order of checks, the status codes and the errors as JSON
`{"error": {"code", "message", "field"}}`. `webhooks.events` validates and publishes the events.
Why it is a plain view: docs/decisions/0010-plain-view-for-the-event-api.md.
"""

import codecs
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from http import HTTPStatus
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import Error as DatabaseError
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables

from webhooks import events, payloads
from webhooks.delivery import queue
from webhooks.models import ApiKey, MissingScopeError, messages
from webhooks.models.access import hash_key

logger = logging.getLogger(__name__)

MAX_BATCH_EVENTS = 1000
# Bytes of invalid JSON lines that get detailed errors: for 8 MB these took 16 seconds of CPU.
_EXPLAINED_BYTES = 65_536
# A URL with extra slashes is meant for the API, too.
_API_PATH = re.compile("/+api(?![^/])")
_JSON = "application/json"
# NDJSON has no registered media type; these are the usual ones.
_NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_FIELDS = frozenset({"type", "payload", "idempotency_key", "occurred_at"})
# Precision of "last used"; a write for each request would be the API's slowest part.
_LAST_USED_STEP = timedelta(minutes=1)
# A last use further in the future was written by a wrong clock.
_LAST_USED_AHEAD = timedelta(hours=1)
# How long a revoked key may still be accepted, and how many keys are cached. A key in use is
# looked up again after half that time, when no request waits for it.
KEY_SECONDS = 1.0
_MAX_KEYS = 1000
# Retry-After of the 503 responses.
RETRY_AFTER_SECONDS = 5
# The names of the only charset that is read.
UTF_8 = frozenset({"utf-8", "utf8"})
# Codes stored as the source of an event.
SENTENCES: Mapping[str, messages.Sentence] = {"api_key": gettext_lazy("API key %(prefix)s")}


def _nothing() -> None:
    """Do nothing after the response."""


class ApiResponse(NamedTuple):
    """A JSON response; `webhooks.api.wsgi` adds the headers that every response has."""

    status: int
    content: bytes
    headers: Mapping[str, str]
    # Called after the response is sent.
    then: Callable[[], None] = _nothing


class ApiHttpResponse(HttpResponse):
    """An `ApiResponse` as a Django response."""

    def __init__(self, answer: ApiResponse) -> None:
        super().__init__(answer.content, status=answer.status, headers=answer.headers)
        self._then = answer.then
        # An internal error is logged where it is caught; Django logs every other error response.
        self._has_been_logged = answer.status == HTTPStatus.INTERNAL_SERVER_ERROR

    def close(self) -> None:
        super().close()
        self._then()


Endpoint = Callable[[HttpRequest], ApiResponse]
# No cache or proxy may store a response.
HEADERS = {"Content-Type": _JSON, "Cache-Control": "no-store"}


def _json_response(status: int, values: object, then: Callable[[], None] = _nothing) -> ApiResponse:
    return ApiResponse(status, json.dumps(values).encode(), HEADERS, then)


class ApiError(Exception):
    """The base of the exceptions of this package."""


class RequestError(ApiError):
    """A rejected request, with the response to it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: object,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # A message may quote a lone surrogate, which many JSON parsers reject.
        super().__init__(str(message).encode(errors="backslashreplace").decode())
        self.status = status
        self.code = code
        self.field = field
        self.headers = headers

    def as_json(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": str(self), "field": self.field}}

    def answer(self) -> ApiResponse:
        answer = _json_response(self.status, self.as_json())
        return answer._replace(headers={**HEADERS, **self.headers}) if self.headers else answer


@dataclass(slots=True)
class Caller:
    """A valid API key, cached for a second."""

    key_hash: str
    pk: int
    # Stored as the source of its events.
    source: str
    looked_at: float
    last_used_at: datetime | None
    # Whether a request is looking it up again.
    is_renewed: bool = False


def _endpoint(publish: Endpoint) -> Endpoint:
    """Accept only POST, and convert the errors of `publish` to responses."""

    @wraps(publish)
    def respond(request: HttpRequest) -> ApiResponse:
        try:
            if request.method != "POST":
                message = _("Events are sent by POST.")
                raise RequestError(405, "method_not_allowed", message, headers={"Allow": "POST"})
            return publish(request)
        except RequestError as refusal:
            return refusal.answer()
        except MissingScopeError as missing:
            return _insufficient(missing).answer()
        except DatabaseError as error:
            if not queue.is_unavailable(error):
                raise
            queue.leave_read_only(error)
            return unavailable(error)

    return respond


def unavailable(error: Exception) -> ApiResponse:
    """Return the response to a database error."""
    # One line: each retry of a client would log another traceback.
    logger.error("api_unavailable error=%s", " ".join(str(error).split()))
    message = _("The database does not answer. Send the event again.")
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return RequestError(503, "unavailable", message, headers=headers).answer()


def is_for_api(request: HttpRequest) -> bool:
    return is_api_path(request.path_info)


def is_api_path(path: str) -> bool:
    return _API_PATH.match(path) is not None


@csrf_exempt
def not_found(request: HttpRequest) -> ApiHttpResponse:
    """Respond 404 for every other URL of the API, such as one with an extra slash."""
    message = _("Unknown URL. Send one event to %(one)s, or many to %(many)s.")
    one, many = ENDPOINTS
    message %= {"one": one, "many": many}
    return ApiHttpResponse(RequestError(404, "not_found", message).answer())


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Respond to a request that Django rejects; with JSON to the API, for an unknown host name."""
    if not is_for_api(request) or not isinstance(exception, DisallowedHost):
        return defaults.bad_request(request, exception)
    message = _("Unknown host name. Use the URL at which people open this site.")
    return ApiHttpResponse(RequestError(400, "wrong_host", message).answer())


def as_view(endpoint: Endpoint) -> Callable[[HttpRequest], ApiHttpResponse]:
    return csrf_exempt(lambda request: ApiHttpResponse(endpoint(request)))


@_endpoint
def publish_event(request: HttpRequest) -> ApiResponse:
    """Accept one event; respond 202 with its id and the number of its deliveries."""
    caller = _authenticate(request)
    check_content_type(request, _JSON)
    body = read_body(request, limit=settings.WEBHOOKS_MAX_PAYLOAD_BYTES)
    _authenticate_again(caller)
    item = event_of(body, request.META.get("HTTP_IDEMPOTENCY_KEY"), caller)
    try:
        with queue.backend().short_lock_waits():
            published = events.publish_together(item)
    except events.InvalidEventError as error:
        raise _refusal(error) from error
    is_new = not published.is_duplicate
    return accepted(published, partial(follow_up, caller, is_new=is_new))


def event_of(
    body: bytes, key: str | None, caller: Caller, *, is_explained: bool = True
) -> events.NewEvent:
    """Return the event of a body and an Idempotency-Key header. Raises RequestError.

    `is_explained` adds details to errors in JSON, which takes longer.
    """
    fields = _checked(_parse(body, is_explained=is_explained))
    fields["idempotency_key"] = _idempotency_key(key, fields)
    return _event(fields, caller)


def accepted(published: events.Published, then: Callable[[], None] = _nothing) -> ApiResponse:
    return _json_response(HTTPStatus.ACCEPTED, _accepted(published), then)


def follow_up(caller: Caller, *, is_new: bool) -> None:
    """Do the work that the client does not have to wait for."""
    if is_new:
        events.wake_drains()
    if needs_renewal(caller):
        _renew(caller)


@_endpoint
def publish_batch(request: HttpRequest) -> ApiResponse:
    """Accept up to 1,000 events in one transaction; respond with a result for each, in order.

    The body is a JSON array, an object with the array as `events`, or NDJSON. 202: all were
    accepted; 207: some were; 422: none was. The result of a rejected event is its error.
    """
    caller = _authenticate(request)
    media_type = check_content_type(request, _JSON, *_NDJSON)
    if "Idempotency-Key" in request.headers:
        message = _("Put an idempotency key into each event of a batch, not into the header.")
        raise RequestError(422, "invalid_key", message, field="idempotency_key")
    body = read_body(request, limit=settings.WEBHOOKS_MAX_BATCH_BYTES)
    _authenticate_again(caller)
    wanted = _wanted(_parts(body, media_type), caller)
    with queue.backend().short_lock_waits():
        published = iter(
            events.publish_each([one for one in wanted if isinstance(one, events.NewEvent)])
        )
    results = [one if isinstance(one, RequestError) else next(published) for one in wanted]
    refused = sum(not isinstance(one, events.Published) for one in results)
    status = 202 if not refused else 422 if refused == len(results) else 207
    return _json_response(status, {"results": [_result(one) for one in results]})


class _Line(NamedTuple):
    """A line of NDJSON, parsed separately; `number` counts from 1."""

    number: int
    text: bytes


def _parts(body: bytes, media_type: str) -> Sequence[_Line | object]:
    """Return the events of a batch, parsed or as lines."""
    parts: Any
    if media_type in _NDJSON:
        # One more than allowed: a body may have millions of lines.
        parts = list(islice(_lines(body), MAX_BATCH_EVENTS + 1))
    else:
        parts = _parse(body, max_items=MAX_BATCH_EVENTS)
        if isinstance(parts, dict):
            parts = _events_of(parts)
    if not isinstance(parts, list):
        message = _(
            "A batch is a JSON array of events, an object with this array as “events”, or one "
            "event on each line (NDJSON)."
        )
        raise RequestError(400, "not_batch", message)
    if not parts:
        raise RequestError(400, "not_batch", _("The batch has no events."))
    if len(parts) > MAX_BATCH_EVENTS:
        raise _too_many()
    return parts


def _events_of(batch: dict[str, Any]) -> Any:
    """Return what an object has as `events`."""
    if "events" in batch:
        _check_names(batch, {"events"})
    elif "type" in batch:
        message = _("This is a single event. Send it to %s.") % next(iter(ENDPOINTS))
        raise RequestError(400, "not_batch", message)
    return batch.get("events")


def _lines(body: bytes) -> Iterator[_Line]:
    # Not splitlines(): it also splits at a carriage return, which is whitespace in JSON.
    for number, line in enumerate(BytesIO(body.removeprefix(codecs.BOM_UTF8)), 1):
        if line.strip():
            yield _Line(number, line.removesuffix(b"\n"))


def _wanted(
    parts: Sequence[_Line | object], caller: Caller
) -> list[events.NewEvent | RequestError]:
    wanted: list[events.NewEvent | RequestError] = []
    left = _EXPLAINED_BYTES
    for part in parts:
        try:
            fields = part
            if isinstance(part, _Line):
                fields = _parse(part.text, is_explained=left > 0, first_line=part.number)
            wanted.append(_event(_checked(fields), caller))
        except RequestError as error:
            wanted.append(error)
            if isinstance(part, _Line) and error.code in ("not_json", "duplicate_key"):
                left -= len(part.text)
    return wanted


def _event(fields: Mapping[str, Any], caller: Caller) -> events.NewEvent:
    return events.NewEvent(
        fields["type"],
        fields["payload"],
        idempotency_key=fields.get("idempotency_key"),
        occurred_at=_occurred_at(fields),
        source=caller.source,
    )


def _refusal(error: events.InvalidEventError) -> RequestError:
    status = 413 if error.code == "too_large" else 422
    return RequestError(status, error.code, error, field=error.field)


def _accepted(published: events.Published) -> dict[str, Any]:
    return {
        "event_id": published.event_id,
        "deliveries": published.deliveries,
        "duplicate": published.is_duplicate,
    }


def _result(
    result: events.Published | events.InvalidEventError | RequestError,
) -> dict[str, Any]:
    if isinstance(result, events.Published):
        return _accepted(result)
    return (result if isinstance(result, RequestError) else _refusal(result)).as_json()


# The cache of callers, by key digest, the newest last.
callers: dict[str, Caller] = {}


@sensitive_variables()
def bearer_token(request: HttpRequest) -> str:
    """Return the key that a request carries (RFC 6750 section 2.1); empty when it has none."""
    scheme, _space, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@sensitive_variables()
def _authenticate(request: HttpRequest) -> Caller:
    """Return the caller. Raises RequestError with the challenge of RFC 6750 section 3."""
    plain = bearer_token(request)
    if not plain:
        message = _("Send an API key: “Authorization: Bearer whapi_…”.")
        challenge = 'Bearer realm="webhooks"'
        raise RequestError(401, "unauthorized", message, headers={"WWW-Authenticate": challenge})
    caller = _caller_of(plain)
    if caller is None:
        raise _unknown_key()
    if _last_used_is_stale(caller):
        _record_use(caller)
    return caller


@sensitive_variables()
def known_caller(request: HttpRequest) -> Caller | None:
    """Return the caller if the key is cached; `still_known` checks again later."""
    plain = bearer_token(request)
    return still_known(hash_key(plain)) if plain else None


def still_known(key_hash: str) -> Caller | None:
    """Return the cached caller with this key digest; None if the database has to be used."""
    caller = callers.get(key_hash)
    return None if caller is None or _is_old(caller) or _last_used_is_stale(caller) else caller


def _unknown_key() -> RequestError:
    message = _("This API key is not known or was revoked.")
    challenge = 'Bearer realm="webhooks", error="invalid_token"'
    return RequestError(401, "unauthorized", message, headers={"WWW-Authenticate": challenge})


def _authenticate_again(caller: Caller) -> None:
    """Reject a key that was revoked while the body arrived, which may take minutes."""
    if _is_old(caller) and _look_up(caller.key_hash) is None:
        raise _unknown_key()


def _is_old(caller: Caller) -> bool:
    return time.monotonic() - caller.looked_at >= KEY_SECONDS


def _insufficient(missing: MissingScopeError) -> RequestError:
    message = _("This API key may not do that: it lacks the scope “%s”.") % missing.scope
    challenge = f'Bearer realm="webhooks", error="insufficient_scope", scope="{missing.scope}"'
    return RequestError(403, "forbidden", message, headers={"WWW-Authenticate": challenge})


@sensitive_variables()
def _caller_of(plain: str) -> Caller | None:
    """Return the caller with a key; a revoked key is accepted for KEY_SECONDS at most."""
    key_hash = hash_key(plain)
    caller = callers.get(key_hash)
    if caller is None or _is_old(caller):
        caller = _look_up(key_hash)
    return caller


def _look_up(key_hash: str) -> Caller | None:
    now = time.monotonic()
    api_key = ApiKey.objects.verify_hash(key_hash)
    if api_key is None:
        callers.pop(key_hash, None)
        return None
    if len(callers) >= _MAX_KEYS:
        callers.clear()
    caller = Caller(
        key_hash,
        api_key.pk,
        messages.dump("api_key", prefix=api_key.prefix),
        now,
        api_key.last_used_at,
    )
    callers[key_hash] = caller
    return caller


def needs_renewal(caller: Caller) -> bool:
    """Return whether to look up a key again before a request has to wait for that."""
    return not caller.is_renewed and time.monotonic() - caller.looked_at >= KEY_SECONDS / 2


def _renew(caller: Caller) -> None:
    caller.is_renewed = True
    try:
        _look_up(caller.key_hash)
    except (MissingScopeError, DatabaseError) as error:
        # The next request looks it up again and reports the error.
        logger.info("key_not_renewed error=%s", type(error).__name__)


def _last_used_is_stale(caller: Caller) -> bool:
    last, now = caller.last_used_at, timezone.now()
    return last is None or not now - _LAST_USED_STEP < last < now + _LAST_USED_AHEAD


def _record_use(caller: Caller) -> None:
    now = timezone.now()
    unused = Q(last_used_at=None) | Q(last_used_at__lte=now - _LAST_USED_STEP)
    wrong = Q(last_used_at__gte=now + _LAST_USED_AHEAD)
    ApiKey.objects.filter(unused | wrong, pk=caller.pk).update(last_used_at=now)
    caller.last_used_at = now


def accepts_single_event(request: HttpRequest) -> bool:
    """Return whether a body with this Content-Type and encoding may be a single event."""
    try:
        check_content_type(request, _JSON)
    except RequestError:
        return False
    return True


def check_content_type(request: HttpRequest, *media_types: str) -> str:
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    if request.content_type not in media_types or charset not in UTF_8:
        message = _("Send JSON in UTF-8: “Content-Type: %s”.") % media_types[0]
        if len(media_types) > 1:
            message = _("Send JSON in UTF-8: “Content-Type: %(one)s” or “Content-Type: %(many)s”.")
            message %= {"one": media_types[0], "many": media_types[1]}
        raise RequestError(415, "unsupported_media_type", message)
    if request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise RequestError(415, "unsupported_media_type", _("Send the body without compression."))
    return request.content_type or ""


def read_body(request: HttpRequest, *, limit: int) -> bytes:
    """Read a body of at most `limit` bytes, with or without a Content-Length."""
    declared = request.META.get("CONTENT_LENGTH", "")
    # A very long number would be slow to parse.
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    stream: Any = request
    environ = getattr(request, "environ", {})
    if "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower() and environ:
        if not environ.get("wsgi.input_terminated"):
            message = _("This server needs a Content-Length.")
            raise RequestError(411, "length_required", message)
        # Django gives an empty body when there is no Content-Length.
        stream = environ["wsgi.input"]
    body = b""
    try:
        while len(body) <= limit and (chunk := stream.read(limit + 1 - len(body))):
            body += chunk
    # Each server raises its own errors for invalid chunks, not all of them OSError.
    except Exception as error:
        raise _incomplete() from error
    if len(body) > limit:
        raise _too_large(limit)
    if declared.isdecimal() and len(body) < int(declared):
        # If the client disconnects, the server returns a partial body, which may be valid NDJSON.
        raise _incomplete()
    return body


def busy() -> ApiResponse:
    """Return the response when there is no room for another request or its body."""
    message = _("Too many requests at once. Send the event again.")
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return RequestError(503, "unavailable", message, headers=headers).answer()


def internal_error() -> ApiResponse:
    message = _("An internal error was logged. Send the event again later.")
    return RequestError(500, "internal", message).answer()


def _incomplete() -> RequestError:
    return RequestError(400, "incomplete", _("The body ended too early."))


def _too_large(limit: int) -> RequestError:
    return RequestError(413, "too_large", _("The body is larger than %d bytes.") % limit)


def _too_many() -> RequestError:
    message = _("A batch has at most %d events.") % MAX_BATCH_EVENTS
    return RequestError(413, "too_many", message)


def _parse(
    body: bytes,
    *,
    is_explained: bool = True,
    first_line: int = 1,
    max_items: int | None = None,
) -> Any:
    try:
        return payloads.load_json(
            body, is_explained=is_explained, first_line=first_line, max_items=max_items
        )
    except payloads.TooManyItemsError as error:
        raise _too_many() from error
    except payloads.DocumentError as error:
        raise RequestError(400, error.code, error) from error


def _checked(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise RequestError(400, "not_object", _("An event must be a JSON object."))
    _check_names(fields, _FIELDS)
    if not isinstance(fields.get("type"), str):
        message = _("Name the event type, for example “call.incoming.after”.")
        raise RequestError(422, "unknown_type", message, field="type")
    if not isinstance(fields.get("payload"), dict):
        message = _("The payload must be a JSON object.")
        raise RequestError(422, "invalid_payload", message, field="payload")
    return fields


def _check_names(fields: Mapping[str, Any], known: Set[str]) -> None:
    if not fields.keys() <= known:
        shown = payloads.shown(min(fields.keys() - known))
        raise RequestError(422, "unknown_field", _("There is no field “%s”.") % shown, field=shown)


def _idempotency_key(header: str | None, fields: Mapping[str, Any]) -> str | None:
    if header is not None and not header.isascii():
        # WSGI decodes headers as Latin-1 (PEP 3333); a key in the body is UTF-8.
        with suppress(UnicodeError):
            header = header.encode("latin-1").decode()
    key = fields.get("idempotency_key")
    if key is not None and header is not None and key != header:
        message = _("The header and the body name different idempotency keys.")
        raise RequestError(422, "invalid_key", message, field="idempotency_key")
    # events.publish() validates the key.
    return header if key is None else key


def _occurred_at(fields: Mapping[str, Any]) -> datetime | None:
    text = fields.get("occurred_at")
    if text is None:
        return None
    try:
        moment = payloads.read_moment(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    message = _("Write the time with its offset, for example “2026-05-14T09:28:49Z”.")
    raise RequestError(422, "invalid_time", message, field="occurred_at")


# URLs of the event API; `webhooks.api.wsgi` serves them before the middleware that pages need.
ENDPOINTS: Mapping[str, Endpoint] = {
    "/api/v1/events": publish_event,
    "/api/v1/events/batch": publish_batch,
}
