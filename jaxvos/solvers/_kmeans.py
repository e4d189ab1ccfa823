"""k-means on weighted points: Lloyd's steps from several k-means++ starts, or from given centres."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers._checks import check_positive, known
from jaxvos.typing import Key

__all__ = ["KMeansSolution", "centred", "check_points", "cross", "kmeans", "means"]


class KMeansSolution(NamedTuple):
    """Centres, the nearest one of every point, and how far Lloyd's steps came.

    Attributes:
      centers: `(k, d)`.
      labels: `(n,)` index of the nearest of `centers`, the first of equals; also for points of zero weight.
      inertia: sum over the points of weight times squared distance to the nearest centre.
      error: summed squared movement of the centres in the last step, relative to the mean variance of the features;
        0 once no label changes, infinite where no step was taken.
      num_iters: steps taken, by the start that won.
      converged: whether `error` is at most `tolerance`.
    """

    centers: Float[Array, "k d"]
    labels: Int[Array, "n"]
    inertia: Float[Array, ""]
    error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


def check_points(
    name: str,
    x: Float[Array, "..."],
    num_clusters: int,
    weights: Float[Array, "..."] | None,
    num_restarts: int,
    init: Float[Array, "..."] | None,
) -> None:
    """Raises ValueError unless there are points, finite wherever their weights, not negative, are not zero."""
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name}: x must be points by features (batches go through jax.vmap), got shape {x.shape}")
    if num_clusters < 1 or num_restarts < 1:
        raise ValueError(f"{name}: {num_clusters} clusters from {num_restarts} starts: at least one of each")
    if init is not None and init.shape != (num_clusters, x.shape[1]):
        raise ValueError(f"{name}: init has shape {init.shape}, not ({num_clusters}, {x.shape[1]})")
    if weights is not None and weights.shape != x.shape[:1]:
        raise ValueError(f"{name}: weights has shape {weights.shape}, and x of shape {x.shape} needs {x.shape[:1]}")
    if not known(x, weights):
        return
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(f"{name}: weights must be finite and not negative, the least is {w.min()}")
    wrong = (w > 0) & ~np.isfinite(np.asarray(x, np.float32 if x.dtype.itemsize < 4 else None)).all(1)
    if wrong.any():
        raise ValueError(f"{name}: {wrong.sum()} points are not finite, the first is {wrong.argmax()}: weigh them zero")


def centred(
    x: Float[Array, "n d"], weights: Float[Array, "n"] | None, default: float
) -> tuple[Float[Array, "n d"], Float[Array, "n"], Float[Array, "d"]]:
    """Points about their mean in float32 or wider, for accurate distances; their weights; and that mean.

    What is not finite in a point of zero weight, or would not be when squared, is read as zero.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    w = jnp.full(len(x), default, dtype) if weights is None else weights.astype(dtype)
    x = x.astype(dtype)
    x = jnp.where((w > 0)[:, None] | jnp.isfinite(x**2), x, 0)
    mean = lax.stop_gradient(w @ x / jnp.maximum(w.sum(), jnp.finfo(dtype).tiny))
    return x - mean, w, mean


def cross(x: Float[Array, "n d"], centers: Float[Array, "k d"]) -> Float[Array, "n k"]:
    """Squared distances less the squared lengths of the points, by the expanded square."""
    return (centers**2).sum(1) - 2 * jnp.dot(x, centers.T, precision=lax.Precision.HIGHEST)


