"""Training batches: annotated frames with their flow, held in memory, and the mixing of sources."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image
from tqdm import tqdm

from jaxvos.data._davis import DavisSequence
from jaxvos.data._flow import FlowProvider, with_flow
from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.ops import resize_flow
from jaxvos.system import Clip

__all__ = ["Batches", "FrameStore", "load_frames", "mixed_batches", "shuffled_batches"]

Batches = Callable[[int], Iterator[Clip]]
"""Gives the batches from a step on; the same ones whenever it is called, so that training can resume."""

_VOID = 255


class FrameStore(NamedTuple):
    """Frames of several sequences, all of one size, as small as they can be kept."""

    images: UInt8[np.ndarray, "n h w 3"]
    masks: UInt8[np.ndarray, "n h w"]  # object ids, void as background
    flow: Float16[np.ndarray, "n h w 2"]  # pixels of this size
    sequences: tuple[str, ...]  # of each frame


def load_frames(
    sequences: Sequence[DavisSequence],
    *,
    size: tuple[int, int],
    flow: FlowProvider,
    cache: Path | None = None,
    progress: bool = True,
) -> FrameStore:
    """Reads every annotated frame, with the flow to the next one, at one size.

    The flow is that of the frames as they are stored, resized afterwards; the last frame of a sequence is left out.

    Args:
      sequences: what to read.
      size: height and width to resize to; the aspect is not kept.
      flow: where flow comes from.
      cache: an `.npz` file to read instead if it is there, and to write if it is not.
      progress: show a bar.

    Raises:
      InputError: nothing is annotated, or the cache holds other sequences or another size.
    """
    names = [sequence.name for sequence in sequences]
    if cache is not None and cache.is_file():
        return _read_cache(cache, names, size)
    images, masks, flows, owners = [], [], [], []
    for sequence in tqdm(sequences, unit="sequence", desc="reading", disable=not progress):
        for frame, mask in zip(with_flow(sequence.frames(), flow, last_frame="skip"), sequence.masks(), strict=False):
            if mask is None:
                continue
            images.append(_resized(frame.image, size, Image.Resampling.BOX))
            masks.append(_resized(np.where(mask == _VOID, 0, mask).astype(np.uint8), size, Image.Resampling.NEAREST))
            flows.append(np.asarray(resize_flow(frame.flow, size), np.float16))
            owners.append(sequence.name)
    if not images:
        raise InputError(f"no annotated frame in {', '.join(names) or 'an empty list of sequences'}")
    store = FrameStore(np.stack(images), np.stack(masks), np.stack(flows), tuple(owners))
    if cache is not None:
        with atomic_path(cache) as partial:
            np.savez(partial, images=store.images, masks=store.masks, flow=store.flow, sequences=store.sequences)
    return store


def _resized(array: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize(size[::-1], method))


def _read_cache(cache: Path, names: list[str], size: tuple[int, int]) -> FrameStore:
    with np.load(cache) as arrays:
        store = FrameStore(*(arrays[name] for name in ("images", "masks", "flow")), tuple(arrays["sequences"].tolist()))
    if store.images.shape[1:3] != tuple(size) or set(store.sequences) - set(names):
        raise InputError(f"{cache} was made from other sequences or at another size; remove it or name another file")
    return store


def shuffled_batches(store: FrameStore, *, batch_size: int, seed: int, slots: int = 2) -> Batches:
    """Batches of single frames, every frame once an epoch, in an order that follows from the seed.

    Args:
      store: the frames.
      batch_size: frames in a batch.
      seed: of the order.
      slots: object slots `k`, background included; ids from `slots` on share the last slot.
    """
    count = len(store.images)

    def batches(start: int) -> Iterator[Clip]:
        step, epoch, order = start, -1, np.arange(0)
        while True:
            picked = []
            for position in range(step * batch_size, (step + 1) * batch_size):
                if position // count != epoch:
                    epoch = position // count
                    order = np.random.default_rng([seed, epoch]).permutation(count)
                picked.append(order[position % count])
            yield _clip(store, np.array(picked), slots)
            step += 1

    return batches


def _clip(store: FrameStore, index: np.ndarray, slots: int) -> Clip:
    ids = np.minimum(store.masks[index], slots - 1)
    masks = (ids[..., None] == np.arange(slots)).astype(np.float32)
    alive = masks.any(axis=(1, 2))
    alive[:, 0] = True
    return Clip(
        images=(store.images[index] / np.float32(255))[:, None],
        masks=masks[:, None],
        alive=alive,
        valid=np.ones((len(index), 1), bool),
        flow=store.flow[index].astype(np.float32)[:, None],
    )


def mixed_batches(first: Batches, second: Batches, *, share: float, seed: int) -> Batches:
    """Takes each batch whole from `first` with probability `share`, else from `second`."""

    def batches(start: int) -> Iterator[Clip]:
        draws = np.random.default_rng(seed)
        taken = int(np.sum(draws.random(start) < share))
        one, other = first(taken), second(start - taken)
        while True:
            yield next(one) if draws.random() < share else next(other)

    return batches
