"""A cURL command read (`parser`) and written (`writer`)."""


class CurlError(ValueError):
    """A text that is no command of a webhook, or a request that no command line can hold."""
