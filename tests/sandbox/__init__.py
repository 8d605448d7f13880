"""A receiver and an OAuth 2.0 provider, each in its own process, for tests and for the demo.

Nothing here imports the product, so that both servers start quickly.
"""

from tests.sandbox.clients import (
    AUTHORIZATION_CLIENT,
    MACHINE_CLIENT,
    ODD_CLIENT,
    OTHER_CLIENT,
    PUBLIC_CLIENT,
)
from tests.sandbox.consent import answer_consent, enter_device_code
from tests.sandbox.processes import running_provider, running_receiver
from tests.sandbox.provider.client import Provider, ReceivedTokenRequest
from tests.sandbox.receiver.client import Received, Receiver

__all__ = [
    "AUTHORIZATION_CLIENT",
    "MACHINE_CLIENT",
    "ODD_CLIENT",
    "OTHER_CLIENT",
    "PUBLIC_CLIENT",
    "Provider",
    "Received",
    "ReceivedTokenRequest",
    "Receiver",
    "answer_consent",
    "enter_device_code",
    "running_provider",
    "running_receiver",
]
