"""Log lines: no query string, no credentials, no forged lines, and otherwise unchanged."""

import io
import logging
import logging.config

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client

from webhooks.security.log_redaction import without_secrets

SECRET = "s3cr3t-Value_of~it/now+1="
SENTENCES = [
    "GET /integrations/webhooks/oauth/callback/?code={} HTTP/1.1",
    "GET https://crm.example.com:8443/hook?access_token={}&x=1 failed",
    "GET http://[2001:db8::1]/?token={}",
    "redirected to https://crm.example.com/#access_token={}",
    # A slash in the password would be percent-encoded here.
    "connecting to redis://user:s3cr3t-Value_of~it%2Fnow+1=@cache.example:6379/0",
    "Authorization: Bearer {}",
    "{{'Authorization': 'Basic {}'}}",
    "b'authorization: Digest {}'",
    "Authorization=Basic {}",
    "Cookie: sessionid={}; csrftoken=x",
    "client_secret={}&grant_type=refresh_token",
    '{{"access_token": "{}", "expires_in": 5}}',
    "{{'refresh_token': '{}'}}",
    "code_verifier={}",
    "password='{}'",
    "x-api-key: {}",
    "client_assertion={}",
    "{{'password': 'two words and {}'}}",
    'password="a \\" and {}"',
    "?code={}&state=1",
    "next=%2Fcb%3Fcode%3D{}",
    "https%3A%2F%2Fa.example%2F%3Faccess_token%3D{}",
    "body access_token%22%3A%22{}%22",
    "access_token\\u003d{}",
    "{{'access_token' => '{}'}}",
    "device_code={}",
    "private_key: {}",
    "secret_key={}",
    "bearer={}",
    "signed with whsec_{}",
    "[('X-Api-Key', '{}'), ('Accept', '*/*')]",
    '("client_secret", b"{}")',
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\\n{}",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_credential_is_left_out(sentence: str) -> None:
    line = without_secrets(sentence.format(SECRET))
    assert "s3cr3t" not in line
    assert "…" in line


@pytest.mark.parametrize("scheme", ["Basic", "basic", "Bearer"])
def test_a_credential_after_its_scheme_may_be_letters_alone(scheme: str) -> None:
    # "user:pass" has neither a digit nor a symbol in Base64.
    assert without_secrets(f"sent {scheme} dXNlcjpwYXNz") == f"sent {scheme} …"


@pytest.mark.parametrize(
    "line",
    [
        'WWW-Authenticate: Bearer realm="crm", error="invalid_token"',
        'answered Basic realm="CRM 2"',
        "oauth_exchange webhook=1 kind=token status=200 result=ok duration_ms=12",
        "plan_unavailable webhook=7 reason=The secret in webhooks_webhook.basic_password cannot "
        "be decrypted with FIELD_ENCRYPTION_KEY. Restore the key it was encrypted with.",
        "Task webhooks.tasks.drain[9b2e] received",
        "token=None code_verifier=None",
        "What is a token? Nobody knows. Basic rules; Bearer tokens",
        "drain_ended sent=12 seconds=3.0 in /srv/app/#1",
        "Is it there? Ask again, a=1",
        "missing fields ('password', 'scope', 'state')",
        "-----END PRIVATE KEY----- was not found",
        "-----BEGIN CERTIFICATE----- is missing",
    ],
)
def test_a_line_without_credentials_stays_as_it_is(line: str) -> None:
    assert without_secrets(line) == line


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(written: io.StringIO) -> logging.Logger:
    """Return a logger at DEBUG that formats its lines as the settings say."""
    made = logging.Logger("a.library", logging.DEBUG)
    configurator = logging.config.DictConfigurator(settings.LOGGING)  # type: ignore[arg-type]
    configurator.configure()
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    mine = logging.StreamHandler(written)
    mine.setFormatter(handler.formatter)
    for one in handler.filters:
        mine.addFilter(one)
    made.addHandler(mine)
    return made


def test_a_message_cannot_begin_another_line(logger: logging.Logger, written: io.StringIO) -> None:
    logger.info("seen %s", "a\r\n2026-11-26 INFO forged\x1b[31m \u202etxt\u2028x")
    (line,) = written.getvalue().splitlines()
    assert line.endswith(r"seen a\r\n2026-11-26 INFO forged\x1b[31m \u202etxt\u2028x")


def test_the_text_of_an_error_cannot_begin_another_line(
    logger: logging.Logger, written: io.StringIO
) -> None:
    try:
        raise ValueError("a\r\n2026-11-26 INFO forged\x1b[31m \u202etxt")
    except ValueError:
        logger.exception("failed")
    lines = written.getvalue().splitlines()
    assert lines[-2:] == [r"  ValueError: a\r", r"  2026-11-26 INFO forged\x1b[31m \u202etxt"]
    assert all(line.startswith("  ") for line in lines[1:])


def test_a_long_line_is_cut_before_it_is_looked_at(
    logger: logging.Logger, written: io.StringIO
) -> None:
    logger.warning("malformed header: %s", "x" * 1_000_000 + f" Bearer {SECRET}")
    line = written.getvalue()
    assert len(line) < 5_000
    assert line.endswith(" more characters)\n")
    assert "s3cr3t" not in line


def test_an_error_with_a_long_text_is_cut_and_keeps_its_place(
    logger: logging.Logger, written: io.StringIO
) -> None:
    try:
        raise ValueError("\n".join(["y" * 10_000] * 50))
    except ValueError:
        logger.exception("z" * 10_000)
    text = written.getvalue()
    assert len(text) < 80_000
    assert max(map(len, text.splitlines())) < 5_000
    assert "in test_an_error_with_a_long_text_is_cut_and_keeps_its_place" in text


def test_a_traceback_is_kept_without_the_secrets_in_it(
    logger: logging.Logger, written: io.StringIO
) -> None:
    try:
        raise ValueError(f"refused: Authorization: Bearer {SECRET}")
    except ValueError:
        logger.exception("plan_failed webhook=%d", 3)
    text = written.getvalue()
    assert "plan_failed webhook=3\n  Traceback (most recent call last):\n" in text
    assert "ValueError: refused: Authorization" in text
    assert "s3cr3t" not in text


@pytest.mark.parametrize("name", ["celery.beat", "celery.worker.consumer.consumer"])
def test_what_celery_meets_at_its_broker_is_one_line(
    logger: logging.Logger, written: io.StringIO, name: str
) -> None:
    [line] = failed(logging.getLogger(name), logger, RuntimeError("read only"), written)
    assert f"ERROR {name} not sent: read only" in line
    assert "stack" not in line


def test_a_task_that_has_no_database_is_one_line_and_a_mistake_has_its_traceback(
    logger: logging.Logger, written: io.StringIO
) -> None:
    tasks = logging.getLogger("celery.app.trace")
    assert len(failed(tasks, logger, OperationalError("no answer"), written)) == 1
    assert "in failed" in "".join(failed(tasks, logger, KeyError("a"), written))


def failed(
    own: logging.Logger, logger: logging.Logger, error: Exception, written: io.StringIO
) -> list[str]:
    """Let a logger report an error with its traceback, and return the lines that it wrote."""
    own.addHandler(logger.handlers[0])
    try:
        raise error
    except Exception as raised:
        own.exception("not sent: %s\n%s", raised, "stack")
    finally:
        own.removeHandler(logger.handlers[0])
    return written.getvalue().splitlines()


def test_what_strangers_can_cause_at_will_is_one_line(
    logger: logging.Logger, written: io.StringIO
) -> None:
    django = logging.getLogger("django.security")
    django.addHandler(logger.handlers[0])
    try:
        response = Client().get("/", headers={"host": "scanner.example"})
    finally:
        django.removeHandler(logger.handlers[0])
    assert response.status_code == 400
    [line] = written.getvalue().splitlines()
    assert "ERROR django.security.DisallowedHost Invalid HTTP_HOST header: 'scanner.ex" in line


@pytest.mark.parametrize(
    ("name", "level", "is_written"),
    [
        ("requests_oauthlib.oauth2_session", logging.DEBUG, False),
        ("oauthlib", logging.INFO, False),
        ("urllib3.connectionpool", logging.DEBUG, False),
        ("django.db.backends", logging.DEBUG, False),
        ("django.template", logging.DEBUG, False),
        ("oauthlib", logging.WARNING, True),
        ("oauthlibrary", logging.DEBUG, True),
        ("webhooks.delivery.engine", logging.DEBUG, True),
    ],
)
def test_verbose_libraries_are_not_heard_whatever_their_loggers_say(
    logger: logging.Logger, written: io.StringIO, name: str, level: int, is_written: bool
) -> None:
    logger.name = name
    logger.log(level, "something")
    assert bool(written.getvalue()) is is_written
