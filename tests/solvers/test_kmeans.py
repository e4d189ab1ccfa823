"""`kmeans` against a slow NumPy loop, scikit-learn, exact probabilities of its seeds, and identities."""

from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvos.solvers import KMeansSolution, kmeans

_solve = jax.jit(kmeans, static_argnums=2, static_argnames=("num_restarts",))
_KEY = jax.random.key(0)
_N, _K = 60, 4


def _points(seed, separation=2.0, n=_N):
    """Blobs of unequal size and, at a low separation, of no clear number; and the blob of each point."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(_K, n, p=[0.55, 0.25, 0.15, 0.05])
    x = rng.normal(size=(n, 3)) + separation * rng.normal(size=(_K, 3))[labels]
    return jnp.asarray(x), labels


def _lloyd(x, w, centers, num_iters=1000):
    """Lloyd's steps in NumPy until no label changes, empty clusters moved to the points farthest from their centres."""
    x, w, centers = (np.array(z, np.float64) for z in (x, w, centers))
    before, count, filled = None, 0, 0
    while count < num_iters:
        count += 1
        distances = ((x[:, None] - centers) ** 2).sum(-1)
        labels, distances = distances.argmin(1), np.where(w > 0, distances.min(1), -1)
        empty = [m for m in range(len(centers)) if w[labels == m].sum() == 0]
        for m, point in zip(empty, np.argsort(-distances), strict=False):
            labels[point], filled = m, filled + 1
        for m in range(len(centers)):
            if w[labels == m].sum() > 0:
                centers[m] = np.average(x[labels == m], axis=0, weights=w[labels == m])
        if before is not None and (labels == before).all():
            break
        before = labels
    distances = ((x[:, None] - centers) ** 2).sum(-1)
    return centers, distances.argmin(1), w @ distances.min(1), count, filled


