"""docs/receivers.md: its functions accept only what the product signs; its tables are right."""

import base64
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.docs.page import ROOT
from tests.docs.runtimes import RUNTIMES, Runtime
from tests.programs import need
from tests.sandbox import Receiver
from webhooks.delivery.auth import NoAuthorization
from webhooks.delivery.queue.rows import Claimed
from webhooks.delivery.requests import (
    RETRY_SCHEDULE_SECONDS,
    RequestPlan,
    classify,
    make_plan,
    next_step,
    no_response,
    prepare,
    retry_after_seconds,
)
from webhooks.models import HoldReason, Outcome, Status, Webhook
from webhooks.models.messages import Message
from webhooks.security import signatures

TEXT = (ROOT / "docs" / "receivers.md").read_text(encoding="utf-8")
SECRET, OLD_SECRET = signatures.new_secret(), signatures.new_secret()
BODY = '{"name":"Тарас","note":"\\u0000 \\n"}'.encode()
ID = "evt_01K9XJ5Q0T3M7V8W2B4C6D8E9F"
TOLERANCE_SECONDS = 5 * 60


def snippet(runtime: Runtime) -> str:
    """Return the function of a language as the page shows it."""
    found = re.search(
        rf"^### {re.escape(runtime.language)}\n.+?^```{runtime.fence}\n(.+?)^```$",
        TEXT,
        re.M | re.S,
    )
    assert found is not None
    return found[1]


def sign(secrets: list[str], *, age_seconds: int = 0, body: bytes = BODY) -> tuple[str, str]:
    """Return timestamp and signatures as the product sends them."""
    timestamp = int(time.time()) - age_seconds
    keys = [signatures.secret_key(secret) for secret in secrets]
    return str(timestamp), signatures.signature(keys, ID, timestamp, body)


def cases() -> dict[str, tuple[bool, str, str, str, bytes]]:
    """Return by name: whether the request is genuine, then id, timestamp, signatures and body."""
    now, signed = sign([SECRET])
    _, stranger = sign([OLD_SECRET])
    rotated = sign([SECRET, OLD_SECRET])
    rotated_back = sign([OLD_SECRET, SECRET])
    empty = sign([SECRET], body=b"")
    binary = sign([SECRET], body=bytes(range(256)))
    early, late = sign([SECRET], age_seconds=-600), sign([SECRET], age_seconds=600)
    in_time = sign([SECRET], age_seconds=TOLERANCE_SECONDS - 60)
    return {
        "genuine": (True, ID, now, signed, BODY),
        "during a rotation": (True, ID, *rotated, BODY),
        "the old secret during a rotation": (True, ID, *rotated_back, BODY),
        "beside another version": (True, ID, now, f"v1a,AAAA {signed}", BODY),
        "without a body": (True, ID, *empty, b""),
        "a body that is no text": (True, ID, *binary, bytes(range(256))),
        "four minutes old": (True, ID, *in_time, BODY),
        "ten minutes old": (False, ID, *late, BODY),
        "ten minutes ahead": (False, ID, *early, BODY),
        "another secret": (False, ID, now, stranger, BODY),
        "another body": (False, ID, now, signed, BODY + b" "),
        "another id": (False, ID[:-1], now, signed, BODY),
        "another timestamp": (False, ID, str(int(now) - 1), signed, BODY),
        "a timestamp that is no number": (False, ID, "yesterday", signed, BODY),
        "a timestamp beyond any integer": (False, ID, "9" * 40, signed, BODY),
        "no headers": (False, "", "", "", BODY),
        "no signature": (False, ID, now, "", BODY),
        "a signature without its version": (False, ID, now, signed.removeprefix("v1,"), BODY),
        "another version's signature": (False, ID, now, signed.replace("v1,", "v2,"), BODY),
        "the beginning of a signature": (False, ID, now, signed[:-1], BODY),
        "more than the signature": (False, ID, now, f"{signed}=", BODY),
    }


@pytest.mark.process
@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.language)
def test_a_function_accepts_what_we_sign_and_nothing_else(runtime: Runtime, tmp_path: Path) -> None:
    need(*runtime.programs)
    named = cases()
    lines = [
        "\t".join([SECRET, *headers, base64.b64encode(body).decode()]) + "\n"
        for _, *headers, body in named.values()
    ]
    printed = runtime.run(snippet(runtime), "".join(lines), tmp_path).splitlines()
    # Mono also prints a warning about the scheduling of idle processes.
    printed = [line for line in printed if not line.startswith("mono_thread_")]
    expected = {name: "yes" if is_genuine else "no" for name, (is_genuine, *_) in named.items()}
    assert dict(zip(named, printed, strict=True)) == expected


@pytest.mark.process
def test_the_request_of_curl_is_signed_as_ours_are(receiver: Receiver, tmp_path: Path) -> None:
    need("bash", "curl", "openssl", "od")
    [script] = re.findall(r"^### curl\n.+?^```bash\n(.+?)^```$", TEXT, re.M | re.S)
    script = script.replace("http://localhost:3000/hooks/calls", f"{receiver.url}/status/200")
    script = re.sub("^secret=.*$", f"secret='{SECRET}'", script, flags=re.M)
    subprocess.run(["bash", "-ec", script], check=True, capture_output=True, timeout=60)
    [request] = receiver.requests()
    sent = {name.lower(): value for name, value in request.headers}
    key = signatures.secret_key(SECRET)
    expected = signatures.signature(
        [key], sent["webhook-id"], int(sent["webhook-timestamp"]), request.body
    )
    assert sent["webhook-signature"] == expected


