"""One delivery in three steps with frozen values between them: plan, prepare, classify.

`RequestPlan` is everything about a webhook that does not change from delivery to delivery,
decrypted once; `prepare` makes the request of one claimed row; `classify` gives the outcome of a
response and `next_step` the retry policy. Nothing here touches the network or the database.
"""

import datetime as dt
import email.utils
import random
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.utils.translation import gettext as _

from webhooks import payloads
from webhooks.delivery import outcomes
from webhooks.delivery.auth import Authorization
from webhooks.delivery.queue.rows import AttemptResult, Claimed
from webhooks.delivery.success import SuccessRule, compile_rule, is_packed, unpacked
from webhooks.models import Header, HoldReason, Outcome, Status, Trigger, Webhook
from webhooks.models.log import MAX_REQUEST_LINE
from webhooks.models.messages import Message
from webhooks.network import HEADER_NAME, Target, header_line, parse_url, with_query
from webhooks.security import signatures
from webhooks.security.masker import MASK, Masker

USER_AGENT = "Webhooks/2.0"
# libcurl adds these itself, in this order; a webhook's own header of the same name replaces one.
_OWN_HEADERS = (f"User-Agent: {USER_AGENT}", "Accept: */*")
_TEST = Trigger.TEST.value
# libcurl waits for 100 Continue before it sends a body of one MiB.
_WAITS_FROM_BYTES = 512 * 1024

# Standard Webhooks: at once, then 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h. Quick
# at first for a restart, then long enough to outlast a weekend; 10 attempts in 3 days and 4 hours.
RETRY_SCHEDULE_SECONDS = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
# A week: longer waits outlive the retention of the log.
MAX_STEP_SECONDS = 7 * 86400
# A receiver that refuses (most 4xx) rarely changes its mind: three retries, 35 minutes.
SHORT_RETRY_LIMIT = 3
# Spreads retries of a recovered receiver.
JITTER = 0.2

# Outcomes that use the whole retry schedule; the others have the short retry limit.
_FULL_SCHEDULE = frozenset(
    {
        Outcome.SERVER_ERROR,
        Outcome.THROTTLED,
        Outcome.TIMEOUT,
        Outcome.NETWORK,
        Outcome.TLS,
        Outcome.PROTOCOL,
        Outcome.REJECTED,
    }
)
# Bytes of a response that are stored, and kept until then to mask a secret that crosses the end.
STORED_BODY_BYTES, KEPT_BODY_BYTES = 20_000, 21_000
_MAX_HEADERS_STORED, _REMEMBERED_BYTES = 16_384, 1024
# What can be written so that it takes milliseconds to judge or mask.
_LONG_BYTES = 2048
_LINE_END = re.compile("[\r\n\0]")
# Stored as escapes: C0 and C1 controls (but tab and newline), bidi marks and half surrogate pairs,
# which no database can hold.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class RequestPlan(NamedTuple):
    """A webhook as the engine sends it. Holds decrypted secrets: never logged, never stored."""

    webhook_id: int
    version: int
    token_version: int
    credential_id: int
    # Monotonic seconds until which a refused token causes no further refresh; 0 when it always
    # does. A success of the webhook that was refused last ends it sooner.
    trial_ends: float
    is_tried_here: bool
    target: Target
    method: str
    timeout_seconds: int
    # Header lines of every request, and the same with secrets masked.
    headers: tuple[str | bytes, ...]
    logged_headers: str
    signing_keys: tuple[bytes, ...]
    # Masks secrets that a response echoes.
    masker: Masker
    # None: the body is the event document as it is.
    render: Callable[[bytes, int], payloads.Rendered] | None
    schedule_seconds: tuple[int, ...]
    can_refresh_token: bool
    expired_status_codes: frozenset[int]
    # None: every 2xx is a success.
    success_rule: SuccessRule | None
    # Appended to the query string of every URL, and the same with the secret masked.
    query: str
    logged_query: str
    # How many bytes of a rendered body are stored.
    stored_body_bytes: int
    # The client certificate for a receiver that asks for one: PEM with its key.
    certificate: str = ""


class Request(NamedTuple):
    """One request ready for the wire."""

    claim: Claimed
    plan: RequestPlan
    url: str
    # For libcurl; an item may hold several lines.
    headers: list[str | bytes]
    body: bytes
    started_at: dt.datetime
    logged_headers: str


class Response(NamedTuple):
    """What came back, or why nothing did. Times are in milliseconds."""

    error: Outcome | None
    # What the status code does not say.
    message: Message | None
    status_code: int
    headers: bytes
    body: bytes
    size: int
    address: str
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None
    total_ms: float | None


