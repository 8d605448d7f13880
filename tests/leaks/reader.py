"""Reads a site's stored secrets and sessions in its own process.

Started as `python -m tests.leaks.reader`. For each input line it prints one JSON object:
`{"secrets": {"table.column": [text, ...]}, "tokens": {...}, "rows": {...}, "sessions": [...],
"attempts": number}`.
"""

import json
import os
import sys
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

# Models can only be imported after `django.setup()`.
from django.contrib import admin  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.db import models  # noqa: E402
from django.db.models import F  # noqa: E402

from webhooks.models import (  # noqa: E402
    Attempt,
    ChannelKind,
    Credential,
    Delivery,
    Event,
    OAuthToken,
    Resend,
    Webhook,
    WebhookVersion,
)
from webhooks.security.encryption import SecretField  # noqa: E402
from webhooks.security.rotation import secret_models  # noqa: E402


def secrets() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for model in secret_models():
        for field in model._meta.local_concrete_fields:
            if isinstance(field, SecretField):
                values = [getattr(row, field.attname) for row in model._base_manager.all()]
                found[f"{model._meta.db_table}.{field.column}"] = list(filter(None, values))
    return found


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the values that URL parameters can have, by kind of row.

    Of a webhook's deliveries with the same trigger and result only the last: their pages are alike.
    """
    kinds = ("webhook_id", "trigger", "status", "outcome", "status_code")
    last = {
        tuple(kind): pk for pk, *kind in Delivery.objects.order_by("pk").values_list("pk", *kinds)
    }
    deliveries = Delivery.objects.filter(pk__in=last.values())
    attempts = Attempt.objects.filter(delivery__in=deliveries)
    of_attempts = attempts.values("delivery_id", attempt_id=F("pk"))
    return {
        "webhook": list(Webhook._base_manager.values("pk")),
        "public key": [
            {"uid": uid, "form": form}
            for uid in Credential.objects.values_list("uid", flat=True)
            for form in ("json", "pem")
        ],
        "connection": list(Credential.objects.shared().values("pk")),
        "credential": list(Credential._base_manager.values("pk")),
        "resend": list(Resend.objects.values("pk")),
        "event type": [{"event_type": "call.incoming.after"}],
        "no address": [{"address": "v1/nowhere"}],
        "channel kind": [{"kind": kind} for kind in ChannelKind.values],
        "version": list(WebhookVersion.objects.values("entry", pk=F("webhook_id"))[:20]),
        "event": list(Event.objects.values(event_id=F("pk"))),
        "delivery": list(deliveries.values(delivery_id=F("pk"))),
        "test": list(deliveries.values(pk=F("webhook_id"), delivery_id=F("pk"))),
        "attempt": [
            {**one, "part": part} for one in of_attempts for part in ("request", "response")
        ],
        **{
            f"admin {model._meta.model_name}": _keys(model._base_manager.all())
            for model in admin.site._registry
        },
        "admin delivery": _keys(deliveries),
    }


def _keys(found: models.QuerySet[Any]) -> list[dict[str, Any]]:
    names = ("object_id", "pk", "id")
    return [dict.fromkeys(names, key) for key in found.values_list("pk", flat=True)]


def read() -> dict[str, Any]:
    sessions = [str(one.get_decoded()) for one in Session.objects.all()]
    every = OAuthToken.objects.select_related("credential__webhook")
    tokens = {token.credential.subject.pk: token.refresh_token for token in every}
    return {
        "secrets": secrets(),
        "tokens": tokens,
        "rows": rows(),
        "sessions": sessions,
        "attempts": Attempt.objects.count(),
    }


if __name__ == "__main__":
    for _ in sys.stdin:
        print(json.dumps(read()), flush=True)
