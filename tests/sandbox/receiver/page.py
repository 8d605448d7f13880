"""The page that shows the requests. Plain HTML: no script, no inline style, refreshed by meta."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from urllib.parse import urlencode

from tests.sandbox.clients import BASIC_LOGIN, BASIC_PASSWORD
from tests.sandbox.receiver import log
from tests.sandbox.receiver.log import Entry

SHOWN_REQUESTS = 100
SHOWN_CHARACTERS = 100_000
REFRESH_SECONDS = 3
MASKED_HEADERS = {"authorization", "proxy-authorization", "cookie"}

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{refresh}<title>{title}</title>
<link rel="icon" href="/_static/sandbox.svg" type="image/svg+xml">
<link rel="stylesheet" href="/_static/sandbox.css">
</head>
<body>
<header class="bar">
<a class="bar__name" href="/">Sandbox receiver</a>
<nav class="bar__links" aria-label="Page">{links}</nav>
</header>
{main}
</body>
</html>
"""


def render_requests(
    entries: list[Entry], *, url: str, show: int | None, is_paused: bool, secret_count: int
) -> str:
    """Return the page with the list of latest requests and one in full, by default the newest."""
    newest_first = entries[::-1][:SHOWN_REQUESTS]
    shown = next((entry for entry in newest_first if entry.number == show), None)
    if shown is None and newest_first:
        shown = newest_first[0]
    links = _pause_link(show, is_paused) + _secret_link(secret_count)
    main = _split(newest_first, shown, is_paused) if shown else _empty(url)
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">\n'
    return _FRAME.format(
        title=f"Sandbox receiver ({len(newest_first)})",
        refresh="" if is_paused else refresh,
        links=links,
        main=main,
    )


def render_secret_form(*, secret_count: int, error: str = "") -> str:
    """Return the page with the form for a signing secret."""
    known = f"{secret_count} known so far." if secret_count else "None is known yet."
    message = f'<p class="notice notice--bad" role="alert">{escape(error)}</p>' if error else ""
    main = f"""<main class="card">
<h1>Check signatures</h1>
<p>Paste the signing secret of your webhook, and every request that is signed with it is checked
by the official <code>standardwebhooks</code> package. {known}</p>
{message}<form class="form" method="post" action="/_secret">
<label class="form__label" for="secret">Signing secret</label>
<input class="form__input" id="secret" name="secret" required autocomplete="off"
 spellcheck="false" placeholder="whsec_...">
<div class="form__buttons"><button class="button button--main">Check signatures</button>
<a class="button" href="/">Cancel</a></div>
</form>
</main>"""
    return _FRAME.format(title="Check signatures", refresh="", links="", main=main)


def _pause_link(show: int | None, is_paused: bool) -> str:
    query: dict[str, str | int] = {} if show is None else {"show": show}
    if is_paused:
        return f'<a href="/?{urlencode(query)}">Resume</a>'
    return f'<a href="/?{urlencode({**query, "refresh": "off"})}">Pause</a>'


def _secret_link(secret_count: int) -> str:
    known = f" ({secret_count} known)" if secret_count else ""
    return f'<a href="/_secret">Check signatures{known}</a>'


def _empty(url: str) -> str:
    rows = (
        ("/open/hello", "answers 200 to anything"),
        ("/basic/hello", f"needs login {BASIC_LOGIN} and password {BASIC_PASSWORD}"),
        ("/bearer/hello", "needs an access token of the sandbox provider"),
        ("/status/500", "answers the status you name"),
        ("/flaky/2", "fails twice for each event, then succeeds"),
        ("/slow/5", "takes five seconds"),
    )
    items = "".join(
        f"<dt><code>{escape(url + path)}</code></dt><dd>{escape(meaning)}</dd>"
        for path, meaning in rows
    )
    return f"""<main class="card card--wide">
<h1>Nothing has arrived yet</h1>
<p>Point a webhook at one of these addresses and press <b>Send test</b>.
This page looks for new requests every {REFRESH_SECONDS} seconds.</p>
<dl class="paths">{items}</dl>
</main>"""


def _split(entries: list[Entry], shown: Entry, is_paused: bool) -> str:
    rows = "".join(_row(entry, entry is shown, is_paused) for entry in entries)
    return f"""<main class="split">
<nav class="requests" aria-label="Requests"><ol class="requests__list">{rows}</ol></nav>
{_detail(shown)}
</main>"""


def _row(entry: Entry, is_shown: bool, is_paused: bool) -> str:
    query: dict[str, str | int] = {"show": entry.number}
    if is_paused:
        query["refresh"] = "off"
    current = ' aria-current="true"' if is_shown else ""
    return f"""<li><a class="request" href="/?{escape(urlencode(query))}"{current}>
<span class="request__line"><b>{escape(entry.request.method)}</b>
<span class="request__path">{escape(entry.request.path)}</span></span>
<span class="request__line">{_time(entry)} {_status(entry)} {_signature(entry, short=True)}</span>
</a></li>"""


def _detail(entry: Entry) -> str:
    request = entry.request
    query = f"?{request.query}" if request.query else ""
    headers = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(_masked(name, value))}</td></tr>"
        for name, value in request.headers
    )
    return f"""<article class="detail">
<h1 class="detail__title">{escape(request.method)} {escape(request.path + query)}</h1>
<p class="detail__facts">Request {entry.number} at {_time(entry)}, answered {_status(entry)},
{_signature(entry)}</p>
<h2>Headers</h2>
<div class="scroll"><table class="headers"><tbody>{headers}</tbody></table></div>
<h2>Body <small>{len(request.body):,} bytes</small></h2>
{_body(request.body)}
</article>"""


def _masked(name: str, value: str) -> str:
    if name.lower() not in MASKED_HEADERS:
        return value
    scheme, space, _ = value.partition(" ")
    return f"{scheme} ••••••••" if space else "••••••••"


def _body(body: bytes) -> str:
    if not body:
        return '<p class="quiet">The request has no body.</p>'
    try:
        content = body.decode()
    except UnicodeDecodeError:
        content = body.hex(" ", 4)
    with suppress(ValueError, RecursionError):  # text other than JSON is shown unchanged
        content = json.dumps(json.loads(content), indent=2, ensure_ascii=False)
    shown = content[:SHOWN_CHARACTERS]
    cut = '<p class="quiet">The rest is cut.</p>' if shown != content else ""
    return f'<pre class="body" tabindex="0">{escape(shown)}</pre>{cut}'


def _time(entry: Entry) -> str:
    moment = datetime.fromtimestamp(entry.time, tz=UTC)
    local = moment.astimezone()
    return f'<time datetime="{moment.isoformat()}">{local:%H:%M:%S}</time>'


def _status(entry: Entry) -> str:
    if entry.status is None:
        return '<span class="badge badge--bad">reset</span>'
    kind = "good" if entry.status < 300 else "bad"
    return f'<span class="badge badge--{kind}">{entry.status}</span>'


def _signature(entry: Entry, *, short: bool = False) -> str:
    match entry.signature:
        case log.VALID:
            kind, words = "badge--good", "signed" if short else "signature valid"
        case log.NO_SECRET:
            kind, words = "", "" if short else "signature not checked (no secret known)"
        case log.NOT_SIGNED:
            kind, words = "", "" if short else "not signed"
        case log.NO_MATCH:
            # Usually the webhook's secret was not added to this receiver.
            words = "secret not known" if short else "signed with a secret not known here"
            kind = ""
        case refusal:
            kind = "badge--bad"
            words = "signature bad" if short else f"signature refused: {refusal}"
    return f'<span class="badge {kind}">{escape(words)}</span>' if words else ""
