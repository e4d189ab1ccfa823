"""A polite end: the signal is noted, and the loop stops where it can be taken up again."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

__all__ = ["StopRequest", "note_stop_signals"]


class StopRequest:
    """Whether, and by which signal, the run was asked to stop."""

    signal: int | None = None

    def agreed(self, step: int) -> bool:
        """Tells whether to stop after this step; with several processes, after the same one in each."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None


@contextlib.contextmanager
def note_stop_signals(enabled: bool = True) -> Iterator[StopRequest]:
    """Notes SIGTERM and SIGINT rather than dying of them; a second SIGINT works as ever.

    A second SIGTERM changes nothing: schedulers send it to a process and to its group, and the save that the first one
    asked for must not die of it.

    Outside the main thread, where Python allows no handlers, or if not `enabled`, signals are left alone. With several
    processes, JAX notes SIGTERM and tells the others.
    """
    request = StopRequest()
    alone = threading.current_thread() is threading.main_thread() and jax.process_count() == 1
    if not (enabled and alone):
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number, frame):
        del frame
        request.signal = request.signal or number
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
