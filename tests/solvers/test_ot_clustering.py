"""`ot_clustering` against slow NumPy loops, `kmeans` and optimality conditions, and on scenes of known classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from jaxvos.solvers import OTClusteringSolution, kmeans, ot_clustering

_MARGINALS = ("learned", "balanced", "box")
_jitted = jax.jit(ot_clustering, static_argnums=2, static_argnames=("marginals", "bounds", "num_restarts"))
_kmeans = jax.jit(kmeans, static_argnums=2)
_KEY = jax.random.key(0)
_N, _K = 60, 4
_BOUNDS = (0.15, 0.3)  # both of them are reached below
_DEFAULTS = {"epsilon": 0.05, "num_iters": 20, "num_inner": 5, "tolerance": 1e-4, "warm_up": 10, "bounds": _BOUNDS}


def _solve(key, x, num_clusters, **options):
    """Says what is left out, so that one function is compiled for each rule."""
    return _jitted(key, x, num_clusters, **{"marginals": "learned", "num_restarts": 4} | _DEFAULTS | options)


def _problem(seed=0, separation=2.0):
    """Points in blobs of unequal size, masses (some of zero), and centres to start from."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(_K, _N, p=[0.55, 0.25, 0.15, 0.05])
    x = rng.normal(size=(_N, 3)) + separation * rng.normal(size=(_K, 3))[labels]
    a = rng.uniform(0.2, 1, _N)
    a[10:14] = 0
    return jnp.asarray(x), jnp.asarray(a / a.sum()), jnp.asarray(x[:_K])


def _costs(x, centers):
    return ((np.asarray(x)[:, None] - np.asarray(centers)) ** 2).sum(-1)


def _rand(truth, labels):
    """The adjusted Rand index of two labellings."""
    table = np.zeros((truth.max() + 1, labels.max() + 1))
    np.add.at(table, (truth, labels), 1)
    both, rows, columns = ((z * (z - 1) / 2).sum() for z in (table, table.sum(1), table.sum(0)))
    expected = rows * columns / (len(truth) * (len(truth) - 1) / 2)
    return (both - expected) / ((rows + columns) / 2 - expected)


def _mixture(x, a, centers, epsilon, num_iters):
    """Expectation-maximisation of Gaussians of one fixed variance, with learned weights."""
    costs = _costs(x, centers)
    eps = epsilon * (a @ costs).mean()
    b = np.bincount(costs.argmin(1), a, _K)
    for _ in range(num_iters):
        density = np.stack([multivariate_normal.pdf(x, c, eps / 2 * np.eye(3)) for c in centers], axis=1)
        plan = b * density
        plan *= (a / plan.sum(1))[:, None]
        b, centers = plan.sum(0), plan.T @ x / plan.sum(0)[:, None]
    return plan, centers, (plan * _costs(x, centers)).sum() + eps * _divergence(plan, a, b)


def _constrained(x, a, centers, epsilon, num_iters, num_inner, bounds):
    """Sinkhorn's iterations with column sums clipped to bounds, alternating with the centres."""
    x, a = x[a > 0], a[a > 0]
    eps = epsilon * (a @ _costs(x, centers)).mean()
    g = np.zeros(_K)
    for _ in range(num_iters):
        L = -_costs(x, centers) / eps
        for _ in range(num_inner):
            f = np.log(a) - logsumexp(L + g, axis=1)
            sums = logsumexp(L + f[:, None], axis=0)
            g = np.clip(sums, *np.log(bounds)) - sums
        plan = np.exp(L + (np.log(a) - logsumexp(L + g, axis=1))[:, None] + g)
        centers = plan.T @ x / plan.sum(0)[:, None]
    uniform = np.full(_K, 1 / _K)
    return plan, centers, (plan * _costs(x, centers)).sum() + eps * _divergence(plan, a, uniform)


def _divergence(plan, a, b):
    safe = np.where(plan > 0, plan, 1)
    return (plan * (np.log(safe) - np.log(np.where(plan > 0, a[:, None] * b, 1)))).sum()


@pytest.mark.parametrize("seed", range(3))
def test_learned_is_a_mixture_of_gaussians(seed):
    x, a, init = _problem(seed)
    for num_iters in (1, 30):
        solution = _solve(_KEY, x, _K, epsilon=0.2, num_iters=num_iters, tolerance=0.0, weights=a, warm_up=0, init=init)
        plan, centers, objective = _mixture(*map(np.asarray, (x, a, init)), 0.2, num_iters)
        np.testing.assert_allclose(solution.plan, plan, atol=1e-11)
        np.testing.assert_allclose(solution.centers, centers, atol=1e-9)
        np.testing.assert_allclose(solution.masses, plan.sum(0), atol=1e-11)
        np.testing.assert_allclose(solution.objective, objective, rtol=1e-9)


