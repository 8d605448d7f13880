"""The request a webhook would send for an event, made by the code that delivers.

Stores nothing, sends nothing and decrypts no password or token: the caller puts masks where
secrets are, and the log's own spelling of the request is what is shown.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings

from webhooks import catalogue, payloads
from webhooks.delivery import fan_out, requests
from webhooks.delivery.auth import Authorization, BasicAuthorization, NoAuthorization
from webhooks.delivery.plans import token_authorization
from webhooks.delivery.queue.rows import Claimed
from webhooks.delivery_log import filter_preview
from webhooks.models import AuthorizationType, Trigger, Webhook
from webhooks.network import UnsafeURLError
from webhooks.payloads import MappingError
from webhooks.security import signatures
from webhooks.security.encryption import SecretUnreadableError
from webhooks.security.masker import MASK

# Apache and nginx refuse request lines of about 8,190 bytes by default; some proxies sooner.
MAX_ADDRESS_LENGTH = 8_000
_SIGNATURE = "webhook-signature"


class PreviewError(Exception):
    """No request can be made of these settings; the text says why."""

    permanent = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The event a preview is of; `created_at` is None for a sample."""

    type: str
    event_id: str
    document: bytes
    created_at: dt.datetime | None = None

    @property
    def label(self) -> Any:
        return catalogue.label_of(self.type)

    def values(self) -> dict[str, Any]:
        """Return the event's values, as a filter reads them."""
        return payloads.read_document(self.document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A request as it would go over the wire, secrets masked."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def request_line(self) -> str:
        parts = urlsplit(self.url)
        query = f"?{parts.query}" if parts.query else ""
        return f"{self.method} {parts.path or '/'}{query} HTTP/1.1"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return what a query or a form says, decoded; nothing for JSON."""
        kinds = [value for name, value in self.headers if name == "Content-Type"]
        if "application/x-www-form-urlencoded" in kinds:
            return parse_qsl(self.body.decode(), keep_blank_values=True)
        return [] if self.body else parse_qsl(urlsplit(self.url).query, keep_blank_values=True)

    @property
    def is_address_too_long(self) -> bool:
        return len(self.url) > MAX_ADDRESS_LENGTH


def sample(webhook: Webhook, event_type: str) -> Source:
    """Return the sample that Send test would send; one about a webhook is about this one."""
    payload = fan_out.sample_payload(webhook, event_type)
    event_id = str(payload["event_id"])
    occurred_at = dt.datetime.fromisoformat(str(payload["occurred_at"]))
    document = payloads.build_document(
        event_type, event_id, occurred_at, settings.WEBHOOKS_PROJECT_ID, payload
    )
    return Source(type=event_type, event_id=event_id, document=document)


def newest(event_types: Sequence[str]) -> Source | None:
    """Return the newest real event of these types."""
    event = filter_preview.newest_event(event_types)
    if event is None:
        return None
    return Source(
        type=event.type,
        event_id=event.pk,
        document=bytes(event.payload),
        created_at=event.created_at,
    )


def build(webhook: Webhook, source: Source, *, now: float, is_signed: bool = True) -> Preview:
    """Make the request of the first attempt; `now` is Unix time in seconds.

    A webhook that was never saved has no signing secret, so its signature is masked, as it is
    when `is_signed` is false. Raises PreviewError.
    """
    claim = Claimed(
        id="",
        webhook_id=webhook.pk or 0,
        event_id=source.event_id,
        number=1,
        failure_count=0,
        trigger=Trigger.EVENT,
        payload=source.document,
    )
    try:
        if is_new := not webhook.signing_secret:
            webhook.signing_secret = signatures.new_secret()
        plan = requests.make_plan(webhook, masked_authorization(webhook))
        request = requests.prepare(claim, plan, now)
    except (SecretUnreadableError, UnsafeURLError, MappingError) as error:
        raise PreviewError(str(error)) from error
    lines = [line.partition(": ") for line in request.logged_headers.split("\n")]
    headers = [(name, value) for name, _colon, value in lines]
    if webhook.method != "GET":
        headers.append(("Content-Length", str(len(request.body))))
    if is_new or not is_signed:
        headers = [(name, MASK if name == _SIGNATURE else value) for name, value in headers]
    return Preview(
        method=webhook.method,
        url=requests.logged_url(request),
        headers=tuple(headers),
        body=request.body,
    )


def masked_authorization(webhook: Webhook) -> Authorization:
    """Return how the webhook authorizes its requests, with a mask for the secret."""
    credential = webhook.credential
    if credential.authorization_type == AuthorizationType.BASIC:
        return BasicAuthorization(credential.basic_login, MASK)
    if credential.authorization_type == AuthorizationType.OAUTH2:
        return token_authorization(credential, MASK)
    return NoAuthorization()
