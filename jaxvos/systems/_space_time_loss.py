"""What networks with a space-time memory learn from: the masks of short clips, each segmented from those before it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.errors import InputError
from jaxvos.losses import bootstrapped_cross_entropy, dice_loss
from jaxvos.ops import read_memory, similarity
from jaxvos.system import Clip, LossOutput
from jaxvos.systems._correspondence import CorrespondenceConfig, Look, correspondence_loss
from jaxvos.systems._ramp import ramp
from jaxvos.systems._space_time_net import ObjectNet, flat_keys
from jaxvos.typing import Key, Variables

__all__ = ["MaskLossConfig", "clip_loss"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskLossConfig:
    """What masks are judged by in training."""

    keep: float = 0.15
    """Share of the pixels, the hardest, that cross-entropy is averaged over in the end."""
    keep_ramp: tuple[int, int] = (20_000, 70_000)
    """Steps between which that share falls from all of them."""
    dice_weight: float = 0.0
    """Weight of the Dice loss (0.4 in the released correspondence code, 1 in XMem)."""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or not 0 <= self.keep_ramp[0] <= self.keep_ramp[1] or self.dice_weight < 0:
            raise InputError(f"keep {self.keep} over {self.keep_ramp}, dice_weight {self.dice_weight}: want a share, a "
                             "range of steps, and a weight of at least 0")  # fmt: skip


def clip_loss(
    objects: ObjectNet, config: MaskLossConfig, *, reference_frames: int | None, deep_update: float,
    correspondence: CorrespondenceConfig | None,
) -> Callable[..., LossOutput]:  # fmt: skip
    """Builds the `Loss` of a system; arguments as for `follower`."""

    def loss(variables: Variables, clip: Clip, *, key: Key, step: Any) -> LossOutput:
        if clip.masks is None:
            raise ValueError("masks are what it learns from: give them in the Clip")
        b, t, k = *clip.images.shape[:2], clip.masks.shape[-1]
        looks = objects.look(variables, clip.images.reshape(-1, *clip.images.shape[2:]))
        looks = jax.tree.map(lambda x: x.reshape(b, t, *x.shape[1:]), looks)
        alive = jnp.ones((b, k), bool) if clip.alive is None else clip.alive
        valid = jnp.ones((b, t), bool) if clip.valid is None else clip.valid
        keep = 1 - (1 - config.keep) * ramp(step, config.keep_ramp)
        each = functools.partial(_clip_losses, objects=objects, variables=variables, keep=keep,
                                 reference_frames=reference_frames, deep_update=deep_update)  # fmt: skip
        own_key, other_key = jax.random.split(key)
        scalars = jax.vmap(each)(jax.random.split(own_key, b), clip.images, looks, clip.masks, alive[:, 1:], valid)
        scalars = jax.tree.map(jnp.mean, scalars)
        total = scalars["cross_entropy"] + config.dice_weight * scalars["dice"]
        if correspondence is not None:
            heads = {"params": variables["params"]["correspondence"]}
            more, parts = correspondence_loss(other_key, heads, clip, looks, config=correspondence, step=step,
                                              look=functools.partial(objects.look, variables))  # fmt: skip
            total, scalars = total + more, {**scalars, **parts}
        return LossOutput(total, {}, scalars)

    return loss


def _clip_losses(
    key: Key, images: Array, looks: Look, masks: Array, alive: Array, valid: Array, *, objects: ObjectNet,
    variables: Variables, keep: Array, reference_frames: int | None, deep_update: float,
) -> dict[str, Float[Array, ""]]:  # fmt: skip
    """Sums over the frames after the first, each segmented from the memory of those before it."""
    look = lambda i: jax.tree.map(lambda x: x[i], looks)  # noqa: E731
    everyone = jnp.concatenate([jnp.ones(1, bool), alive])
    reference_key, deep_key = jax.random.split(key)
    hidden = objects.initial_hidden(len(alive), look(0))
    seen, values, totals = masks[0] * everyone, [], {"cross_entropy": jnp.zeros(()), "dice": jnp.zeros(())}
    for i in range(len(images)):
        if i > 0:
            keys = jax.tree.map(lambda x: x[:i].reshape(-1, *x.shape[3:]), looks.keys._replace(selection=None))  # noqa: B023
            drawn = _references(jax.random.fold_in(reference_key, i), i, reference_frames)
            places = values[0].shape[1]
            found = read_memory(similarity(flat_keys(look(i).keys), keys), jnp.concatenate(values, axis=1),
                                valid=jnp.repeat(drawn, places))  # fmt: skip
            logits, hidden = objects.segment(variables, images[i], look(i), found.values, hidden, alive=alive)
            weight = valid[i] / valid[1:].sum().clip(1) * (len(images) - 1)  # padding does not count
            truth = masks[i] * everyone
            totals["cross_entropy"] += weight * bootstrapped_cross_entropy(logits, truth, keep, alive=everyone)
            totals["dice"] += weight * dice_loss(logits, truth, alive=everyone)
            seen = jax.nn.softmax(logits)
        if i + 1 < len(images):
            value, renewed = objects.remember(variables, images[i], seen, look(i), hidden)
            values.append(value)
            deep = (i == 0) | jax.random.bernoulli(jax.random.fold_in(deep_key, i), deep_update)
            hidden = jax.tree.map(lambda new, old: jnp.where(deep, new, old), renewed, hidden)  # noqa: B023
    return totals


def _references(key: Key, count: int, wanted: int | None) -> Bool[Array, "t"]:
    """Draws which of the frames so far are in the memory: the first, and others."""
    if wanted is None or count <= wanted:
        return jnp.ones(count, bool)
    order = jax.random.permutation(key, count - 1)
    return jnp.concatenate([jnp.ones(1, bool), order < wanted - 1])
