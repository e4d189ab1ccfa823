"""What Mask-VOS learns from: frames that must find one another's places, and fake objects that must be carried on."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.errors import InputError
from jaxvos.losses import (
    bootstrapped_cross_entropy,
    cycle_consistency,
    grid_anchors,
    pixel_consistency,
    reconstruction_loss,
    view_consistency,
)
from jaxvos.ops import Keys, propagate, resize
from jaxvos.system import Clip, LossOutput
from jaxvos.systems._correspondence import Look
from jaxvos.systems._mask_vos_net import MaskVOSObjects
from jaxvos.systems._space_time_net import flat_keys
from jaxvos.systems._views import random_view, warp_clips
from jaxvos.typing import Key, Variables

__all__ = ["MaskVOSLossConfig", "mask_vos_loss"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskVOSLossConfig:
    """The paper's Eq. 16, with means for sums."""

    scheme: Literal["short_long", "dul", "mast", "crw"] = "short_long"
    """How frames teach correspondence: by the paper's two losses; by anchors that all clips share (Araslanov et al.
    2021, what the released code trains); by colours (MAST); by walks there and back (CRW)."""
    short_weight: float = 0.1
    """Weight of the loss between a frame and a view of its neighbour; of `dul`'s between views of one frame."""
    long_weight: float = 0.5
    """Weight of the loss between distant frames; of the only one of `mast` and of `crw`."""
    seg_weight: float = 1.0
    """Weight of the loss of fake objects, where clips have masks."""
    temperature: float = 0.05
    """Of every softmax over places, which the paper's formulae lack."""
    align: Literal["linear", "nearest"] = "linear"
    """How features are shown in another view; with `nearest` several places of a crop are the same one."""
    grid: int | None = None
    """Places along each side that are compared; all of them if left out, or 8 for `dul`, which has 4 between views."""
    cycle_filter: float | None = None
    """Places, from which a match may come back; a place whose match comes back farther away does not count."""
    steps: tuple[int, ...] = (1, 2)
    """Frames of a clip that fake objects are carried to, each from all before it."""
    hard_coarse: bool = False
    """Harden coarse masks before they are encoded (the code)."""
    second_reference: Literal["pseudo", "predicted"] = "pseudo"
    """Whose mask the second frame has when it is a reference."""
    batch_norm: bool = True
    """Normalise the encoder of frames by the statistics of the batch; otherwise by those it has."""

    def __post_init__(self) -> None:
        weights = self.short_weight, self.long_weight, self.seg_weight
        if min(weights) < 0 or self.temperature <= 0:
            raise InputError(f"weights {weights}, temperature {self.temperature}: want none negative, and one above 0")
        if not self.steps or not set(self.steps) <= {1, 2}:
            raise InputError(f"steps {self.steps}: want frames of a clip after the first, 1 or 2 or both")


def mask_vos_loss(objects: MaskVOSObjects, config: MaskVOSLossConfig) -> Callable[..., LossOutput]:
    """Builds the `Loss`, of clips of a frame, its neighbour and a distant frame."""
    net, objects = objects.net, dataclasses.replace(objects, rounds=1)  # what is learned does not depend on them

    def loss(variables: Variables, clip: Clip, *, key: Key, step: Any) -> LossOutput:
        del step
        b, t = clip.images.shape[:2]
        if t != 3:
            raise ValueError(f"clips of {t} frames: want three, a frame, its neighbour and a distant one")
        view_key, other_key = jax.random.split(key)
        warps = jax.vmap(random_view)(jax.random.split(view_key, b))
        images, lost = [clip.images], None
        match config.scheme:
            case "short_long" | "dul":
                images.append(warp_clips(clip.images, warps, method="linear"))
            case "mast":
                without, lost = _lose_a_colour(other_key, clip.images)
                images.append(without)
            case "crw":
                pass
        batch = jnp.concatenate(images).reshape(-1, *clip.images.shape[2:])
        if config.batch_norm:
            look, state = net.apply(variables, batch, train=True, method="look", mutable=["batch_stats"])
        else:
            look, state = net.apply(variables, batch, method="look"), {}
        looks: Look = jax.tree.map(lambda x: x.reshape(-1, t, *x.shape[1:]), look)
        keys = looks.keys.key
        scalars: dict[str, Array] = {}
        match config.scheme:
            case "short_long":
                moved, inside = _moved(keys[:b], warps, config)
                scalars["short"] = _short(other_key, moved[:, 1], keys[b:, 0], inside, config)
                scalars["long"] = _long(other_key, keys[b:, 2], moved[:, 2], keys[:b, 0], inside, config)
            case "dul":
                moved, inside = _moved(keys[:b], warps, config)
                scalars["short"], scalars["long"] = _dul(other_key, keys[b:], moved, keys[:b, 0], inside, config)
            case "mast":
                scalars["long"] = _mast(keys[b:], clip.images, lost, config)
            case "crw":
                flat = keys.reshape(b, t, -1, keys.shape[-1])
                walk = lambda key, keys: cycle_consistency(key, keys, temperature=config.temperature)  # noqa: E731
                scalars["long"] = jnp.mean(jax.vmap(walk)(jax.random.split(other_key, b), flat))
        total = config.long_weight * scalars["long"] + config.short_weight * scalars.get("short", jnp.zeros(()))
        if clip.masks is not None:
            alive = jnp.ones((b, clip.masks.shape[-1]), bool) if clip.alive is None else clip.alive
            clean = jax.tree.map(lambda x: x[:b], looks)
            carry = lambda *each: _carried(objects, variables, config, *each)  # noqa: E731
            each = jax.vmap(carry)(clip.images, clean, clip.masks, alive[:, 1:])
            there = alive[:, 1:].any(axis=1)
            scalars["seg"] = jnp.sum(jnp.where(there, each, 0)) / jnp.maximum(there.sum(), 1)
            total += config.seg_weight * scalars["seg"]
        return LossOutput(total, dict(state), scalars)

    return loss


