"""Long-term memory of fixed arrays against lists of entries, over many frames and evictions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import space_time as loops

from jaxvos.errors import InputError
from jaxvos.ops import Keys, read_memory, similarity
from jaxvos.systems import LongTermConfig
from jaxvos.systems._frame_memory import empty_memory, write_frame
from jaxvos.systems._long_term import consolidate, empty_long_term, forget_prototypes

P, C, D, K, FRAMES = 6, 3, 2, 2, 5
CONFIG = LongTermConfig(min_frames=2, prototypes=3, capacity=12)


def _empty(config=CONFIG):
    look = Keys(jnp.zeros((P, C)), jnp.ones(P), jnp.zeros((P, C)))
    frames = empty_memory(FRAMES, look, num_objects=K, value_width=D)
    return frames, empty_long_term(config, frames)


def _step(frames, long, query, keys, values, alive, number, pinned):
    """Reads both memories, notes what was read, and writes the frame: the fold's order."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), frames.keys._replace(selection=None))
    flat = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), flat, long.keys)
    stored = jnp.concatenate([frames.values.reshape(K, -1, D), long.values], axis=1)
    valid = jnp.concatenate([jnp.repeat(frames.valid, P, axis=1), long.valid], axis=1)
    found = read_memory(similarity(query, flat), stored, valid=valid)
    usage = found.usage[: frames.usage.size].reshape(frames.usage.shape)
    frames = frames._replace(usage=frames.usage + usage, life=frames.life + 1)
    long = long._replace(usage=long.usage + found.usage[frames.usage.size :], life=long.life + 1)
    frames = write_frame(frames, keys, values, alive=alive, number=number, pinned=pinned)
    return found.values, *consolidate(frames, long, config=CONFIG)


_jitted_step = jax.jit(_step)
_consolidate = jax.jit(consolidate, static_argnames="config")


def _draw(rng):
    """Key, shrinkage and selection of a frame or of queries."""
    draw = rng.normal(size=(P, C)), rng.uniform(1, 3, P), rng.uniform(size=(P, C))
    return [x.astype(np.float32) for x in draw]


def _in_order(keys, *others):
    order = np.lexsort(np.asarray(keys).T)
    return [np.asarray(x)[order] for x in (keys, *others)]


def _compare(long, expected):
    """The same prototypes, in whatever places."""
    used = np.asarray(long.used)
    assert used.sum() == len(expected) <= CONFIG.capacity
    assert not np.asarray(long.valid)[:, ~used].any()
    if not expected:
        return
    of_long = _in_order(np.asarray(long.keys.key)[used], np.asarray(long.keys.shrinkage)[used],
                        np.asarray(long.valid).T[used], np.asarray(long.usage)[used],
                        np.moveaxis(np.asarray(long.values), 1, 0)[used])  # fmt: skip
    of_list = _in_order(np.stack([x.key for x in expected]), [x.shrinkage for x in expected],
                        [x.known for x in expected], [x.usage for x in expected],
                        np.stack([x.values for x in expected]))  # fmt: skip
    for ours, theirs in zip(of_long[:-1], of_list[:-1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    known = of_list[2]
    np.testing.assert_allclose(of_long[-1][known], of_list[-1][known], atol=1e-5)


@pytest.mark.parametrize("pinned_frames", [(0, 70), (0, 70, 80, 90, 100)], ids=["two", "as-many-as-fit"])
def test_two_hundred_frames_equal_the_lists(pinned_frames):
    """The second object is born on frame 70; entries of before say nothing of it."""
    rng = np.random.default_rng(0)
    frames, long = _empty()
    lists = loops.XMemory(FRAMES, CONFIG.min_frames, CONFIG.prototypes, CONFIG.capacity)
    evictions = 0
    for number in range(200):
        query, _, e = _draw(rng)
        key, s, own = _draw(rng)
        values = rng.normal(size=(K, P, D)).astype(np.float32)
        alive, pinned = np.array([True, number >= 70]), number in pinned_frames
        found, frames, long = _jitted_step(
            frames, long, Keys(jnp.array(query), None, jnp.array(e)),
            Keys(jnp.array(key), jnp.array(s), jnp.array(own)), jnp.array(values),
            jnp.array(alive), jnp.int32(number), jnp.array(pinned),
        )  # fmt: skip
        expected = lists.read(query, e, K, D)
        spoken = 1 + (number > 70)
        np.testing.assert_allclose(found[:spoken], expected[:spoken], atol=1e-5)
        before = list(lists.long)
        lists.write([loops.Entry(key[i], s[i], own[i], values[:, i], alive) for i in range(P)], pinned)
        evictions += len([entry for entry in before if entry not in lists.long])
        _compare(long, lists.long)
        np.testing.assert_array_equal(np.asarray(frames.written >= 0).sum(), len(lists.working))
    assert evictions > 100
    assert np.asarray(long.valid)[1].any() and np.asarray(frames.pinned).sum() == min(len(pinned_frames), FRAMES - 1)


def _full(*, usage, written=(0, 1, 2, 3, 4), pinned=(True, False, False, False, False)):
    rng = np.random.default_rng(1)
    frames, _ = _empty()
    draw = lambda x: jnp.array(rng.uniform(1, 2, x.shape), jnp.float32)  # noqa: E731
    return frames._replace(
        keys=jax.tree.map(draw, frames.keys), values=draw(frames.values), valid=jnp.ones((K, FRAMES), bool),
        written=jnp.array(written, jnp.int32), pinned=jnp.array(pinned), usage=jnp.array(usage, jnp.float32),
        life=jnp.ones(FRAMES),
    )  # fmt: skip


def _long(usage):
    long = _empty()[1]
    used = jnp.arange(CONFIG.capacity) < len(usage)
    padded = jnp.zeros(CONFIG.capacity).at[: len(usage)].set(jnp.array(usage, jnp.float32))
    key = jnp.arange(CONFIG.capacity * C, dtype=jnp.float32).reshape(-1, C)
    keys = long.keys._replace(key=key, shrinkage=jnp.ones(CONFIG.capacity))
    valid = jnp.broadcast_to(used, (K, CONFIG.capacity))
    return long._replace(keys=keys, valid=valid, used=used, usage=padded, life=jnp.ones(CONFIG.capacity))


USAGE = np.random.default_rng(2).uniform(size=(FRAMES, P))


def test_the_most_read_for_each_frame_of_their_life_become_prototypes():
    frames = _full(usage=USAGE, written=(0, 4, 2, 1, 3))  # the ring has turned: frame 4, in slot 1, is the latest
    frames = frames._replace(life=jnp.array([1.0, 1, 2, 8, 3]))
    left, long = _consolidate(frames, _empty()[1], config=CONFIG)
    rate = USAGE[2:] / np.array([2.0, 8, 3])[:, None]
    best = np.argsort(-rate.ravel())[:3]
    keys = np.asarray(frames.keys.key)[2:].reshape(-1, C)[best]
    np.testing.assert_array_equal(_in_order(np.asarray(long.keys.key)[np.asarray(long.used)])[0], _in_order(keys)[0])
    np.testing.assert_array_equal(left.written, [0, 4, -1, -1, -1])
    np.testing.assert_array_equal(left.valid, [[True, True, False, False, False]] * K)


@pytest.mark.parametrize(("usage", "stay"), [
    ([3, 1, 2, 4, 5, 6, 7, 8, 9], 9),  # as many as leave room
    ([3, 1, 2, 4, 5, 6, 7, 8, 9, 10], 9),
    ([3, 1, 2, 1, 5, 6, 7, 8, 9, 10], 8),  # two tie for the last place, and both go
    ([1] * 12, 0),
])  # fmt: skip
def test_the_least_read_go_and_those_that_tie_with_the_last(usage, stay):
    long = _long(usage)
    _, after = _consolidate(_full(usage=USAGE), long, config=CONFIG)
    kept = np.flatnonzero([np.any(np.all(np.asarray(after.keys.key)[np.asarray(after.used)] == key, axis=1))
                           for key in np.asarray(long.keys.key)[: len(usage)]])  # fmt: skip
    assert len(kept) == stay and int(after.used.sum()) == stay + CONFIG.prototypes
    gone = np.setdiff1d(np.arange(len(usage)), kept)
    assert not stay or not len(gone) or max(usage[i] for i in gone) < min(usage[i] for i in kept)


def test_a_memory_with_room_stays_as_it_is():
    frames, long = _full(usage=USAGE, written=(0, 1, -1, 2, 3)), _long([1.0, 2])
    after = _consolidate(frames, long, config=CONFIG)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after, (frames, long)))