def _assert_same(solution, centers, labels, inertia):
    np.testing.assert_array_equal(solution.labels, labels)
    np.testing.assert_allclose(solution.centers, centers, atol=1e-8)
    np.testing.assert_allclose(solution.inertia, inertia, rtol=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_same_start_same_end_as_numpy(seed):
    x, _ = _points(seed, separation=seed / 2)
    w = jnp.asarray(np.random.default_rng(seed).uniform(0, 2, _N))
    centers, labels, inertia, count, filled = _lloyd(x, w, x[:_K])
    solution = _solve(_KEY, x, _K, weights=w, tolerance=0.0, init=x[:_K])
    _assert_same(solution, centers, labels, inertia)
    assert solution.num_iters == count and count > 1 and filled == 0
    assert solution.error == 0 and solution.converged
    sooner = _solve(_KEY, x, _K, weights=w, tolerance=0.0, init=x[:_K], num_iters=1)
    _assert_same(sooner, *_lloyd(x, w, x[:_K], 1)[:3])
    assert not sooner.converged and sooner.num_iters == 1


@pytest.mark.parametrize("seed", range(4))
def test_same_start_same_end_as_scikit_learn(seed):
    cluster = pytest.importorskip("sklearn.cluster")
    x, _ = _points(seed, separation=seed)
    w = jnp.asarray(np.random.default_rng(seed).uniform(0.1, 2, _N))
    theirs = cluster.KMeans(_K, init=np.array(x[:_K]), n_init=1, tol=1e-12, algorithm="lloyd")
    theirs.fit(np.array(x), sample_weight=np.array(w))
    solution = _solve(_KEY, x, _K, weights=w, tolerance=1e-12, init=x[:_K])
    _assert_same(solution, theirs.cluster_centers_, theirs.labels_, theirs.inertia_)
    assert solution.num_iters == theirs.n_iter_


@pytest.mark.parametrize("seed", range(3))
def test_best_of_four_is_as_good_as_scikit_learns_best_of_ten(seed):
    cluster = pytest.importorskip("sklearn.cluster")
    x, _ = _points(seed, separation=3.0)
    theirs = cluster.KMeans(_K, n_init=10, random_state=0).fit(np.array(x))
    assert _solve(jax.random.key(seed), x, _K).inertia <= 1.03 * theirs.inertia_


@pytest.mark.parametrize("seed", range(3))
def test_finds_blobs(seed):
    x, truth = _points(seed, separation=20.0)
    solution = _solve(jax.random.key(seed), x, _K)
    centers = np.stack([x[truth == m].mean(0) for m in range(_K)])
    assert solution.inertia <= 1.000001 * ((x - centers[truth]) ** 2).sum()
    assert len({*zip(truth.tolist(), solution.labels.tolist(), strict=True)}) == _K
    assert solution.converged


def test_more_restarts_end_lower():
    x, _ = _points(0)
    keys = jax.random.split(_KEY, 40)
    run = jax.jit(jax.vmap(lambda key, r: kmeans(key, x, _K, num_restarts=r).inertia, (0, None)), static_argnums=1)
    inertia = {restarts: run(keys, restarts) for restarts in (1, 4)}
    assert inertia[4].mean() < inertia[1].mean() - 0.5 * inertia[1].std()
    assert inertia[4].max() < inertia[1].max()


def test_seeds_are_the_better_of_two_drawn_by_weight_and_then_by_squared_distance():
    x, w = np.array([0.0, 1.0, 3.0, 9.0]), np.array([2.0, 1.0, 0.5, 0.0])
    keys = jax.random.split(_KEY, 4000)
    points, weights = jnp.asarray(x)[:, None], jnp.asarray(w)
    draw = jax.vmap(lambda key: kmeans(key, points, 2, weights=weights, num_iters=0, num_restarts=1))
    solution = jax.jit(draw)(keys)
    assert (solution.num_iters == 0).all() and jnp.isinf(solution.error).all() and not solution.converged.any()
    drawn = [tuple(row) for row in np.round(solution.centers[..., 0]).tolist()]

    def best_of_two(p, potential):
        """Chances of each point where two are drawn by `p` and the one with the lower potential is kept."""
        chances = np.zeros(4)
        for a, b in product(range(4), repeat=2):
            chances[a if potential[a] <= potential[b] else b] += p[a] * p[b]
        return chances

    distances = (x[:, None] - x) ** 2
    first = best_of_two(w / w.sum(), distances @ w)
    for i, j in permutations(range(4), 2):
        second = w * distances[i]
        p = first[i] * best_of_two(second / second.sum(), np.minimum(distances[i], distances) @ w)[j]
        sigma = (p * (1 - p) / len(keys)) ** 0.5
        assert abs(drawn.count((x[i], x[j])) / len(keys) - p) <= 4 * sigma, (i, j)


def test_an_empty_cluster_takes_the_farthest_point():
    x, _ = _points(1)
    ones = jnp.ones(_N)
    far = x[:_K].at[1].set(100.0).at[3].set(-100.0)
    centers, labels, inertia, _, filled = _lloyd(x, ones, far)
    assert filled == 2
    solution = _solve(_KEY, x, _K, weights=ones, init=far, tolerance=0.0)
    _assert_same(solution, centers, labels, inertia)
    assert len(np.unique(labels)) == _K


def test_weights_are_repeated_points():
    x, _ = _points(2)
    counts = np.random.default_rng(0).integers(0, 4, _N)
    repeated = jnp.repeat(x, counts, axis=0)
    for options in ({"init": x[:_K]}, {}):
        whole = _solve(_KEY, repeated, _K, **options)
        weighed = _solve(_KEY, x, _K, weights=jnp.asarray(counts, float), **options)
        np.testing.assert_array_equal(jnp.repeat(weighed.labels, counts), whole.labels)
        np.testing.assert_allclose(weighed.centers, whole.centers, atol=1e-10)
        np.testing.assert_allclose(weighed.inertia, whole.inertia, rtol=1e-10)


def test_points_of_zero_weight_change_nothing():
    x, _ = _points(3)
    plain = _solve(_KEY, x, _K)
    weights = jnp.ones(_N + 5).at[_N:].set(0.0)
    for garbage in (jnp.nan, jnp.inf, 1e300, 2.0):
        padded = jnp.concatenate([x, jnp.full((5, 3), garbage)])
        solution = _solve(_KEY, padded, _K, weights=weights)
        np.testing.assert_array_equal(solution.labels[:_N], plain.labels)
        np.testing.assert_allclose(solution.centers, plain.centers, atol=1e-12)
        np.testing.assert_allclose(solution.inertia, plain.inertia, rtol=1e-12)
        np.testing.assert_allclose(solution.error, plain.error, rtol=1e-6, atol=1e-12)
    nearest = ((2.0 - plain.centers) ** 2).sum(1).argmin()
    assert (solution.labels[_N:] == nearest).all()
    nothing = _solve(_KEY, x, _K, weights=jnp.zeros(_N))
    assert jnp.isfinite(nothing.centers).all() and nothing.inertia == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), separation=st.floats(0, 10), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_properties(seed, separation, scale):
    rng = np.random.default_rng(seed)
    x = scale * _points(seed, separation)[0]
    w = jnp.asarray(rng.uniform(0, 1, _N)).at[:3].set(0.0)
    init = scale * jnp.asarray(rng.normal(size=(_K, 3)))
    solution = _solve(_KEY, x, _K, weights=w, init=init, num_iters=int(rng.integers(1, 10)))
    distances = ((x[:, None] - solution.centers) ** 2).sum(-1)
    np.testing.assert_array_equal(solution.labels, distances.argmin(1))
    np.testing.assert_allclose(solution.inertia, w @ distances.min(1), rtol=1e-9)
    assert solution.inertia <= w @ ((x[:, None] - init) ** 2).sum(-1).min(1) * (1 + 1e-12)
    points, clusters = rng.permutation(_N), rng.permutation(_K)
    permuted = _solve(
        _KEY, x[points], _K, weights=w[points], init=init[clusters], num_iters=solution.num_iters, tolerance=0.0
    )  # which of two empty clusters takes which point goes by their order, so labels are not compared
    np.testing.assert_allclose(
        permuted.centers[permuted.labels], solution.centers[solution.labels[points]], atol=1e-9 * scale
    )


