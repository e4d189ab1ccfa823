"""Online learning: a few steps of training on the first frame, whose masks are known, before the rest is segmented."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jaxvos.errors import InputError
from jaxvos.models import Model
from jaxvos.ops import resize
from jaxvos.system import Clip, Frame
from jaxvos.training import OptimizerConfig, TrainingConfig, fit
from jaxvos.typing import Masks

__all__ = ["adapt"]


def adapt(
    model: Model,
    frame: Frame,
    masks: Masks,
    *,
    num_steps: int = 100,
    lr: float = 1e-4,
    frozen: tuple[str, ...] = (),
    num_frames: int = 3,
    seed: int = 0,
) -> Model:
    """Trains a model on copies of one frame, which its own loss augments, each copy anew.

    All objects are learned at once. DMM-Net (section 4.1) trains 100 epochs on first frames, as in training.

    Args:
      model: what to start from; it stays as it is.
      frame: the first frame, with the proposals that the system wants.
      masks: its masks `(h, w, k)`.
      num_steps: updates.
      lr: learning rate of Adam.
      frozen: regexes of parameters that stay as they are, such as `encoder`.
      num_frames: copies in the clip.
      seed: of the augmentation.

    Returns:
      The model, adapted.

    Raises:
      InputError: fewer than one step.
    """
    if num_steps < 1:
        raise InputError(f"{num_steps} steps of online learning: give a number from 1 on")
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
    clip = Clip(**jax.tree.map(stack, fields), alive=alive)
    config = TrainingConfig(num_steps=num_steps, seed=seed, log_every=num_steps,
                            optimizer=OptimizerConfig(lr=lr, weight_decay=0.0, frozen=frozen))  # fmt: skip
    state = fit(model.system, lambda start: itertools.repeat(clip), config, variables=model.variables, progress=False)
    return model._replace(variables=state.variables)
