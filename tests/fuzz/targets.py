"""Every target, in the order in which the issue names them."""

from tests.fuzz import (
    api,
    callback,
    filtering,
    headers,
    mapping,
    receivers,
    sockets,
    tokens,
    urls,
)

TARGETS = (
    urls.TARGET,
    sockets.TARGET,
    headers.TARGET,
    mapping.TARGET,
    filtering.TARGET,
    tokens.TARGET,
    receivers.TARGET,
    api.TARGET,
    callback.TARGET,
)