@pytest.mark.parametrize("marginals", ["balanced", "box"])
def test_constrained_plans_equal_numpy(marginals):
    bounds = _BOUNDS if marginals == "box" else (1 / _K, 1 / _K)
    x, a, init = _problem(1, 0.5)
    options = {"marginals": marginals, "tolerance": 0.0, "warm_up": 0, "init": init, "epsilon": 0.1}
    for num_iters, num_inner in ((1, 1), (8, 3)):
        solution = _solve(_KEY, x, _K, num_iters=num_iters, num_inner=num_inner, weights=a, **options)
        plan, centers, objective = _constrained(*map(np.asarray, (x, a, init)), 0.1, num_iters, num_inner, bounds)
        np.testing.assert_allclose(solution.plan[a > 0], plan, atol=1e-11)
        np.testing.assert_allclose(solution.centers, centers, atol=1e-9)
        np.testing.assert_allclose(solution.objective, objective, rtol=1e-9)


@pytest.mark.parametrize("marginals", _MARGINALS)
def test_marginals_and_optimality(marginals):
    x, a, init = _problem(1, 0.5)
    mass = 3.0
    solution = _solve(
        _KEY, x, _K, marginals=marginals, num_iters=300, num_inner=200, tolerance=0.0,
        weights=mass * a, init=init,
    )  # fmt: skip
    np.testing.assert_allclose(solution.plan.sum(1), mass * a, atol=1e-14)
    np.testing.assert_allclose(solution.masses, solution.plan.sum(0), atol=1e-14)
    np.testing.assert_allclose(solution.centers, solution.plan.T @ x / solution.masses[:, None], atol=1e-12)
    assert solution.error < 1e-8
    power = _costs(x, solution.centers) - np.asarray(solution.g)
    np.testing.assert_array_equal(solution.labels, power.argmin(1))
    np.testing.assert_array_equal(solution.labels[a > 0], solution.plan[a > 0].argmax(1))
    shares, g = np.asarray(solution.masses / mass), np.asarray(solution.g)
    if marginals == "balanced":
        np.testing.assert_allclose(shares, 1 / _K, atol=1e-9)
    elif marginals == "box":
        low, high = np.isclose(shares, _BOUNDS[0], atol=1e-9), np.isclose(shares, _BOUNDS[1], atol=1e-9)
        assert low.any() and high.any() and (low | high | ((_BOUNDS[0] < shares) & (shares < _BOUNDS[1]))).all()
        assert (g[low] >= 0).all() and (g[high] <= 0).all()  # multipliers of the bounds have their sign
        np.testing.assert_allclose(g[~low & ~high], 0, atol=1e-12)
    else:
        assert np.ptp(shares) > 0.1


@pytest.mark.parametrize("marginals", _MARGINALS)
def test_objective_does_not_increase(marginals):
    steps = jnp.arange(1, 16)

    @jax.jit
    @jax.vmap
    def runs(x, a, init):
        options = {"marginals": marginals, "bounds": _BOUNDS, "num_inner": 300, "tolerance": 0.0, "warm_up": 0}
        return jax.vmap(
            lambda num_iters: ot_clustering(_KEY, x, _K, num_iters=num_iters, weights=a, init=init, **options)
        )(steps)

    solution = runs(*map(jnp.stack, zip(*(_problem(seed, 1.0) for seed in range(4)), strict=True)))
    change = np.diff(solution.objective, axis=1)
    assert (change <= 1e-10).all() and (change[:, 0] < -1e-4).all()
    assert (solution.num_iters == steps).all()


@pytest.mark.parametrize("seed", range(3))
def test_small_epsilon_is_kmeans(seed):
    x, a, init = _problem(seed, 1.0)
    expected = _kmeans(_KEY, x, _K, weights=a, tolerance=0.0, init=init)
    solution = _solve(_KEY, x, _K, epsilon=1e-6, num_iters=100, weights=a, warm_up=0, init=init)
    np.testing.assert_allclose(solution.centers, expected.centers, atol=1e-9)
    np.testing.assert_array_equal(solution.labels, expected.labels)
    np.testing.assert_allclose(solution.objective, expected.inertia, rtol=1e-4)
    assert solution.converged and solution.error < 1e-6 and solution.num_iters > 2


