"""Shifts this process's wall clock by CLOCK_SHIFT_SECONDS, as a wrong system clock would.

Python imports `sitecustomize` before anything else, so every later `from time import time` gets the
shifted one. Shifted: time.time, time_ns, gmtime, localtime, ctime, strftime, and now(), utcnow(),
today() of datetime and date. Not shifted: the monotonic clock, which a clock change does not move,
and clocks read in C (libcurl's look at certificates, OpenSSL, the database server).
"""

import datetime
import os
import time

_SHIFT_SECONDS = float(os.environ.get("CLOCK_SHIFT_SECONDS", "0"))
_real_time = time.time
_RealDatetime, _RealDate = datetime.datetime, datetime.date
_delta = datetime.timedelta(seconds=_SHIFT_SECONDS)


def _shift_time():
    time.time = lambda: _real_time() + _SHIFT_SECONDS
    time.time_ns = lambda: int(time.time() * 1e9)
    for name in ("gmtime", "localtime", "ctime"):
        _default_to_now(name)
    real_strftime = time.strftime
    time.strftime = lambda form, moment=None: real_strftime(form, moment or time.localtime())


def _default_to_now(name):
    real = getattr(time, name)
    setattr(time, name, lambda seconds=None: real(time.time() if seconds is None else seconds))


class _Shifted(type):
    """Stands in for a class of which only the clock differs: its instances are the real ones."""

    def __instancecheck__(cls, instance):
        return isinstance(instance, cls.__mro__[1])

    def __subclasscheck__(cls, other):
        return issubclass(other, cls.__mro__[1])


class _Datetime(_RealDatetime, metaclass=_Shifted):
    def __new__(cls, *args, **kwargs):
        return _RealDatetime(*args, **kwargs)

    @classmethod
    def now(cls, tz=None):
        return _RealDatetime.now(tz) + _delta

    @classmethod
    def utcnow(cls):
        return _RealDatetime.now(datetime.UTC).replace(tzinfo=None) + _delta

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


if _SHIFT_SECONDS:
    _shift_time()
    datetime.datetime, datetime.date = _Datetime, _Date
