"""Online learning: a few steps of training on the first frame, whose masks are known, before the rest is segmented."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jaxvos.errors import InputError
from jaxvos.models import Model
from jaxvos.ops import resize
from jaxvos.system import Clip, Frame
from jaxvos.training import OptimizerConfig, TrainingConfig, fit
from jaxvos.typing import Masks, Variables

__all__ = ["OnlineConfig", "adapt"]

_EVAL_EVERY = 10  # steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """How a model learns from the first frame."""

    num_steps: int = 100
    """Updates, at most."""
    lr: float | None = None
    """Learning rate of Adam; the system's own if left out."""
    heads_only: bool = False
    """Train the last layers alone: less to learn, and faster."""
    patience: int | None = None
    """Stop when the loss, with a fixed augmentation, was not better in so many evaluations, one every ten steps."""
    seed: int = 0
    """Of the augmentation."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"{self.num_steps} steps of online learning: give a number from 1 on")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"a patience of {self.patience} evaluations: give a number from 1 on")


def adapt(model: Model, frame: Frame, masks: Masks, *, online: OnlineConfig, progress: bool = False) -> Model:
    """Trains a model on copies of one frame, which its own loss augments, each copy anew.

    All objects are learned at once; a system for one foreground is first made one for as many objects. DMM-Net
    (section 4.1) trains 100 epochs on first frames, as in training; SegFlow (section 4.2) its segmentation branch.

    Args:
      model: what to start from; it stays as it is.
      frame: the first frame, with the proposals that the system wants.
      masks: its masks `(h, w, k)`.
      online: how.
      progress: show a bar.

    Returns:
      The model, adapted.

    Raises:
      InputError: the system does not learn online, or has no heads to train alone.
    """
    adaptation = model.system.adaptation
    if adaptation is None:
        raise InputError(f"{model.name} does not learn online: leave that out")
    if online.heads_only and not adaptation.heads:
        raise InputError(f"{model.name} has no last layers that it could train alone: leave heads_only out")
    system, start = model.system, model.variables
    if adaptation.prepare is not None and masks.shape[-1] > 2:
        system, start = adaptation.prepare(start, masks.shape[-1])
    clip = _clip(model, frame, masks, num_frames=adaptation.num_frames)
    judge = jax.jit(lambda variables: system.loss(variables, clip, key=jax.random.key(online.seed), step=0).loss)

    def evaluate(variables: Variables, step: int) -> dict[str, float]:
        del step
        return {"loss": float(judge(variables))}

    stops = online.patience is not None
    config = TrainingConfig(
        num_steps=online.num_steps, seed=online.seed, log_every=online.num_steps,
        eval_every=_EVAL_EVERY if stops else None, best_metric="loss" if stops else None, best_mode="min",
        patience=online.patience, optimizer=OptimizerConfig(
            lr=adaptation.lr if online.lr is None else online.lr, weight_decay=0.0,
            frozen=adaptation.heads if online.heads_only else adaptation.frozen),
    )  # fmt: skip
    state = fit(system, lambda step: itertools.repeat(clip), config, variables=start, progress=progress,
                evaluate=evaluate if stops else None)  # fmt: skip
    return model._replace(system=system, variables=state.variables)


def _clip(model: Model, frame: Frame, masks: Masks, *, num_frames: int) -> Clip:
    """Copies of the frame, one clip for each device, at the size of the net's input."""
    size, net_size = frame.image.shape[:2], model.config.input_size
    scale = jnp.array([net_size[1] / size[1], net_size[0] / size[0]] * 2)
    proposals = frame.proposals
    if proposals is not None:
        proposals = proposals._replace(boxes=proposals.boxes * scale)
    stack = lambda x: jnp.broadcast_to(x, (jax.device_count(), num_frames, *x.shape))  # noqa: E731
    labels = jnp.argmax(resize(masks, net_size), axis=-1)
    fields: dict[str, Any] = {
        "images": resize(frame.image, net_size),
        "masks": jax.nn.one_hot(labels, masks.shape[-1]),
        "proposals": proposals,
    }
    alive = jnp.broadcast_to(jnp.any(masks > 0, axis=(0, 1)), (jax.device_count(), masks.shape[-1]))
    return Clip(**jax.tree.map(stack, fields), alive=alive)
