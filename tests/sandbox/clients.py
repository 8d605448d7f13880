"""The clients and people the sandbox provider knows, and the login of the receiver."""

from typing import NamedTuple


class Client(NamedTuple):
    """A client registered with the provider; a public one has no secret."""

    client_id: str
    client_secret: str


AUTHORIZATION_CLIENT = Client("sandbox-client", "sandbox-secret")
OTHER_CLIENT = Client("other-client", "other-secret")
MACHINE_CLIENT = Client("machine-client", "machine-secret")
PUBLIC_CLIENT = Client("public-client", "")
# Characters that survive only when id and secret are form-urlencoded (RFC 6749 2.3.1).
ODD_CLIENT = Client("odd:client", "päss:w%rd +")

# User name and password, equal to each other.
PEOPLE = ("demo", "other")

BASIC_LOGIN = "demo-login"
BASIC_PASSWORD = "demo-password"
