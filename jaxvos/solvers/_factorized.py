"""Transport on a map in two cheap stages: among groups of far-apart tokens, then among groups of neighbours."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxvos.solvers._partition import Layout, Stage, group_mask, merge, split
from jaxvos.solvers._sinkhorn import SinkhornSolution, sinkhorn

__all__ = ["FactorizedSolution", "factorized_sinkhorn", "factorized_transport"]

_CACHED = 2**18  # entries of the plans that a CPU works on at a time: what its second-level cache holds in float32

Match = Callable[
    [Float[Array, "q c"], Float[Array, "q d"], Bool[Array, "q"]],
    tuple[Float[Array, "q c2"], Float[Array, "q d2"], Any],
]


class FactorizedSolution(NamedTuple):
    """Two transported maps, and how each stage moved them.

    Attributes:
      x: the first map after the last stage.
      y: the second map after the last stage.
      stages: for each stage in order, the third result of `match`, with a leading axis over the groups.
    """

    x: Float[Array, "h w c"]
    y: Float[Array, "h w d"]
    stages: tuple[Any, ...]


def _map_groups(
    match: Match,
    x: Float[Array, "p q c"],
    y: Float[Array, "p q d"],
    mask: Bool[Array, "p q"],
    groups_at_once: int | None,
) -> tuple[Float[Array, "p q c2"], Float[Array, "p q d2"], Any]:
    """`vmap(match)`, in chunks where that is asked for or better; the backward pass rebuilds each chunk."""
    groups, size = mask.shape
    if groups_at_once is None:
        on_cpu = jax.default_backend() == "cpu"
        groups_at_once = max(1, _CACHED // size**2) if on_cpu else groups
    rebuilt = jax.checkpoint(lambda group: match(*group))
    if groups_at_once >= groups:
        return jax.vmap(rebuilt)((x, y, mask))
    return lax.map(rebuilt, (x, y, mask), batch_size=groups_at_once if groups_at_once > 1 else None)


def factorized_transport(
    x: Float[Array, "h w c"],
    y: Float[Array, "h w d"],
    match: Match,
    *,
    partition: tuple[int, int] = (2, 4),
    layout: Layout = "grid",
    order: tuple[Stage, ...] = ("long", "short"),
    groups_at_once: int | None = None,
) -> FactorizedSolution:
    """Applies a matching within the groups of each stage in turn; every stage takes the maps that the last one left.

    With `N` tokens and windows of `p`, the long stage has `p` groups of `N / p` tokens and the short one `N / p` groups
    of `p`: `N^2 / p + N p` matrix entries instead of `N^2`, and yet after both stages any token can have reached any
    place (TransportNet, ICCV 2021, section 3.3, equations 7-10). Grids only need reshapes and transpositions. The
    gradient is that of `match` through them; the backward pass keeps the maps before each stage and runs `match` again.

    Args:
      x: `(h, w, c)` map.
      y: `(h, w, d)` map.
      match: of one group: `(q, c)` and `(q, d)` tokens and a `(q,)` mask of those that exist, to the new tokens of both
        and a solution (any pytree); it is mapped over the groups. Where the partition does not divide the map, groups
        are padded with zero tokens outside the mask, and what `match` returns for them is dropped.
      partition: `(rows, columns)` of a window.
      layout: `"grid"` windows, or `"raster"` runs (the paper's formulae read literally on the flattened map).
      order: the stages, at least one of `"long"` and `"short"`.
      groups_at_once: groups matched in parallel; memory goes with it, the result does not. All of them by default, on a
        CPU as many as its cache holds.

    Returns:
      A `FactorizedSolution`; maps of `(h, w)` with the channels that `match` returned.

    Raises:
      ValueError: for an empty `order` or an unknown stage or layout.
    """
    if not order or any(stage not in ("long", "short") for stage in order):
        raise ValueError(f"order must hold 'long' and 'short' stages, at least one, got {order!r}")
    h, w, _ = x.shape
    solutions = []
    for stage in order:
        mask = group_mask(h, w, stage, partition=partition, layout=layout)
        groups = (split(z, stage, partition=partition, layout=layout) for z in (x, y))
        *groups, solution = _map_groups(match, *groups, mask, groups_at_once)
        x, y = (merge(z, stage, h, w, partition=partition, layout=layout) for z in groups)
        solutions.append(solution)
    return FactorizedSolution(x, y, tuple(solutions))


def _unit(x: Float[Array, "q c"]) -> Float[Array, "q c"]:
    """Tokens of length one; the epsilon keeps the gradient of a zero token finite."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _apply(plan: Float[Array, "q q"], x: Float[Array, "q c"]) -> Float[Array, "q c"]:
    return (plan @ x.astype(plan.dtype)).astype(x.dtype)


def factorized_sinkhorn(
    x: Float[Array, "h w c"],
    y: Float[Array, "h w c"],
    *,
    epsilon: float | Float[Array, ""] = 0.05,
    num_iters: int = 20,
    partition: tuple[int, int] = (2, 4),
    layout: Layout = "grid",
    order: tuple[Stage, ...] = ("long", "short"),
    tolerance: float | None = None,
    domain: Literal["stabilized", "log"] = "stabilized",
    diff: Literal["unroll", "implicit"] = "unroll",
    groups_at_once: int | None = None,
) -> FactorizedSolution:
    """Long- and short-distance Sinkhorn layers between two feature maps (LSSH of TransportNet, ICCV 2021, eqs. 7-10).

    In each group the cost is `1 - cosine`, the marginals are ones, and one plan `P` moves both maps: `x' = P x`,
    `y' = P y`. There are no parameters. The gradient is that of `sinkhorn`, with respect to `x`, `y` and `epsilon`.
    A group converges as `sinkhorn` does; `stages` holds the error of each. Other costs, marginals, or ways to apply the
    plan are a `match` away: see `factorized_transport`.

    Args:
      x: `(h, w, c)` features, for example of appearance.
      y: `(h, w, c)` features, for example of motion; as many channels.
      epsilon: strength of the entropy in units of `1 - cosine`; may be traced.
      num_iters: Sinkhorn iterations in each group.
      partition: `(rows, columns)` of a window: the number of long-distance groups is their product.
      layout: `"grid"` or `"raster"`, as in `factorized_transport`.
      order: `("long", "short")` is LSSH, `("long",)` LSH, `("short",)` SSH.
      tolerance: as in `sinkhorn`.
      domain: as in `sinkhorn`.
      diff: as in `sinkhorn`.
      groups_at_once: as in `factorized_transport`.

    Returns:
      A `FactorizedSolution`; `stages` holds one `SinkhornSolution` per stage, batched over its groups.
    """

    def match(
        x: Float[Array, "q c"], y: Float[Array, "q c"], mask: Bool[Array, "q"]
    ) -> tuple[Float[Array, "q c"], Float[Array, "q c"], SinkhornSolution]:
        cost = 1 - jnp.dot(_unit(x), _unit(y).T, precision=lax.Precision.HIGHEST)
        ones = mask.astype(cost.dtype)
        solution = sinkhorn(
            cost, ones, ones, epsilon=epsilon, num_iters=num_iters, tolerance=tolerance, domain=domain, diff=diff
        )
        return _apply(solution.plan, x), _apply(solution.plan, y), solution

    return factorized_transport(
        x, y, match, partition=partition, layout=layout, order=order, groups_at_once=groups_at_once
    )
