"""The event API, served before the middleware and the Django handler that only pages need.

`EventApi` handles a request. `webhooks.middleware.event_api` calls it from inside Django, and the
WSGI application `EventsFirst` before Django: what Django does around a request (signals, its
response, its headers) costs as much as accepting the event.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.exception import response_for_exception
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import translation
from django.utils.http import parse_header_parameters
from django.utils.log import log_response
from django.utils.module_loading import import_string

from webhooks.api import events
from webhooks.api.events import ApiHttpResponse, ApiResponse
from webhooks.delivery import queue

Handler = Callable[[HttpRequest], HttpResponseBase]
# PEP 3333.
Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

MIDDLEWARE = "webhooks.middleware.event_api"
_LANGUAGE = "Content-Language"
# Browsers send up to 150 characters. Python splits 32,000 semicolons in a quote in four seconds.
_MAX_TYPE = 512
# In a cookie; this site's have none, and another site's may come with them.
_MAX_BACKSLASHES = 100


class EventApi:
    """Responds at the URLs of the event API, with the headers of every other response."""

    def __init__(self) -> None:
        self._header_chain: Handler = lambda request: HttpResponse()
        for name in reversed(settings.HEADER_MIDDLEWARE):
            self._header_chain = import_string(name)(self._header_chain)
        # By the URL scheme of a request. None: Django handles requests with this scheme.
        self._headers: dict[str | None, Mapping[str, str] | None] = {}

    def answer(self, request: HttpRequest) -> ApiResponse | None:
        """Return an endpoint's response; None if Django has to respond: a wrong host, a redirect.

        In that case the body has not been read.
        """
        headers = self.headers(request)
        if headers is None:
            return None
        translation.activate(headers[_LANGUAGE])
        try:
            answer = events.ENDPOINTS[request.path_info](request)
        except Exception as error:
            # As Django's own handler does: a line and a traceback in the log, and signals.
            failed = response_for_exception(request, error)
            answer = ApiResponse(failed.status_code, failed.content, failed.headers)
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                answer = events.internal_error()
        length = str(len(answer.content))
        return answer._replace(headers={**headers, "Content-Length": length, **answer.headers})

    def headers(self, request: HttpRequest) -> dict[str, str] | None:
        """Return the headers of every response to such a request; None if Django has to respond."""
        try:
            request.get_host()
        except DisallowedHost:
            return None
        headers = self._headers_for(request)
        if headers is None:
            return None
        # As LocaleMiddleware does, for error messages.
        language = settings.LANGUAGE_CODE
        if "HTTP_ACCEPT_LANGUAGE" in request.META or "HTTP_COOKIE" in request.META:
            language = translation.get_language_from_request(request)
        return {**headers, _LANGUAGE: language}

    def _headers_for(self, request: HttpRequest) -> Mapping[str, str] | None:
        """Return the headers that the middleware adds, computed once for each scheme."""
        scheme = request.scheme
        if scheme not in self._headers:
            response = self._header_chain(request)
            is_redirect = response.status_code != HTTPStatus.OK
            self._headers[scheme] = None if is_redirect else dict(response.headers)
        return self._headers[scheme]


class EventsFirst:
    """A WSGI application: the event API, and another application for everything else."""

    def __init__(self, others: Application) -> None:
        self._others = others
        self._api = EventApi()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        leave_out_unreadable(environ)
        if environ.get("PATH_INFO") not in events.ENDPOINTS:
            return self._others(environ, start_response)
        # After a failover, a connection that was idle overnight may lead to a read-only server.
        close_old_connections()
        request = WSGIRequest(environ)
        answer = self._api.answer(request)
        if answer is None:
            return self._others(environ, start_response)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            log_refusal(answer, request)
        status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
        start_response(status, list(answer.headers.items()))
        return _Body(answer)


def log_refusal(answer: ApiResponse, request: HttpRequest) -> None:
    """Log an error response as Django's own handler does."""
    refusal = ApiHttpResponse(answer)
    log_response("%s: %s", refusal.reason_phrase, request.path, response=refusal, request=request)


def leave_out_unreadable(environ: Environ) -> None:
    """Clear headers that would make Django fail, or take quadratic time.

    A Content-Type or Accept: a long one, one with a parameter in an unknown encoding (RFC 2231),
    and a charset besides UTF-8: Django passes its name to Python, whose codecs include "zlib" and
    "punycode". Cookies with many backslashes (CVE-2024-7592).
    """
    for name in ("CONTENT_TYPE", "HTTP_ACCEPT"):
        media_types = environ.get(name, "")
        try:
            is_readable = len(media_types) <= _MAX_TYPE and _is_utf_8(media_types)
        except (LookupError, ValueError):
            is_readable = False
        if not is_readable:
            environ[name] = ""
    if (cookies := environ.get("HTTP_COOKIE", "")).count("\\") > _MAX_BACKSLASHES:
        readable = [one for one in cookies.split(";") if one.count("\\") <= _MAX_BACKSLASHES]
        environ["HTTP_COOKIE"] = ";".join(readable)


def _is_utf_8(media_type: str) -> bool:
    if ";" not in media_type:
        return True
    _type, parameters = parse_header_parameters(media_type)
    return parameters.get("charset", "utf-8").lower() in events.UTF_8


class _Body:
    """The response body, which the server closes after sending it."""

    def __init__(self, answer: ApiResponse) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return iter((self._answer.content,))

    def close(self) -> None:
        try:
            self._answer.then()
        finally:
            close_old_connections()


def events_first(site: Application) -> Application:
    """Return the site with its event API served first, unless another middleware precedes it."""
    return EventsFirst(site) if settings.MIDDLEWARE[0] == MIDDLEWARE else site


def with_limited_waits(site: Application) -> Application:
    """Return the site with a limit for how long its threads wait for the database."""

    def respond(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        queue.postgres.limit_answer_waits()
        return site(environ, start_response)

    return respond