# ---- correspondence --------------------------------------------------------------------------------------------
def _moved(keys: Float[Array, "b t y x c"], warps: Any, config: MaskVOSLossConfig) -> tuple[Array, Array]:
    """Keys in the other view, of unit length again, and which places that shows."""
    moved = warp_clips(keys, warps, method=config.align)
    moved = moved / jnp.sqrt(jnp.sum(moved * moved, axis=-1, keepdims=True) + 1e-12)
    inside = warp_clips(jnp.ones((*keys[:, :1, ..., :1].shape,)), warps, method="nearest")[:, 0, ..., 0] > 0.5
    return moved, inside


def _cosines(config: MaskVOSLossConfig) -> Any:
    return lambda query, entries: jnp.matmul(query.key, entries.key.T, precision="highest") / config.temperature


def _places(key: Key, keys: Float[Array, "b y x c"], grid: int | None) -> Array:
    b, y, x, _ = keys.shape
    if grid is None:
        return jnp.tile(jnp.arange(y * x), (b, 1))
    draw = lambda key: grid_anchors(key, size=(y, x), grid=min(grid, y, x))  # noqa: E731
    return jax.vmap(draw)(jax.random.split(key, b))


def _short(key: Key, moved: Array, seen: Array, inside: Array, config: MaskVOSLossConfig) -> Float[Array, ""]:
    """Each place of a moved neighbour against all of the frame as it is seen there (Eq. 11 and 12), clip by clip."""
    one = lambda a, b, places, valid: view_consistency(Keys(a[None]), Keys(b[None]), places[None],  # noqa: E731
                                                       similarity=_cosines(config), valid=valid[None])  # fmt: skip
    return jnp.mean(jax.vmap(one)(moved, seen, _places(key, moved, config.grid), inside))


def _long(
    key: Key, seen: Array, moved: Array, first: Array, inside: Array, config: MaskVOSLossConfig
) -> Float[Array, ""]:
    """The place that a distant frame's view finds in the first must be found by the moved frame (Eq. 13 to 15)."""
    if (distance := config.cycle_filter) is not None:
        inside = inside & jax.vmap(lambda a, b: _returns(a, b, distance))(seen, first)
    one = lambda a, b, c, places, valid: pixel_consistency(  # noqa: E731
        Keys(a[None]), Keys(b[None]), Keys(c[None]), places[None], similarity=_cosines(config), valid=valid[None])
    return jnp.mean(jax.vmap(one)(seen, moved, first, _places(key, first, config.grid), inside))


