"""The base of the exceptions of this package."""


class SecurityError(Exception):
    permanent = True
