"""Django without a database, a service or an open network, for the fuzzing processes."""

import os
import warnings


def set_up() -> None:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "ENV_FILE": os.devnull,
        "DEBUG": "0",
        "SECRET_KEY": "a-key-of-the-tests-with-fifty-or-more-characters-in-it-0123456789",
        "FIELD_ENCRYPTION_KEY": "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=",
        "PUBLIC_URL": "https://hooks.example.com",
        "WEBHOOKS_ALLOWED_NETWORKS": "",
        "DATABASE_URL": "sqlite://:memory:",
        "REDIS_URL": "",
    }
    warnings.simplefilter("error")
    import django

    django.setup()
