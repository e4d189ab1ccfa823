"""The two folds: frame by frame, and as one scan."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from jaxvos.system import Frame, Memory, Prediction, System
from jaxvos.typing import Variables

__all__ = ["fold", "fold_clip", "jitted_predict", "jitted_start"]


def jitted_predict(system: System) -> Callable:
    """Returns `jax.jit(system.predict)`, the same one each time, so that a second video of a size compiles nothing."""
    return _jitted(system.predict)


def jitted_start(system: System) -> Callable:
    """Returns `jax.jit(system.start)`, the same one each time."""
    return _jitted(system.start)


@functools.lru_cache(maxsize=32)
def _jitted(function: Callable) -> Callable:
    return jax.jit(function)


def fold(
    system: System, variables: Variables, frames: Iterable[Frame], *, masks: Any = None
) -> Iterator[tuple[Memory, Prediction]]:
    """Runs `system.predict` frame by frame, one compilation for each size of frame.

    Args:
      system: the system.
      variables: its parameters.
      frames: any number of frames, taken one at a time.
      masks: of the first frame, for systems that are told what to follow.

    Yields:
      the memory after each frame, and its prediction.
    """
    memory = None
    for index, frame in enumerate(frames):
        if index == 0:
            memory = jitted_start(system)(variables, frame, masks)
        memory, prediction = jitted_predict(system)(variables, memory, frame)
        yield memory, prediction


def fold_clip(system: System, variables: Variables, frames: Frame, *, masks: Any = None) -> tuple[Memory, Prediction]:
    """Runs `system.predict` over frames stacked along a leading time axis, as one differentiable `lax.scan`.

    Returns:
      the last memory, and the predictions stacked as the frames are. Equal to what `fold` yields.
    """
    memory = system.start(variables, jax.tree.map(lambda x: x[0], frames), masks)
    return jax.lax.scan(functools.partial(system.predict, variables), memory, frames)
