"""A certified OpenID provider, written by others and run by Node.js, that our client is held to."""

from tests.oidc.running import CLIENT, Unavailable, running_strict_provider

__all__ = ["CLIENT", "Unavailable", "running_strict_provider"]
