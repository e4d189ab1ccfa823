"""The proposals of all frames of a video in memory, and the order that they are kept in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvos.errors import InputError
from jaxvos.system import Proposals

__all__ = ["VideoProposals", "best_proposals", "check_arrays", "check_size", "frames_of"]


@dataclass(frozen=True, eq=False)
class VideoProposals:
    """What a detector proposes in every frame of a video, as NumPy arrays.

    `proposals` has the axis `t` of the frames first: boxes `(t, m, 4)` in pixels of the frames, masks `(t, m, s, s)`
    in [0, 1] (float32), scores `(t, m)` and valid `(t, m)`. The best of a frame is first; what is not valid is zero.
    """

    video: str
    names: tuple[str, ...]  # of the frames, as `Video.frame_name` gives them
    size: tuple[int, int]  # height and width of the frames in pixels
    proposals: Proposals
    detector: str  # what made them

    def __len__(self) -> int:
        return len(self.names)

    def frame(self, index: int) -> Proposals:
        """Returns the proposals of a frame: boxes `(m, 4)` and so on."""
        return Proposals(*(field[index] for field in self.proposals))

    def find(self, name: str) -> Proposals:
        """Returns the proposals of the frame of this name.

        Raises:
            InputError: if there is no such frame.
        """
        if name not in self.names:
            raise InputError(f"the proposals of {self.video} have no frame {name} (the first is {self.names[0]}): make "
                             "proposals again for this video")
        return self.frame(self.names.index(name))


def best_proposals(proposals: Proposals, *, num_proposals: int) -> Proposals:
    """Sorts the proposals of each frame by score and keeps the best; fewer are padded with zeros.

    What is not valid or has a box without area is dropped. Equal scores keep their order. Scores are cut to [0, 1].

    Args:
        proposals: NumPy arrays, with any axes before those of one frame.
        num_proposals: `m` of the result.
    """
    boxes = np.asarray(proposals.boxes, np.float32)
    valid = np.asarray(proposals.valid) & np.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    scores = np.where(valid, np.asarray(proposals.scores, np.float32), -np.inf)
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :num_proposals]

    def arrange(field: np.ndarray) -> Any:
        ndim = order.ndim
        extra = tuple(range(ndim, field.ndim))
        taken = np.take_along_axis(field, np.expand_dims(order, extra), axis=ndim - 1)
        kept = np.take_along_axis(valid, order, axis=-1)
        taken = np.where(np.expand_dims(kept, extra), taken, np.zeros((), field.dtype))
        missing = num_proposals - order.shape[-1]
        return np.pad(taken, [(0, missing if axis == ndim - 1 else 0) for axis in range(field.ndim)])

    return Proposals(arrange(boxes), arrange(np.asarray(proposals.masks, np.float32)),
                     arrange(np.clip(np.where(valid, scores, 0), 0, 1)), arrange(valid))


def check_arrays(proposals: Proposals, num_frames: int, what: object) -> None:
    """Refuses arrays that are not the proposals of so many frames.

    Args:
        proposals: of a whole video.
        num_frames: `t`.
        what: what the message names.

    Raises:
        InputError: if shapes do not belong together, or a valid box, score or mask is not a finite number.
    """
    if num_frames == 0:
        raise InputError(f"{what} has no frames: make proposals of a video")
    shapes = {name: np.shape(field) for name, field in zip(Proposals._fields, proposals, strict=True)}
    t, m, s = num_frames, *(shapes["masks"][1:3] if len(shapes["masks"]) == 4 else (-1, -1))
    if shapes != {"boxes": (t, m, 4), "masks": (t, m, s, s), "scores": (t, m), "valid": (t, m)}:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(f"{what} has arrays of shapes {found} for {t} frames: boxes must be (t, m, 4), masks "
                         "(t, m, s, s), scores and valid (t, m)")
    for name in ("boxes", "scores", "masks"):
        if not np.all(np.isfinite(getattr(proposals, name)[proposals.valid])):
            raise InputError(f"{what} has {name} that are not finite: leave these proposals out")


def frames_of(found: Sequence[str], wanted: Sequence[str], what: object) -> list[int]:
    """Returns where the wanted frames are among those found.

    Args:
        found: names of the frames there are.
        wanted: names in the order to be returned.
        what: what the message names.

    Raises:
        InputError: if two of the frames found have one name, or a wanted one is missing.
    """
    index = {name: i for i, name in enumerate(found)}
    if len(index) < len(found):
        twice = next(name for i, name in enumerate(found) if index[name] != i)
        raise InputError(f"{what} has two frames of the name {twice}: give one file per video")
    missing = [name for name in wanted if name not in index]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(f"{what} has no proposals for {len(missing)} of {len(wanted)} frames ({shown}): make "
                         "proposals again for this video")
    return [index[name] for name in wanted]


def check_size(found: tuple[int, int] | None, wanted: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """Returns the size of the frames, or refuses it if it is not the one wanted.

    Args:
        found: height and width that the file has.
        wanted: height and width of the video; any where it is None.
        path: what the message names.

    Raises:
        InputError: if the sizes differ, or there is none.
    """
    if found is None:
        raise InputError(f"proposals {path} do not say how large the frames are: give images their height and width")
    if wanted is not None and found != tuple(wanted):
        raise InputError(f"proposals {path} are for frames of {found[1]}x{found[0]} but those of the video are "
                         f"{wanted[1]}x{wanted[0]} (width x height): make proposals again for this video")
    return found
