"""The limit of webhooks for one event type, which is checked wherever a webhook gains types."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings

from webhooks import catalogue
from webhooks.models import Webhook


def count_webhooks() -> Counter[str]:
    """Return how many webhooks subscribe to each event type, without deleted ones."""
    counts: Counter[str] = Counter()
    for patterns in Webhook.objects.present().values_list("event_types", flat=True):
        counts.update(catalogue.types_for(patterns))
    return counts


def exceeded(types: Iterable[str], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the parameters of a sentence about types that have no room for one more webhook.

    Empty if all have.
    """
    limit = settings.WEBHOOKS_MAX_PER_EVENT_TYPE
    full = sorted(key for key in types if counts.get(key, 0) >= limit)
    labels = ", ".join(f"“{catalogue.EVENT_TYPES[key].label}”" for key in full)
    return {"types": labels, "limit": limit} if full else {}
