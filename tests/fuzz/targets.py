"""Every target, in the order in which the issue names them, and what else is pasted in."""

from tests.fuzz import (
    api,
    callback,
    commands,
    files,
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
    commands.TARGET,
    files.TARGET,
)
