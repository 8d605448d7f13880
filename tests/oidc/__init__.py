"""A certified OpenID provider by third parties, run by Node.js, to test our client against."""

from tests.oidc.server import CLIENT, ProviderUnavailableError, running_strict_provider

__all__ = ["CLIENT", "ProviderUnavailableError", "running_strict_provider"]
