"""Past hourly counts for a product that was just started, so that its charts show some weeks.

Run by `product.py` as a separate program, with the product's settings and database.
"""

import os
import random
from datetime import timedelta

_WEEKS = 4
# Fixed, so that the screenshots are the same every time.
_SEED = 2026


def write() -> None:
    from django.utils import timezone

    from webhooks.delivery.histogram import step_of
    from webhooks.models import HourlyCount, Outcome, Webhook

    dice = random.Random(_SEED)
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    rows = []
    for webhook in Webhook.objects.present().order_by("pk"):
        is_broken = "Old" in webhook.name
        for hours in range(1, _WEEKS * 7 * 24):
            hour = now - timedelta(hours=hours)
            calls = dice.randint(0, 40) if 6 <= hour.hour <= 18 else dice.randint(0, 4)
            failed = calls if is_broken and hours < 30 else dice.choice((0, 0, 0, 1, 2))
            for outcome, count, milliseconds in (
                (Outcome.SUCCEEDED, max(calls - failed, 0), dice.choice((60, 90, 140))),
                (Outcome.SERVER_ERROR, failed, 300),
            ):
                if count:
                    rows.append(
                        HourlyCount(
                            webhook=webhook,
                            hour=hour,
                            outcome=outcome,
                            duration_step=step_of(milliseconds),
                            count=count,
                        )
                    )
    HourlyCount.objects.bulk_create(rows, ignore_conflicts=True)


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    write()
