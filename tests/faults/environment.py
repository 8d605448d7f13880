"""The environment of a fault run: set before Django reads it, inherited by every process."""

import os
import sys
from pathlib import Path

# Shorter than in production, so that a fault takes seconds. Webhook timeouts are 1 to 2 s.
LEASE_SECONDS = 4.0
GRACE_SECONDS = 5.0
ROOT = Path(__file__).resolve().parents[2]


def prepare(directory: Path, *, database_url: str, redis_url: str, port: int) -> None:
    """Replace the shell's settings of the product with those of the run."""
    for name in [name for name in os.environ if name.startswith(("WEBHOOKS_", "CELERY_"))]:
        del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "DATA_DIR": str(directory),
        "DEBUG": "0",
        "SECRET_KEY": "a-key-of-the-faults-with-fifty-or-more-characters-in-it-0123456789",
        "FIELD_ENCRYPTION_KEY": "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8",
        "WEBHOOKS_LEASE_SECONDS": str(LEASE_SECONDS),
        "WEBHOOKS_GRACE_SECONDS": str(GRACE_SECONDS),
        "WEBHOOKS_REFRESH_SECONDS": "10",
        "EMAIL_URL": "memorymail://",
        "LOG_LEVEL": "INFO",
    }
    sys.path.insert(0, str(ROOT))
