"""Threads of one process that use networks: who has to wait for whom.

torch has two things only once. One is its random state, from which building and
training draw. The other is ``nn.Module.__call__``, which torch.fx replaces for as long
as it traces a network: whoever calls any other network meanwhile fails.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# One training at a time, from its first epoch to its last.
one_training = threading.Lock()


class Turns:
    """A lock that one thread at a time has, and may give up for a moment."""

    def __init__(self) -> None:
        self._lock, self._n_waiting = threading.RLock(), 0

    def __enter__(self) -> None:
        self._n_waiting += 1
        try:
            self._lock.acquire()
        finally:
            self._n_waiting -= 1

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def give_way(self) -> None:
        """Let others have their turn, if any wait for it."""
        if self._n_waiting:
            self._lock.release()
            time.sleep(0.001)  # a lock that is taken again at once is never let go
            self._lock.acquire()


# Who has it may seed and draw, and leaves the state as it was.
random_state = Turns()


class Passes:
    """Passes of networks, of which there may be many, and tracings, which are alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._passing: dict[int, int] = {}  # how deep, by thread
        self._tracer: int | None = None
        self._n_waiting = 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Call networks inside; waits for a tracing."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._passing and self._tracer != me:
                self._changed.wait_for(lambda: not (self._tracer or self._n_waiting))
            self._passing[me] = self._passing.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._passing[me] -= 1
                if not self._passing[me]:
                    del self._passing[me]
                self._changed.notify_all()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace a network inside; waits for the passes of others, and their tracings.

        A pass that finds something to trace is no pass as long as it does.
        """
        me = threading.get_ident()
        with self._changed:
            own, before = self._passing.pop(me, 0), self._tracer
            self._n_waiting += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: self._tracer == me or not (self._tracer or self._passing)
                )
                self._tracer = me
            finally:
                self._n_waiting -= 1
                if self._tracer != me and own:  # interrupted
                    self._passing[me] = own
        try:
            yield
        finally:
            with self._changed:
                self._tracer = before if before == me else None
                if own:
                    self._passing[me] = own
                self._changed.notify_all()


passes = Passes()
