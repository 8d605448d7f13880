"""The event API: `POST /api/v1/events` with a bearer API key.

Owns HTTP of that one address: the order of its checks, its status codes and its errors as JSON
`{"error": {"code", "message", "field"}}`. What an event is, and everything after, is
`webhooks.events`. Why it is a plain view: docs/decisions/0010-plain-view-for-the-event-api.md.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError
from django.db.models import Q
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables

from webhooks import events, payloads
from webhooks.models import ApiKey, messages

logger = logging.getLogger(__name__)

_FIELDS = frozenset({"type", "payload", "idempotency_key", "occurred_at"})
# How exact "last used" is; a write for each request would be the API's slowest part.
_LAST_USED_STEP = timedelta(minutes=1)
# A client that the database could not serve tries again after so many seconds.
_RETRY_AFTER_SECONDS = 5
# What an event keeps as its source.
SENTENCES: Mapping[str, messages.Sentence] = {"api_key": gettext_lazy("API key %(prefix)s")}


class RequestError(Exception):
    """A request that is not accepted, with the answer it gets."""

    def __init__(
        self,
        status: int,
        code: str,
        message: object,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(str(message))
        self.status = status
        self.code = code
        self.field = field
        self.headers = headers

    def response(self) -> JsonResponse:
        error = {"code": self.code, "message": str(self), "field": self.field}
        return JsonResponse({"error": error}, status=self.status, headers=self.headers)


@csrf_exempt
def publish_event(request: HttpRequest) -> JsonResponse:
    """Accept one event; answer 202 with its id and the number of its deliveries."""
    try:
        response = _publish(request)
    except RequestError as refusal:
        response = refusal.response()
    except (OperationalError, InternalError, InterfaceError) as error:
        # One line: each of the clients that try again would leave a traceback. PostgreSQL says
        # InternalError while it only reads, after a failover and in a standby.
        logger.error("api_unavailable error=%s", " ".join(str(error).split()))
        message = _("The database does not answer. Send the event again.")
        headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)}
        response = RequestError(503, "unavailable", message, headers=headers).response()
    response["Cache-Control"] = "no-store"
    return response


def _publish(request: HttpRequest) -> JsonResponse:
    if request.method != "POST":
        message = _("Events are sent by POST.")
        raise RequestError(405, "method_not_allowed", message, headers={"Allow": "POST"})
    api_key = _authenticate(request)
    _check_content_type(request)
    fields = _parse(_read_body(request, limit=settings.WEBHOOKS_MAX_PAYLOAD_BYTES))
    try:
        published = events.publish(
            fields["type"],
            fields["payload"],
            idempotency_key=_idempotency_key(request, fields),
            occurred_at=_occurred_at(fields),
            source=messages.dump("api_key", prefix=api_key.prefix),
        )
    except events.InvalidEventError as error:
        status = 413 if error.code == "too_large" else 422
        raise RequestError(status, error.code, error, field=error.field) from error
    return JsonResponse(
        {
            "event_id": published.event_id,
            "deliveries": published.deliveries,
            "duplicate": published.is_duplicate,
        },
        status=202,
    )


@sensitive_variables()
def _authenticate(request: HttpRequest) -> ApiKey:
    """Return the caller's key (RFC 6750 section 2.1); the challenge is that of section 3."""
    scheme, _space, plain = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not plain.strip():
        message = _("Send an API key: “Authorization: Bearer whapi_…”.")
        challenge = 'Bearer realm="webhooks"'
        raise RequestError(401, "unauthorized", message, headers={"WWW-Authenticate": challenge})
    api_key = ApiKey.objects.verify(plain.strip())
    if api_key is None:
        message = _("This API key is not known or was revoked.")
        challenge = 'Bearer realm="webhooks", error="invalid_token"'
        raise RequestError(401, "unauthorized", message, headers={"WWW-Authenticate": challenge})
    _note_use(api_key)
    return api_key


def _note_use(api_key: ApiKey) -> None:
    now = timezone.now()
    if api_key.last_used_at is None or api_key.last_used_at <= now - _LAST_USED_STEP:
        unused = Q(last_used_at=None) | Q(last_used_at__lte=now - _LAST_USED_STEP)
        ApiKey.objects.filter(unused, pk=api_key.pk).update(last_used_at=now)


def _check_content_type(request: HttpRequest) -> None:
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    if request.content_type != "application/json" or charset not in {"utf-8", "utf8"}:
        message = _("Send JSON in UTF-8: “Content-Type: application/json”.")
        raise RequestError(415, "unsupported_media_type", message)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RequestError(415, "unsupported_media_type", _("Send the body without compression."))


def _read_body(request: HttpRequest, *, limit: int) -> bytes:
    """Read at most `limit` bytes, whether or not the request says how many it has."""
    declared = request.headers.get("Content-Length", "")
    # Digits beyond any real length would be slow to read as a number.
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    stream: Any = request
    environ = getattr(request, "environ", {})
    if "chunked" in request.headers.get("Transfer-Encoding", "").lower() and environ:
        if not environ.get("wsgi.input_terminated"):
            message = _("This server needs a Content-Length.")
            raise RequestError(411, "length_required", message)
        # Django gives an empty body when there is no Content-Length.
        stream = environ["wsgi.input"]
    body = b""
    try:
        while len(body) <= limit and (chunk := stream.read(limit + 1 - len(body))):
            body += chunk
    except OSError as error:
        raise RequestError(400, "incomplete", _("The body ended too early.")) from error
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> RequestError:
    return RequestError(413, "too_large", _("The body is larger than %d bytes.") % limit)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        fields = payloads.load_json(body)
    except payloads.DocumentError as error:
        raise RequestError(400, error.code, error) from error
    if not isinstance(fields, dict):
        raise RequestError(400, "not_object", _("The body is a JSON object."))
    for name in sorted(fields.keys() - _FIELDS):
        shown = payloads.shown(name)
        raise RequestError(422, "unknown_field", _("There is no field “%s”.") % shown, field=shown)
    if not isinstance(fields.get("type"), str):
        message = _("Name the event type, for example “call.incoming.after”.")
        raise RequestError(422, "unknown_type", message, field="type")
    if not isinstance(fields.get("payload"), dict):
        message = _("The payload is a JSON object.")
        raise RequestError(422, "invalid_payload", message, field="payload")
    return fields


def _idempotency_key(request: HttpRequest, fields: Mapping[str, Any]) -> str | None:
    header = request.headers.get("Idempotency-Key")
    key = fields.get("idempotency_key")
    if key is not None and header is not None and key != header:
        message = _("The header and the body name different idempotency keys.")
        raise RequestError(422, "invalid_key", message, field="idempotency_key")
    # Whether it is a good key is judged by events.publish().
    return header if key is None else key


def _occurred_at(fields: Mapping[str, Any]) -> datetime | None:
    text = fields.get("occurred_at")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    message = _("Write the time with its offset, for example “2026-05-14T09:28:49Z”.")
    raise RequestError(422, "invalid_time", message, field="occurred_at")