def _returns(a: Float[Array, "y x c"], b: Float[Array, "y x c"], distance: float) -> Array:
    """Which places of one map find a place of another that finds, in turn, a place near them."""
    y, x = a.shape[:2]
    scores = a.reshape(y * x, -1) @ b.reshape(y * x, -1).T
    back = jnp.argmax(scores, axis=0)[jnp.argmax(scores, axis=1)]
    here = jnp.arange(y * x)
    return (jnp.hypot((back // x - here // x).astype(float), (back % x - here % x).astype(float))
            <= distance).reshape(y, x)  # fmt: skip


def _dul(
    key: Key, seen: Array, moved: Array, first: Array, inside: Array, config: MaskVOSLossConfig
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Places of the first frame between its views, and anchors of the first frames of all clips."""
    anchor_key, view_key = jax.random.split(key)
    anchors, similarity = _places(anchor_key, first, config.grid or 8), _cosines(config)
    each = [pixel_consistency(Keys(seen[:, i]), Keys(moved[:, i]), Keys(first), anchors, similarity=similarity,
                              valid=inside) for i in (1, 2)]  # fmt: skip
    places = _places(view_key, first, 4)
    views = view_consistency(Keys(seen[:, 0]), Keys(moved[:, 0]), places, similarity=similarity, valid=inside)
    return views, (each[0] + each[1]) / 2


def _lose_a_colour(key: Key, images: Float[Array, "b t h w 3"]) -> tuple[Array, Array]:
    """Images without one channel of each clip, which becomes its mean; and which one."""
    channel = jax.nn.one_hot(jax.random.randint(key, (len(images),), 0, 3), 3)[:, None, None, None]
    return images * (1 - channel) + channel * images.mean(axis=(1, 2, 3), keepdims=True), channel[:, 0, 0, 0]


def _mast(
    keys: Float[Array, "b t y x c"], images: Float[Array, "b t h w 3"], lost: Array | None, config: MaskVOSLossConfig
) -> Float[Array, ""]:
    """The lost channel of the last frame from those before."""
    assert lost is not None
    b, t, y, x, c = keys.shape
    colours = jnp.sum(resize(images, (y, x)) * lost[:, None, None, None], axis=-1).reshape(b, t, y * x, 1)
    flat = keys.reshape(b, t, y * x, c)
    one = lambda key, colour: reconstruction_loss(key[-1], key[:-1], colour[-1], colour[:-1],  # noqa: E731
                                                  temperature=config.temperature)  # fmt: skip
    return jnp.mean(jax.vmap(one)(flat, colours))


# ---- fake objects ----------------------------------------------------------------------------------------------
def _carried(
    objects: MaskVOSObjects, variables: Variables, config: MaskVOSLossConfig, images: Float[Array, "t h w 3"],
    looks: Look, masks: Float[Array, "t h w k"], alive: Array,
) -> Float[Array, ""]:  # fmt: skip
    """Cross-entropy of the masks of some frames, each carried from all before it (Eq. 5 to 10)."""
    look = lambda i: jax.tree.map(lambda x: x[i], looks)  # noqa: E731
    everyone = jnp.concatenate([jnp.ones(1, bool), alive])
    keys, size = jax.vmap(flat_keys)(looks.keys).key, looks.keys.key.shape[1:3]
    values, losses = [], []
    known = masks[0] * everyone
    for i in range(1 + max(config.steps)):
        logits = None
        if i in config.steps:
            stacked = jnp.stack(values, axis=1)
            found = propagate(keys[i], keys[:i], stacked, size=size, temperature=config.temperature, top_k=None,
                              radius=None, backend="dense")  # fmt: skip
            logits = _decoded(objects, variables, config, images[i], look(i), found, alive)
            losses.append(bootstrapped_cross_entropy(logits, masks[i] * everyone, 1.0, alive=everyone))
        if i > 0:
            known = masks[i] * everyone
            if config.second_reference == "predicted" and logits is not None:
                known = jax.nn.softmax(logits)
        values.append(objects.remember(variables, images[i], known, look(i), None)[0])
    return jnp.stack(losses).mean()


def _decoded(
    objects: MaskVOSObjects, variables: Variables, config: MaskVOSLossConfig, image: Array, look: Look, found: Array,
    alive: Array,
) -> Float[Array, "h w k"]:  # fmt: skip
    """One round of refinement of the coarse masks, which get no gradient."""
    found = found.reshape(len(found), *look.deep.shape[:2], -1)
    coarse = jnp.moveaxis(jax.lax.stop_gradient(found[..., -1]) * alive[:, None, None], 0, -1)
    if config.hard_coarse:
        background = 1 - coarse.sum(axis=-1, keepdims=True)
        best = jnp.argmax(jnp.concatenate([background, coarse], axis=-1), axis=-1)
        coarse = jax.nn.one_hot(best, 1 + coarse.shape[-1])[..., 1:]
    coarse = resize(coarse, image.shape[:2])
    return objects.refine(variables, image, look, found[..., :-1], coarse, coarse, alive=alive)