def test_where_all_frames_are_pinned_nothing_is_evicted_for_nothing():
    frames, long = _full(usage=USAGE, pinned=(True,) * FRAMES), _long(range(12))
    after = _consolidate(frames, long, config=CONFIG)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after, (frames, long)))


def test_however_many_are_pinned_the_oldest_other_becomes_prototypes():
    config = dataclasses.replace(CONFIG, min_frames=4)
    frames = _full(usage=USAGE, pinned=(True, True, False, True, False))
    left, long = _consolidate(frames, _empty()[1], config=config)
    np.testing.assert_array_equal(left.written, [0, 1, -1, 3, 4])
    assert int(long.used.sum()) == 3


def test_an_object_that_no_competitor_knows_is_in_no_prototype():
    frames = _full(usage=USAGE)
    valid = frames.valid.at[1].set(jnp.array([False, False, False, True, True]))
    _, both = _consolidate(frames, _empty()[1], config=CONFIG)
    left, long = _consolidate(frames._replace(valid=valid), _empty()[1], config=CONFIG)
    np.testing.assert_array_equal(left.written, [0, -1, -1, -1, 4])
    assert np.asarray(long.valid)[0].sum() == 3 and np.asarray(long.valid)[1].sum() == 3  # of frame 3 alone
    np.testing.assert_allclose(long.values[0], both.values[0], atol=1e-6)
    known = np.asarray(long.valid)[1]
    third = np.asarray(frames.values)[1, 3]
    assert np.all(np.asarray(long.values)[1, known] <= third.max(axis=0) + 1e-6)
    valid = valid.at[1, 3].set(False)
    _, long = _consolidate(frames._replace(valid=valid), _empty()[1], config=CONFIG)
    assert not np.asarray(long.valid)[1].any() and np.isfinite(long.values).all()


def test_entries_that_say_nothing_of_anybody_make_room():
    long = _long(range(4))
    long = long._replace(valid=long.valid.at[1, 2:].set(False))
    after = forget_prototypes(long, jnp.array([True, False]))
    assert not np.asarray(after.valid)[0].any()
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(after.valid)[1]), [0, 1])
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(after.used)), [0, 1])


@pytest.mark.parametrize("options", [
    {"min_frames": 0}, {"prototypes": 0}, {"prototypes": 13, "capacity": 12},
], ids=str)  # fmt: skip
def test_sizes_that_make_no_sense_are_named(options):
    with pytest.raises(InputError, match="long-term memory of"):
        LongTermConfig(**options)
