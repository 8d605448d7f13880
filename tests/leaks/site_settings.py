"""The product's settings with every logger at DEBUG, mails about errors, and the leaking pages."""

from config.settings import *  # noqa: F403
from config.settings import DATA_DIR, LOGGING, REDIS_URL

ROOT_URLCONF = "tests.leaks.site_urls"
ADMINS = [("Operator", "operator@example.com")]
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = str(DATA_DIR / "mails")
CELERY_IMPORTS = ["tests.leaks.leaky_tasks"]
# Task results would be stored here, if the product kept any.
CELERY_RESULT_BACKEND = REDIS_URL
# Loggers that the product's settings silence are enabled: their lines must be clean too.
LOGGING = {
    **LOGGING,
    "root": {"handlers": ["stderr"], "level": "DEBUG"},
    "loggers": {
        name: {"level": "DEBUG"}
        for name in (
            *LOGGING["loggers"],  # type: ignore[attr-defined]
            "django",
            "django.request",
            "django.security",
            "celery",
            "kombu",
            "uvicorn",
        )
    },
}
