"""What the phases are told, beside how each is trained."""

import dataclasses
from typing import Literal

from jaxvos.errors import InputError
from jaxvos.systems import ClusterConfig

__all__ = ["SelfTrainingConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTrainingConfig:
    """The recipe of Mask-VOS without the pre-training of its encoder: correspondence, then that and fake objects."""

    phases: Literal["both", "correspondence", "joint"] = "both"
    """Learn correspondence and then also to carry clusters on; or one of the two alone."""
    refresh: int | None = 2170
    """Steps of the second phase after which videos are clustered again (10 epochs of YouTube-VOS); not at all if left
    out."""
    batch_size: int = 16
    """Clips in a step."""
    size: tuple[int, int] = (256, 256)
    """Height and width of a frame, multiples of 8."""
    crop: tuple[float, float] = (0.8, 1.0)
    """Side of a random window of the shape of `size`, relative to the largest in the frame."""
    num_objects: int = 2
    """Fake objects of a clip, at most."""
    min_skip: int = 5
    """Smallest stride to the distant frame of a clip."""
    max_skip: int = 25
    """Largest such stride."""
    joint_batch_norm: bool = False
    """Go on normalising by the statistics of the batch in the second phase; the released code does not."""
    clusters: ClusterConfig = ClusterConfig()
    """How videos are clustered."""

    def __post_init__(self) -> None:
        if self.refresh is not None and self.refresh < 1:
            raise InputError(f"refresh {self.refresh}: want a step or more, or leave it out")
        if any(side % 8 or side < 16 for side in self.size):
            raise InputError(f"size {self.size[0]}x{self.size[1]}: want multiples of 8 from 16 on")
