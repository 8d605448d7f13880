"""The command's options, passed on to the settings module."""

import json
import os
from dataclasses import asdict, dataclass, field

_VARIABLE = "SANDBOX_PROVIDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    url: str = "http://127.0.0.1:8002"
    database: str = ":memory:"
    callback_urls: list[str] = field(default_factory=list)
    token_seconds: int = 3600
    grace_seconds: int = 0
    is_pkce_required: bool = False
    is_rotating: bool = True
    is_reuse_punished: bool = True

    def export(self) -> None:
        """Store the options in this process's environment, where `read` finds them."""
        os.environ[_VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def read(cls) -> "Options":
        return cls(**json.loads(os.environ.get(_VARIABLE, "{}")))
