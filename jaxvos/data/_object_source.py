"""Clips of several objects with their proposals, from DAVIS, synthetic or both: training for systems that match."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from jaxvos.data._augment import Augmentation, object_areas
from jaxvos.data._batches import Batches, mixed_batches
from jaxvos.data._clips import ClipConfig, largest_skip
from jaxvos.data._davis import DavisSequence, list_sequences
from jaxvos.data._jitter import JitterConfig, jittered_proposals
from jaxvos.data._loader import MakeClip, clip_maker, threaded_batches
from jaxvos.data._sequences import AnnotatedSequence
from jaxvos.data._synthetic_film import expose
from jaxvos.data._synthetic_scenes import SyntheticConfig, draw_scene, render
from jaxvos.errors import InputError
from jaxvos.system import Clip

__all__ = ["ObjectDataConfig", "object_batches"]

_SYNTHETIC, _DAVIS = 0, 1  # first word of every seed: no two clips have the same proposals
_TRIES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectDataConfig:
    """Clips of several objects with proposals."""

    batch_size: int = 4
    """Clips in a step."""
    size: tuple[int, int] = (255, 448)
    """Height and width of a frame."""
    num_frames: int = 3
    """Frames of a clip."""
    num_objects: int = 5
    """Slots for objects, besides that of the background. All objects are seen in the first frame."""
    min_area: float = 0.001
    """Share of the first frame that an object must cover to be given a slot."""
    davis: tuple[Path, ...] = ()
    """Folders in the layout of DAVIS to train on; synthetic clips alone if left out."""
    split: str | None = None
    """Sequences listed in their ImageSets under this name; all of them if left out."""
    resolution: str | None = None
    """Folder within their JPEGImages; of folders after the first, their own where they lack it."""
    held_out: tuple[str, ...] = ("bus", "horsejump-low", "kite-walk", "rollerblade", "soccerball")
    """Sequences of the first folder that are kept for model selection; of no folder are they trained on."""
    max_skip: int = 3
    """Largest stride between the frames of a clip; strides are drawn from 1 up to it."""
    skip_ramp: tuple[tuple[int, int], ...] = ()
    """Pairs of a step and the largest stride from then on, in place of `max_skip`."""
    adjacent: bool = False
    """The last two frames of a clip follow one another, whatever the strides before."""
    reverse: float = 0.0
    """Probability that a clip of DAVIS runs backwards."""
    static: bool = False
    """Make each clip of DAVIS of one frame, which moves as `augmentation.frame` says."""
    augmentation: Augmentation = Augmentation()
    """What may happen to a clip of DAVIS."""
    crop: tuple[float, float] | None = None
    """Side of a random window of the shape of `size`, relative to the largest in the frame; the whole frame if None."""
    synthetic_share: float = 0.25
    """Share of synthetic batches when training on DAVIS."""
    synthetic: SyntheticConfig = SyntheticConfig(lookalikes=0.5, min_objects=2, distractors=8)
    """Synthetic clips; their height, width and numbers of frames and of objects are those above."""
    distractors: int = 0
    """Most objects of a synthetic clip that have proposals but no slot; they come on top of `num_objects`."""
    jitter: JitterConfig | None = JitterConfig()
    """Proposals made from the masks; none if left out."""
    proposals: Path | None = None
    """Folder that holds NAME.npz or NAME.json for each sequence (`jaxvos proposals`), to take in place of those made
    from the masks; as many of a frame as `jitter` has."""

    def __post_init__(self) -> None:
        if self.distractors < 0 or self.max_skip < 1 or not 0 <= self.synthetic_share <= 1:
            raise InputError(f"{self.distractors} distractors, max_skip {self.max_skip}, "
                             f"synthetic_share {self.synthetic_share}: want at least 0, at least 1, and 0..1")
        if self.proposals is not None and (self.jitter is None or self.crop is not None):
            raise InputError("proposal files are of whole frames, and jitter has their number: set jitter, no crop")

    @property
    def origin(self) -> str:
        """What a net that is trained on this has seen, in words."""
        seen = ", ".join(folder.name for folder in self.davis)
        return f"{seen} without {', '.join(self.held_out) or 'nothing'}" if seen else "synthetic clips"

    @property
    def licence(self) -> str:
        """Of the weights of such a net, in words."""
        seen = ", ".join(folder.name for folder in self.davis)
        return f"as the data: trained on {seen} (DAVIS: non-commercial)" if seen else "Apache-2.0"

    @property
    def skips(self) -> tuple[tuple[int, int], ...]:
        """Largest strides, by the step from which they are."""
        return self.skip_ramp or ((0, self.max_skip),)


def object_batches(config: ObjectDataConfig, *, seed: int) -> tuple[Batches, list[DavisSequence]]:
    """Opens the sources of a run.

    Clips have `images`, `masks`, `alive` and `valid`, of the same shapes from either source, and `proposals` with
    `config.jitter`. Proposals are made of every object that is annotated in a synthetic clip, also where it has no
    slot; in a clip of DAVIS, of those that have one.

    Args:
        config: what to read and to make.
        seed: with the step, of everything that is random.

    Returns:
        The batches, as NumPy arrays and made by threads ahead, and the sequences of the first folder held out.

    Raises:
        InputError: a source cannot be read, a held-out sequence does not exist, or none is left to train on.
    """
    make_synthetic = _synthetic_maker(config, seed)
    synthetic = threaded_batches(make_synthetic, batch_size=config.batch_size)
    if not config.davis:
        return synthetic, []
    folders = [list_sequences(path, split=config.split, resolution=_resolution(path, config)) for path in config.davis]
    unknown = sorted(set(config.held_out) - {sequence.name for sequence in folders[0]})
    if unknown:
        raise InputError(f"held-out sequences {', '.join(unknown)} are not in {config.davis[0]}; set --data.held-out")
    training = [sequence for folder in folders for sequence in folder if sequence.name not in config.held_out]
    if not training:
        raise InputError(f"every sequence of {', '.join(map(str, config.davis))} is held out: none is left to train "
                         "on; set --data.held-out")
    batches = threaded_batches(_davis_maker(training, config, seed), batch_size=config.batch_size)
    if config.synthetic_share > 0:
        batches = mixed_batches(synthetic, batches, share=config.synthetic_share, seed=seed)
    return batches, [sequence for sequence in folders[0] if sequence.name in config.held_out]


def _resolution(path: Path, config: ObjectDataConfig) -> str | None:
    own = path != config.davis[0] and not (path / "JPEGImages" / (config.resolution or "")).is_dir()
    return None if own else config.resolution


def _davis_maker(sequences: Sequence[AnnotatedSequence], config: ObjectDataConfig, seed: int) -> MakeClip:
    """Makes clips of annotated frames, and proposals of what has a slot."""
    from_files = config.jitter.num_proposals if config.jitter is not None and config.proposals is not None else None
    clip_config = ClipConfig(num_frames=config.num_frames, size=config.size, num_objects=config.num_objects,
                             max_skip=config.skips, adjacent="last" if config.adjacent else "none",
                             reverse=config.reverse, static=config.static, augmentation=config.augmentation,
                             crop=config.crop, min_area=config.min_area, num_proposals=from_files)  # fmt: skip
    if config.proposals is not None:
        sequences = [sequence.with_proposal_folder(config.proposals) for sequence in sequences]
    make = clip_maker(sequences, clip_config, batch_size=config.batch_size, seed=seed)

    def make_with_proposals(step: int, index: int) -> Clip:
        clip = make(step, index)
        if config.jitter is None or config.proposals is not None:
            return clip
        ids = (np.asarray(clip.masks)[0] @ np.arange(config.num_objects + 1, dtype=np.float32)).astype(np.uint8)
        return _with_proposals(clip, (_DAVIS, seed, step, index), ids, config.jitter)

    return make_with_proposals


def _synthetic_maker(config: ObjectDataConfig, seed: int) -> MakeClip:
    """Makes clips of scenes, and proposals of all their objects."""
    most = config.num_objects + config.distractors
    height, width = config.size
    scenes = dataclasses.replace(config.synthetic, height=height, width=width, num_frames=config.num_frames,
                                 num_objects=most, min_objects=min(config.synthetic.min_objects, most))  # fmt: skip

    def make(step: int, index: int) -> Clip:
        words = (_SYNTHETIC, seed, step, index)
        images, ids, chosen = _film_objects(words, scenes, config, step)
        slots = [~np.isin(ids, chosen), *(ids == number for number in chosen)]
        slots += [np.zeros_like(slots[0])] * (config.num_objects + 1 - len(slots))
        fields: dict[str, Any] = {
            "images": images[None],
            "masks": np.stack(slots, axis=-1)[None].astype(np.float32),
            "alive": np.arange(config.num_objects + 1)[None] <= len(chosen),
            "valid": np.ones((1, config.num_frames), bool),
        }
        clip = Clip(**fields)
        return clip if config.jitter is None else _with_proposals(clip, words, ids, config.jitter)

    return make


def _film_objects(
    words: tuple[int, ...], scenes: SyntheticConfig, config: ObjectDataConfig, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films scenes until one has an object to choose, a few at most; returns images, ids, and which are chosen."""
    attempt, largest = 0, largest_skip(config.skips, step)
    while True:
        rng = np.random.default_rng([*words, attempt])
        images, ids = _film(rng, scenes, largest, adjacent=config.adjacent)
        chosen = _choose_objects(rng, ids[0], config)
        attempt += 1
        if chosen.size or attempt == _TRIES:
            return images, ids, chosen


