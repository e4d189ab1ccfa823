"""Clips whose flow is known: synthetic ones, and those of prepared data sets."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data._batches import Batches, mixed_batches
from jaxvos.data._clips import ClipConfig
from jaxvos.data._loader import clip_batches, threaded_batches
from jaxvos.data._prepared import PreparedSequence, open_dataset
from jaxvos.data._synthetic import synthetic_batch
from jaxvos.data._synthetic_scenes import SyntheticConfig
from jaxvos.errors import InputError
from jaxvos.system import Clip

__all__ = ["FlowDataConfig", "flow_batches"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowDataConfig:
    """Pairs of frames with flow: synthetic, of prepared data sets, or both."""

    batch_size: int = 8
    """Clips in a step."""
    size: tuple[int, int] = (320, 448)
    """Height and width of a frame."""
    num_frames: int = 2
    """Frames of a clip; each but the last is learned from."""
    synthetic: SyntheticConfig = SyntheticConfig(flow_noise=0.0)
    """Synthetic clips; their height, width and number of frames are those above."""
    pool: int | None = None
    """How many synthetic clips there are; each is made once and stays in memory. Left out: every one is new."""
    sets: tuple[tuple[str, str], ...] = ()
    """Prepared data sets and the splits to train on, such as `sintel train_clean`; synthetic clips if left out."""
    data_dir: Path | None = None
    """Where they were prepared, if not in the default place."""
    crop: tuple[float, float] | None = (0.6, 1.0)
    """Side of a random window of the shape of `size`, relative to the largest in their frames; the whole if None."""
    synthetic_share: float = 0.0
    """Share of synthetic batches when training on data sets."""
    keep_masks: bool = False
    """Keep the masks of synthetic clips, for systems that learn them too; data sets have none."""

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise InputError(f"{self.num_frames} frames: motion takes 2 at least")
        if self.pool is not None and self.pool < 1:
            raise InputError(f"a pool of {self.pool} clips: want 1 at least, or none")
        if self.keep_masks and self.sets:
            raise InputError("data sets of flow have no masks: set keep_masks or sets, not both")


def flow_batches(config: FlowDataConfig, *, seed: int) -> Batches:
    """Opens the sources of a run; clips have `images`, `flow` and `valid`, and `masks` and `alive` if kept.

    Flow is NaN where it is unknown, such as that of the last frame of a sequence.

    Args:
        config: what to read and to make.
        seed: with the step, of everything that is random.

    Raises:
        InputError: a data set is not prepared or has no flow.
    """
    synthetic = threaded_batches(_synthetic_maker(config, seed), batch_size=config.batch_size)
    if not config.sets:
        return synthetic
    sequences = [_Pairs(sequence) for name, split in config.sets
                 for sequence in open_dataset(name, split=split, data_dir=config.data_dir)]  # fmt: skip
    clips = ClipConfig(num_frames=config.num_frames, size=config.size, masks=False, flow=True, crop=config.crop)
    batches = clip_batches(sequences, clips, batch_size=config.batch_size, seed=seed)
    if config.synthetic_share > 0:
        batches = mixed_batches(synthetic, batches, share=config.synthetic_share, seed=seed)
    return batches


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """A sequence whose last frame, which has no flow, may end a clip; it looks as if one more came after it."""

    sequence: PreparedSequence

    @property
    def name(self) -> str:
        return self.sequence.name

    @property
    def annotated(self) -> tuple[int, ...]:
        return self.sequence.annotated

    def __len__(self) -> int:
        return len(self.sequence) + 1

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.sequence.image(index)

    def mask(self, index: int) -> UInt8[np.ndarray, "h w"]:
        return self.sequence.mask(index)

    def flow(self, index: int) -> Float32[np.ndarray, "h w 2"]:
        if index == len(self.sequence) - 1:
            return np.full((*self.sequence.size, 2), np.nan, np.float32)
        return self.sequence.sparse_flow(index)


def _synthetic_maker(config: FlowDataConfig, seed: int):
    scenes = dataclasses.replace(config.synthetic, height=config.size[0], width=config.size[1],
                                 num_frames=config.num_frames)  # fmt: skip

    def film(number: int) -> Clip:
        clip = synthetic_batch(seed, number, scenes, batch_size=1)
        clip = clip._replace(edges=None)
        return clip if config.keep_masks else clip._replace(masks=None, alive=None)

    if config.pool is None:
        return lambda step, index: film(step * config.batch_size + index)
    kept, pool = functools.lru_cache(maxsize=None)(film), config.pool

    def make(step: int, index: int) -> Clip:
        epoch, place = divmod(step * config.batch_size + index, pool)
        return kept(int(_order(seed, epoch, pool)[place]))

    return make


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, pool: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(pool)
