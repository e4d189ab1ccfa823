"""Clustering by optimal transport between points and centres: k-means with soft labels and masses under control."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp, softmax
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers._checks import check_choice, check_positive
from jaxvos.solvers._kmeans import centred, check_points, cross, kmeans, means
from jaxvos.typing import Key

__all__ = ["OTClusteringSolution", "ot_clustering"]

_NOTHING = -1e30  # log mass of a point or cluster without any: finite, so that nothing else becomes NaN


class OTClusteringSolution(NamedTuple):
    """A plan between points and centres, what it costs, and how far the alternation came.

    Attributes:
      plan: `(n, k)`; rows sum to the weights exactly.
      labels: `(n,)` column of the largest entry of each row, `argmin_m |x_i - c_m|^2 - g_m` for the centres that the
        plan was made for (a power diagram); also for points of zero weight.
      centers: `(k, d)` means of the columns of the plan.
      masses: `(k,)` column sums of the plan.
      g: `(k,)` potentials of the columns in units of the cost, as they made the plan.
      objective: `<plan, cost> + epsilon KL(plan | weights x b)` for the returned centres.
      error: share of the total mass that the last step moved between columns, 1 after the first.
      num_iters: steps taken.
      converged: whether `error` is at most `tolerance`.
    """

    plan: Float[Array, "n k"]
    labels: Int[Array, "n"]
    centers: Float[Array, "k d"]
    masses: Float[Array, "k"]
    g: Float[Array, "k"]
    objective: Float[Array, ""]
    error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


def _log(a: Float[Array, "n"]) -> Float[Array, "n"]:
    return jnp.where(a > 0, jnp.log(jnp.where(a > 0, a, 1)), _NOTHING)


def _limit(
    L: Float[Array, "n k"],
    a: Float[Array, "n"],
    g: Float[Array, "k"],
    lower: float,
    upper: float,
    num_inner: int | Int[Array, ""],
) -> Float[Array, "k"]:
    """Log scalings of the columns after `num_inner` projections onto rows of `a` and columns within two limits."""
    log_a, low, high = _log(a)[:, None], math.log(lower) if lower > 0 else -math.inf, math.log(upper)

    def project(_: Int[Array, ""], g: Float[Array, "k"]) -> Float[Array, "k"]:
        mass = logsumexp(L + (log_a - logsumexp(L + g, axis=1, keepdims=True)), axis=0)
        return jnp.clip(mass, low, high) - mass

    return lax.fori_loop(0, num_inner, project, g)


def ot_clustering(
    key: Key,
    x: Float[Array, "n d"],
    num_clusters: int,
    *,
    marginals: Literal["learned", "balanced", "box"] = "learned",
    epsilon: float | Float[Array, ""] = 0.05,
    num_iters: int | Int[Array, ""] = 20,
    num_inner: int | Int[Array, ""] = 5,
    tolerance: float | Float[Array, ""] = 1e-4,
    bounds: tuple[float, float] = (0.02, 1.0),
    weights: Float[Array, "n"] | None = None,
    warm_up: int | Int[Array, ""] = 10,
    num_restarts: int = 4,
    init: Float[Array, "k d"] | None = None,
) -> OTClusteringSolution:
    """Minimises `<P, C> + eps KL(P | a b^T)` over plans `P` with `P 1 = a` and centres `c`, `C_im = |x_i - c_m|^2`.

    A step finds the plan, then moves every centre to the mean of its column. The rule for the column sums `P^T 1`:

    - `"learned"`: none, and `b` is minimised over as well: `P_im = a_i softmax_m(log b_m - C_im / eps)`, `b = P^T 1`.
      That is expectation-maximisation of a mixture of isotropic Gaussians of variance `eps / 2` with learned weights
      (Dempster, Laird and Rubin, 1977): clusters that explain little lose their mass to others, so that a large class
      need not be cut to make clusters of equal size.
    - `"balanced"`: all equal, with uniform `b` (the equipartition of Asano et al., "Self-labelling via Simultaneous
      Clustering and Representation Learning", ICLR 2020), by Sinkhorn's iterations.
    - `"box"`: within `bounds`, with uniform `b`: the same iterations with columns clipped, an exact KL projection
      (Chizat et al., "Scaling Algorithms for Unbalanced Transport Problems", 2018).

    As `epsilon` goes to 0, `"learned"` becomes k-means. A class whose variance exceeds `eps / 2` in no direction is not
    cut (Rose, "Deterministic Annealing", 1998): centres meet there and share its mass, and its labels are those of one,
    so that sizes are better counted from labels than read from `masses`. From about 0.2, different classes merge.

    The objective never increases where `"learned"`, nor in the other two if `num_inner` suffices to meet the columns.
    Steps converge to a local minimum, slowly where clusters overlap. How points are shared among columns, and `eps`,
    are constants of the gradient: the plan, masses, centres and objective differentiate with these held.

    Args:
      key: for the k-means starts; unused where `init` is given.
      x: `(n, d)` points. Half precision is computed, and answered, in float32.
      num_clusters: `k`.
      marginals: the rule for the column sums, as above.
      epsilon: strength of the entropy, relative to the mean of `C` after the warm-up: `eps = epsilon * mean`. May be
        traced.
      num_iters: the most steps, at least one. May be traced.
      num_inner: projections in each step of `"balanced"` and `"box"`, which continue from those of the step before.
      tolerance: stop when `error` is at most this. May be traced.
      bounds: least and greatest share of the mass in a column of `"box"`.
      weights: `(n,)` masses `a`, not negative, of any sum; uniform probabilities by default. A point of zero weight
        moves nothing, whatever it holds (NaN included).
      warm_up: Lloyd's steps before the first plan; the masses of `"learned"` begin as the sizes of their clusters.
      num_restarts: k-means starts to choose among, by their inertia after the warm-up.
      init: `(k, d)` centres to start from instead.

    Returns:
      An `OTClusteringSolution`.

    Raises:
      ValueError: for an unknown rule, bounds that no shares satisfy, counts below one, shapes that do not fit, points
        that are not finite or negative weights.
    """
    check_points("ot_clustering", x, num_clusters, weights, num_restarts, init)
    check_choice("ot_clustering", "marginals", marginals, ("learned", "balanced", "box"))
    for what, value in (("epsilon", epsilon), ("num_iters", num_iters), ("num_inner", num_inner)):
        check_positive("ot_clustering", what, value)
    for what, value in (("warm_up", warm_up), ("tolerance", tolerance)):
        check_positive("ot_clustering", what, value, zero=True)
    lower, upper = bounds if marginals == "box" else (1 / num_clusters, 1 / num_clusters)
    if marginals == "box" and not (0 <= lower <= 1.000001 / num_clusters and 0.999999 / num_clusters <= upper):
        raise ValueError(f"ot_clustering: no {num_clusters} shares within bounds={bounds} sum to 1")

    points, mass, mean = centred(x, weights, 1 / len(x))
    x, a = lax.stop_gradient((points, mass))
    floor = jnp.finfo(x.dtype)
    a = a / jnp.maximum(a.sum(), floor.tiny)
    lengths = jnp.where(a > 0, (x**2).sum(1), 0)
    start = kmeans(
        key,
        x,
        num_clusters,
        weights=a,
        num_iters=warm_up,
        tolerance=0.0,
        num_restarts=num_restarts,
        init=None if init is None else lax.stop_gradient(init.astype(x.dtype) - mean),
    )
    cost = jnp.asarray(epsilon, x.dtype) * (a @ (lengths[:, None] + cross(x, start.centers))).mean()
    eps = lax.stop_gradient(jnp.maximum(cost, floor.eps * (a @ lengths)))  # not below the rounding of the cost
    eps = jnp.where(eps > 0, eps, 1)  # all points are one

    def step(state: Any) -> Any:
        before, old, scaling, _, count = state
        L = -cross(x, old) / eps
        scaling = _log(a @ before) if marginals == "learned" else _limit(L, a, scaling, lower, upper, num_inner)
        shares = softmax(L + scaling, axis=1)
        error = jnp.where(count > 0, (a @ jnp.abs(shares - before)).sum() / 2, 1)  # first, no centre has moved yet
        return shares, means(a[:, None] * shares, x, old), scaling, error, count + 1

    hard = jax.nn.one_hot(start.labels, num_clusters, dtype=x.dtype)
    state = hard, start.centers, jnp.zeros(num_clusters, x.dtype), jnp.asarray(jnp.inf, x.dtype), jnp.int32(0)
    state = lax.while_loop(lambda state: (state[3] > tolerance) & (state[4] < num_iters), step, state)
    shares, centers, scaling, error, count = state

    plan = mass[:, None] * shares
    centers = means(plan, points, centers)
    log_b = _log(a @ shares) if marginals == "learned" else -math.log(num_clusters)
    entropy = jnp.where(shares > 0, jnp.log(jnp.where(shares > 0, shares, 1)) - log_b, 0)
    costs = jnp.where(mass > 0, (points**2).sum(1), 0)[:, None] + cross(points, centers)
    return OTClusteringSolution(
        plan=plan,
        labels=jnp.argmax(shares, axis=1),
        centers=centers + mean,
        masses=plan.sum(0),
        g=eps * scaling,
        objective=(plan * (costs + eps * entropy)).sum(),
        error=error,
        num_iters=count,
        converged=error <= tolerance,
    )