def test_fewer_distinct_points_than_clusters():
    few = jnp.tile(jnp.asarray([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]), (_N // 2, 1))
    for x in (few, jnp.zeros((_N, 3)), few[:2]):
        solution = _solve(_KEY, x, _K)
        np.testing.assert_allclose(solution.centers[solution.labels], x, atol=1e-12)
        np.testing.assert_allclose(solution.inertia, 0, atol=1e-20)
        assert solution.converged and jnp.isfinite(solution.centers).all()


def test_one_cluster_is_the_mean():
    x, _ = _points(0)
    solution = _solve(_KEY, x, 1)
    np.testing.assert_allclose(solution.centers[0], x.mean(0), atol=1e-12)
    np.testing.assert_allclose(solution.inertia, ((x - x.mean(0)) ** 2).sum(), rtol=1e-12)
    assert (solution.labels == 0).all() and solution.converged


def test_error_is_relative_to_the_variance_and_stops():
    x, _ = _points(9, separation=0.5)
    options = {"init": x[:_K], "num_iters": 100}
    solution = _solve(_KEY, x, _K, tolerance=0.02, **options)
    assert 1 < solution.num_iters < _solve(_KEY, x, _K, tolerance=0.0, **options).num_iters
    sooner = _solve(_KEY, x, _K, init=x[:_K], num_iters=solution.num_iters - 1)
    expected = ((solution.centers - sooner.centers) ** 2).sum() / x.var(0).mean()
    np.testing.assert_allclose(solution.error, expected, rtol=1e-9)
    assert solution.converged and solution.error <= 0.02 < sooner.error


def test_vmap_is_one_by_one():
    xs = jnp.stack([_points(seed)[0] for seed in range(3)])
    keys = jax.random.split(_KEY, 3)
    w = jnp.ones((3, _N)).at[1, 40:].set(0.0)
    together = jax.jit(jax.vmap(lambda key, x, w: kmeans(key, x, _K, weights=w)))(keys, xs, w)
    assert len(set(together.num_iters.tolist())) > 1
    for index in range(3):
        one = _solve(keys[index], xs[index], _K, weights=w[index])
        np.testing.assert_array_equal(together.labels[index], one.labels)
        np.testing.assert_allclose(together.centers[index], one.centers, atol=1e-12)
        assert together.num_iters[index] == one.num_iters


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_narrow_types_far_from_the_origin(dtype):
    x, _ = _points(0)
    x = (x + (1000.0 if dtype == jnp.float32 else 0.0)).astype(dtype)
    solution = _solve(_KEY, x, _K, init=x[:_K], tolerance=0.0)
    assert solution.centers.dtype == solution.inertia.dtype == jnp.float32
    exact = _solve(_KEY, x.astype(jnp.float64), _K, init=x[:_K].astype(jnp.float64), tolerance=0.0)
    np.testing.assert_array_equal(solution.labels, exact.labels)
    np.testing.assert_allclose(solution.centers, exact.centers, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(solution.inertia, exact.inertia, rtol=1e-4)


def test_gradients_hold_the_labels():
    x, _ = _points(5)
    x = x.at[0].set(jnp.nan)
    w = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1, _N)).at[0].set(0.0)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(_K, 3)))

    def loss(x, w):
        solution = kmeans(_KEY, x, _K, weights=w, num_restarts=2)
        return jnp.vdot(solution.centers, weights), solution

    (x_bar, w_bar), solution = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, w)
    np.testing.assert_allclose(solution.error, 0, atol=1e-20)  # so that the labels are those that made the centres
    mass = jax.ops.segment_sum(w, solution.labels, _K)[solution.labels]
    np.testing.assert_allclose(x_bar, (w / mass)[:, None] * weights[solution.labels], atol=1e-12)
    moved = jnp.where((w > 0)[:, None], x - solution.centers[solution.labels], 0)
    np.testing.assert_allclose(w_bar[1:], ((moved * weights[solution.labels]).sum(1) / mass)[1:], atol=1e-12)


