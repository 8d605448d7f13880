"""A certified OpenID provider by third parties, run by Node.js, to test our client against."""

from tests.oidc.running import CLIENT, Unavailable, running_strict_provider

__all__ = ["CLIENT", "Unavailable", "running_strict_provider"]