class NextStep(NamedTuple):
    status: Status
    delay_seconds: float | None
    hold_reason: str
    counts: bool


def make_plan(
    webhook: Webhook,
    authorization: Authorization,
    *,
    target: Target | None = None,
    token_version: int = 0,
    trial_ends: float = 0.0,
    is_tried_here: bool = False,
) -> RequestPlan:
    """Decrypt and precompute; raise SecretUnreadableError, UnsafeURLError or MappingError.

    `target` is the parsed URL, if the caller has it.
    """
    target = target or parse_url(webhook.url)
    custom = webhook.read_headers()
    lines, logged = _headers(target, custom, authorization)
    render = payloads.compile_request(webhook, target.url)
    if render is None:
        lines.append("Content-Type: application/json")
        logged.append("Content-Type: application/json")
    hidden = [*authorization.secrets, *(value for _, value, is_secret in custom if is_secret)]
    # Never sent, but the receiver knows them too. Read once, as each read decrypts them.
    signing_secrets = [webhook.signing_secret, *webhook.previous_signing_secrets.split()]
    hidden += [secret.removeprefix(signatures.SECRET_PREFIX) for secret in signing_secrets]
    valid = signing_secrets if webhook.rotation_ends_at else signing_secrets[:1]
    return RequestPlan(
        webhook_id=webhook.pk,
        version=webhook.version_sent,
        token_version=token_version,
        credential_id=webhook.credential_id,
        trial_ends=trial_ends,
        is_tried_here=is_tried_here,
        target=target,
        method=webhook.method,
        timeout_seconds=webhook.timeout_seconds,
        # libcurl's binding takes ASCII text; anything else goes out as UTF-8.
        headers=tuple(line if line.isascii() else line.encode() for line in lines),
        logged_headers="\n".join(logged),
        signing_keys=tuple(map(signatures.secret_key, valid)),
        masker=Masker(hidden),
        render=render,
        schedule_seconds=_schedule(webhook.retry_schedule_seconds),
        can_refresh_token=token_version > 0,
        expired_status_codes=frozenset(webhook.credential.expired_status_codes or [401]),
        success_rule=compile_rule(webhook) if webhook.has_success_rule else None,
        query=authorization.query,
        logged_query=authorization.logged_query,
        stored_body_bytes=settings.WEBHOOKS_STORED_BODY_BYTES,
        certificate=webhook.credential.client_certificate,
    )


def _schedule(steps: Iterable[Any]) -> tuple[int, ...]:
    """Return the waits before the retries; raise ValueError for a wait that no form accepts.

    No database can store a due time a thousand years ahead.
    """
    schedule = tuple(map(int, steps)) or RETRY_SCHEDULE_SECONDS
    if not all(0 <= seconds <= MAX_STEP_SECONDS for seconds in schedule):
        raise ValueError("a step of the retry schedule is out of range")
    return schedule


def _headers(
    target: Target, custom: Sequence[Header], authorization: Authorization
) -> tuple[list[str], list[str]]:
    """Return the header lines for libcurl, and all header lines as the log shows them."""
    header = authorization.header
    # With a shared connection, a webhook may have a header of the token's name: the token wins.
    taken = "" if header is None else authorization.name.lower()
    custom = [row for row in custom if row[0].lower() != taken]
    chosen = {taken, *(name.lower() for name, _, _ in custom)}
    own = [line for line in _OWN_HEADERS if line.partition(":")[0].lower() not in chosen]
    lines: list[str] = []
    # As libcurl will send it: without the scheme's default port.
    logged = [f"Host: {target.origin.partition('://')[2]}", *own]
    for name, value, is_secret in custom:
        lines.append(_line(name, value))
        logged.append(f"{name}: {MASK if is_secret else value}")
    if header is not None:
        lines.append(_line(authorization.name, header))
        logged.append(f"{authorization.name}: {authorization.logged_header}")
    return lines, logged


def _line(name: str, value: str) -> str:
    """Return a header line for libcurl; raise MappingError if it would be two lines or none.

    The forms reject such values; this is for rows and tokens that came in some other way.
    """
    if not HEADER_NAME.fullmatch(name) or _LINE_END.search(value):
        sentence = _("The header “%s” cannot be sent: it is more than one line. Change it.")
        problem = payloads.Violation(sentence=sentence % payloads.shown(name), field="headers")
        raise payloads.MappingError(problem)
    return header_line(name, value)


