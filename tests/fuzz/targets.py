"""Every target, in the order of the issue that lists them; pasted commands and files are last."""

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
