"""Propagation against a loop over objects, queries, frames and cells."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import propagation as loops

from jaxvos.ops import propagate

SIZE, P, S, K, C, D = (5, 7), 35, 4, 2, 6, 3
RNG = np.random.default_rng(0)
QUERY, KEYS, VALUES = (RNG.normal(size=shape).astype(np.float32) for shape in ((P, C), (S, P, C), (K, S, P, D)))
ALL, NONE = np.ones(S, bool), np.zeros(S, bool)
SOME, OTHERS, FAR = (np.array(x, bool) for x in ([1, 0, 1, 1], [0, 0, 1, 0], [1, 0, 0, 1]))
BEST = {"top_k": 4, "radius": 2.0}  # cells at a distance of exactly two lie beyond it
EVERY = {"top_k": None, "radius": 2.0}
BACKENDS = [("dense", BEST), ("scan", BEST), ("window", BEST), ("dense", EVERY), ("online", EVERY)]
NAMES = [f"{backend}-{options['top_k']}" for backend, options in BACKENDS]
each_backend = pytest.mark.parametrize(("backend", "options"), BACKENDS, ids=NAMES)


@functools.cache
def _jitted(size, temperature, chunk, options):
    return jax.jit(functools.partial(propagate, size=size, temperature=temperature, chunk=chunk, **dict(options)))


def _propagate(*arrays, size=SIZE, valid=SOME, far=FAR, temperature=0.5, chunk=10, **options):
    jitted = _jitted(size, temperature, chunk, tuple(options.items()))
    told = {name: None if x is None else jnp.array(x) for name, x in (("valid", valid), ("far", far))}
    return np.asarray(jitted(*map(jnp.array, arrays or (QUERY, KEYS, VALUES)), **told))


def _loops(query=QUERY, keys=KEYS, values=VALUES, *, valid=SOME, far=FAR, temperature=0.5, **options):
    valid = np.broadcast_to(valid, (len(values), S))
    return loops.propagate(query, keys, values, size=SIZE, valid=valid, far=far, temperature=temperature, **options)


@pytest.mark.parametrize(("backend", "top_k", "radius"), [
    ("dense", 4, 2.0), ("scan", 4, 2.0), ("window", 4, 2.0),
    ("dense", 4, None), ("scan", 4, None),
    ("dense", 1, 1.0), ("scan", 1, 1.0), ("window", 1, 1.0),
    ("window", 4, 12.0),
    ("dense", None, 2.0), ("online", None, 2.0),
    ("dense", None, None), ("online", None, None),
])  # fmt: skip
def test_every_backend_is_the_loop(backend, top_k, radius):
    found = _propagate(backend=backend, top_k=top_k, radius=radius)
    np.testing.assert_allclose(found, _loops(top_k=top_k, radius=radius), atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2048])
@pytest.mark.parametrize("backend", ["scan", "window", "online"])
def test_chunks_do_not_change_what_is_read(backend, chunk):
    options = EVERY if backend == "online" else BEST
    np.testing.assert_allclose(_propagate(backend=backend, chunk=chunk, **options), _loops(**options), atol=1e-5)


def test_the_defaults_are_ten_best_within_twelve_cells_at_a_twentieth():
    expected = _loops(top_k=10, radius=12.0, temperature=0.05, valid=ALL, far=NONE)
    found = propagate(jnp.array(QUERY), jnp.array(KEYS), jnp.array(VALUES), size=SIZE)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("change", [
    {"temperature": 1.0}, {"top_k": 3}, {"radius": 2.5}, {"far": NONE}, {"valid": ALL}, {"top_k": 36}, {"radius": None},
], ids=str)  # fmt: skip
def test_options_change_what_is_read(change):
    assert np.abs(_propagate(backend="scan", **(BEST | change)) - _loops(**BEST)).max() > 0.1


@each_backend
def test_far_everywhere_is_no_radius_and_nowhere_is_none(backend, options):
    if backend != "window":
        endless = _propagate(backend=backend, **(options | {"radius": None}))
        np.testing.assert_allclose(_propagate(backend=backend, far=ALL, **options), endless, atol=1e-6)
    near = _propagate(backend=backend, far=NONE, **options)
    np.testing.assert_array_equal(_propagate(backend=backend, far=None, **options), near)


@pytest.mark.parametrize(("backend", "top_k"), [
    ("dense", None), ("online", None), ("scan", 500), ("window", 500), ("window", 100),
])  # fmt: skip
def test_a_radius_of_twelve_holds_437_cells(backend, top_k):
    side = 25
    centre = side * side // 2
    query, keys, values = (np.zeros(shape, np.float32) for shape in ((625, 1), (1, 625, 1), (1, 1, 625, 1)))
    values[:, :, centre:] = 1  # of equal scores the first are taken: those above the centre, half of all
    read = _propagate(query, keys, values, size=(side, side), valid=None, far=None, top_k=top_k, radius=12.0,
                      backend=backend)  # fmt: skip
    np.testing.assert_allclose(read[0, centre, 0], 0 if top_k == 100 else 219 / 437, atol=1e-5)


@pytest.mark.parametrize("backend", ["dense", "scan", "window"])
@pytest.mark.parametrize("top_k", [12, S * P + 3])
def test_asking_for_more_than_there_are_is_the_softmax_over_all(backend, top_k):
    found = _propagate(backend=backend, top_k=top_k, radius=1.5, far=NONE, valid=OTHERS)
    np.testing.assert_allclose(found, _loops(top_k=None, radius=1.5, far=NONE, valid=OTHERS), atol=1e-5)


@each_backend
def test_weights_of_a_query_sum_to_one(backend, options):
    found = _propagate(QUERY, KEYS, np.ones_like(VALUES), backend=backend, **options)
    np.testing.assert_allclose(found, 1, rtol=1e-5)


@functools.cache
def _with_gradients(backend, options):
    def total(arrays, valid):
        told = {"valid": valid, "far": jnp.array(FAR)}
        read = propagate(*arrays, size=SIZE, temperature=0.5, chunk=10, backend=backend, **told, **dict(options))
        return jnp.sum((read + 1) ** 2), read

    return jax.jit(jax.grad(total, has_aux=True))


@each_backend
@pytest.mark.parametrize("valid", [np.stack([NONE, NONE]), np.stack([SOME, NONE])], ids=["nobody", "one"])
def test_without_a_candidate_the_answer_is_zero_and_gradients_are_finite(backend, options, valid):
    arrays = [jnp.array(x) for x in (QUERY, KEYS, VALUES)]
    gradients, found = _with_gradients(backend, tuple(options.items()))(arrays, jnp.array(valid))
    dead = ~valid.any(axis=1)
    np.testing.assert_array_equal(found[dead], 0)
    np.testing.assert_allclose(found, _loops(valid=valid, **options), atol=1e-5)
    assert all(np.isfinite(x).all() and np.any(x) == np.any(valid) for x in gradients)
    np.testing.assert_array_equal(gradients[2][dead], 0)
    if dead.all():
        np.testing.assert_array_equal(_propagate(backend=backend, valid=NONE, **options), 0)


@each_backend
@pytest.mark.parametrize("scale", [1.0, 4096.0])
def test_huge_scores_do_not_overflow(backend, options, scale):
    """Scores of small whole numbers are exact in float32, and so are their many ties."""
    rng = np.random.default_rng(1)
    query, keys = (scale * rng.integers(-2, 3, size=x.shape).astype(np.float32) for x in (QUERY, KEYS))
    found = _propagate(query, keys, VALUES, backend=backend, temperature=2.0**-14, **options)
    np.testing.assert_allclose(found, _loops(query, keys, temperature=2.0**-14, **options), atol=1e-5)


@each_backend
def test_what_invalid_frames_hold_does_not_matter(backend, options):
    keys, values = KEYS.copy(), VALUES.copy()
    keys[~SOME], values[:, ~SOME] = 1e9, 1e9
    found = _propagate(QUERY, keys, values, backend=backend, **options)
    np.testing.assert_array_equal(found, _propagate(backend=backend, **options))


@each_backend
@pytest.mark.parametrize("valid", [np.stack([SOME, OTHERS]), np.stack([OTHERS, OTHERS]), np.stack([NONE, SOME])],
                         ids=["each-its-own", "alike", "one-unknown"])  # fmt: skip
def test_objects_with_their_own_frames_are_read_as_if_alone(backend, options, valid):
    together = _propagate(backend=backend, valid=valid, **options)
    for o in range(K):
        alone = _propagate(QUERY, KEYS, VALUES[o : o + 1], backend=backend, valid=valid[o], **options)
        np.testing.assert_allclose(together[o], alone[0], atol=1e-6)


@each_backend
def test_batches_go_through_vmap(backend, options):
    batch = [np.stack([x, x[..., ::-1]]) for x in (QUERY, KEYS, VALUES)]
    batch[0][1] *= 2
    valid, far = np.stack([[SOME, OTHERS], [ALL, ALL]]), np.stack([FAR, NONE])

    def one(query, keys, values, valid, far):
        told = {"valid": valid, "far": far}
        return propagate(query, keys, values, size=SIZE, temperature=0.5, chunk=10, backend=backend, **told, **options)

    found = jax.jit(jax.vmap(one))(*map(jnp.array, (*batch, valid, far)))
    for b in range(2):
        expected = _loops(*(x[b] for x in batch), valid=valid[b], far=far[b], **options)
        np.testing.assert_allclose(found[b], expected, atol=1e-5)


def test_half_precision_is_compared_in_single():
    half = [jnp.array(x, jnp.bfloat16) for x in (QUERY, KEYS, VALUES)]
    expected = [np.asarray(x, np.float32) for x in half]
    for backend, options in BACKENDS:
        found = _propagate(*half, backend=backend, **options)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, _loops(*expected, **options), atol=1e-5)


# --------------------------------------------------------------------------------------------------------- gradients


@functools.cache
def _gradients(backend, top_k, radius):
    def total(*arrays):
        told = {"valid": jnp.array(np.stack([SOME, OTHERS])), "far": jnp.array(FAR)}
        options = {"top_k": top_k, "radius": radius, "chunk": 10, "temperature": 0.5}
        return jnp.sum(propagate(*arrays, size=SIZE, backend=backend, **told, **options) ** 2)

    return jax.jit(jax.grad(total, (0, 1, 2)))(*(jnp.array(x) for x in (QUERY, KEYS, VALUES)))


@pytest.mark.parametrize(("backend", "top_k", "radius"), [
    ("scan", 4, 2.0), ("window", 4, 2.0), ("scan", 4, None), ("online", None, 2.0), ("online", None, None),
])  # fmt: skip
def test_gradients_are_those_of_dense(backend, top_k, radius):
    for found, expected in zip(_gradients(backend, top_k, radius), _gradients("dense", top_k, radius), strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("top_k", [4, None])
def test_the_gradient_of_dense_is_that_of_the_loop(top_k):
    arrays, gradients = (QUERY, KEYS, VALUES), _gradients("dense", top_k, 2.0)
    for which, place in [(0, (3, 1)), (0, (20, 5)), (1, (2, 30, 0)), (1, (3, 17, 2)), (2, (1, 2, 33, 2))]:
        sums = []
        for sign in (1, -1):
            moved = [x.astype(np.float64) for x in arrays]
            moved[which][place] += 1e-5 * sign
            sums.append(np.sum(_loops(*moved, valid=np.stack([SOME, OTHERS]), top_k=top_k, radius=2.0) ** 2))
        np.testing.assert_allclose(gradients[which][place], (sums[0] - sums[1]) / 2e-5, rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------- refusals and memory


@pytest.mark.parametrize(("options", "words"), [
    ({"size": (5, 8)}, "has 40 cells, and the query has 35"),
    ({"keys": KEYS[:, :34]}, "keys (s, p, c) and values (o, s, p, d), got (35, 6), (4, 34, 6), (2, 4, 35, 3)"),
    ({"values": VALUES[:, :3]}, "keys (s, p, c) and values (o, s, p, d), got (35, 6), (4, 35, 6), (2, 3, 35, 3)"),
    ({"backend": "flash"}, "unknown backend 'flash': 'dense', 'scan', 'window', 'online'"),
    ({"backend": "scan", "top_k": None}, "backend 'scan' keeps the best: give top_k"),
    ({"backend": "window", "top_k": None}, "backend 'window' keeps the best: give top_k"),
    ({"backend": "window", "radius": None}, "backend 'window' looks within a radius: give one"),
    ({"backend": "online"}, "backend 'online' reads all candidates: give top_k=None"),
    ({"top_k": 0}, "top_k must be at least one, got 0"),
    ({"chunk": 0}, "chunk must be at least one, got 0"),
    ({"radius": 0.0}, "radius must be above zero, got 0.0"),
    ({"temperature": float("nan")}, "temperature must be above zero, got nan"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_line(options, words):
    options = {"query": QUERY, "keys": KEYS, "values": VALUES, "size": SIZE} | options
    options |= {name: jnp.array(x) for name, x in options.items() if isinstance(x, np.ndarray)}
    with pytest.raises(ValueError, match="^propagate") as error:
        inspect.unwrap(propagate)(**options)  # past the shape checker, which only tests have
    assert words in str(error.value) and "\n" not in str(error.value)


@functools.cache
def _temporary(backend, top_k, *, chunk, gradient=False):
    """XLA's own count, as a share of the affinity in float32: 24 x 40 cells and 21 references, of which one is far."""
    p, frames = 24 * 40, 21
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((p, 16), (frames, p, 16), (1, frames, p, 32))]

    def total(*arrays):
        far = jnp.arange(frames) == 0
        return propagate(*arrays, size=(24, 40), far=far, top_k=top_k, backend=backend, chunk=chunk).sum()

    function = jax.grad(total, (0, 1, 2)) if gradient else total
    compiled = jax.jit(function).lower(*arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (4 * p * frames * p)


@pytest.mark.parametrize(("backend", "top_k"), [("scan", 10), ("window", 10), ("online", None)])
def test_memory_is_that_of_chunks(backend, top_k):
    """Far below one affinity, of which `dense` holds at least one; and what the chunk is for."""
    small, large = (_temporary(backend, top_k, chunk=chunk) for chunk in (240, 960))
    assert small < min(0.06, large)
    assert _temporary("dense", top_k, chunk=960) > 1


@pytest.mark.parametrize(("backend", "top_k", "most"), [("scan", 10, 0.05), ("window", 10, 0.1), ("online", None, 0.3)])
def test_memory_of_the_backward_pass_is_that_of_chunks(backend, top_k, most):
    assert _temporary(backend, top_k, chunk=240, gradient=True) < most
