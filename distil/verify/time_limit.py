"""A limit on the time that checking one answer may take: 9^{9^{9}} would never end."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.pool import Pool
from typing import TypeVar

T = TypeVar("T")


class TookTooLong(BaseException):
    """Checking an answer takes too long. Not an Exception: the libraries catch those and go on."""


def within(seconds: float, library: str, work: Callable[..., T], *args: object) -> T:
    """`work(*args)`, or TookTooLong after so many seconds. `library`, if any, is imported before the clock starts.

    A signal ends it. Windows has none, and only the main thread gets it: elsewhere a helper process works, and is
    ended.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return Helper.work(seconds, library, work, *args)
    if library:
        importlib.import_module(library)

    def stop(*_) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again, should the first be lost in a destructor
    try:
        return work(*args)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Helper:
    """The one process that works where no signal can end what takes too long. It starts when it is first needed."""

    pool: Pool | None = None
    loaded: set[str] = set()
    lock = threading.Lock()

    @classmethod
    def work(cls, seconds: float, library: str, work: Callable[..., T], *args: object) -> T:
        """As `within`, in the helper, by one thread at a time. Functions, arguments and results are pickled."""
        with cls.lock:
            if cls.pool is None:
                heedless = (signal.SIGINT, signal.SIG_IGN)  # who is interrupted is the one that waits for it
                cls.pool, cls.loaded = multiprocessing.get_context("spawn").Pool(1, signal.signal, heedless), set()
            if library not in cls.loaded:
                cls.pool.apply(load, (library,))
                cls.loaded.add(library)
            try:
                return cls.pool.apply_async(work, args).get(seconds)
            except multiprocessing.TimeoutError:
                cls.pool.terminate()
                cls.pool = None
                raise TookTooLong from None


def load(library: str) -> None:
    """Import what the work in the helper will need: on a cold disk that takes longer than an answer may take."""
    if library:
        importlib.import_module(library)
