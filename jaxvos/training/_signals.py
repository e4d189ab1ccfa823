"""A polite end: the signal is noted, and the loop stops where it can be taken up again."""

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["StopRequest", "note_stop_signals"]


class StopRequest:
    """Whether, and by which signal, the process was asked to stop."""

    signal: int | None = None


@contextlib.contextmanager
def note_stop_signals(enabled: bool = True) -> Iterator[StopRequest]:
    """Notes SIGTERM and SIGINT rather than dying of them; the second one works as ever.

    Outside the main thread, where Python allows no handlers, or if not `enabled`, signals are left alone.
    """
    request = StopRequest()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number, frame):
        del frame
        request.signal = number
        restore()

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
