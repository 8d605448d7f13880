"""The baseline: one Celery task per delivery, as most Django projects send webhooks.

An ORM read, `requests` with a persistent session, an ORM insert and an ORM update; one prefork
process that reuses its database connection (CELERY_DB_REUSE_MAX); otherwise library defaults. It
sends and logs what the engine sends and logs, but has no address checks, retries or leases.
"""

import os
import time
from functools import cache

import requests
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
QUEUE = "naive"

app = Celery("naive")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(task_default_queue=QUEUE, task_routes={}, worker_prefetch_multiplier=4)


@cache
def _session() -> requests.Session:
    return requests.Session()


@app.task(name="naive.deliver")
def deliver(delivery_id: str) -> None:
    from django.utils import timezone

    from webhooks.models import Attempt, Delivery
    from webhooks.security import signatures

    delivery = Delivery.objects.select_related("event", "webhook").get(pk=delivery_id)
    webhook, body = delivery.webhook, bytes(delivery.event.payload)
    timestamp = int(time.time())
    keys = [signatures.secret_key(webhook.signing_secret)]
    headers = {
        "User-Agent": "Webhooks/2.0",
        "Content-Type": "application/json",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures.signature(keys, delivery.event_id, timestamp, body),
    }
    started_at, began = timezone.now(), time.perf_counter()
    answer = _session().post(
        webhook.url,
        data=body,
        headers=headers,
        auth=(webhook.credential.basic_login, webhook.credential.basic_password),
        timeout=webhook.timeout_seconds,
        allow_redirects=False,
    )
    succeeded = answer.ok
    Attempt.objects.create(
        delivery=delivery,
        number=1,
        started_at=started_at,
        first_byte_ms=answer.elapsed.total_seconds() * 1000,
        total_ms=(time.perf_counter() - began) * 1000,
        request_line=f"POST {webhook.url}",
        request_headers="\n".join(f"{name}: {value}" for name, value in headers.items()),
        status_code=answer.status_code,
        response_headers="\n".join(f"{name}: {value}" for name, value in answer.headers.items()),
        response_body=answer.content[:20_000],
        response_size=len(answer.content),
        outcome="succeeded" if succeeded else "refused",
    )
    delivery.status = "succeeded" if succeeded else "failed"
    delivery.outcome = "succeeded" if succeeded else "refused"
    delivery.status_code = answer.status_code
    delivery.attempt_count = 1
    delivery.next_attempt_at = None
    delivery.finished_at = timezone.now()
    delivery.save(
        update_fields=[
            "status", "outcome", "status_code", "attempt_count", "next_attempt_at", "finished_at",
        ]
    )  # fmt: skip
