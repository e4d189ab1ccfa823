"""What each of several processes looks at, and what they tell one another."""

import pickle
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxvos.errors import InputError

__all__ = ["gather", "rows_of", "share_of"]

_T = TypeVar("_T")


def rows_of(batch_size: int, *, process_index: int | None = None, process_count: int | None = None) -> range:
    """Returns those rows of a batch that a process makes, this one if none is named.

    Raises:
        InputError: the batch does not split over the processes.
    """
    process = jax.process_index() if process_index is None else process_index
    count = jax.process_count() if process_count is None else process_count
    if batch_size % count or not 0 <= process < count:
        raise InputError(f"a batch of {batch_size} clips does not split over {count} processes, this being {process}")
    return range(batch_size // count * process, batch_size // count * (process + 1))


def share_of(items: Sequence[_T]) -> list[_T]:
    """Returns those items that this process looks at: every one of them where it is alone."""
    return list(items[jax.process_index() :: jax.process_count()])


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, in their order; each must call it. A value is what can be pickled.

    States of a metric, for one, are merged by `functools.reduce(metric.merge, gather(state))`.
    """
    if jax.process_count() == 1:
        return [value]
    content = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(content))))
    padded = np.pad(content, (0, int(lengths.max()) - len(content)))
    everyone = np.asarray(multihost_utils.process_allgather(padded))
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(everyone, lengths, strict=True)]
