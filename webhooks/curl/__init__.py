"""cURL commands: `parser` reads them, `writer` writes them."""


class CurlError(ValueError):
    """A command that describes no webhook, or a request that no command line can express."""
