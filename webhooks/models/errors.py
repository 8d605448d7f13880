"""The base of the exceptions of this package."""


class ModelError(Exception): ...
