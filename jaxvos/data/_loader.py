"""Batches of clips, made by threads ahead of training; a batch follows from the seed and its step alone.

Decoding and resampling release the interpreter's lock, so that threads do; and as the only state is the step, there
is nothing that a loading library would have to save.
"""

import collections
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from jaxvos.data._batches import Batches
from jaxvos.data._clips import ClipConfig, ClipSource, can_sample, sample_clip
from jaxvos.data._processes import rows_of
from jaxvos.errors import InputError
from jaxvos.system import Clip

__all__ = ["MakeClip", "clip_batches", "clip_maker", "threaded_batches"]

MakeClip = Callable[[int, int], Clip]
"""Makes a batch of one clip: that of a step and a place in its batch. Several threads call it at once."""

_AHEAD = 2  # batches, besides the one that is waited for


def clip_batches(
    sources: Sequence[ClipSource],
    config: ClipConfig,
    *,
    batch_size: int,
    seed: int,
    num_workers: int = 2,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Batches:
    """Makes batches of one random clip of each sequence an epoch; a sequence given twice is seen twice.

    Sequences that are too short for a clip are left out, with a warning that names them.

    Args:
        sources: the sequences.
        config: what a clip is.
        batch_size: clips in a batch of all processes together.
        seed: of the order, and of all that is random in the clips.
        num_workers: threads; the batches do not depend on how many.
        process_index: which rows of each batch to make; those of JAX's process where it is None.
        process_count: into how many parts batches are split; by the number of JAX's processes where it is None.

    Returns:
        A function from a step to the batches from there on, NumPy arrays. Leaving the iterator ends its threads.

    Raises:
        InputError: no sequence is long enough, or a batch does not split over the processes; while iterating, as
            `sample_clip` does.
    """
    make = clip_maker(sources, config, batch_size=batch_size, seed=seed)
    return threaded_batches(make, batch_size=batch_size, num_workers=num_workers, process_index=process_index,
                            process_count=process_count)  # fmt: skip


def clip_maker(sources: Sequence[ClipSource], config: ClipConfig, *, batch_size: int, seed: int) -> MakeClip:
    """Makes the clips that `clip_batches` puts into its batches; the arguments are those of `clip_batches`."""
    kept = [source for source in sources if can_sample(source, config)]
    short = ", ".join(dict.fromkeys(source.name for source in sources if not can_sample(source, config)))
    if not kept:
        raise InputError(f"no sequence has {config.needs} ({short or 'there are none'}): ask for shorter clips")
    if short:
        warnings.warn(f"sequences without {config.needs} are left out: {short}", stacklevel=3)

    def make(step: int, index: int) -> Clip:
        position = step * batch_size + index
        epoch, place = divmod(position, len(kept))
        order = np.random.default_rng([seed, epoch, 2]).permutation(len(kept))
        return sample_clip((seed, position), kept[order[place]], config, step=step)

    return make


def threaded_batches(
    make: MakeClip,
    *,
    batch_size: int,
    num_workers: int = 2,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Batches:
    """Makes batches of the clips that `make` makes, in threads and ahead; the arguments are those of `clip_batches`."""
    if batch_size < 1 or num_workers < 1:
        raise InputError(f"{batch_size} clips in a batch and {num_workers} workers: want one of each at least")

    def batches(start: int) -> Iterator[Clip]:
        rows = rows_of(batch_size, process_index=process_index, process_count=process_count)
        pending: collections.deque[list[Future[Clip]]] = collections.deque()
        pool = ThreadPoolExecutor(num_workers, thread_name_prefix="clips")
        try:
            step = start
            while True:
                while len(pending) <= _AHEAD:
                    pending.append([pool.submit(make, step, index) for index in rows])
                    step += 1
                clips = [future.result() for future in pending.popleft()]
                yield jax.tree.map(lambda *fields: np.concatenate(fields), *clips)
        finally:
            pool.shutdown(cancel_futures=True)

    return batches