def means(plan: Float[Array, "n k"], x: Float[Array, "n d"], otherwise: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """The mean of the mass in each column of a plan, or `otherwise` where there is none."""
    mass = plan.sum(0)[:, None]
    sums = jnp.dot(plan.T, x, precision=lax.Precision.HIGHEST)
    return jnp.where(mass > 0, sums / jnp.where(mass > 0, mass, 1), otherwise)


def _seed(key: Key, x: Float[Array, "n d"], w: Float[Array, "n"], num_clusters: int) -> Float[Array, "k d"]:
    """Greedy k-means++: of a few points drawn by weight times squared distance from the centres so far, the best."""
    trials = 2 + int(math.log(num_clusters))  # as many as scikit-learn

    def draw(state: Any, key: Key) -> tuple[Any, Float[Array, "d"]]:
        nearest, p = state
        # uniform numbers into the cumulative sum: what is drawn does not depend on padding, nor on how weight is
        # split among equal points; asking p > 0 as well keeps rounding in the sum from choosing a point without weight
        sums = jnp.cumsum(p)
        heights = jax.random.uniform(key, (trials, 1), p.dtype) * jnp.max(jnp.where(p > 0, sums, 0))
        candidates = x[jnp.argmax((p > 0) & (sums >= heights), axis=1)]
        closer = jnp.minimum(nearest, ((x - candidates[:, None]) ** 2).sum(2))
        best = jnp.argmin(closer @ w)
        p = jnp.where(w > 0, w * closer[best], 0)
        return (closer[best], jnp.where(p.sum() > 0, p, w)), candidates[best]  # all chosen already: any of them again

    return lax.scan(draw, (jnp.full_like(w, jnp.inf), w), jax.random.split(key, num_clusters))[1]


def _fill(
    labels: Int[Array, "n"], distances: Float[Array, "n"], w: Float[Array, "n"], num_clusters: int
) -> Int[Array, "n"]:
    """The labels, with the points farthest from their centres given to the clusters that are empty, one to each."""
    empty = ~((labels[:, None] == jnp.arange(num_clusters)) & (w > 0)[:, None]).any(0)
    far, points = lax.top_k(jnp.where(w > 0, distances, 0), min(num_clusters, len(labels)))
    clusters = jnp.argsort(~empty)[: len(points)]  # the empty ones first
    return labels.at[points].set(jnp.where(empty[clusters] & (far > 0), clusters, labels[points]))


def kmeans(
    key: Key,
    x: Float[Array, "n d"],
    num_clusters: int,
    *,
    weights: Float[Array, "n"] | None = None,
    num_iters: int | Int[Array, ""] = 100,
    tolerance: float | Float[Array, ""] = 1e-4,
    num_restarts: int = 4,
    init: Float[Array, "k d"] | None = None,
) -> KMeansSolution:
    """Minimises `sum_i w_i min_m |x_i - c_m|^2` over the centres `c` by Lloyd's steps (Lloyd, 1982).

    The starts are greedy k-means++ (Arthur and Vassilvitskii, 2007), and the one that ends lowest wins; this is the
    clustering of equation 4 in Li et al., "Unified Mask Embedding and Correspondence Learning", CVPR 2023, with the
    norm squared. A step gives every point to its nearest centre and moves the centres to the means of their points. A
    cluster left empty is given the point farthest from its centre, as in scikit-learn; where all points lie on centres
    (there are fewer distinct points than clusters) its centre stays.

    Labels are constants of the gradient: centres differentiate as the weighted means of the points that made them.
    Lloyd's steps stop at a local minimum, in finitely many steps but for rounding; under `jax.vmap` all instances run
    until the slowest is done.

    Args:
      key: for the starts; unused where `init` is given.
      x: `(n, d)` points. Half precision is computed, and answered, in float32.
      num_clusters: `k`; more than there are points is allowed.
      weights: `(n,)`, not negative; ones by default. A point of zero weight moves nothing, whatever it holds (NaN
        included).
      num_iters: the most steps; none leaves the start as it is. May be traced.
      tolerance: stop when `error` is at most this. May be traced.
      num_restarts: starts to choose among.
      init: `(k, d)` centres to start from instead.

    Returns:
      A `KMeansSolution`.

    Raises:
      ValueError: for shapes that do not fit, counts below one, points that are not finite or negative weights.
    """
    check_points("kmeans", x, num_clusters, weights, num_restarts, init)
    check_positive("kmeans", "num_iters", num_iters, zero=True)
    check_positive("kmeans", "tolerance", tolerance, zero=True)
    points, mass, mean = centred(x, weights, 1.0)
    x, w = lax.stop_gradient((points, mass))
    lengths = jnp.where(w > 0, (x**2).sum(1), 0)
    tiny = jnp.finfo(x.dtype).tiny
    variance = jnp.maximum(w @ lengths / jnp.maximum(w.sum() * x.shape[1], tiny), tiny)

    def assign(centers: Float[Array, "k d"]) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
        d = cross(x, centers)
        return jnp.argmin(d, axis=1), jnp.maximum(lengths + jnp.min(d, axis=1), 0)

    def hard(labels: Int[Array, "n"], w: Float[Array, "n"]) -> Float[Array, "n k"]:
        return jax.nn.one_hot(labels, num_clusters, dtype=w.dtype) * w[:, None]

    def step(state: Any) -> Any:
        old, before, _, count = state
        labels = _fill(*assign(old), w, num_clusters)
        centers = means(hard(labels, w), x, old)
        # labels that stay leave the centres where they are, which a difference of rounded centres may not show
        error = jnp.where((labels == before).all(), 0, ((centers - old) ** 2).sum() / variance)
        return centers, labels, error, count + 1

    def run(start: Float[Array, "k d"]) -> tuple[Any, Float[Array, ""]]:
        state = start, jnp.full(len(x), -1), jnp.asarray(jnp.inf, x.dtype), jnp.int32(0)
        state = lax.while_loop(lambda state: (state[2] > tolerance) & (state[3] < num_iters), step, state)
        return state, w @ assign(state[0])[1]

    if init is None:
        starts = jax.vmap(lambda key: _seed(key, x, w, num_clusters))(jax.random.split(key, num_restarts))
    else:
        starts = lax.stop_gradient(init.astype(x.dtype) - mean)[None]
    states, inertias = jax.vmap(run)(starts)
    old, made, error, count = jax.tree.map(lambda leaf: leaf[jnp.argmin(inertias)], states)
    centers = jnp.where(count > 0, means(hard(made, mass), points, old), old)
    labels = assign(lax.stop_gradient(centers))[0]
    inertia = jnp.where(mass > 0, mass * ((points - centers[labels]) ** 2).sum(1), 0).sum()
    return KMeansSolution(centers + mean, labels, inertia, error, count, error <= tolerance)