def _scene(seed, frames=4, size=16, d=32):
    """Cells of a film whose three large classes have prototypes at cosine 0.8: a background and two moving ellipses.

    Two odd patches of two cells a frame, and a smooth drift within classes, tempt k-means to spend its centres.
    """
    rng = np.random.default_rng(seed)
    base, *others = np.linalg.qr(rng.normal(size=(d, 6)))[0].T
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((frames, size, size), int)
    for index in (1, 2):
        place, speed = rng.uniform(4, size - 4, 2), rng.uniform(-0.7, 0.7, 2)
        for t in range(frames):
            i, j = place + t * speed
            labels[t][((rows - i) / 4) ** 2 + ((columns - j) / 3) ** 2 < 1] = index
    for index in (3, 4):
        i, j = rng.integers(0, size - 2, 2)
        labels[:, i : i + 2, j] = index
    near = 0.8**0.5 * base + 0.2**0.5 * np.stack(others[:3])
    waves = rng.normal(size=(3, d)) * 0.15
    drift = np.sin(np.indices(labels.shape).transpose(1, 2, 3, 0) @ waves + rng.uniform(0, 6, d))
    x = np.concatenate([near, others[3:]])[labels] + (0.15 * drift + 0.4 * rng.normal(size=drift.shape)) / d**0.5
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(-1, d), labels.ravel()


def test_learned_masses_keep_a_large_background_whole_where_kmeans_cuts_it():
    scenes = [_scene(seed) for seed in range(4)]
    x = jnp.stack([jnp.asarray(x) for x, _ in scenes])
    keys = jax.random.split(_KEY, len(scenes))
    learned = jax.jit(jax.vmap(lambda key, x: ot_clustering(key, x, 5)))(keys, x)
    cut = jax.jit(jax.vmap(lambda key, x: kmeans(key, x, 5)))(keys, x)
    agreements = [_rand(truth, np.asarray(cut.labels[index])) for index, (_, truth) in enumerate(scenes)]
    assert np.mean(agreements) < 0.7, agreements
    for index, (_, truth) in enumerate(scenes):
        share = (truth == 0).mean()
        assert _rand(truth, np.asarray(learned.labels[index])) > 0.9
        np.testing.assert_allclose(np.bincount(learned.labels[index]).max() / len(truth), share, atol=0.02)


def test_balanced_cuts_unequal_classes_into_equal_parts():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [80, 10, 10])
    x = jnp.asarray(rng.normal(size=(100, 3)) + 12 * np.eye(3)[truth])
    balanced, learned = (
        _solve(_KEY, x, 3, marginals=marginals, num_inner=300) for marginals in ("balanced", "learned")
    )
    np.testing.assert_allclose(balanced.masses, 1 / 3, atol=1e-4)
    assert _rand(truth, np.asarray(balanced.labels)) < 0.5
    np.testing.assert_allclose(np.sort(learned.masses), [0.1, 0.1, 0.8], atol=1e-6)
    assert _rand(truth, np.asarray(learned.labels)) == 1


@pytest.mark.parametrize("marginals", _MARGINALS)
def test_points_of_zero_weight_change_nothing(marginals):
    x, a, init = _problem()
    options = {"marginals": marginals, "init": init}
    plain = _solve(_KEY, x, _K, weights=a, **options)
    assert (plain.plan[a == 0] == 0).all()
    for garbage in (jnp.nan, jnp.inf, 1e300):
        padded = _solve(_KEY, jnp.where((a > 0)[:, None], x, garbage), _K, weights=a, **options)
        np.testing.assert_array_equal(padded.labels[a > 0], plain.labels[a > 0])
        for name in ("plan", "centers", "masses", "g", "objective", "error"):
            np.testing.assert_allclose(getattr(padded, name), getattr(plain, name), atol=1e-12, err_msg=name)
    nothing = _solve(_KEY, x, _K, weights=jnp.zeros(_N), **options)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in nothing) and (nothing.plan == 0).all()


