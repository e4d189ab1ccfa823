"""The contract: a video-object-segmentation system is a fold over frames with a loss, given as four pure functions.

A system is added by writing one function that returns a `System`; nothing is registered anywhere. Whoever holds a
`System` (the training loop, `segment`, the evaluation) knows nothing else about it.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

from jaxtyping import Array, Bool, Float

from jaxvos.typing import Edges, Flow, Image, Key, Masks, Variables

__all__ = ["Adaptation", "Clip", "Frame", "Init", "Loss", "LossOutput", "Memory", "Need", "Predict", "Prediction",
           "Proposals", "Start", "System", "no_memory"]

Memory = Any  # a pytree whose shapes never change from frame to frame
Need = Literal["flow", "masks", "next_image", "proposals"]


class Proposals(NamedTuple):
    """What might be objects in a frame, the best first, padded to a fixed number `m`; in a `Clip`, of every frame.

    A mask is known inside its box alone, as `s x s` probabilities that are spread over the box (`ops.paste_masks`).
    What `valid` marks False is padding, whatever the other fields hold there.
    """

    boxes: Float[Array, "*b m 4"]  # left, top, right, bottom: edges in pixels, of which pixel i has i and i + 1
    masks: Float[Array, "*b m s s"]
    scores: Float[Array, "*b m"]  # in [0, 1]
    valid: Bool[Array, "*b m"]


class Clip(NamedTuple):
    """A batch of short clips, as training sees it. A field that a data set or a system lacks is `None`.

    `masks[..., 0]` is the background; slots `k` that hold no object are all zero and `alive` is False there: a clip
    padded with such slots has the same loss. Frames that `valid` marks False are padding and count in no loss.
    """

    images: Float[Array, "b t h w 3"]
    masks: Float[Array, "b t h w k"] | None = None
    alive: Bool[Array, "b k"] | None = None
    valid: Bool[Array, "b t"] | None = None
    flow: Float[Array, "b t h w 2"] | None = None  # from frame t to frame t + 1, pixels
    edges: Float[Array, "b t h w"] | None = None  # 1 on object boundaries; systems that augment derive their own
    proposals: Proposals | None = None  # with axes b t before those of one frame


class Frame(NamedTuple):
    """One frame, as prediction sees it (no batch axis: `jax.vmap` adds one)."""

    image: Image
    next_image: Image | None = None
    flow: Flow | None = None  # from this frame to the next, pixels
    alive: Bool[Array, "k"] | None = None  # False: from this frame on the slot's object is no longer followed
    proposals: Proposals | None = None
    masks: Masks | None = None  # marked on this frame by a person; a slot without a pixel is not spoken of


class Prediction(NamedTuple):
    """What a system says of one frame, at the size of that frame."""

    masks: Masks  # probabilities, summing to one over the slots k
    edges: Edges | None = None  # probability of an object boundary
    flow: Flow | None = None
    proposals: Proposals | None = None


class LossOutput(NamedTuple):
    """A scalar to minimise, the new values of the collections that are not `params`, and numbers for the log."""

    loss: Float[Array, ""]
    model_state: Variables
    scalars: dict[str, Float[Array, ""]]


class Init(Protocol):
    """Makes the variables (`params` and, where there are any, `batch_stats`) for clips of this shape."""

    def __call__(self, key: Key, clip: Clip) -> Variables: ...


class Loss(Protocol):
    """Judges the variables on a batch; `step` is traced, so that ramps are schedules and never retrace."""

    def __call__(self, variables: Variables, clip: Clip, *, key: Key, step: Any) -> LossOutput: ...


class Predict(Protocol):
    """One step of the fold over frames: memory keeps its shapes, so `lax.scan` and a stream both run it."""

    def __call__(self, variables: Variables, memory: Memory, frame: Frame) -> tuple[Memory, Prediction]: ...


class Start(Protocol):
    """Makes the memory from the first frame and, for systems that are told what to follow, its masks."""

    def __call__(self, variables: Variables, frame: Frame, masks: Masks | None = None) -> Memory: ...


class Adaptation(NamedTuple):
    """How a system learns online, from the first frame of a video and its masks (`jaxvos.inference.adapt`)."""

    lr: float
    frozen: tuple[str, ...] = ()  # regexes of parameters that stay as they are,
    heads: tuple[str, ...] = ()  # and of those that stay where the last layers alone are to learn
    num_frames: int = 1  # copies of the frame in a clip
    prepare: Callable[[Variables, int], tuple[Any, Variables]] | None = None  # a `System` of so many slots


def no_memory(variables: Variables, frame: Frame, masks: Masks | None = None) -> Memory:
    """Returns the empty memory: each frame stands alone."""
    del variables, frame, masks
    return ()


class System(NamedTuple):
    """A video-object-segmentation system as four pure functions."""

    init: Init
    loss: Loss
    predict: Predict
    start: Start = no_memory
    needs: tuple[Need, ...] = ()  # what frames must have; `masks` are those of the first frame, given to `start`
    adaptation: Adaptation | None = None  # without one, it does not learn online
    told_anytime: bool = False  # `predict` heeds `Frame.masks` and `Frame.alive`: objects come and go on any frame,
    # and one that goes makes room for another on the same frame
