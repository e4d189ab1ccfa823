"""The ring of frames against a list that grows: what is read, and what is forgotten."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import space_time as loops

from jaxvos.ops import Keys, read_memory, similarity
from jaxvos.systems._frame_memory import empty_memory, forget_objects, write_frame, write_spare

P, C, D, K = 4, 3, 2, 2
EVERYONE = (True, True)


@functools.cache
def _frame(number):
    rng = np.random.default_rng(number)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return draw(P, C), draw(K, P, D)


def _empty(num_frames, **options):
    return empty_memory(num_frames, Keys(jnp.zeros((P, C))), num_objects=K, value_width=D, **options)


_write = jax.jit(write_frame)
_write_spare = jax.jit(write_spare)


def _put(memory, number, *, alive=EVERYONE, pinned=False):
    keys, values = _frame(number)
    return _write(memory, Keys(jnp.array(keys)), jnp.array(values), alive=jnp.array(alive), number=jnp.int32(number),
                  pinned=jnp.array(pinned))  # fmt: skip


def _there(memory):
    """Numbers of the frames that hold something, with what they hold checked."""
    numbers = []
    for slot in np.flatnonzero(np.asarray(memory.valid).any(axis=0)):
        number = int(memory.written[slot])
        keys, values = _frame(number)
        np.testing.assert_array_equal(memory.keys.key[slot], keys)
        np.testing.assert_array_equal(memory.values[:, slot], values)
        numbers.append(number)
    return sorted(numbers)


@functools.partial(jax.jit, static_argnames="top_k")
def _read(memory, query, *, top_k=None):
    keys = Keys(memory.keys.key.reshape(-1, C))
    valid = jnp.repeat(memory.valid, P, axis=1)
    return read_memory(similarity(Keys(query), keys), memory.values.reshape(K, -1, D), valid=valid, top_k=top_k).values


@pytest.mark.parametrize("top_k", [None, 5])
def test_a_ring_that_is_large_enough_reads_as_a_list_that_grows(top_k):
    """The second object is known from the fourth frame on."""
    memory, keys, values, known = _empty(12), [], [], []
    for number in range(10):
        alive = (True, number >= 3)
        memory = _put(memory, 5 * number, alive=alive, pinned=number in (0, 3))
        key, value = _frame(5 * number)
        keys, values = [*keys, key], [*values, value]
        known.append(np.repeat(np.array(alive)[:, None], P, axis=1))
        query = _frame(100 + number)[0]
        expected, _ = loops.read(loops.similarity(query, np.concatenate(keys)), np.concatenate(values, axis=1),
                                 np.concatenate(known, axis=1), top_k)  # fmt: skip
        spoken = 1 + alive[1]
        np.testing.assert_allclose(_read(memory, query, top_k=top_k)[:spoken], expected[:spoken], atol=1e-5)


def test_the_oldest_that_is_not_pinned_goes():
    memory = _empty(4)
    for number in range(9):
        memory = _put(memory, number, pinned=number in (0, 2))
        expected = [0, 2, number - 1, number] if number > 3 else range(number + 1)
        assert _there(memory) == list(expected)


def test_where_all_are_pinned_the_oldest_goes():
    memory = _empty(3)
    for number in range(4):
        memory = _put(memory, number, pinned=True)
    assert _there(memory) == [1, 2, 3]
    memory = _put(_put(memory, 4), 5)  # the one that is not pinned makes room from now on
    assert _there(memory) == [2, 3, 5]


def test_a_new_frame_has_not_been_read():
    memory = _empty(2)
    memory = memory._replace(usage=memory.usage + 3, life=memory.life + 2)
    memory = _put(memory, 0)
    np.testing.assert_array_equal(memory.usage[0], 0)
    np.testing.assert_allclose(memory.life, [1e-7, 2])
    np.testing.assert_array_equal(memory.usage[1], 3)


def test_the_spare_slot_is_written_by_itself_alone():
    memory = _empty(2, spare=True)
    assert memory.values.shape == (K, 3, P, D)
    keys, values = _frame(50)
    memory = _write_spare(memory, Keys(jnp.array(keys)), jnp.array(values), jnp.array(EVERYONE))
    for number in range(5):
        memory = _put(memory, number, pinned=number == 0)
        np.testing.assert_array_equal(memory.keys.key[-1], keys)
        np.testing.assert_array_equal(memory.valid[:, -1], True)
        assert {int(x) for x in memory.written[:2]} <= {-1, *range(5)}
    assert {int(x) for x in memory.written[:2]} == {0, 4}
    for number in range(5, 8):
        memory = _put(memory, number, pinned=True)  # however many are
        np.testing.assert_array_equal(memory.keys.key[-1], keys)
    memory = _write_spare(memory, Keys(jnp.array(keys)), jnp.array(values), jnp.array([False, False]))
    np.testing.assert_array_equal(memory.valid[:, -1], False)
    assert _there(memory._replace(valid=memory.valid.at[:, -1].set(False))) == [6, 7]


def test_an_object_that_is_forgotten_leaves_the_other_as_it_is():
    memory = _put(_put(_empty(3), 0, pinned=True), 1)
    query = _frame(100)[0]
    before = _read(memory, query)
    memory = forget_objects(memory, jnp.array([False, True]))
    np.testing.assert_array_equal(memory.valid, [[True, True, False], [False] * 3])
    np.testing.assert_allclose(_read(memory, query)[0], before[0], atol=1e-6)
    assert _there(memory) == [0, 1]


def test_frames_that_nobody_is_known_in_make_room_even_if_pinned():
    """Objects that come, are marked and go would otherwise leave a memory full of frames that nobody reads."""
    memory = _empty(3, spare=True)
    for number in range(3):
        memory = forget_objects(_put(memory, number, alive=(True, False), pinned=True), jnp.array([True, False]))
    for number in range(3, 6):
        memory = _put(memory, number)
    assert _there(memory) == [3, 4, 5]
    memory = forget_objects(memory, jnp.array([True, True]))
    np.testing.assert_array_equal(memory.pinned, [False, False, False, True])
    np.testing.assert_array_equal(memory.written[:3], -1)
    assert memory.written[3] > 1 << 24  # the spare slot stays outside the ring
