"""Error pages for requests that fail because the database does not answer or takes no changes."""

import logging
import sys
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views import defaults

from webhooks.api.events import RETRY_AFTER_SECONDS
from webhooks.delivery import queue

logger = logging.getLogger(__name__)


def server_error(request: HttpRequest) -> HttpResponse:
    """Respond to an uncaught exception: `handler500`, called while it is handled.

    It gets those of middleware as well, such as one of a session that cannot be read.
    """
    error = sys.exc_info()[1]
    if not queue.is_unavailable(error) or queue.backend().is_lock_timeout(error):
        return defaults.server_error(request)
    queue.leave_read_only(error)
    # One line: every page would log a traceback.
    text = " ".join(str(error).split())
    logger.error("page_unavailable path=%s error=%s", request.path, text)
    content = render_to_string("503.html", {"is_change": request.method == "POST"})
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return _LoggedResponse(content, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)


class _LoggedResponse(HttpResponse):
    """An error response that Django does not log once more, with a traceback."""

    _has_been_logged = True
