"""The matching layer of DMM-Net: templates to proposals by looks and overlap (Zeng et al., ICCV 2019, section 3)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvos.ops import mask_iou
from jaxvos.solvers import match

__all__ = ["MatchedMasks", "Matcher", "MatchingConfig", "cosine_similarity", "mask_overlap", "match_masks"]

Matcher = Literal["pgd", "pgd_released", "qp", "sinkhorn", "softmax", "hungarian", "greedy"]

_OBJECT = 0.5  # masks belong to an object above this, where areas are compared
_KEPT = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """How templates find their proposals."""

    iou_weight: float = 0.3
    """Share of the overlap with the latest mask in the score, the rest is that of the looks: lambda of Eq. 1."""
    null_score: float | None = 0.2
    """Score of no match at all; None, as published: every template takes a proposal as long as there are enough."""
    train_method: Matcher = "pgd"
    """Matcher in training; softmax is over each template's proposals alone, which is no matching."""
    test_method: Matcher = "hungarian"
    """Matcher in prediction."""
    train_keep: Literal["all", "above", "max"] = "above"
    """What is kept of a plan in training: all, entries above 0.01, or the largest of each row."""
    test_keep: Literal["all", "above", "max"] = "max"
    """The same in prediction; the paper keeps the largest."""
    normalize: bool = True
    """Divide what is kept of a matched row by its sum; without it, most masks of soft plans stay below one half."""
    alpha: float = 0.1
    """Step size of pgd."""
    num_grad: int = 40
    """Gradient steps of pgd."""
    num_proj: int = 5
    """Dykstra's rounds after each of them."""
    t: float = 4.0
    """Inverse temperature of qp."""
    epsilon: float = 0.05
    """Temperature of sinkhorn and softmax."""
    num_iters: int = 50
    """Iterations of qp and sinkhorn."""


class MatchedMasks(NamedTuple):
    """What the layer answers."""

    masks: Float[Array, "n h w"]  # Eq. 8; zero for templates without a match
    weights: Float[Array, "n m"]  # what is kept of the plan
    assignment: Int[Array, "n"]  # proposal of each template, -1 for none


def cosine_similarity(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Cosines of all pairs; a vector of zeros is like no other."""
    norm = lambda x: x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)  # noqa: E731
    return norm(a.astype(jnp.float32)) @ norm(b.astype(jnp.float32)).T


def mask_overlap(masks: Float[Array, "n h w"], proposals: Float[Array, "m h w"]) -> Float[Array, "n m"]:
    """Intersection over union of all pairs of masks, taken as objects where they exceed one half; no gradient."""
    binary = lambda x: (x > _OBJECT).astype(jnp.float32)  # noqa: E731
    return jax.lax.stop_gradient(mask_iou(binary(masks), binary(proposals)))


def match_masks(
    similarity: Float[Array, "n m"],
    iou: Float[Array, "n m"],
    proposals: Float[Array, "m h w"],
    *,
    alive: Bool[Array, "n"],
    valid: Bool[Array, "m"],
    config: MatchingConfig,
    train: bool,
) -> MatchedMasks:
    """Solves Eq. 1 to 3 and puts the proposals together as Eq. 8 says.

    Args:
      similarity: cosines of the features of templates and proposals.
      iou: overlap of the latest masks of the templates with the proposals.
      proposals: masks in the frame.
      alive: templates that exist.
      valid: proposals that exist.
      config: how.
      train: match as in training, or as in prediction.
    """
    cost = -((1 - config.iou_weight) * similarity + config.iou_weight * iou)
    null_cost = None if config.null_score is None else -config.null_score
    method = config.train_method if train else config.test_method
    if method == "softmax":
        plan, assignment = _row_softmax(cost, null_cost, alive, valid, config.epsilon)
    else:
        options = _options(method, config)
        solution = match(cost, method=method, row_mask=alive, col_mask=valid, null_cost=null_cost, **options)
        plan, assignment = solution.plan, solution.assignment
    weights = _keep(plan, config.train_keep if train else config.test_keep, assignment)
    if config.normalize:
        total = jnp.maximum(weights.sum(1, keepdims=True), _KEPT)
        weights = jnp.where(assignment[:, None] >= 0, weights / total, weights)
    return MatchedMasks(jnp.einsum("nm,mhw->nhw", weights, proposals), weights, assignment)


def _options(method: Matcher, config: MatchingConfig) -> dict[str, float | int]:
    match method:
        case "pgd" | "pgd_released":
            return {"alpha": config.alpha, "num_iters": config.num_grad, "num_projections": config.num_proj}
        case "qp":
            return {"t": config.t, "num_iters": config.num_iters}
        case "sinkhorn":
            return {"epsilon": config.epsilon, "num_iters": config.num_iters}
        case _:
            return {}


def _row_softmax(
    cost: Float[Array, "n m"],
    null_cost: float | None,
    alive: Bool[Array, "n"],
    valid: Bool[Array, "m"],
    epsilon: float,
) -> tuple[Float[Array, "n m"], Int[Array, "n"]]:
    """Every row for itself: what a matching is compared with. Without proposals, nothing is matched."""
    n, m = cost.shape
    null = jnp.full((n, 1), -1e9 if null_cost is None else -null_cost / epsilon)
    logits = jnp.concatenate([jnp.where(valid, -cost / epsilon, -2e9), null], axis=1)
    best = jnp.argmax(logits, axis=1).astype(jnp.int32)
    plan = jnp.where(alive[:, None] & valid, jax.nn.softmax(logits)[:, :m], 0)
    return plan, jnp.where(alive & (best < m), best, -1)


def _keep(
    plan: Float[Array, "n m"], keep: Literal["all", "above", "max"], assignment: Int[Array, "n"]
) -> Float[Array, "n m"]:
    """The indicator is held constant, and rows without a match keep nothing of their own where only the best counts."""
    match keep:
        case "all":
            return plan
        case "above":
            return jnp.where(plan > _KEPT, plan, 0)
        case "max":
            return jnp.where(assignment[:, None] == jnp.arange(plan.shape[1]), plan, 0)
