"""System checks: report wrong settings before they do harm.

Each has an id. `manage.py check` runs them; those that need the database run with
`--database default` and before `migrate`, those for production with `--deploy`.
"""

import os
import re
from collections.abc import Sequence
from email.utils import getaddresses
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from webhooks.delivery.queue import postgres
from webhooks.models.origins import is_plain_http
from webhooks.models.tables import missing_migrations, older_tables
from webhooks.network import (
    METADATA,
    Policy,
    UnsafeURLError,
    parse_allowed_network,
    parse_url,
)
from webhooks.security import key_check

# The form accepts timeouts up to 60 s; the margin is for claims, waiting for a slot and recording.
LONGEST_TIMEOUT_SECONDS = 60
LEASE_MARGIN_SECONDS = 10
# A claim looks into each partition of the log. With 60, deliveries still go out; with 520 and
# PostgreSQL's usual number of locks, none does.
MANY_PARTITIONS = 50
# RFC 3986 section 3.2.1.
_LOGIN = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")
# What every mail server takes: one local part in ASCII, one host.
_MAIL_ADDRESS = re.compile(r"[!-?A-~]+@[^\s@]+")
_EVERY_PORT = Policy(allowed_networks=(parse_allowed_network("0.0.0.0/0"),))

# Setting -> lowest and highest useful value.
RANGES: dict[str, tuple[float, float]] = {
    "WEBHOOKS_MAX_PAYLOAD_BYTES": (1024, 16 * 1024 * 1024),
    "WEBHOOKS_MAX_BATCH_BYTES": (1024, 256 * 1024 * 1024),
    "WEBHOOKS_MAX_BODY_BYTES": (64 * 1024, 256 * 1024 * 1024),
    # With a lower limit, bodies that fit a cURL command would be cut.
    "WEBHOOKS_STORED_BODY_BYTES": (32 * 1024, 256 * 1024 * 1024),
    "WEBHOOKS_MAX_PER_EVENT_TYPE": (1, 10_000),
    "WEBHOOKS_MAX_IN_FLIGHT": (1, 10_000),
    "WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK": (1, 10_000),
    "WEBHOOKS_DRAINS_PER_WORKER": (0, 256),
    "WEBHOOKS_SHARDS": (1, 1024),
    "WEBHOOKS_LEASE_SECONDS": (LONGEST_TIMEOUT_SECONDS + LEASE_MARGIN_SECONDS, 3600),
    "WEBHOOKS_DRAIN_SECONDS": (1, 24 * 3600),
    "WEBHOOKS_POLL_SECONDS": (0.01, 60),
    "WEBHOOKS_GRACE_SECONDS": (0, 600),
    "WEBHOOKS_REFRESH_SECONDS": (1, 600),
    "WEBHOOKS_PAUSE_AFTER_DAYS": (0.01, 365),
    "WEBHOOKS_ALERT_AFTER_MINUTES": (0, 30 * 24 * 60),
    "WEBHOOKS_RETENTION_DAYS": (1, 3650),
    "WEBHOOKS_RETENTION_ROWS": (1000, 10_000_000_000),
    # Each retained partition costs every claim a lookup.
    "WEBHOOKS_PARTITION_HOURS": (1, 24 * 366),
    "WEBHOOKS_OAUTH_RETENTION_DAYS": (1, 3650),
    # A lockout must stop guessing without locking an account permanently.
    "LOGIN_FAILURE_LIMIT": (1, 100),
    "LOGIN_LOCKOUT_SECONDS": (60, 24 * 3600),
    "TRUSTED_PROXY_COUNT": (0, 10),
    "SECURE_HSTS_SECONDS": (0, 10 * 366 * 24 * 3600),
    "DATABASE_CONNECTION_MAX_AGE_SECONDS": (0, 24 * 3600),
    # With less, no login lasts.
    "SESSION_COOKIE_AGE_SECONDS": (60, 366 * 24 * 3600),
}


@register()
def check_public_urls(**_: Any) -> list[CheckMessage]:
    """E001: callback URLs are built from these."""
    named = [("PUBLIC_URL", settings.PUBLIC_URL)]
    named += [("WEBHOOKS_PUBLIC_URLS", url) for url in settings.WEBHOOKS_PUBLIC_URLS]
    return [
        Error(
            f"{name} is “{url}”, not the address of a site.",
            hint="Write scheme and host, and nothing after: https://hooks.example.com",
            id="webhooks.E001",
        )
        for name, url in named
        if not _is_site(url)
    ]


def _is_site(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_host = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False
    bare = f"{parts.scheme}://{parts.netloc}"
    return has_host and parts.scheme in ("http", "https") and "@" not in url and url == bare


@register(deploy=True)
def check_https(**_: Any) -> list[CheckMessage]:
    """E002: tokens and sessions must not travel in plain text."""
    if not is_plain_http(settings.PUBLIC_URL):
        return []
    return [
        Error(
            f"PUBLIC_URL is {settings.PUBLIC_URL}: in production it begins with https://.",
            hint="Put a TLS proxy in front and set BEHIND_TLS_PROXY=1.",
            id="webhooks.E002",
        )
    ]


@register()
def check_secret_key(**_: Any) -> list[CheckMessage]:
    """E016: without SECRET_KEY no page can be shown."""
    try:
        is_set = bool(settings.SECRET_KEY)
    except ImproperlyConfigured:
        is_set = False
    hint = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(50))'"
    return [] if is_set else [Error("SECRET_KEY is not set.", hint=hint, id="webhooks.E016")]