def prepare(claim: Claimed, plan: RequestPlan, now: float) -> Request:
    """Make the request of one claimed row; `now` is Unix time in seconds."""
    _id, _webhook_id, event_id, number, _failures, trigger, body = claim
    url, content_type = plan.target.url, None
    if plan.render is not None:
        rendered = plan.render(body, number)
        url, body, content_type = rendered.url, rendered.body, rendered.content_type
    if plan.query:
        url = with_query(url, plan.query)
    timestamp = int(now)
    signed = signatures.signature(plan.signing_keys, event_id, timestamp, body)
    # In one item, which libcurl passes on as it is: each header costs it half a microsecond.
    own = (
        f"webhook-id: {event_id}\r\nwebhook-timestamp: {timestamp}\r\n"
        f"webhook-signature: {signed}\r\nwebhook-attempt: {number}"
    )
    if trigger == _TEST:
        own += "\r\nwebhook-test: true"
    headers = [*plan.headers, own]
    logged_headers = f"{plan.logged_headers}\n{own}".replace("\r\n", "\n")
    if content_type:
        headers.append(f"Content-Type: {content_type}")
        logged_headers += f"\nContent-Type: {content_type}"
    elif plan.render is not None:
        # An empty value makes libcurl leave out a header that it would add.
        headers.append("Content-Type:")
    if len(body) > _WAITS_FROM_BYTES:
        headers.append("Expect:")
    if len(body) > plan.stored_body_bytes:
        # libcurl always sends it; in the log it tells the full size of a body stored in part.
        logged_headers += f"\nContent-Length: {len(body)}"
    return Request(claim, plan, url, headers, body, utc(now), logged_headers)


@lru_cache(maxsize=8)
def utc(unix_seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_seconds, dt.UTC)


def no_response(outcome: Outcome, message: Message) -> Response:
    """Make the response of a request that never reached a receiver."""
    return Response(outcome, message, 0, b"", b"", 0, "", None, None, None, None, None)


def classify(response: Response) -> Outcome:
    """Put a response into exactly one class."""
    if response.error is not None:
        return response.error
    code = response.status_code
    if 200 <= code < 300:
        return Outcome.SUCCEEDED
    if 300 <= code < 400:
        return Outcome.REDIRECT
    if code in (408, 425, 429):
        return Outcome.THROTTLED
    if code == 410:
        return Outcome.GONE
    if code in (401, 403, 407):
        return Outcome.UNAUTHORIZED
    if 400 <= code < 500:
        return Outcome.REFUSED
    if 500 <= code < 600:
        return Outcome.SERVER_ERROR
    return Outcome.PROTOCOL


def judge(
    rule: SuccessRule, response: Response, by_status: Outcome
) -> tuple[Outcome, Response, bool]:
    """Judge a response by a success rule; return also whether it says that the token expired.

    The returned response carries the reason of a rejection.
    """
    if response.error is not None:
        return by_status, response, False
    found = rule.judge(
        response.status_code, response.body, response.size, by_status, headers=response.headers
    )
    return found.outcome, response._replace(message=found.message), found.is_token_expired


def next_step(
    outcome: Outcome, claim: Claimed, plan: RequestPlan, *, retry_after: float | None
) -> NextStep:
    """Return what follows: done, another attempt, or given up."""
    if outcome is Outcome.SUCCEEDED:
        return _DONE
    if claim.trigger == _TEST:
        return NextStep(Status.FAILED, None, "", True)
    if outcome is Outcome.GONE:
        return NextStep(Status.HELD, None, HoldReason.PAUSED, True)
    is_final = plan.success_rule is not None and not plan.success_rule.is_retried
    if outcome is Outcome.REJECTED and is_final:
        return NextStep(Status.FAILED, None, "", True)
    schedule: Sequence[int] = plan.schedule_seconds
    if outcome not in _FULL_SCHEDULE:
        schedule = schedule[:SHORT_RETRY_LIMIT]
    step = claim.failure_count
    if step >= len(schedule):
        return NextStep(Status.FAILED, None, "", True)
    seconds = schedule[step]
    delay = seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    if retry_after is not None and retry_after > delay:
        # Never sooner than our own step, never later than the one after it; spread as well, but
        # only to later: the receiver does not want it sooner.
        latest = schedule[step + 1] if step + 1 < len(schedule) else 2 * seconds
        delay = min(max(retry_after, seconds), max(latest, seconds))
        delay *= random.uniform(1, 1 + JITTER)  # noqa: S311
    return NextStep(Status.PENDING, delay, "", True)


