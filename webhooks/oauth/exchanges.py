"""The flight recorder: what was said to an authorization server and what it answered.

Everything is redacted before it becomes a row: codes, verifiers, secrets and tokens are kept by
their last four characters. Knows no HTTP client.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from django.db import DatabaseError

from webhooks.models import ExchangeKind, OAuthExchange, Webhook
from webhooks.oauth import redaction

logger = logging.getLogger(__name__)

# Header fields of an answer that tell something; cookies and the rest are not kept.
_TOLD = ("content-type", "location", "retry-after", "www-authenticate", "date", "x-request-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """One redacted exchange, ready to be kept."""

    kind: ExchangeKind
    url: str
    started_at: datetime
    duration_ms: float | None = None
    status_code: int | None = None
    request: str = field(default="", repr=False)
    response: str = field(default="", repr=False)


def record(webhook: Webhook, transcript: Transcript, *, result: str, message: str = "") -> None:
    """Keep an exchange. It never fails: a token is worth more than its transcript."""
    duration_ms = transcript.duration_ms
    logger.info(
        "oauth_exchange webhook=%d kind=%s status=%s result=%s duration_ms=%.0f",
        webhook.pk,
        transcript.kind.value,
        transcript.status_code,
        result,
        duration_ms or 0.0,
    )
    try:
        OAuthExchange.objects.create(
            webhook=webhook,
            kind=transcript.kind,
            started_at=transcript.started_at,
            duration_ms=None if duration_ms is None else round(duration_ms, 1),
            url=without_query(transcript.url)[:2048],
            status_code=transcript.status_code,
            result=result,
            request=transcript.request,
            response=transcript.response,
            message=message[:1000],
        )
    except DatabaseError as error:
        logger.warning("oauth_exchange_lost webhook=%d error=%s", webhook.pk, type(error).__name__)


def describe_request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    pairs: Iterable[tuple[str, str]] = (),
    secrets: Iterable[str] = (),
) -> str:
    """Return a request as text, redacted."""
    lines = [f"{method} {without_query(url)}"]
    for name, value in (headers or {}).items():
        scheme, _, _credentials = value.partition(" ")
        lines.append(f"{name}: {scheme} …" if name == "Authorization" else f"{name}: {value}")
    body = redaction.redact_pairs(pairs, secrets=secrets)
    return redaction.visible("\n".join([*lines, "", body]).rstrip())


def describe_response(
    status: int,
    headers: Mapping[str, str],
    body: str,
    *,
    secrets: Iterable[str] = (),
    may_grant: bool = False,
) -> str:
    """Return an answer as text, redacted and cut; one that may grant has tokens by any name."""
    lines = [f"HTTP {status}"]
    for name, value in headers.items():
        if name.lower() in _TOLD:
            lines.append(f"{name}: {redaction.clean(value, secrets=secrets, limit=200)}")
    shown = redaction.redact_body(body, secrets=secrets, may_grant=may_grant)
    text = "\n".join([*lines, "", shown])
    return redaction.visible(text.rstrip())


def without_query(url: str) -> str:
    """Return a URL without what may be secret in it."""
    try:
        return urlsplit(url)._replace(query="", fragment="").geturl()
    except ValueError:
        return url.partition("?")[0]
