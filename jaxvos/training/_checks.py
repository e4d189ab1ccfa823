"""What the loop asks at every turn, and what it says when the answer is bad."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxvos.errors import InputError
from jaxvos.system import Clip
from jaxvos.training._paths import flatten

__all__ = ["check_metrics", "clip_shapes", "closed", "finite_means", "is_due", "next_clip", "program_size"]


def next_clip(batches: Iterator[Clip], step: int) -> Clip:
    """Returns the next batch, the one after `step` updates."""
    clip = next(batches, None)
    if clip is None:
        raise InputError(f"the data ended before the batch of step {step + 1}")
    return clip


def clip_shapes(clip: Clip) -> dict[str, str]:
    """Returns the type of every field that a batch has."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in flatten(clip).items()}


def is_due(interval: int | None, step: int) -> bool:
    """Tells whether something that happens every `interval` steps (None: never) happens at this one."""
    return interval is not None and step % interval == 0


def finite_means(scalars: Sequence[Mapping[str, Any]], step: int, *, batch: int, saved: str) -> dict[str, float]:
    """Averages the scalars of consecutive steps, the last of which is `step`.

    Args:
        scalars: of each step.
        step: number of the last.
        batch: clips in a step.
        saved: what there is to go back to, in words.

    Raises:
        FloatingPointError: naming the first step whose loss or gradient is not finite, and its clips.
    """
    for number, entry in enumerate(scalars, step - len(scalars) + 1):
        for name in ("loss", "grad_norm"):
            if not np.isfinite(entry[name]):
                clips = f"clips {(number - 1) * batch} to {number * batch - 1} of the data"
                raise FloatingPointError(f"{name} is {entry[name]} at step {number} ({clips}); {saved}")
    return {name: float(np.mean([entry[name] for entry in scalars])) for name in scalars[0]}


def check_metrics(metrics: Mapping[str, float], best_metric: str | None) -> None:
    """Raises InputError if the metric that ranks checkpoints is not among those of the evaluation."""
    if best_metric is not None and best_metric not in metrics:
        raise InputError(f"best_metric '{best_metric}' is none of the evaluation's: {', '.join(metrics)}")


def program_size(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Returns what a device does and needs in a step, as far as XLA tells: `gigaflop` and `temporary_megabyte`."""
    costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
    flops = (costs or {}).get("flops", 0)
    return {**({"gigaflop": flops / 1e9} if flops > 0 else {}),
            **({} if memory is None else {"temporary_megabyte": memory.temp_size_in_bytes / 1e6})}  # fmt: skip


def closed(step: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a step that raises TypeError, when it is traced, if it gives back a state of other shapes than it took."""

    def checked(state: Any, clip: Clip) -> Any:
        result = step(state, clip)
        old, new = ({name: f"{x.dtype}{list(x.shape)}" for name, x in flatten(tree).items()}
                    for tree in (state, result[0]))  # fmt: skip
        for name in [*old, *(name for name in new if name not in old)]:
            if old.get(name) != new.get(name):
                raise TypeError(
                    f"the system's loss changes the state: {name} is {old.get(name, 'absent')} before a step "
                    f"and {new.get(name, 'absent')} after it"
                )
        return result

    return checked
