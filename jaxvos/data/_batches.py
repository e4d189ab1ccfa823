"""Training batches: annotated frames with their flow, held in memory, and the mixing of sources."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image
from tqdm import tqdm

from jaxvos.data._flow import FlowProvider, flow_from_folder, with_flow
from jaxvos.data._processes import rows_of
from jaxvos.data._sequences import AnnotatedSequence
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
    sequences: Sequence[AnnotatedSequence],
    *,
    size: tuple[int, int],
    flow: FlowProvider | Path,
    cache: Path | None = None,
    progress: bool = True,
) -> FrameStore:
    """Reads every annotated frame, with the flow to the next one, at one size.

    The flow is that of the frames as they are stored, resized afterwards; the last frame of a sequence is left out.

    Args:
      sequences: what to read.
      size: height and width to resize to; the aspect is not kept.
      flow: a function of two frames, or a folder that holds, for each sequence, a folder of flow files of its name.
      cache: an `.npz` file to read instead if it is there, and to write if it is not.
      progress: show a bar where standard error is a terminal.

    Raises:
      InputError: nothing is annotated, a sequence has no flow, or the cache holds other sequences or another size.
    """
    names = [sequence.name for sequence in sequences]
    if cache is not None and cache.is_file():
        return _read_cache(cache, names, size)
    providers = [flow_from_folder(flow / name) if isinstance(flow, Path) else flow for name in names]
    images, masks, flows, owners = [], [], [], []
    bar = tqdm(sequences, unit="sequence", desc="reading", disable=None if progress else True)
    for sequence, provider in zip(bar, providers, strict=True):
        frames = with_flow(sequence.frames(), provider, last_frame="skip")
        for frame, mask in zip(frames, sequence.masks(), strict=False):
            if mask is None:
                continue
            images.append(_resized(frame.image, size, Image.Resampling.BOX))
            masks.append(_resized(np.where(mask == _VOID, 0, mask).astype(np.uint8), size, Image.Resampling.NEAREST))
            flows.append(np.asarray(resize_flow(jnp.asarray(frame.flow), size), np.float16))
            owners.append(sequence.name)
    if not images:
        raise InputError(f"no annotated frame in {', '.join(names) or 'an empty list of sequences'}")
    store = FrameStore(np.stack(images), np.stack(masks), np.stack(flows), tuple(owners))
    if cache is not None:
        with atomic_path(cache) as partial:
            np.savez(partial, images=store.images, masks=store.masks, flow=store.flow, sequences=store.sequences,
                     names=names)  # fmt: skip
    return store


def _resized(array: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), method))


def _read_cache(cache: Path, names: list[str], size: tuple[int, int]) -> FrameStore:
    try:
        with cache.open("rb") as file, np.load(file) as arrays:
            images, masks, flow = (arrays[name] for name in ("images", "masks", "flow"))
            store = FrameStore(images, masks, flow, tuple(arrays["sequences"].tolist()))
            same = arrays["names"].tolist() == names and images.shape[1:3] == tuple(size)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{cache} cannot be read ({error}): remove it, and it is made again") from error
    if not same:
        raise InputError(f"{cache} was made from other sequences or at another size; remove it or name another file")
    return store


def shuffled_batches(store: FrameStore, *, batch_size: int, seed: int, slots: int = 2) -> Batches:
    """Batches of single frames, every frame once an epoch, in an order that follows from the seed.

    Args:
      store: the frames.
      batch_size: frames in a batch of all processes together.
      seed: of the order.
      slots: object slots `k`, background included; ids from `slots` on share the last slot.
    """
    count = len(store.images)

    def batches(start: int) -> Iterator[Clip]:
        step, epoch, order, rows = start, -1, np.arange(0), rows_of(batch_size)
        while True:
            picked = []
            for position in (step * batch_size + row for row in rows):
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
    fields: dict[str, Any] = {  # NumPy arrays, which `fit` puts on the devices
        "images": (store.images[index] / np.float32(255))[:, None],
        "masks": masks[:, None],
        "alive": alive,
        "valid": np.ones((len(index), 1), bool),
        "flow": store.flow[index].astype(np.float32)[:, None],
    }
    return Clip(**fields)


def mixed_batches(first: Batches, second: Batches, *, share: float, seed: int) -> Batches:
    """Takes each batch whole from `first` with probability `share`, else from `second`."""

    def batches(start: int) -> Iterator[Clip]:
        draws = np.random.default_rng(seed)
        taken = int(np.sum(draws.random(start) < share))
        one, other = first(taken), second(start - taken)
        while True:
            yield next(one) if draws.random() < share else next(other)

    return batches
