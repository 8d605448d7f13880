"""Settings of the sandbox provider. Its secrets are public: it must never leave this machine."""

from pathlib import Path
from urllib.parse import urlsplit

from csp.constants import NONE, SELF
from django.core.management.utils import get_random_secret_key

from tests.sandbox.provider.faults import token_seconds
from tests.sandbox.provider.options import Options

_options = Options.read()
_callbacks = [urlsplit(callback_url) for callback_url in _options.callback_urls]
_callback_origins = sorted({f"{callback.scheme}://{callback.netloc}" for callback in _callbacks})
_here = Path(__file__).resolve().parent

DEBUG = False
SECRET_KEY = get_random_secret_key()
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "tests.sandbox.provider.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "csp",
    "oauth2_provider",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "tests.sandbox.provider.middleware.record_requests",
    "tests.sandbox.provider.middleware.inject_faults",
    "django.contrib.sessions.middleware.SessionMiddleware",
    # Sets Content-Length, without which the server closes every connection.
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [_here / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _options.database,
        # A refresh reads and then writes: it must hold the write lock from its first statement.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
        },
    }
}
# The client secret is checked on every token request; a slow hash protects nothing here.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Cookies ignore ports: with Django's names, these would replace the product's and log people out.
SESSION_COOKIE_NAME = "sandbox_session"
CSRF_COOKIE_NAME = "sandbox_csrf"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"
# Not "no-referrer": with it browsers send "Origin: null" and the CSRF check refuses the forms.
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

STATIC_URL = "static/"
STATICFILES_DIRS = [_here.parent / "static"]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "style-src": [SELF],
        "img-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # Chromium holds the redirect that follows a form to this list too.
        "form-action": [SELF, *_callback_origins],
    }
}

OAUTH2_PROVIDER = {
    "OIDC_ISS_ENDPOINT": _options.url,
    "OAUTH2_VALIDATOR_CLASS": "tests.sandbox.provider.validators.StrictValidator",
    "OAUTH2_RESPONSE_TYPES_SUPPORTED": ["code"],
    "OAUTH2_GRANT_TYPES_SUPPORTED": ["authorization_code", "client_credentials", "refresh_token"],
    "SCOPES": {
        "events:write": "Send events to the sandbox receiver in your name",
        "events:read": "See the events you have sent",
        "offline_access": "Stay connected while you are away",
    },
    "DEFAULT_SCOPES": ["events:write"],
    "PKCE_REQUIRED": _options.is_pkce_required,
    "ROTATE_REFRESH_TOKEN": _options.is_rotating,
    "REFRESH_TOKEN_REUSE_PROTECTION": _options.is_reuse_punished,
    "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": _options.grace_seconds,
    "EXTRA_SERVER_KWARGS": {"token_expires_in": token_seconds},
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "ERROR"},
    # Its defaults would write every 400 and 404 that a test provokes.
    "loggers": {"django": {"level": "ERROR", "propagate": True, "handlers": []}},
}