@register()
def check_encryption_keys(**_: Any) -> list[CheckMessage]:
    """E003: every key can encrypt and decrypt."""
    problem = ""
    if not settings.FIELD_ENCRYPTION_KEY:
        problem = "FIELD_ENCRYPTION_KEY is not set."
    for number, key in enumerate(settings.FIELD_ENCRYPTION_KEY, start=1):
        try:
            Fernet(key)
        except ValueError:
            # The message leaves out the value: it may be the right key with one character missing.
            problem = f"Key {number} of FIELD_ENCRYPTION_KEY is not a Fernet key."
    hint = "Make one with: python -c 'from cryptography.fernet import Fernet as F; "
    hint += "print(F.generate_key().decode())'"
    return [Error(problem, hint=hint, id="webhooks.E003")] if problem else []


@register(Tags.database)
def check_canary(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E004: the stored secrets were encrypted with the current key."""
    return [
        Error(
            problem,
            hint="Until then nothing that needs a secret is sent, and nothing stored is changed.",
            id="webhooks.E004",
        )
        for alias in databases or ()
        if (problem := key_check.problem(alias))
    ]


@register(Tags.database)
def check_tables(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E012: the tables were created by these migrations and not by a development version's."""
    return [
        Error(problem, id="webhooks.E012")
        for alias in databases or ()
        if (problem := older_tables(alias))
    ]


@register(Tags.database, deploy=True)
def check_migrations(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E018: `migrate` ran for this version. Only with --deploy: `migrate` runs the others first."""
    return [
        Error(problem, id="webhooks.E018")
        for alias in databases or ()
        if (problem := missing_migrations(alias))
    ]


@register(Tags.database)
def check_pooler(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E013: each connection to PostgreSQL has a session of its own."""
    return [
        Error(postgres.NO_SESSIONS, id="webhooks.E013")
        for alias in databases or ()
        if connections[alias].vendor == "postgresql" and not postgres.keeps_sessions(alias)
    ]


@register(Tags.database)
def check_encoding(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E014: a PostgreSQL database can store every character."""
    return [
        Error(
            f"The database's encoding is {encoding}, which does not hold every letter.",
            hint="Create another one: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0",
            id="webhooks.E014",
        )
        for alias in databases or ()
        if connections[alias].vendor == "postgresql"
        and (encoding := postgres.encoding(alias)) != "UTF8"
    ]


@register(Tags.database)
def check_triggers(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E015: PostgreSQL runs the triggers of the tables."""
    return [
        Error(
            "No trigger runs: session_replication_role is “replica”. A changed webhook would go on "
            "as it was, and nothing would protect the audit trail.",
            hint="Take it from the role: ALTER ROLE name RESET session_replication_role",
            id="webhooks.E015",
        )
        for alias in databases or ()
        if connections[alias].vendor == "postgresql" and not postgres.runs_triggers(alias)
    ]


@register(Tags.database)
def check_partitions(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W003: claims look into few partitions of the log."""
    return [
        Warning(
            f"The log has {count} partitions, and each claim looks into all of them.",
            hint="Raise WEBHOOKS_PARTITION_HOURS or lower WEBHOOKS_RETENTION_DAYS. Until the old "
            "partitions are gone, PostgreSQL may need a higher max_locks_per_transaction.",
            id="webhooks.W003",
        )
        for alias in databases or ()
        if connections[alias].vendor == "postgresql"
        and (count := postgres.partition_count(alias)) > MANY_PARTITIONS
    ]


@register()
def check_sender(**_: Any) -> list[CheckMessage]:
    """E017: mails about problems have a sender."""
    addresses = getaddresses([settings.DEFAULT_FROM_EMAIL])
    if len(addresses) == 1 and _MAIL_ADDRESS.fullmatch(addresses[0][1]):
        return []
    return [
        Error(
            f"DEFAULT_FROM_EMAIL is “{settings.DEFAULT_FROM_EMAIL}”, not one address: mail servers "
            "refuse the alerts.",
            hint="Write hooks@example.com or Webhooks <hooks@example.com>. A name with a comma "
            "stands in quotation marks.",
            id="webhooks.E017",
        )
    ]


@register()
def check_networks(**_: Any) -> list[CheckMessage]:
    """E005 and E006: the settings of the network guard can be read."""
    found: list[CheckMessage] = []
    for text in settings.WEBHOOKS_ALLOWED_NETWORKS:
        try:
            parse_allowed_network(text)
        except ValueError as error:
            found.append(Error(f"WEBHOOKS_ALLOWED_NETWORKS: {error}", id="webhooks.E005"))
    if settings.WEBHOOKS_EGRESS_PROXY and not _is_proxy(settings.WEBHOOKS_EGRESS_PROXY):
        found.append(
            Error(
                "WEBHOOKS_EGRESS_PROXY is not the address of a proxy.",
                hint="Write it as http://proxy.example:3128 or http://login:password@proxy.example:"
                "3128, and encode what is special in the password: @ as %40, / as %2F, # as %23.",
                id="webhooks.E006",
            )
        )
    return found


def _is_proxy(url: str) -> bool:
    """Return whether the guard and libcurl parse this as the same site, with or without a login."""
    scheme, separator, rest = url.partition("://")
    login, _at, address = rest.rpartition("@")
    site = f"{scheme}{separator}{address}"
    try:
        parse_url(site, policy=_EVERY_PORT)
    except UnsafeURLError:
        return False
    return url.isascii() and _is_site(site) and bool(_LOGIN.fullmatch(login))


@register(deploy=True)
def check_opened_networks(**_: Any) -> list[CheckMessage]:
    """I001 and W001: list the opened networks, and warn about those that should stay closed."""
    found: list[CheckMessage] = []
    for text in settings.WEBHOOKS_ALLOWED_NETWORKS:
        try:
            network, ports = parse_allowed_network(text)
        except ValueError:
            # Reported by E005.
            continue
        where = f"WEBHOOKS_ALLOWED_NETWORKS opens {network}, {_ports(ports)}"
        if any(network.version == one.version and network.overlaps(one) for one in METADATA):
            found.append(_metadata_warning(where, is_alone=network.num_addresses == 1))
        else:
            found.append(Info(f"{where}.", id="webhooks.I001"))
    return found


def _metadata_warning(where: str, *, is_alone: bool) -> Warning:
    text = "the machine's credentials are to be had there" if is_alone else "it stays shut"
    return Warning(
        f"{where}: cloud metadata is in it; {text}.",
        hint="Name the networks of your receivers, and nothing around them.",
        id="webhooks.W001",
    )


def _ports(ports: frozenset[int] | None) -> str:
    if ports is None:
        return "every port"
    first, last = min(ports), max(ports)
    return f"port {first}" if first == last else f"ports {first} to {last}"


@register(deploy=True)
def check_redis(**_: Any) -> list[CheckMessage]:
    """W002: a Redis that other machines can reach has a password."""
    parts = urlsplit(settings.REDIS_URL)
    if parts.scheme not in ("redis", "rediss") or parts.password:
        return []
    if not is_plain_http(f"http://{parts.netloc.rpartition('@')[2]}"):
        return []
    return [
        Warning(
            "REDIS_URL has no password: anyone who reaches that server can hold deliveries up.",
            hint="Set requirepass there, and write redis://:password@host:6379/0.",
            id="webhooks.W002",
        )
    ]


@register(deploy=True)
def check_oauth_transport(**_: Any) -> list[CheckMessage]:
    """E007: oauthlib's development switch would send tokens unencrypted."""
    if "OAUTHLIB_INSECURE_TRANSPORT" not in os.environ:
        return []
    return [
        Error(
            "OAUTHLIB_INSECURE_TRANSPORT is set: oauthlib would send tokens without TLS.",
            hint="Remove it from the environment.",
            id="webhooks.E007",
        )
    ]


@register()
def check_ranges(**_: Any) -> list[CheckMessage]:
    """E008 and E009: every quantity is within its range, and they fit each other."""
    found: list[CheckMessage] = [
        Error(
            f"{name} is {value:g}; it lies between {lowest:g} and {highest:g}.",
            hint=_REASONS.get(name),
            id="webhooks.E008",
        )
        for name, (lowest, highest) in RANGES.items()
        if not lowest <= (value := getattr(settings, name)) <= highest
    ]
    if settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK > settings.WEBHOOKS_MAX_IN_FLIGHT:
        text = (
            "WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK is more than WEBHOOKS_MAX_IN_FLIGHT: one slow "
            "receiver could take every slot."
        )
        found.append(Error(text, id="webhooks.E009"))
    if settings.WEBHOOKS_MAX_BODY_BYTES < 3 * settings.WEBHOOKS_MAX_PAYLOAD_BYTES:
        text = (
            "WEBHOOKS_MAX_BODY_BYTES is less than three times WEBHOOKS_MAX_PAYLOAD_BYTES: an event "
            "that is accepted might be too large for a form."
        )
        found.append(Error(text, id="webhooks.E009"))
    return found


@register()
def check_second_factor(**_: Any) -> list[CheckMessage]:
    """E010: SECOND_FACTOR_CHECK names a function."""
    path = settings.SECOND_FACTOR_CHECK
    try:
        is_right = not path or callable(import_string(path))
    except ImportError:
        is_right = False
    text = f"SECOND_FACTOR_CHECK is {path}, which is no function that can be imported."
    return [] if is_right else [Error(text, id="webhooks.E010")]


_REASONS = {
    "WEBHOOKS_LEASE_SECONDS": (
        f"A request may take {LONGEST_TIMEOUT_SECONDS} s. A shorter lease ends while it is still "
        "under way, and another worker sends it a second time."
    ),
}
