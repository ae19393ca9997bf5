"""Progress of long work: log lines with counts and rates, and bars for whoever watches.

A stage reports numbers; it need not know who listens.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Watcher = Callable[[str, int, int | None], object]

_watchers: list[Watcher] = []


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Call ``watcher(what, done, total)`` on every report made in this process."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


class Progress:
    """The progress of one piece of work, counted in units that ``what`` names.

    Logs at most one line in ``seconds``, and one at the end. ``total`` may be unknown.
    """

    def __init__(
        self, log: Callable[[str], object], what: str, total: int | None = None, seconds: float = 5
    ) -> None:
        self._log, self._what, self._total, self._seconds = log, what, total, seconds
        self._started = self._logged = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        """``done`` units are done; of ``total``, where that is known only now."""
        self._total = total if total is not None else self._total
        for watcher in _watchers:
            watcher(self._what, done, self._total)
        now = time.monotonic()
        if now - self._logged >= self._seconds or done == self._total:
            self._logged = now
            of = f" of {self._total:,}" if self._total is not None else ""
            rate = done / max(now - self._started, 1e-9)
            self._log(f"{self._what}: {done:,}{of}, {rate:,.0f}/s")