@pytest.mark.parametrize("marginals", _MARGINALS)
def test_degenerate_points_and_small_epsilon_stay_finite_in_float32(marginals):
    x, a, init = (z.astype(jnp.float32) for z in _problem())
    few = jnp.tile(x[:2], (_N // 2, 1))
    for points, epsilon in ((x, 1e-5), (few, 0.05), (jnp.ones_like(x), 0.05), (1e-4 * x + 1, 0.05)):
        solution = _solve(_KEY, points, _K, marginals=marginals, epsilon=jnp.float32(epsilon), weights=a, init=init)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in solution)
        np.testing.assert_allclose(solution.plan.sum(1), a, rtol=1e-5)


def test_vmap_is_one_by_one():
    xs, weights, inits = map(jnp.stack, zip(*(_problem(seed) for seed in range(3)), strict=True))
    epsilons = jnp.array([0.05, 0.1, 0.3])

    def run(x, a, init, epsilon):
        options = {"marginals": "box", "bounds": _BOUNDS, "tolerance": 0.01}
        return ot_clustering(_KEY, x, _K, weights=a, init=init, epsilon=epsilon, **options)

    together = jax.jit(jax.vmap(run))(xs, weights, inits, epsilons)
    assert len(set(together.num_iters.tolist())) > 1 and together.converged.any()
    for index in range(3):
        one = _solve(
            _KEY, xs[index], _K, marginals="box", weights=weights[index], init=inits[index],
            epsilon=epsilons[index], tolerance=0.01,
        )  # fmt: skip
        for ours, theirs in zip(jax.tree.map(lambda leaf, index=index: leaf[index], together), one, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-11)


def test_scale_and_order_do_not_matter():
    x, a, init = _problem()
    points = np.random.default_rng(0).permutation(_N)
    plain = _solve(_KEY, x, _K, weights=a, init=init)
    scaled = _solve(_KEY, 100 * x[points] + 7, _K, weights=5 * a[points], init=100 * init + 7)
    np.testing.assert_allclose(scaled.plan, 5 * plain.plan[points], atol=1e-10)
    np.testing.assert_allclose(scaled.centers, 100 * plain.centers + 7, rtol=1e-9)
    np.testing.assert_allclose(scaled.objective, 5e4 * plain.objective, rtol=1e-9)
    assert scaled.num_iters == plain.num_iters


def test_uniform_probabilities_by_default_and_half_precision():
    x = _problem()[0].astype(jnp.bfloat16)
    solution = _solve(_KEY, x, _K)
    np.testing.assert_allclose(solution.plan.sum(1), 1 / _N, rtol=1e-5)
    np.testing.assert_allclose(solution.masses.sum(), 1, rtol=1e-5)
    assert solution.plan.dtype == solution.centers.dtype == solution.objective.dtype == jnp.float32
    np.testing.assert_allclose(solution.centers, solution.plan.T @ x / solution.masses[:, None], atol=1e-5)


def test_gradients_hold_the_shares():
    x, a, init = _problem()
    x = jnp.where((a > 0)[:, None], x, jnp.nan)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(_K, 3)))

    def of(x, name):
        solution = ot_clustering(_KEY, x, _K, weights=a, init=init)
        return jnp.vdot(getattr(solution, name), weights if name == "centers" else 1.0), solution

    gradient = jax.jit(jax.grad(of, has_aux=True), static_argnums=1)
    x_bar, solution = gradient(x, "centers")
    np.testing.assert_allclose(x_bar, solution.plan / solution.masses @ weights, atol=1e-12)
    moved = jnp.where((a > 0)[:, None, None], x[:, None] - solution.centers, 0)
    expected = 2 * jnp.einsum("nk,nkd->nd", solution.plan, moved)
    np.testing.assert_allclose(gradient(x, "objective")[0], expected, atol=1e-12)


def test_every_option_matters():
    x, a, init = _problem(1, 0.5)
    base = {"marginals": "box", "tolerance": 0.0, "weights": a, "init": init}

    def centers(key=_KEY, **options):
        return _solve(key, x, _K, **base | options).centers

    changes = [
        {"marginals": "learned"},
        {"marginals": "balanced"},
        {"epsilon": 0.1},
        {"num_iters": 3},
        {"num_inner": 1},
    ]
    changes += [
        {"tolerance": 0.05},
        {"bounds": (0.2, 0.3)},
        {"weights": a + 0.01},
        {"warm_up": 0},
        {"init": init[::-1]},
    ]
    plain = centers()
    for change in changes:
        assert jnp.abs(centers(**change) - plain).max() > 1e-6, change
    drawn = centers(init=None)
    for other in (centers(init=None, num_restarts=8), centers(jax.random.key(1), init=None)):
        assert jnp.abs(other - drawn).max() > 1e-6


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"marginals": "equal"}, "marginals"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"num_iters": 0}, "num_iters"),
        ({"num_inner": 0}, "num_inner"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"warm_up": -1}, "warm_up"),
        ({"marginals": "box", "bounds": (0.4, 1.0)}, "bounds"),
        ({"marginals": "box", "bounds": (0.0, 0.2)}, "bounds"),
        ({"init": jnp.zeros((2, 2))}, "init"),
        ({"weights": jnp.full(5, -1.0)}, "negative"),
    ],
)
def test_wrong_arguments_are_refused(wrong, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ot_clustering(_KEY, jnp.zeros((5, 2)), 3, **wrong)


def test_the_solution_is_a_pytree():
    x, a, init = _problem()
    solution = _solve(_KEY, x, _K, weights=a, init=init)
    assert isinstance(solution, OTClusteringSolution)
    assert len(jax.tree.leaves(solution)) == 9