CONSTANT_TIME = (
    "compare_digest", "timingSafeEqual", "hash_equals", "hmac.Equal", "secure_compare",
    "MessageDigest.isEqual", "FixedTimeEquals",
)  # fmt: skip


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.language)
def test_a_function_compares_in_constant_time_and_within_five_minutes(runtime: Runtime) -> None:
    code = snippet(runtime)
    assert any(name in code for name in CONSTANT_TIME)
    assert re.search(r"5 \* (60|time\.Minute)", code)
    assert "whsec_" in code
    assert '"v1,"' in code.replace("'", '"')


def test_the_vector_to_try_is_right() -> None:
    values = [value for row in rows("Test values") for value in re.findall("`([^`]+)`", row)]
    secret, _, message_id, _, timestamp, body, expected = values
    key = signatures.secret_key(secret)
    assert signatures.signature([key], message_id, int(timestamp), body.encode()) == expected


def a_plan() -> RequestPlan:
    webhook = Webhook(name="CRM", url="https://crm.example.com/hooks/calls")
    webhook.set_secret("signing_secret", SECRET)
    return make_plan(webhook, NoAuthorization())


def a_claim(failure_count: int = 0) -> Claimed:
    return Claimed("dlv_1", 1, ID, failure_count + 1, failure_count, "event", BODY)


def test_the_request_shows_the_headers_that_are_sent() -> None:
    request = prepare(a_claim(), a_plan(), time.time())
    sent = [line.partition(":")[0] for line in request.logged_headers.splitlines()]
    shown = re.findall(r"^    ([\w-]+): ", TEXT, re.M)
    assert sorted(set(shown) - {"Authorization"}) == sorted(sent)
    described = " ".join(rows("Header"))
    assert [name for name in sent if name.startswith("webhook-") and name not in described] == []


def rows(head: str) -> list[str]:
    """Return the rows of the table whose first column has this heading."""
    found = re.search(rf"^\| {re.escape(head)} \|.+\n\|[-|]+\n((?:\|.+\n)+)", TEXT, re.M)
    assert found is not None
    return found[1].splitlines()


def what_follows(code: int) -> str:
    """Return what the product does after a response, in the words of the page."""
    answer = no_response(Outcome.NETWORK, Message("not_sent", {}))._replace(
        error=None, status_code=code
    )
    outcome, plan, failures = classify(answer), a_plan(), 0
    step = next_step(outcome, a_claim(), plan, retry_after=None)
    while step.status == Status.PENDING:
        failures += 1
        step = next_step(outcome, a_claim(failures), plan, retry_after=None)
    if step.hold_reason == HoldReason.PAUSED:
        return "when a person resumes it"
    if step.status == Status.SUCCEEDED:
        return "no"
    return {3: "three times", len(RETRY_SCHEDULE_SECONDS): "whole schedule"}[failures]


def test_each_answer_leads_to_what_the_table_says() -> None:
    said: dict[int, str] = {}
    for row in rows("Response"):
        answer, _, follows = (cell.strip() for cell in row.strip("|").split("|"))
        codes = [int(code) for code in re.findall(r"\d+", answer)]
        if " to " in answer:
            # A single code takes precedence over the range that contains it.
            codes = [code for code in range(codes[0], codes[1] + 1) if code not in said]
        said.update(dict.fromkeys(codes, follows))
    assert said == {code: what_follows(code) for code in sorted(range(200, 600))}


def test_a_request_to_wait_is_kept_between_two_steps() -> None:
    first, second, *_ = RETRY_SCHEDULE_SECONDS
    for asked, least, most in [
        (1, 0.8 * first, 1.2 * first),
        (60, 60, 1.2 * 60),
        (99_999, second, 1.2 * second),
    ]:
        wait = retry_after_seconds(b"HTTP/1.1 503 Busy\r\nRetry-After: %d\r\n" % asked, 0.0)
        step = next_step(Outcome.SERVER_ERROR, a_claim(), a_plan(), retry_after=wait)
        assert step.delay_seconds is not None
        assert least <= step.delay_seconds <= most
    said = " ".join(TEXT.split())
    assert "never sooner than the next step, never later than the one after it" in said
    assert "is lengthened at random by up to 20 %" in said


def test_the_schedule_is_the_one_that_is_used() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    steps = re.search(r"^    (5 s, .+)$", TEXT, re.M)
    assert steps is not None
    said = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) (\w+)", steps[1])]
    assert tuple(said) == RETRY_SCHEDULE_SECONDS
    assert f"{len(said) + 1} attempts in a little over {sum(said) // 86400} days" in TEXT
    assert f"first three steps, {sum(said[:3]) // 60} minutes" in TEXT


TRANSLATIONS = sorted((ROOT / "docs").glob("receivers.*.md"))


def skeleton(text: str) -> list[str]:
    """Return what is the same in every language: code, heading and list marks, table rows."""
    fence = re.compile(r"^```\w+\n.+?^```$", re.M | re.S)
    code, rest = fence.findall(text), fence.sub("", text)
    marks = re.findall(r"^(#+|\d\.|-|\|)(?= )", rest, re.M)
    return [*code, *marks]


@pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: page.name)
def test_a_translation_has_the_same_code_headings_and_tables(page: Path) -> None:
    assert skeleton(page.read_text(encoding="utf-8")) == skeleton(TEXT)
