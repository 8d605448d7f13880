"""All settings, read once from the environment. Names of quantities end in their unit.

Values come from the environment, then `.env`, then `DATA_DIR/keys.env` (made by `make run`).
`.env.example` lists every one.
"""

import logging
import re
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured

from config.environment import Env, keep_private, read_file, settings_file

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()


def _host(url: str) -> str:
    """Return the host of a URL as a browser's Host header spells it."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
        if not host.isascii():
            host = host.encode("idna").decode()
    except ValueError:
        # Reported by webhooks.E001.
        return ""
    return f"[{host}]" if ":" in host else host


read_file(settings_file(env.str("ENV_FILE", default="")))
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / ".data")))
read_file(DATA_DIR / "keys.env")

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
# The first key encrypts, all of them decrypt; see docs/operations.md for rotation.
FIELD_ENCRYPTION_KEY = env.list("FIELD_ENCRYPTION_KEY", default=[])

# The URL at which people and OAuth providers reach this site. Callback URLs are built from it.
PUBLIC_URL = env.str("PUBLIC_URL", default="http://127.0.0.1:8000").rstrip("/")
# Further URLs of this site, for callback URLs.
WEBHOOKS_PUBLIC_URLS = [url.rstrip("/") for url in env.list("WEBHOOKS_PUBLIC_URLS", default=[])]
# Further host names to accept; loopback names and the hosts of the URLs above are always accepted.
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *env.list("ALLOWED_HOSTS", default=[])]
ALLOWED_HOSTS += [_host(url) for url in (PUBLIC_URL, *WEBHOOKS_PUBLIC_URLS)]
IS_HTTPS = PUBLIC_URL.startswith("https://")

# Networks and ports that the guard allows besides the public internet: "10.0.0.0/8:8080".
WEBHOOKS_ALLOWED_NETWORKS = env.list("WEBHOOKS_ALLOWED_NETWORKS", default=[])
# Optional proxy for every outgoing request: "http://proxy.example:3128".
WEBHOOKS_EGRESS_PROXY = env.str("WEBHOOKS_EGRESS_PROXY", default="")
# Sent as `project_id` in every event.
WEBHOOKS_PROJECT_ID = env.str("WEBHOOKS_PROJECT_ID", default="default")
# Dotted path of a dictionary with the host project's own event types: docs/events.md.
WEBHOOKS_EVENT_TYPES = env.str("WEBHOOKS_EVENT_TYPES", default="") or {}
WEBHOOKS_MAX_PAYLOAD_BYTES = env.int("WEBHOOKS_MAX_PAYLOAD_BYTES", default=1024 * 1024)
# The body of one batch request.
WEBHOOKS_MAX_BATCH_BYTES = env.int("WEBHOOKS_MAX_BATCH_BYTES", default=8 * 1024 * 1024)
# The largest request body that may be rendered from an event, and how much of a sent body is
# stored with its attempt.
WEBHOOKS_MAX_BODY_BYTES = env.int("WEBHOOKS_MAX_BODY_BYTES", default=16 * 1024 * 1024)
WEBHOOKS_STORED_BODY_BYTES = env.int("WEBHOOKS_STORED_BODY_BYTES", default=1024 * 1024)
WEBHOOKS_MAX_PER_EVENT_TYPE = env.int("WEBHOOKS_MAX_PER_EVENT_TYPE", default=40)
# Requests that one drain keeps in flight, and how many of them may be for one webhook. Those that
# take longer than a second come in addition, up to twice as many.
WEBHOOKS_MAX_IN_FLIGHT = env.int("WEBHOOKS_MAX_IN_FLIGHT", default=256)
WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK = env.int("WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK", default=64)
# Drains per worker process group; 0 means one for each pool process, or one for a pool of threads.
WEBHOOKS_DRAINS_PER_WORKER = env.int("WEBHOOKS_DRAINS_PER_WORKER", default=0)
# Number of shards that the webhooks are divided into; with 1, each drain serves all webhooks.
WEBHOOKS_SHARDS = env.int("WEBHOOKS_SHARDS", default=1)
# How long the lease of a claimed row lasts; longer than any request's deadline.
WEBHOOKS_LEASE_SECONDS = env.float("WEBHOOKS_LEASE_SECONDS", default=90.0)
# How long one drain task runs before it hands over to the next.
WEBHOOKS_DRAIN_SECONDS = env.float("WEBHOOKS_DRAIN_SECONDS", default=300.0)
# How often an idle drain looks at the database without a wakeup.
WEBHOOKS_POLL_SECONDS = env.float("WEBHOOKS_POLL_SECONDS", default=1.0)
# How long a stopping worker waits for requests in flight.
WEBHOOKS_GRACE_SECONDS = env.float("WEBHOOKS_GRACE_SECONDS", default=25.0)
# Timeout of a refresh where each refresh token works once: a second request while the response to
# the first is on its way would end the grant.
WEBHOOKS_REFRESH_SECONDS = env.float("WEBHOOKS_REFRESH_SECONDS", default=60.0)
# A webhook without a success for this long is paused.
WEBHOOKS_PAUSE_AFTER_DAYS = env.float("WEBHOOKS_PAUSE_AFTER_DAYS", default=5.0)
# How long a webhook fails before anybody is notified.
WEBHOOKS_ALERT_AFTER_MINUTES = env.float("WEBHOOKS_ALERT_AFTER_MINUTES", default=15.0)
WEBHOOKS_RETENTION_DAYS = env.int("WEBHOOKS_RETENTION_DAYS", default=30)
WEBHOOKS_RETENTION_ROWS = env.int("WEBHOOKS_RETENTION_ROWS", default=10_000_000)
# PostgreSQL: the time span of one partition of the log.
WEBHOOKS_PARTITION_HOURS = env.int("WEBHOOKS_PARTITION_HOURS", default=168)
WEBHOOKS_OAUTH_RETENTION_DAYS = env.int("WEBHOOKS_OAUTH_RETENTION_DAYS", default=90)
# URL of the sandbox receiver of `make run`, shown on the first page. Empty: no sandbox.
WEBHOOKS_SANDBOX_URL = env.str("WEBHOOKS_SANDBOX_URL", default="")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    # For its widget templates, which FORM_RENDERER loads like every other template.
    "django.forms",
    "django_htmx",
    "csp",
    "axes",
    "webhooks",
]
# Outermost, so that static files and rejected requests get the same headers as pages.
HEADER_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_permissions_policy.PermissionsPolicyMiddleware",
    "webhooks.middleware.own_headers",
    "csp.middleware.CSPMiddleware",
]
MIDDLEWARE = [
    # Before the middleware that only pages need, which would slow down publishing. While it is
    # first, config/wsgi.py serves the event API without Django's handler.
    "webhooks.middleware.event_api",
    *HEADER_MIDDLEWARE,
    "webhooks.middleware.short_path",
    # Before middleware that checks the host name.
    "webhooks.middleware.health_probe",
    "webhooks.middleware.escaped_invisibles",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "webhooks.middleware.reader_time_zone",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "webhooks.middleware.LoginRequired",
    "webhooks.middleware.upload_login",
    "webhooks.middleware.second_factor",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    # Last: it replaces the response to a login that is locked.
    "axes.middleware.AxesMiddleware",
]
if DEBUG:
    # Outermost, around everything that can respond with 404.
    MIDDLEWARE.insert(0, "webhooks.security.error_reports.masked_not_found")
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "webhooks.ui.expired_session.opened_by",
            ]
        },
    }
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"

# Quoted: the path may contain # or ?.
_sqlite_url = f"sqlite:///{quote(str(DATA_DIR / 'webhooks.sqlite3'))}"
try:
    _database = env.db_url("DATABASE_URL", default=_sqlite_url)
except ValueError:
    # The error is dropped: what it quotes as the port may be the beginning of a password.
    _database = {}
if not _database.get("ENGINE", "").endswith(("postgresql", "sqlite3")):
    raise ImproperlyConfigured(
        "DATABASE_URL is not the address of a database, such as postgres://login:password@host/name."
        " Encode what is special in the password: @ as %40, / as %2F, # as %23."
    )
DATABASES = {"default": _database}
# For how long a connection to PostgreSQL is kept.
DATABASE_CONNECTION_MAX_AGE_SECONDS = env.int("DATABASE_CONNECTION_MAX_AGE_SECONDS", default=60)
if _database["ENGINE"].endswith("sqlite3"):
    keep_private(_database["NAME"])
    # One writer at a time, the others wait up to 20 s; a commit is on disk when it returns.
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
        "PRAGMA cache_size=-16384; PRAGMA temp_store=MEMORY;",
    }
else:
    # As in libpq, the directory of a Unix socket is written %2Frun%2Fpostgresql.
    _database["HOST"] = unquote(_database["HOST"] or "")
    _database["CONN_MAX_AGE"] = DATABASE_CONNECTION_MAX_AGE_SECONDS
    _database["CONN_HEALTH_CHECKS"] = True
    # A lost database is noticed within seconds, not after TCP's two hours.
    _database["OPTIONS"] = {
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        **_database.get("OPTIONS", {}),
    }
    # Keep READ COMMITTED: a row that another transaction changed is read again instead of failing.
    _database["OPTIONS"].pop("isolation_level", None)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")
# Only what Celery and redis-py parse alike: with other parameters one exits and the other connects.
_REDIS_SERVER = r"([^/?#]*@)?(\[[^]/?#@]*\]|[^][:/?#@]*)(:\d+)?(/\d*)?"
_REDIS_TRUST = (
    r"ssl_((ca_certs|certfile|keyfile)=[^&#]+|cert_reqs=(none|optional|required)"
    r"|check_hostname=([Tt]rue|[Ff]alse))"
)
_REDIS = rf"redis://{_REDIS_SERVER}|rediss://{_REDIS_SERVER}(\?{_REDIS_TRUST}(&{_REDIS_TRUST})*)?"
if REDIS_URL and not re.fullmatch(_REDIS, REDIS_URL):
    raise ImproperlyConfigured(
        "REDIS_URL is not the address of a Redis, such as redis://:password@host:6379/0."
    )
CELERY_BROKER_URL = REDIS_URL or "memory://localhost"
if REDIS_URL.startswith("rediss:"):
    # By default Celery accepts any certificate. `ssl_` parameters of the URL take precedence.
    CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
CELERY_TASK_IGNORE_RESULT = True
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_RESULT_ACCEPT_CONTENT = ["json"]
# Workers accept no commands through the broker, so an intruder there cannot send any.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"webhooks.tasks.drain": {"queue": "deliveries"}}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A Redis that becomes read-only in a failover responds with errors: reconnect instead of exiting.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
# Publishing an event never waits for a broker: the wakeup may be lost.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_DB_REUSE_MAX = 1000
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, float]
if REDIS_URL:
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "socket_connect_timeout": 1,
        "socket_timeout": 5,
        "socket_keepalive": True,
        "retry_on_timeout": False,
    }
else:
    # Seconds between looks for a task while the in-memory queue is empty.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"polling_interval": 0.2}
if REDIS_URL:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": "webhooks",
            "OPTIONS": {
                # Django's default is pickle, which can run code when it loads a value.
                "serializer": "webhooks.security.json_serializer.JSONSerializer",
                "socket_connect_timeout": 1,
                "socket_timeout": 2,
            },
        }
    }
CELERY_BEAT_SCHEDULER = "config.celery:Scheduler"
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "sweep": {"task": "webhooks.tasks.sweep", "schedule": 10.0},
    "refresh-tokens": {"task": "webhooks.tasks.refresh_expiring_tokens", "schedule": 30.0},
    "alerts": {"task": "webhooks.tasks.send_alerts", "schedule": 30.0},
    "retention": {"task": "webhooks.tasks.delete_old_rows", "schedule": 300.0},
    # A running resend schedules its own next turn; this covers a turn that the broker lost.
    "resends": {"task": "webhooks.tasks.advance_resends", "schedule": 30.0},
}
for _entry in CELERY_BEAT_SCHEDULE.values():
    # A task that no worker takes within three periods expires; old ones would pile up.
    _entry["options"] = {"expires": max(10.0, 3 * _entry["schedule"])}

LANGUAGE_CODE = env.str("LANGUAGE_CODE", default="en")
LANGUAGES = [("en", "English"), ("uk", "Українська")]
if LANGUAGE_CODE not in dict(LANGUAGES):
    raise ImproperlyConfigured(f"LANGUAGE_CODE is {LANGUAGE_CODE!a}. Write en or uk.")
LOCALE_PATHS = [BASE_DIR / "webhooks" / "locale"]
# The cookie with the chosen language; no script reads it.
LANGUAGE_COOKIE_AGE = 365 * 86400
LANGUAGE_COOKIE_SECURE = IS_HTTPS
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
try:
    ZoneInfo(TIME_ZONE)
except (KeyError, ValueError, OSError):
    raise ImproperlyConfigured(
        f"TIME_ZONE is {TIME_ZONE!a}. Write the name of a time zone, such as Europe/Kyiv."
    ) from None
USE_TZ = True

STATIC_URL = "static/"
# True: serve the files of `collectstatic`, with hashed names and long caching. False: the sources.
STATIC_IS_COLLECTED = env.bool("STATIC_IS_COLLECTED", default=False)
STATIC_ROOT = BASE_DIR / "staticfiles" if STATIC_IS_COLLECTED else None
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if STATIC_IS_COLLECTED
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not STATIC_IS_COLLECTED

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
# Add a directory, SSO or two-factor backend between the two: docs/operations.md.
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
    )
]

# Dotted path of a function that requires a second factor: docs/operations.md. Empty: none.
SECOND_FACTOR_CHECK = env.str("SECOND_FACTOR_CHECK", default="")
# Stores only a digest of the session key, so a copy of the database opens no session.
SESSION_ENGINE = "webhooks.security.browser_sessions"
SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"
# Failed logins of one account from one IP address before that pair is locked, and for how long.
LOGIN_FAILURE_LIMIT = env.int("LOGIN_FAILURE_LIMIT", default=5)
LOGIN_LOCKOUT_SECONDS = env.int("LOGIN_LOCKOUT_SECONDS", default=900)
# Number of proxies that each append the caller to X-Forwarded-For; only with BEHIND_TLS_PROXY.
TRUSTED_PROXY_COUNT = env.int("TRUSTED_PROXY_COUNT", default=1)
AXES_FAILURE_LIMIT = LOGIN_FAILURE_LIMIT
# A system check refuses more than a day; without this, the checks could not be loaded.
AXES_COOLOFF_TIME = timedelta(seconds=max(0, min(LOGIN_LOCKOUT_SECONDS, 24 * 3600)))
# docs/decisions/0011-what-a-failed-login-locks.md
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
# Stored as a digest: people type passwords into this field.
AXES_USERNAME_CALLABLE = "webhooks.ui.account.login.login_digest"
AXES_CLIENT_IP_CALLABLE = "webhooks.ui.account.login.client_address"
AXES_LOCKOUT_CALLABLE = "webhooks.ui.account.login.locked_out"
AXES_RESET_ON_SUCCESS = True
# Further attempts do not extend a lock.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
# A locked login page can still be opened; only submitting it is rejected.
AXES_NEVER_LOCKOUT_GET = True
AXES_ENABLE_ADMIN = False
AXES_DISABLE_ACCESS_LOG = True
# Neither stored nor logged: people type passwords into the username field.
AXES_SENSITIVE_PARAMETERS = ["username", "csrfmiddlewaretoken", "next"]
AXES_VERBOSE = False

SESSION_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
# Lax, not Strict: the provider's redirect back must carry the session.
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE_SECONDS = env.int("SESSION_COOKIE_AGE_SECONDS", default=12 * 3600)
SESSION_COOKIE_AGE = SESSION_COOKIE_AGE_SECONDS
CSRF_COOKIE_SECURE = IS_HTTPS
CSRF_COOKIE_HTTPONLY = True
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL, *WEBHOOKS_PUBLIC_URLS]
SECURE_SSL_REDIRECT = IS_HTTPS and env.bool("SECURE_SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000) if IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = IS_HTTPS
SECURE_HSTS_PRELOAD = IS_HTTPS
BEHIND_TLS_PROXY = env.bool("BEHIND_TLS_PROXY", default=False)
if BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CONTENT_TYPE_NOSNIFF = True
# With "no-referrer" browsers post `Origin: null`, which the CSRF check rejects; the OAuth callback
# sets its own policy.
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Features that no page uses, so that no injected script can use them either.
PERMISSIONS_POLICY: dict[str, str | list[str]] = {
    "accelerometer": [],
    "autoplay": [],
    "camera": [],
    "display-capture": [],
    "encrypted-media": [],
    "fullscreen": [],
    "geolocation": [],
    "gyroscope": [],
    "magnetometer": [],
    "microphone": [],
    "midi": [],
    "payment": [],
    "picture-in-picture": [],
    "publickey-credentials-get": [],
    "screen-wake-lock": [],
    "usb": [],
    "xr-spatial-tracking": [],
    # The copy buttons write to the clipboard.
    "clipboard-write": "self",
}
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        # The response to the "Get new access token" form redirects to the provider.
        "form-action": ["'self'", "https:", "http://127.0.0.1:*", "http://localhost:*"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
# The preview of an import posts the file again, encrypted: up to twice its 2 MB.
DATA_UPLOAD_MAX_MEMORY_SIZE = max(2 * WEBHOOKS_MAX_PAYLOAD_BYTES, 4 * 1024 * 1024)
# Pages and the event API need far less; a larger body is rejected before it is read.
MAX_REQUEST_BYTES = max(4 * DATA_UPLOAD_MAX_MEMORY_SIZE, 2 * WEBHOOKS_MAX_BATCH_BYTES)
# A webhook's form has 8 fields for each of 100 parameters, 4 for each of 50 headers, and a filter.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 4000

try:
    EMAIL_CONFIG = env.email_url("EMAIL_URL", default="consolemail://")
except (ImproperlyConfigured, ValueError):
    # The message leaves out the value, which may contain a password.
    raise ImproperlyConfigured(
        "EMAIL_URL is not the address of a mail server, such as smtp+tls://user:password@host:587."
    ) from None
vars().update(EMAIL_CONFIG)
if EMAIL_CONFIG["EMAIL_BACKEND"] == "django.core.mail.backends.smtp.EmailBackend":
    # With a deadline for a whole mail.
    EMAIL_BACKEND = "webhooks.alerts.mail.SmtpBackend"
# Seconds, for each read; without it a page or a task waits for a dead mail server for minutes.
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="webhooks@localhost")

# Debug error pages and error mails show no values of variables.
DEFAULT_EXCEPTION_REPORTER = "webhooks.security.error_reports.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "webhooks.security.error_reports.ReportFilter"

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").strip().upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured(f"LOG_LEVEL is {LOG_LEVEL!a}. Write DEBUG, INFO, WARNING or ERROR.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # Remove query strings and credentials from every line, of every logger and level.
    "formatters": {
        "line": {
            "()": "webhooks.security.log_redaction.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "filters": {"library_levels": {"()": "webhooks.security.log_redaction.LibraryLevels"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["library_levels"],
        }
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.server": {"level": "WARNING"},
        # At INFO, axes logs four lines for each failed login.
        "axes": {"level": "WARNING"},
    },
}
