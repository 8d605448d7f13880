"""Shifts this process's wall clock by CLOCK_SHIFT_SECONDS, as a wrong system clock would.

With CLOCK_SHIFT_FILE the shift is read from that file continuously, like a clock that is stepped.

Python imports `sitecustomize` before anything else, so every later `from time import time` gets the
shifted one. Shifted: time.time, time_ns, gmtime, localtime, ctime, strftime, and now(), utcnow(),
today() of datetime and date. Not shifted: the monotonic clock, which a clock change does not move,
and clocks read in C (libcurl's check of certificates, OpenSSL, the database server).
"""

import datetime
import functools
import os
import time

_SHIFT_SECONDS = float(os.environ.get("CLOCK_SHIFT_SECONDS", "0"))
_SHIFT_FILE = os.environ.get("CLOCK_SHIFT_FILE", "")
# How long the value from the file is cached.
_KNOWN_SECONDS = 0.05
_real_time = time.time
_RealDatetime, _RealDate = datetime.datetime, datetime.date
_known = (float("-inf"), 0.0)


def _shift():
    global _known
    if not _SHIFT_FILE:
        return _SHIFT_SECONDS
    read_at, seconds = _known
    if time.monotonic() - read_at > _KNOWN_SECONDS:
        with open(_SHIFT_FILE) as file:
            seconds = float(file.read())
        _known = (time.monotonic(), seconds)
    return seconds


def _delta():
    return datetime.timedelta(seconds=_shift())


def _shift_time():
    time.time = lambda: _real_time() + _shift()
    time.time_ns = lambda: int(time.time() * 1e9)
    for name in ("gmtime", "localtime", "ctime"):
        _default_to_now(name)
    real_strftime = time.strftime
    time.strftime = lambda form, moment=None: real_strftime(form, moment or time.localtime())


def _default_to_now(name):
    # Not a function: logging stores one in a class, where it would become a method.
    setattr(time, name, functools.partial(_at, getattr(time, name)))


def _at(real, seconds=None):
    return real(time.time() if seconds is None else seconds)


class _Shifted(type):
    """Metaclass of a stand-in that changes only the clock: instances are of the real class."""

    def __instancecheck__(cls, instance):
        return isinstance(instance, cls.__mro__[1])

    def __subclasscheck__(cls, other):
        return issubclass(other, cls.__mro__[1])


class _Datetime(_RealDatetime, metaclass=_Shifted):
    def __new__(cls, *args, **kwargs):
        return _RealDatetime(*args, **kwargs)

    @classmethod
    def now(cls, tz=None):
        return _RealDatetime.now(tz) + _delta()

    @classmethod
    def utcnow(cls):
        return _RealDatetime.now(datetime.UTC).replace(tzinfo=None) + _delta()

    @classmethod
    def today(cls):
        return cls.now()

    @classmethod
    def fromtimestamp(cls, *args, **kwargs):
        return _RealDatetime.fromtimestamp(*args, **kwargs)


class _Date(_RealDate, metaclass=_Shifted):
    def __new__(cls, *args, **kwargs):
        return _RealDate(*args, **kwargs)

    @classmethod
    def today(cls):
        return _Datetime.now().date()


if _SHIFT_SECONDS or _SHIFT_FILE:
    _shift_time()
    datetime.datetime, datetime.date = _Datetime, _Date
