"""JSON values in the Redis cache, so that write access to Redis cannot run code here."""

import json
from typing import Any


class JSONSerializer:
    """The serializer of Django's Redis cache, without pickle."""

    def dumps(self, value: Any) -> Any:
        # Integers stay unchanged, for incr() and decr().
        return value if type(value) is int else json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        """Return the value, or None, as for a missing key, if `dumps` did not write it."""
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return None
