"""Synthetic clips: cut-out figures over moving textured scenes, with exact masks, flow and edges.

Layered figures with their own motion over a moving scene are how flow networks have long been trained (FlyingChairs,
Dosovitskiy et al. 2015); here the layers also say which pixels are objects. NumPy alone, no files: everything follows
from a seed. Training draws from `synthetic_batch`, `jaxvos demo` from `demo_video`, whose seeds never meet.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxvos.data._processes import rows_of
from jaxvos.data._synthetic_film import degrade_flow, estimate_flow, expose, mask_edges
from jaxvos.data._synthetic_scenes import SyntheticConfig, draw_scene, render
from jaxvos.system import Clip

__all__ = ["SyntheticClip", "SyntheticConfig", "demo_video", "mask_edges", "synthetic_batch", "synthetic_clip",
           "synthetic_clips"]

_TRAINING, _DEMO = 0, 1  # first word of every seed: the two streams never meet


class SyntheticClip(NamedTuple):
    """One clip, without a batch axis."""

    images: Float[np.ndarray, "t h w 3"]  # RGB in [0, 1]
    masks: Float[np.ndarray, "t h w k"]  # one-hot; slot 0 is the background
    alive: Bool[np.ndarray, "k"]  # slots that are seen at least once
    flow: Float[np.ndarray, "t h w 2"]  # frame t to t + 1, pixels; the motion goes on after the last frame
    edges: Float[np.ndarray, "t h w"]  # 1 on the border of all objects taken as one


def synthetic_clip(seed: int | Sequence[int], config: SyntheticConfig) -> SyntheticClip:
    """Makes one clip.

    Args:
        seed: non-negative integer, or several: `(seed, i, j)` is clip j of batch i of `synthetic_batch(seed, i)`.
        config: what the clip is made of.

    Returns:
        The clip, the same for the same seed and config.
    """
    return _make_clip(_TRAINING, (seed,) if isinstance(seed, int) else tuple(seed), config)


def synthetic_batch(
    seed: int, index: int, config: SyntheticConfig, *, batch_size: int, rows: Sequence[int] | None = None
) -> Clip:
    """Makes batch `index` of the endless data set `seed`, as NumPy arrays.

    Args:
        seed: which data set.
        index: which batch; nothing but `(seed, index)` decides its content, so training resumes anywhere.
        config: what the clips are made of.
        batch_size: clips per batch.
        rows: those of its clips to make; all if None.

    Returns:
        A `Clip` with every field but `proposals` filled.
    """
    clips = [synthetic_clip((seed, index, item), config) for item in (range(batch_size) if rows is None else rows)]
    fields: dict[str, Any] = {name: np.stack([getattr(clip, name) for clip in clips]) for name in SyntheticClip._fields}
    fields["valid"] = np.ones((len(clips), config.num_frames), bool)
    return Clip(**fields)


def synthetic_clips(config: SyntheticConfig, *, seed: int, batch_size: int, start: int = 0) -> Iterator[Clip]:
    """Yields `synthetic_batch(seed, index, ...)` for index `start`, `start + 1`, ... without end.

    With several processes each gets its rows of them.
    """
    index, rows = start, rows_of(batch_size)
    while True:
        yield synthetic_batch(seed, index, config, batch_size=batch_size, rows=rows)
        index += 1


def demo_video(seed: int = 0, *, height: int = 270, width: int = 480, num_frames: int = 40) -> SyntheticClip:
    """Makes a video to look at, from seeds that no training clip has.

    Args:
        seed: which video.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        num_frames: length.

    Returns:
        One clip with one or two figures of middling size, sharp pictures and exact flow.
    """
    config = SyntheticConfig(height=height, width=width, num_frames=num_frames, num_objects=2, min_area=0.05,
                             max_area=0.15, object_motion=0.6, camera_motion=0.6, still=0.0, camouflage=0.0, lights=0.0,
                             photometric=0.4, noise=0.01, blur=0.0, motion_blur=0.0, flow_noise=0.0)
    return _make_clip(_DEMO, (seed,), config)


def _make_clip(stream: int, seed: tuple[int, ...], config: SyntheticConfig) -> SyntheticClip:
    """Draws a scene, films it, and spoils the film and the flow as a camera and an estimator would."""
    root = np.random.default_rng([stream, len(seed), *seed])
    scene_rng, film_rng, flow_rng = root.spawn(3)
    scene = draw_scene(scene_rng, config)
    extra = config.flow_source == "dis"  # its last flow needs the frame after the last
    frames = [render(scene, float(time)) for time in range(config.num_frames + extra)]
    images = expose(film_rng, np.stack([frame.image for frame in frames]), config)
    frames = frames[: config.num_frames]
    owner = np.stack([frame.owner for frame in frames])
    flow = estimate_flow(images) if extra else np.stack([frame.flow for frame in frames])
    if flow_rng.random() < config.flow_noise:
        flow = degrade_flow(flow_rng, flow, owner)
    masks = (owner[..., None] == np.arange(config.num_objects + 1)).astype(np.float32)
    alive = masks.any(axis=(0, 1, 2))
    alive[0] = True
    return SyntheticClip(images[: config.num_frames], masks, alive, flow, mask_edges((owner > 0).astype(np.float32)))