_DONE = NextStep(Status.SUCCEEDED, None, "", False)
# The value of that status and of its outcome.
_SUCCEEDED = "succeeded"
_RETRY_AFTER = re.compile(rb"^retry-after:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_SECONDS = re.compile(rb"[0-9]+(?:\.[0-9]+)?")


def retry_after_seconds(headers: bytes, now: float) -> float | None:
    """Return the wait a receiver asks for (RFC 9110 section 10.2.3), or None if unreadable."""
    found = _RETRY_AFTER.search(headers)
    if not found:
        return None
    text = found[1].strip()
    if _SECONDS.fullmatch(text):
        # Some receivers send fractions. Too many digits are infinity, which the schedule bounds.
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text.decode("latin-1"))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, moment.timestamp() - now)


# RFC 6750 section 3.1 has these with 401 and 403; some receivers use another status, and Facebook
# sends them without the parameter's name: OAuth "Facebook Platform" "invalid_token" "...".
_CHALLENGE_ERROR = re.compile(
    rb'^www-authenticate:[^\r\n]*(?:\berror[ \t]*=[ \t]*"?|"Facebook Platform" ")'
    rb"(invalid_token|insufficient_scope)\b",
    re.IGNORECASE | re.MULTILINE,
)


def challenge_error(response: Response) -> str:
    """Return the access token error that a refusal's challenge names, or ""."""
    if not 400 <= response.status_code < 500:
        return ""
    found = _CHALLENGE_ERROR.search(response.headers)
    return found[1].decode().lower() if found else ""


def is_long(response: Response) -> bool:
    """Return whether it may take long to judge and mask a response."""
    headers, body = response.headers, response.body
    is_large = len(headers) + len(body) > _LONG_BYTES
    return is_large or (not body.isascii() and is_packed(body, headers))


def result(request: Request, response: Response, outcome: Outcome, step: NextStep) -> AttemptResult:
    """Make the attempt's row and the delivery's next status from what happened."""
    claim, plan, _, _, sent_body, started_at, logged_headers = request
    error, message, code, headers, body, size, address, *times = response
    masker, is_cut = plan.masker, error is not None
    body = _masked_body(masker, body, headers, is_cut=is_cut)
    masked = masker.mask_bytes(headers, limit=_MAX_HEADERS_STORED, is_cut=is_cut)
    delivery_id, webhook_id, _, number, _, _, _ = claim
    status_code = code or None
    # The usual case, without the call behind `value` of an Enum.
    outcome_value = _SUCCEEDED if step is _DONE else outcome.value
    error_text = ""
    if message is not None:
        # The response's text was cut, so a secret may begin at its end.
        error_text = outcomes.stored(
            message, lambda text: printable(masker.mask(text, is_cut=True))
        )
    elif outcome is not Outcome.SUCCEEDED:
        error_text = outcomes.of_status(outcome_value, code)
    attempt = (
        delivery_id,
        number,
        started_at,
        *times,
        address,
        _stored_line(f"{plan.method} {logged_url(request)}"),
        logged_headers,
        sent_body[: plan.stored_body_bytes] if plan.render is not None else None,
        status_code,
        _shown(masked) if len(masked) <= _REMEMBERED_BYTES else _shown.__wrapped__(masked),
        body,
        size,
        outcome_value,
        error_text,
    )
    return AttemptResult(
        delivery_id,
        webhook_id,
        number,
        _SUCCEEDED if step is _DONE else step.status.value,
        step.delay_seconds,
        step.hold_reason,
        outcome_value,
        status_code,
        step.counts,
        attempt,
    )


def _masked_body(masker: Masker, body: bytes, headers: bytes, *, is_cut: bool) -> bytes:
    """Return what is stored of a body; one that repeats a secret is not stored compressed."""
    text = body if body.isascii() else unpacked(body, headers, max_bytes=KEPT_BODY_BYTES)
    if text is not body:
        is_text_cut = is_cut or max(len(body), len(text)) >= KEPT_BODY_BYTES
        masked = masker.mask_bytes(text, limit=STORED_BODY_BYTES, is_cut=is_text_cut)
        if masked != text[:STORED_BODY_BYTES]:
            return masked
    return masker.mask_bytes(body, limit=STORED_BODY_BYTES, is_cut=is_cut)


def _stored_line(line: str) -> str:
    return line if len(line) <= MAX_REQUEST_LINE else line[: MAX_REQUEST_LINE - 1] + "…"


def logged_url(request: Request) -> str:
    """Return the URL with a token in its query string masked."""
    query = request.plan.query
    if not query or not request.url.endswith(query):
        return request.url
    return request.url.removesuffix(query) + request.plan.logged_query


# Responses of a receiver within the same second have the same headers.
@lru_cache(maxsize=1024)
def _shown(headers: bytes) -> str:
    return printable(headers.decode("latin-1").replace("\r\n", "\n").rstrip())


def printable(text: str) -> str:
    """Replace characters that a database or a terminal cannot handle with visible escapes."""
    # The usual case: ASCII lines.
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
