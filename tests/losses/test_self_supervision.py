"""Losses of frames without labels against loops over places and frames, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import propagation as loops

from jaxvos.losses import cycle_consistency, reconstruction_loss

T, P, C = 4, 6, 5
RNG = np.random.default_rng(0)


def _unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


KEYS = _unit(RNG.normal(size=(T, P, C)))
COLOURS = RNG.random((T, P, 2)).astype(np.float32)
PLACES = _unit(np.eye(P))  # one key for each place, orthogonal to all others


def _reconstruction(keys=KEYS, colours=COLOURS, **options):
    keys, colours = jnp.asarray(keys), jnp.asarray(colours)
    return reconstruction_loss(keys[-1], keys[:-1], colours[-1], colours[:-1], **options)


def _reconstruction_by_loops(temperature, delta):
    found = loops.propagate(
        KEYS[-1], KEYS[:-1], COLOURS[None, :-1], size=(1, P), valid=np.ones((1, T - 1), bool), far=np.zeros(T - 1),
        temperature=temperature, top_k=None, radius=None)[0]  # fmt: skip
    losses = []
    for place in np.ndindex(found.shape):
        distance = abs(found[place] - COLOURS[-1][place])
        losses.append(0.5 * distance**2 / delta if distance < delta else distance - 0.5 * delta)
    return np.mean(losses)


@pytest.mark.parametrize(("temperature", "delta"), [(0.05, 0.1), (0.5, 0.1), (0.5, 0.3), (0.5, 2.0)])
def test_reconstruction_is_a_huber_distance_from_the_average(temperature, delta):
    found = _reconstruction(temperature=temperature, delta=delta)
    assert found == pytest.approx(_reconstruction_by_loops(temperature, delta), rel=1e-4)


def test_reconstruction_by_default():
    assert _reconstruction() == pytest.approx(_reconstruction_by_loops(0.05, 0.1), rel=1e-4)


def test_colours_are_found_again_by_keys_that_tell_places_apart():
    """Each reference holds the colours in an order of its own, and the keys know it."""
    orders = np.stack([RNG.permutation(P) for _ in range(T)])
    colours = COLOURS[0][orders]
    assert _reconstruction(PLACES[orders], colours) < 1e-6
    equal = np.ones_like(PLACES[orders]) / np.sqrt(P)
    assert _reconstruction(equal, colours) > 0.05


def _walk_by_loops(keys, temperature, missing=None):
    """`missing` are the edges that are not there, of each step."""
    path = [*range(len(keys)), *range(len(keys) - 2, -1, -1)]
    chances = np.zeros((P, P))
    for start in range(P):
        here = np.eye(P)[start]
        for number, (a, b) in enumerate(zip(path, path[1:], strict=False)):
            there = np.zeros(P)
            for i in range(P):
                scores = np.array([np.dot(keys[a, i].astype(float), keys[b, j].astype(float)) for j in range(P)])
                e = np.exp((scores - scores.max()) / temperature)
                e[missing[number][i] if missing is not None else []] = 0
                there += here[i] * e / e.sum()
            here = there
        chances[start] = here
    return -np.mean(np.log(np.diag(chances)))


@pytest.mark.parametrize("frames", [1, 2, T])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_cycle_consistency_is_the_chance_to_come_back(key, frames, temperature):
    found = cycle_consistency(key, jnp.asarray(KEYS[:frames]), temperature=temperature, dropout=0.0)
    assert found == pytest.approx(_walk_by_loops(KEYS[:frames], temperature), rel=1e-4, abs=1e-6)


def test_walks_come_back_where_keys_tell_places_apart(key):
    orders = np.stack([RNG.permutation(P) for _ in range(T)])
    assert cycle_consistency(key, jnp.asarray(PLACES[orders]), dropout=0.0) < 1e-5


def test_places_that_are_all_alike_are_found_by_chance(key):
    same = jnp.ones((T, P, 1))
    assert cycle_consistency(key, same, dropout=0.0) == pytest.approx(np.log(P), rel=1e-5)
    assert cycle_consistency(key, jnp.asarray(KEYS), dropout=1.0) == pytest.approx(np.log(P), rel=1e-5)


def test_dropout_takes_edges_out_of_the_walk(key):
    missing = np.stack([jax.random.bernoulli(each, 0.3, (P, P)) for each in jax.random.split(key, 2 * T - 2)])
    assert 0.1 < missing.mean() < 0.5 and not missing.all(axis=-1).any()
    found = cycle_consistency(key, jnp.asarray(KEYS), temperature=0.5, dropout=0.3)
    assert found == pytest.approx(_walk_by_loops(KEYS, 0.5, missing), rel=1e-4)
    losses = {float(cycle_consistency(each, jnp.asarray(KEYS))) for each in jax.random.split(key, 4)}
    whole = {float(cycle_consistency(each, jnp.asarray(KEYS), dropout=0.0)) for each in jax.random.split(key, 4)}
    assert len(losses) == 4 and len(whole) == 1


@pytest.mark.parametrize("keys", [KEYS, np.ones_like(KEYS), np.tile(PLACES, (T, 1, 1))], ids=["any", "equal", "apart"])
def test_gradients_are_finite(key, keys):
    """And they are not nothing, where there is something to learn."""
    graded = jax.grad(lambda x: cycle_consistency(key, x) + _reconstruction(x))(jnp.asarray(keys))
    assert np.isfinite(graded).all() and np.abs(graded).max() > 0


def test_both_losses_teach():
    """A few steps of descent from keys that know nothing lower them."""
    total = lambda x: cycle_consistency(jax.random.key(0), x, dropout=0.0) + _reconstruction(x)  # noqa: E731
    step = jax.jit(lambda x: x - 0.02 * jax.grad(total)(x))
    x = jnp.asarray(KEYS)
    for _ in range(30):
        x = step(x)
        x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    assert total(x) < 0.5 * total(jnp.asarray(KEYS))
