"""The clients and people registered with the sandbox provider, and the receiver's login."""

from typing import NamedTuple


class SandboxClient(NamedTuple):
    """A client registered with the provider; a public one has no secret."""

    client_id: str
    client_secret: str


AUTHORIZATION_CLIENT = SandboxClient("sandbox-client", "sandbox-secret")
OTHER_CLIENT = SandboxClient("other-client", "other-secret")
MACHINE_CLIENT = SandboxClient("machine-client", "machine-secret")
PUBLIC_CLIENT = SandboxClient("public-client", "")
# Has characters that survive only if id and secret are form-urlencoded (RFC 6749 2.3.1).
ODD_CLIENT = SandboxClient("odd:client", "päss:w%rd +")

# User names; the password is the same as the name.
PEOPLE = ("demo", "other")

BASIC_LOGIN = "demo-login"
BASIC_PASSWORD = "demo-password"
