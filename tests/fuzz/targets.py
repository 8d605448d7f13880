"""Every target, in the order of the issue that lists them; pasted commands and files are last."""

from tests.fuzz import (
    api,
    callback,
    commands,
    files,
    filters,
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
    filters.TARGET,
    tokens.TARGET,
    receivers.TARGET,
    api.TARGET,
    callback.TARGET,
    commands.TARGET,
    files.TARGET,
)
