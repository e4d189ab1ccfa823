"""What a training run sees: frames of DAVIS, synthetic clips or both, and the sequences held out to judge it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from jaxvos.data._batches import Batches, FrameStore, load_frames, mixed_batches, shuffled_batches
from jaxvos.data._davis import list_sequences
from jaxvos.data._flow import dis_flow
from jaxvos.data._synthetic import SyntheticConfig, synthetic_clips
from jaxvos.errors import InputError
from jaxvos.system import Clip

__all__ = ["DataConfig", "training_data"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Annotated frames of DAVIS, synthetic clips, or both."""

    batch_size: int = 2
    """Frames in a step."""
    size: tuple[int, int] = (512, 512)
    """Height and width of a training frame."""
    davis: Path | None = None
    """DAVIS folder to train on; synthetic clips alone if left out."""
    split: str | None = None
    """Sequences listed in its ImageSets under this name; all of them if left out."""
    resolution: str | None = None
    """Folder within its JPEGImages."""
    held_out: tuple[str, ...] = ("bus", "horsejump-low", "kite-walk", "rollerblade", "soccerball")
    """Training sequences that are kept for model selection."""
    flow: str = "dis"
    """Flow of the frames: dis, or a folder that holds a folder of flow files for each sequence."""
    cache: Path | None = None
    """Folder that keeps the resized frames and their flow between runs."""
    synthetic_share: float = 0.0
    """Share of synthetic batches when training on DAVIS."""
    synthetic: SyntheticConfig = SyntheticConfig(num_frames=1, flow_source="dis", flow_noise=0.2)
    """Synthetic clips; their height and width are `size`."""


def training_data(config: DataConfig, *, seed: int) -> tuple[Batches, FrameStore | None]:
    """Opens the sources of a run.

    Returns:
      The batches, and the held-out frames (None without DAVIS).

    Raises:
      InputError: a source cannot be read, or a held-out sequence does not exist.
    """
    synthetic = dataclasses.replace(config.synthetic, height=config.size[0], width=config.size[1])

    def synthetic_batches(start: int) -> Iterator[Clip]:
        clips = synthetic_clips(synthetic, seed=seed, batch_size=config.batch_size, start=start)
        return (clip._replace(edges=None) for clip in clips)  # as frames of DAVIS: a run has one kind of batch

    if config.davis is None:
        return synthetic_batches, None
    sequences = list_sequences(config.davis, split=config.split, resolution=config.resolution)
    unknown = sorted(set(config.held_out) - {sequence.name for sequence in sequences})
    if unknown:
        raise InputError(f"held-out sequences {', '.join(unknown)} are not in {config.davis}; set --data.held-out")
    parts = {
        "train": [s for s in sequences if s.name not in config.held_out],
        "held_out": [s for s in sequences if s.name in config.held_out],
    }
    if not parts["train"]:
        raise InputError(f"every sequence of {config.davis} is held out: none is left to train on; set --data.held-out")
    flow = dis_flow() if config.flow == "dis" else Path(config.flow)
    stores = {
        part: load_frames(members, size=config.size, flow=flow,
                          cache=None if config.cache is None else config.cache / f"{part}.npz")
        for part, members in parts.items() if members
    }  # fmt: skip
    frames = shuffled_batches(stores["train"], batch_size=config.batch_size, seed=seed,
                              slots=synthetic.num_objects + 1)  # fmt: skip
    if config.synthetic_share > 0:
        frames = mixed_batches(synthetic_batches, frames, share=config.synthetic_share, seed=seed)
    return frames, stores.get("held_out")
