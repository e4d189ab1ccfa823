"""Reading of memory against loops over queries, entries and objects."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import space_time as loops

from jaxvos.ops import Keys, read_memory, similarity

Q, N, C, D, K = 5, 7, 4, 3, 2
RNG = np.random.default_rng(0)
QUERY, KEY = RNG.normal(size=(2, 8, C)).astype(np.float32)
QUERY, KEY = QUERY[:Q], KEY[:N]
SELECTION = RNG.uniform(size=(Q, C)).astype(np.float32)
SHRINKAGE = RNG.uniform(1, 4, N).astype(np.float32)
VALUES = RNG.normal(size=(K, N, D)).astype(np.float32)
ALL = np.ones(N, bool)
SOME = np.array([True, False, True, True, False, True, False])


@functools.cache
def _jitted(top_k):
    return jax.jit(functools.partial(read_memory, top_k=top_k))


def _read(scores, valid, *, values=VALUES, top_k=None):
    found = _jitted(top_k)(jnp.array(scores, jnp.float32), jnp.array(values), valid=jnp.array(valid))
    return np.asarray(found.values), np.asarray(found.usage)


def _scores(*, selection=None, shrinkage=None):
    query = Keys(jnp.array(QUERY), None, None if selection is None else jnp.array(selection))
    return np.asarray(similarity(query, Keys(jnp.array(KEY), None if shrinkage is None else jnp.array(shrinkage))))


SCORES = loops.similarity(QUERY, KEY, SELECTION, SHRINKAGE)


@pytest.mark.parametrize("options", [
    {}, {"selection": SELECTION}, {"shrinkage": SHRINKAGE}, {"selection": SELECTION, "shrinkage": SHRINKAGE},
], ids=lambda options: "+".join(options) or "plain")  # fmt: skip
def test_similarity_is_the_distance_of_every_pair(options):
    expected = loops.similarity(QUERY, KEY, options.get("selection"), options.get("shrinkage"))
    np.testing.assert_allclose(_scores(**options), expected, atol=1e-5)


def test_the_term_of_the_query_counts_where_shrinkage_varies():
    """Without it each score would be larger by `s_i sum_c e_jc q_jc^2 / sqrt(C)`, of which a softmax takes no notice
    as long as all `s_i` are one."""
    dropped = np.sum(SELECTION * QUERY**2, axis=1, keepdims=True) / np.sqrt(C)
    kept = loops.softmax(_scores(selection=SELECTION), ALL)
    np.testing.assert_allclose(loops.softmax(_scores(selection=SELECTION) + dropped, ALL), kept, atol=1e-6)
    scores = _scores(selection=SELECTION, shrinkage=SHRINKAGE)
    assert np.abs(loops.softmax(scores + SHRINKAGE * dropped, ALL) - loops.softmax(scores, ALL)).max() > 0.05


def test_similarity_of_half_precision_is_computed_in_single():
    half = [jnp.array(x, jnp.bfloat16) for x in (QUERY, KEY)]
    scores = similarity(Keys(half[0]), Keys(half[1]))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, loops.similarity(*(np.asarray(x, np.float32) for x in half)), atol=1e-5)


@pytest.mark.parametrize("top_k", [None, 1, 3, N, N + 5])
@pytest.mark.parametrize("valid", [ALL, SOME, np.stack([SOME, ~SOME]), np.stack([SOME, ~ALL]), np.stack([SOME, SOME])],
                         ids=["all", "some", "each-its-own", "one-unknown", "alike"])  # fmt: skip
def test_reading_is_a_softmax_over_the_best_that_are_valid(valid, top_k):
    found, usage = _read(SCORES, valid, top_k=top_k)
    known = np.broadcast_to(valid, (K, N))
    expected, expected_usage = loops.read(SCORES, VALUES, known, top_k)
    spoken = known.any(axis=1)
    np.testing.assert_allclose(found[spoken], expected[spoken], atol=1e-5)
    np.testing.assert_allclose(usage, expected_usage, atol=1e-5)
    np.testing.assert_allclose(usage.sum(), Q, rtol=1e-5)
    assert np.all(usage[~known.any(axis=0)] == 0)


@pytest.mark.parametrize("top_k", [None, 3])
def test_objects_with_their_own_frames_are_read_as_if_alone(top_k):
    valid = np.stack([SOME, ALL])
    together, _ = _read(SCORES, valid, top_k=top_k)
    for o in range(K):
        alone, _ = _read(SCORES, valid[o], values=VALUES[o : o + 1], top_k=top_k)
        np.testing.assert_allclose(together[o], alone[0], atol=1e-6)


def test_asking_for_as_many_as_there_are_is_the_full_softmax():
    np.testing.assert_array_equal(_read(SCORES, SOME, top_k=N)[0], _read(SCORES, SOME)[0])
    np.testing.assert_allclose(_read(SCORES, SOME, top_k=int(SOME.sum()))[0], _read(SCORES, SOME)[0], atol=1e-6)


@pytest.mark.parametrize("top_k", [None, 2])
def test_huge_scores_do_not_overflow(top_k):
    for scores in (1e4 * SCORES, -1e4 * SCORES, SCORES + 1e6):
        found, _ = _read(scores, SOME, top_k=top_k)
        expected, _ = loops.read(np.float32(scores), VALUES, np.stack([SOME, SOME]), top_k)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("top_k", [None, 3])
def test_what_invalid_entries_hold_does_not_matter(top_k):
    scores, values = SCORES.copy(), VALUES.copy()
    scores[:, ~SOME], values[:, ~SOME] = 1e9, 1e9
    found, _ = _read(scores, SOME, values=values, top_k=top_k)
    np.testing.assert_array_equal(found, _read(SCORES, SOME, top_k=top_k)[0])


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("valid", [~ALL, np.stack([~ALL, ~ALL]), np.stack([SOME, ~ALL])],
                         ids=["nobody", "nobody-each", "one"])  # fmt: skip
def test_without_anything_valid_the_answer_is_zero_and_gradients_are_finite(valid, top_k):
    def total(scores, values):
        return jnp.sum(read_memory(scores, values, valid=jnp.array(valid), top_k=top_k).values ** 2 + 1)

    gradients = jax.jit(jax.grad(total, (0, 1)))(jnp.array(SCORES, jnp.float32), jnp.array(VALUES))
    assert all(np.isfinite(x).all() for x in gradients)
    found, usage = _read(SCORES, valid, top_k=top_k)
    assert np.isfinite(found).all() and np.isfinite(usage).all()
    if not valid.any():
        assert np.all(found == 0) and np.all(usage == 0) and all(np.all(x == 0) for x in gradients)
    else:
        assert all(np.any(x != 0) for x in gradients)


def test_the_gradient_of_reading_is_that_of_the_loop():
    def total(scores):
        return jnp.sum(read_memory(scores, jnp.array(VALUES), valid=jnp.array(SOME), top_k=3).values ** 2)

    gradient = np.asarray(jax.jit(jax.grad(total))(jnp.array(SCORES, jnp.float32)))
    for j, i in [(0, 0), (1, 2), (4, 5), (3, 1)]:
        up, down = SCORES.copy(), SCORES.copy()
        up[j, i], down[j, i] = up[j, i] + 1e-5, down[j, i] - 1e-5
        slopes = [np.sum(loops.read(x, VALUES, np.stack([SOME, SOME]), 3)[0] ** 2) for x in (up, down)]
        np.testing.assert_allclose(gradient[j, i], (slopes[0] - slopes[1]) / 2e-5, atol=1e-3)
