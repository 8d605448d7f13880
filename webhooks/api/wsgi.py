"""The event API ahead of what only pages need: of every middleware, and of Django's handler.

`EventApi` answers a request. `webhooks.middleware.event_api` asks it from inside of Django, and the
WSGI application `EventsFirst` before Django is asked at all: what Django does around a request
(signals, its response, its headers) costs as much as taking the event.
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
from webhooks.api.events import Answer, AnswerResponse

Handler = Callable[[HttpRequest], HttpResponseBase]
# PEP 3333.
Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

MIDDLEWARE = "webhooks.middleware.event_api"
_LANGUAGE = "Content-Language"


class EventApi:
    """Answers the addresses of the event API, with the headers of every other answer."""

    def __init__(self) -> None:
        self._bare: Handler = lambda request: HttpResponse()
        for name in reversed(settings.HEADER_MIDDLEWARE):
            self._bare = import_string(name)(self._bare)
        # By the scheme of a request. None: those are not answered here.
        self._headers: dict[str | None, Mapping[str, str] | None] = {}

    def answer(self, request: HttpRequest) -> Answer | None:
        """Return the answer of an endpoint; None when Django gives it: a wrong host, a redirect.

        Of the request nothing but its head was read then.
        """
        headers = self.headers(request)
        if headers is None:
            return None
        translation.activate(headers[_LANGUAGE])
        try:
            answer = events.ENDPOINTS[request.path_info](request)
        except Exception as error:
            # As Django's own handler: a line and a traceback in the log, and signals.
            failed = response_for_exception(request, error)
            answer = Answer(failed.status_code, failed.content, failed.headers)
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                answer = events.internal_error()
        length = str(len(answer.content))
        return answer._replace(headers={**headers, "Content-Length": length, **answer.headers})

    def headers(self, request: HttpRequest) -> dict[str, str] | None:
        """Return what every answer to such a request has; None when Django answers it."""
        try:
            request.get_host()
        except DisallowedHost:
            return None
        headers = self._headers_for(request)
        if headers is None:
            return None
        # As LocaleMiddleware, for the sentence of a refusal.
        language = settings.LANGUAGE_CODE
        if "HTTP_ACCEPT_LANGUAGE" in request.META or "HTTP_COOKIE" in request.META:
            language = translation.get_language_from_request(request)
        return {**headers, _LANGUAGE: language}

    def _headers_for(self, request: HttpRequest) -> Mapping[str, str] | None:
        """Return what the middlewares add: the same for every answer, so it is made once."""
        scheme = request.scheme
        if scheme not in self._headers:
            response = self._bare(request)
            is_redirect = response.status_code != HTTPStatus.OK
            self._headers[scheme] = None if is_redirect else dict(response.headers)
        return self._headers[scheme]


class EventsFirst:
    """A WSGI application: the event API, and another application for everything else."""

    def __init__(self, others: Application) -> None:
        self._others = others
        self._api = EventApi()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        leave_out_unreadable_type(environ)
        if environ.get("PATH_INFO") not in events.ENDPOINTS:
            return self._others(environ, start_response)
        # One that is too old, as after a night: a failover leaves it at a server that only reads.
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


def log_refusal(answer: Answer, request: HttpRequest) -> None:
    """Log a refusal as Django's own handler does."""
    refusal = AnswerResponse(answer)
    log_response("%s: %s", refusal.reason_phrase, request.path, response=refusal, request=request)


def leave_out_unreadable_type(environ: Environ) -> None:
    """Take out a Content-Type that Django ends at, on whatever page.

    That is one whose parameter has an encoding that there is not (RFC 2231).
    """
    media_type = environ.get("CONTENT_TYPE", "")
    if "*" in media_type:
        try:
            parse_header_parameters(media_type)
        except (LookupError, ValueError):
            environ["CONTENT_TYPE"] = ""


class _Body:
    """What the server sends, and closes once that is sent."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return iter((self._answer.content,))

    def close(self) -> None:
        try:
            self._answer.then()
        finally:
            close_old_connections()


def events_first(site: Application) -> Application:
    """Return the site with its event API answered first, unless a middleware stands before that."""
    return EventsFirst(site) if settings.MIDDLEWARE[0] == MIDDLEWARE else site
