"""Sequences with masks: their frames in order or in any order, wherever the files are."""

import abc
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data._flow import FlowProvider, flow_from_folder
from jaxvos.data._flow_files import read_flow
from jaxvos.data._images import image_size, read_image
from jaxvos.data._masks import check_mask_size, read_annotation
from jaxvos.data._proposals import read_proposals
from jaxvos.data._video import Video
from jaxvos.data._video_proposals import VideoProposals
from jaxvos.errors import InputError
from jaxvos.system import Proposals

__all__ = ["AnnotatedSequence"]


@dataclass(frozen=True)
class AnnotatedSequence(abc.ABC):
    """A sequence in a folder (`DavisSequence`) or in records (`PreparedSequence`); several threads may read it at once.

    Nothing is decoded before it is asked for. What cannot be read is an `InputError` that names it.
    """

    name: str
    flow_files: FlowProvider | None = field(default=None, kw_only=True, repr=False)  # instead of the sequence's own
    proposal_file: Path | None = field(default=None, kw_only=True, repr=False)

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def frames(self) -> Video:
        """Returns the frames as a video of 24 frames per second; `InputError` if the first cannot be read."""

    @abc.abstractmethod
    def frame_name(self, index: int) -> str:
        """Returns the stem of the image file of a frame."""

    @abc.abstractmethod
    def has_mask(self, index: int) -> bool:
        """Tells whether a frame is annotated, without reading it."""

    @abc.abstractmethod
    def _file(self, kind: Literal["images", "masks", "flows"], index: int) -> Path | io.BytesIO | None:
        """Returns what to read, None where there is none."""

    @property
    def annotated(self) -> tuple[int, ...]:
        """The frames with a mask, in order."""
        return tuple(index for index in range(len(self)) if self.has_mask(index))

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame in pixels, from its header."""
        return image_size(self._existing("images", 0))

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a frame as RGB."""
        return read_image(self._existing("images", index))

    def mask(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Returns the object ids of an annotated frame as `read_annotation` gives them; they must be of its size."""
        file = self._existing("masks", index)
        mask = read_annotation(file)
        check_mask_size(mask, self.size, file)
        return mask

    def masks(self) -> Iterator[UInt8[np.ndarray, "h w"] | None]:
        """Yields the masks of all frames, `None` where there is no annotation."""
        return (self.mask(index) if self.has_mask(index) else None for index in range(len(self)))

    def flow(self, index: int) -> Float32[np.ndarray, "h w 2"]:
        """Returns the flow from a frame to the next in pixels, 0 where it is unknown."""
        if self.flow_files is not None:
            size_alone = np.broadcast_to(np.uint8(0), (*self.size, 3))
            return self.flow_files(size_alone, size_alone, name=self.frame_name(index))
        flow, known = read_flow(self._existing("flows", index))
        return np.where(known[..., None], flow, np.float32(0))

    def sparse_flow(self, index: int) -> Float32[np.ndarray, "h w 2"]:
        """Returns the sequence's own flow from a frame to the next in pixels, NaN where it is unknown."""
        flow, known = read_flow(self._existing("flows", index))
        return np.where(known[..., None], flow, np.float32(np.nan))

    def with_flow_folder(self, folder: str | Path) -> "AnnotatedSequence":
        """Returns the sequence with the flow that `folder` holds for it: a folder of its name, one file for each frame.

        Raises:
            InputError: as `flow_from_folder`.
        """
        return replace(self, flow_files=flow_from_folder(Path(folder) / self.name))

    def proposals(self, index: int, *, num_proposals: int) -> Proposals:
        """Returns so many of the best proposals of a frame, boxes in its pixels; `InputError` if the file lacks it."""
        if self.proposal_file is None:
            raise InputError(f"{self.name} has no proposals: give a folder of proposal files")
        return _stored(self.proposal_file, self.size, num_proposals).find(self.frame_name(index))

    def with_proposal_folder(self, folder: str | Path) -> "AnnotatedSequence":
        """Returns the sequence with the proposals that `folder` holds for it: NAME.npz or NAME.json.

        Raises:
            InputError: there is neither.
        """
        files = [Path(folder) / f"{self.name}{suffix}" for suffix in (".npz", ".json")]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise InputError(f"there is neither {files[0].name} nor {files[1].name} in {folder}: make proposals of "
                             f"{self.name} (jaxvos proposals)")
        return replace(self, proposal_file=file)

    def _existing(self, kind: Literal["images", "masks", "flows"], index: int) -> Path | io.BytesIO:
        file = self._file(kind, index)
        if file is None:
            remedy = "give a folder of flow files" if kind == "flows" else "complete the data or leave it out"
            raise InputError(f"frame {self.frame_name(index)} of {self.name} has no {kind.removesuffix('s')}: {remedy}")
        return file


@functools.lru_cache(maxsize=64)
def _stored(path: Path, size: tuple[int, int], num_proposals: int) -> VideoProposals:
    """A file is read as a whole; those read last are kept, about 160 kB for each of their frames."""
    return read_proposals(path, size=size, num_proposals=num_proposals)
