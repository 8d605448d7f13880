"""What the cache in Redis holds: JSON, so that who can write to Redis cannot run code here."""

import json
from typing import Any


class JSONSerializer:
    """The serializer of Django's Redis cache, without pickle."""

    def dumps(self, value: Any) -> Any:
        # Integers stay as they are, for incr() and decr().
        return value if type(value) is int else json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        """Return the value; None, as for a key that is not there, for what this did not write."""
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return None