def _film(
    rng: np.random.Generator, scenes: SyntheticConfig, max_skip: int, *, adjacent: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Films a scene with random strides between the frames."""
    scene_rng, film_rng = rng.spawn(2)
    scene = draw_scene(scene_rng, scenes)
    strides = rng.integers(1, max_skip, scenes.num_frames - 1, endpoint=True)
    if adjacent:
        strides[-1:] = 1
    times = np.cumsum([0, *strides])
    frames = [render(scene, float(time)) for time in times]
    images = expose(film_rng, np.stack([frame.image for frame in frames]), scenes)
    return images, np.stack([frame.owner for frame in frames]).astype(np.uint8)


def _choose_objects(rng: np.random.Generator, ids: UInt8[np.ndarray, "h w"], config: ObjectDataConfig) -> np.ndarray:
    """Chooses which objects are given a slot: by the first frame, and at least one where one is large enough."""
    seen = np.flatnonzero(object_areas(ids) >= max(config.min_area, 1 / ids.size)) + 1
    spared = min(int(rng.integers(config.distractors, endpoint=True)), max(len(seen) - 1, 0))
    count = min(len(seen) - spared, config.num_objects)
    return np.sort(rng.choice(seen, count, replace=False))


def _with_proposals(clip: Clip, words: tuple[int, ...], ids: UInt8[np.ndarray, "t h w"], config: JitterConfig) -> Clip:
    proposals = jittered_proposals(words, ids, config)
    return clip._replace(proposals=jax.tree.map(lambda field: field[None], proposals))
