"""The next batches, made by a thread while the devices work."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["prefetch"]

_END = object()


@contextlib.contextmanager
def prefetch(items: Iterator[Any], prepare: Callable[[Any], Any], size: int = 2) -> Iterator[Iterator[Any]]:
    """Gives `prepare(item)` for each item in order, up to `size` of them made ahead of need.

    An error in the thread is raised where its item would have come. On leaving, the thread ends.
    """
    ready: queue.Queue = queue.Queue(size)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, prepare, ready, stop), name="prefetch", daemon=True)
    thread.start()
    try:
        yield _consume(ready)
    finally:
        stop.set()
        with contextlib.suppress(queue.Empty):
            while True:
                ready.get_nowait()
        thread.join()


def _produce(items: Iterator[Any], prepare: Callable[[Any], Any], ready: queue.Queue, stop: threading.Event) -> None:
    try:
        for item in items:
            _put((prepare(item), None), ready, stop)
            if stop.is_set():
                break
        last = None
    except BaseException as error:  # handed to the consumer, whatever it is
        last = error
    _put((_END, last), ready, stop)


def _put(entry: Any, ready: queue.Queue, stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            return ready.put(entry, timeout=0.1)


def _consume(ready: queue.Queue) -> Iterator[Any]:
    while True:
        item, error = ready.get()
        if error is not None:
            raise error
        if item is _END:
            return
        yield item