def test_every_option_matters():
    x, _ = _points(0, separation=0.5)
    base = {"num_restarts": 1, "weights": jnp.ones(_N)}
    centers = _solve(_KEY, x, _K, **base).centers
    changes = [{"weights": jnp.arange(_N) + 1.0}, {"num_iters": 2}, {"tolerance": 0.5}, {"init": x[:_K]}]
    for change in [*changes, {"num_restarts": 8}]:
        assert jnp.abs(_solve(_KEY, x, _K, **base | change).centers - centers).max() > 1e-6, change
    assert jnp.abs(_solve(jax.random.key(1), x, _K, **base).centers - centers).max() > 1e-6


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"num_clusters": 0}, "clusters"),
        ({"num_restarts": 0}, "starts"),
        ({"num_iters": -1}, "num_iters"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"init": jnp.zeros((2, 2))}, "init"),
        ({"weights": jnp.full(5, -1.0)}, "negative"),
        ({"x": jnp.zeros((0, 2))}, "shape"),
        ({"x": jnp.full((5, 2), jnp.nan)}, "finite"),
    ],
)
def test_wrong_arguments_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        kmeans(_KEY, **{"x": jnp.zeros((5, 2)), "num_clusters": 3} | wrong)


def test_the_solution_is_a_pytree():
    solution = _solve(_KEY, _points(0)[0], _K)
    assert isinstance(solution, KMeansSolution)
    assert len(jax.tree.leaves(solution)) == 6
