"""The fold with space-time memory, by a net that follows colours: what is remembered, told, removed and answered."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import toy_space_time as toys
from reference.space_time import GrowingList
from reference.toy_space_time import frame, image, mask, place, resident_bytes, run, stack, toy

from jaxvos.errors import InputError
from jaxvos.inference import fold_clip, jitted_predict
from jaxvos.ops import resize
from jaxvos.system import Frame
from jaxvos.systems import LongTermConfig, MemoryConfig

NOTHING = mask(0)
LONG = LongTermConfig(min_frames=2, prototypes=4, capacity=12)
# every kind of memory once, compiled once for the file
STCN = toy(frames=4, top_k=8)
LAST = toy(frames=4, include_last=True, long_term=LONG)
XMEM = toy(frames=4, hidden=2, long_term=LONG)
KINDS = pytest.mark.parametrize("system", [STCN, LAST, XMEM], ids=["stcn", "include_last", "xmem"])


def _share(masks, t, value, slot=None):
    """Mean probability of an object where it is on frame t."""
    return masks[place(value, t)][..., slot or value].mean()


@pytest.mark.parametrize("options", [
    {}, {"top_k": 5}, {"every": 3, "include_last": True}, {"hidden": 2}, {"hidden": 2, "every": 1, "top_k": 7},
], ids=str)  # fmt: skip
def test_a_ring_that_is_long_enough_equals_a_list_that_grows(options):
    images = [image(t, 1, 2) for t in range(7)]
    found, _ = run(toy(**options), [Frame(jnp.array(x)) for x in images], masks=mask(0, 1, 2))
    upsample = lambda x: np.asarray(resize(jnp.array(x, jnp.float32), toys.SIZE), float)  # noqa: E731
    expected = GrowingList(**{"every": 2, **options}).run(images, mask(0, 1, 2), upsample)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.1 < np.abs(found[1:] - found[:1]).max()  # the objects move


def _events():
    """Objects are told, corrected, removed, and told in the slot of another."""
    return [
        frame(0, 1, 2), frame(1, 1, 2), frame(2, 1, 2, told=(2,)), frame(3, 1, 2), frame(4, 1, 2, told=(1,)),
        frame(5, 1, 2, alive=(True, False, True)), frame(6, 1, 2), frame(7, 1, 2, told=(2,), into=1,
        alive=(True, True, False)), frame(8, 1, 2), *(frame(t, 1, 2) for t in range(9, 14)),
    ]  # fmt: skip


@KINDS
def test_the_scan_equals_the_stream_and_one_trace_serves_all_events(system):
    streamed, memory = run(system, _events(), masks=mask(0, 1))
    last, scanned = jax.jit(functools.partial(fold_clip, system, {}))(stack(_events()), masks=jnp.array(mask(0, 1)))
    np.testing.assert_allclose(scanned.masks, streamed, atol=1e-5)
    np.testing.assert_allclose(streamed.sum(axis=-1), 1, atol=1e-5)
    for scan, stream in zip(jax.tree.leaves(last), jax.tree.leaves(memory), strict=True):
        np.testing.assert_allclose(scan, stream, atol=1e-4)
    assert jitted_predict(system)._cache_size() == 1


@KINDS
def test_the_fold_can_be_differentiated(system):
    frames = stack(_events())

    def total(images):
        return jnp.sum(fold_clip(system, {}, frames._replace(image=images), masks=jnp.array(mask(0, 1)))[1].masks ** 2)

    gradient = jax.jit(jax.grad(total))(frames.image)
    assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() > 0  # through the memory, to the first frame


@KINDS
def test_memory_never_changes_its_shape(system):
    first = frame(0, 1)
    memory = jax.eval_shape(system.start, {}, first, jnp.array(mask(0, 1)))
    after, _ = jax.eval_shape(system.predict, {}, memory, first)
    assert jax.tree.structure(memory) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(memory), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


@KINDS
def test_what_is_told_is_answered_and_followed(system):
    frames = [frame(t, 1, 2, told=(2,) if t == 3 else ()) for t in range(8)]
    found, _ = run(system, frames, masks=mask(0, 1))
    np.testing.assert_array_equal(found[0], mask(0, 1))
    np.testing.assert_array_equal(found[3][..., 2], mask(3, 2)[..., 2])
    assert np.all(found[:3, ..., 2] == 0)
    for t in range(1, 8):
        assert _share(found[t], t, 1) > 0.9 and (t < 3 or _share(found[t], t, 2) > 0.9)
        assert found[t][..., 0].mean() > (0.75 if t < 3 else 0.7)  # the rest is background


@KINDS
def test_a_removed_object_is_gone_at_once_and_the_other_stays(system):
    frames = [frame(t, 1, 2, alive=(True, t != 4, True)) for t in range(8)]
    found, memory = run(system, frames, masks=mask(0, 1, 2))
    assert all(_share(found[t], t, 1) > 0.9 for t in range(4)) and np.all(found[4:, ..., 1] == 0)
    assert all(_share(found[t], t, 2) > 0.9 for t in range(8))
    np.testing.assert_array_equal(memory.alive, [False, True])
    assert not np.asarray(memory.frames.valid)[0].any()


@KINDS
@pytest.mark.parametrize("gap", [0, 2])
def test_a_slot_that_is_told_another_object_has_nothing_of_the_old_one(system, gap):
    """As if the old one had never been: red is removed on frame 9, blue is told in its slot."""
    frames = [frame(t, 1, 2, told=(2,) if t == 9 + gap else (), into=1, alive=(True, t != 9, True)) for t in range(20)]
    found, _ = run(system, frames, masks=mask(0, 1))
    expected, _ = run(system, frames, masks=NOTHING)
    assert _share(found[8], 8, 1) > 0.9 and np.all(expected[: 9 + gap, ..., 0] == 1)
    np.testing.assert_allclose(found[9:], expected[9:], atol=1e-5)
    assert _share(found[19], 19, 2, slot=1) > 0.9 and _share(found[19], 19, 1) < 0.1


def test_what_was_read_of_each_entry_is_noted():
    """Twelve places ask on every frame but the first; the third frame is remembered, and read from the fourth on."""
    for count, usage, life in [(3, [24, 0], [2, 0]), (4, None, [3, 1])]:
        _, memory = run(XMEM, [frame(t, 1, 2) for t in range(count)], masks=mask(0, 1, 2))
        noted = np.asarray(memory.frames.usage)[:2].sum(axis=1)
        np.testing.assert_allclose(memory.frames.life[:2], life, atol=1e-5)
        np.testing.assert_allclose(noted.sum(), 12 * (count - 1), rtol=1e-5)
        assert usage is None or noted == pytest.approx(usage, rel=1e-5)


@pytest.mark.parametrize("system", [STCN, XMEM], ids=["stcn", "xmem"])
def test_nothing_stays_in_memory_when_all_objects_are_removed(system):
    _, memory = run(system, [frame(t, 1, 2, alive=(True, t != 14, t != 14)) for t in range(15)], masks=mask(0, 1, 2))
    assert np.all(np.asarray(memory.frames.written) == -1) and not np.asarray(memory.frames.valid).any()
    assert memory.long is None or not (np.asarray(memory.long.valid).any() or np.asarray(memory.long.used).any())
    assert memory.hidden is None or not np.asarray(memory.hidden).any()


@KINDS
def test_nothing_told_until_a_frame_equals_starting_there(system):
    late = [frame(t, 1, 2, told=(1, 2) if t == 3 else ()) for t in range(9)]
    found, _ = run(system, late, masks=NOTHING)
    expected, _ = run(system, [frame(t, 1, 2) for t in range(3, 9)], masks=mask(3, 1, 2))
    assert np.all(found[:3, ..., 0] == 1)
    np.testing.assert_allclose(found[3:], expected, atol=1e-5)


@KINDS
def test_a_mask_on_the_first_frame_is_as_one_given_to_start(system):
    frames = [frame(0, 1, 2, told=(1, 2)), frame(1, 1, 2), frame(2, 1, 2)]
    found, _ = run(system, frames, masks=NOTHING)
    expected, _ = run(system, [frame(t, 1, 2) for t in range(3)], masks=mask(0, 1, 2))
    np.testing.assert_array_equal(found, expected)


@KINDS
def test_slots_without_an_object_change_nothing(system):
    few = [frame(t, 1, slots=2) for t in range(6)]
    many = [frame(t, 1) for t in range(6)]
    found, _ = run(system, few, masks=mask(0, 1, slots=2))
    padded, _ = run(system, many, masks=mask(0, 1, into=2))
    np.testing.assert_allclose(padded[..., [0, 2]], found, atol=1e-5)
    assert np.all(padded[..., 1] == 0)


@KINDS
def test_an_object_that_was_away_for_a_hundred_frames_is_still_known(system):
    frames = [frame(t, *((1, 2) if t < 2 or t > 101 else (2,))) for t in range(104)]
    found, _ = run(system, frames, masks=mask(0, 1, 2))
    assert all(found[t][..., 1].max() < 0.2 for t in range(3, 102))
    assert _share(found[103], 103, 1) > 0.9


def test_objects_that_come_and_go_do_not_use_up_the_memory():
    """Each is marked on a frame of its own, and more often than there are frames in memory."""
    frames = []
    for t in range(0, 24, 2):
        value = 1 + t // 2 % 2
        frames += [frame(t, 1, 2, told=(value,), into=1, alive=(True, False, True)), frame(t + 1, 1, 2)]
    found, memory = run(STCN, [*frames, *(frame(t, 1, 2) for t in range(24, 33))], masks=NOTHING)
    assert all(_share(found[t + 1], t + 1, 1 + t // 2 % 2, slot=1) > 0.9 for t in range(0, 24, 2))
    assert np.asarray(memory.frames.pinned).sum() == 1
    assert sorted(np.asarray(memory.frames.written)) == [22, 28, 30, 32]


BASE = {"every": 1, "frames": 3, "top_k": 8}
_slow = functools.partial(pytest.param, marks=pytest.mark.slow)
SHORT = LongTermConfig(min_frames=1, prototypes=4, capacity=8)


@functools.cache
def _answer(**options):
    frames = [frame(t, 1, 2) for t in range(12)]
    return run(toy(**{**BASE, **options}), frames, masks=mask(0, 1, 2))[0]


@pytest.mark.parametrize(("option", "base"), [
    ({"every": 2}, {}), ({"frames": 4}, {}), ({"top_k": 3}, {}), ({"top_k": None}, {}), ({"hidden": 1}, {}),
    ({"include_last": True}, {"every": 2}), ({"long_term": SHORT}, {}), ({"short_side": 32}, {}),
    _slow({"long_term": dataclasses.replace(SHORT, min_frames=2)}, {"long_term": SHORT}),
    _slow({"long_term": dataclasses.replace(SHORT, prototypes=2)}, {"long_term": SHORT}),
    _slow({"long_term": dataclasses.replace(SHORT, capacity=20)}, {"long_term": SHORT, "top_k": None}),
], ids=str)  # fmt: skip
def test_every_option_of_memory_changes_the_answer(option, base):
    before, after = _answer(**base), _answer(**{**base, **option})
    assert np.isfinite(after).all() and np.abs(after - before).max() > 1e-5


def test_objects_are_the_same_however_many_are_encoded_side_by_side():
    np.testing.assert_allclose(_answer(slots=1), _answer(), atol=1e-5)
    frames = [frame(t, 1, 2, slots=4) for t in range(4)]  # three objects in groups of two
    found = [run(toy(slots=slots, hidden=1), frames, masks=mask(0, 1, 2, slots=4))[0] for slots in (2, 4)]
    np.testing.assert_allclose(*found, atol=1e-5)
    arguments = ({}, toy().start({}, frame(0), jnp.array(NOTHING)), frame(0))
    one, two = (str(jax.make_jaxpr(toy(slots=slots).predict)(*arguments)) for slots in (1, 2))
    assert one.count("scan[") > two.count("scan[")  # it is heeded


def test_sides_that_are_no_multiple_of_the_stride_are_padded():
    size, pad = (37, 53), ((5, 6), (5, 6), (0, 0))
    images = [image(t, 1, 2)[5:42, 5:58] for t in range(5)]
    first = mask(0, 1, 2)[5:42, 5:58]
    found, _ = run(STCN, [Frame(jnp.array(x)) for x in images], masks=first)
    assert found.shape == (5, *size, 3)
    whole = [Frame(jnp.array(np.pad(x, pad, constant_values=0.5))) for x in images]
    expected, _ = run(STCN, whole, masks=np.pad(first, pad))
    np.testing.assert_allclose(found, expected[:, 5:42, 5:58], atol=1e-5)


@pytest.mark.parametrize("small", [(48, 64), (64, 48)])
def test_large_frames_are_shrunk_and_come_back_at_full_size(small):
    double = lambda x: jnp.array(x.repeat(2, axis=0).repeat(2, axis=1))  # noqa: E731
    frames = [Frame(double(image(t, 1, 2, size=small))) for t in range(3)]
    found, memory = run(toy(short_side=48), frames, masks=double(mask(0, 1, 2, size=small)))
    assert memory.frames.usage.shape[1] == 12  # places of a frame of 48 x 64 pixels
    np.testing.assert_allclose(found[0], double(mask(0, 1, 2, size=small)), atol=1e-6)
    inside = found[2][::2, ::2]
    assert all(inside[place(value, 2, size=small)][..., value].mean() > 0.8 for value in (1, 2))
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


def test_frames_of_any_size_are_answered_at_their_own():
    size = (90, 131)
    first = np.zeros((*size, 3), np.float32)
    first[10:40, 20:70, 1], first[50:, 33:34, 2] = 1, 1
    frames = [Frame(resize(jnp.array(image(t, 1, 2)), size)) for t in range(2)]
    found, memory = run(toy(short_side=48), frames, masks=first)
    assert memory.frames.usage.shape[1] == 15  # 48 x 70, padded to 48 x 80
    np.testing.assert_allclose(found[0][..., 1:], first[..., 1:], atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


def test_without_masks_there_is_nothing_to_follow():
    with pytest.raises(ValueError, match="give their masks on the first frame"):
        STCN.start({}, frame(0))


@pytest.mark.parametrize(("options", "words"), [
    ({"every": 0}, "one in 0"), ({"frames": 0}, "0 frames"), ({"slots": 0}, "0 objects"), ({"top_k": 0}, "top 0"),
    ({"short_side": 15}, "short_side 15"), ({"frames": 5, "long_term": LongTermConfig()}, "min_frames below frames"),
])  # fmt: skip
def test_memories_that_make_no_sense_are_named(options, words):
    with pytest.raises(InputError, match=words):
        MemoryConfig(**options)


@pytest.mark.slow
def test_two_thousand_frames_take_no_more_memory_than_two_hundred():
    frames = [frame(t, 1, 2, told=(1,) if t % 10 == 0 else (), alive=(True, t % 10 != 9, True)) for t in range(20)]
    memory, predict = jax.jit(XMEM.start)({}, frames[0], jnp.array(mask(0, 2))), jitted_predict(XMEM)
    sizes = []
    for t in range(2000):
        memory, prediction = predict({}, memory, frames[t % 20])
        if t in (200, 1999):
            jax.block_until_ready(prediction)
            sizes.append((sum(x.nbytes for x in jax.tree.leaves(memory)), resident_bytes()))
    (bytes_then, resident_then), (bytes_now, resident_now) = sizes
    assert bytes_then == bytes_now and resident_now - resident_then < 20e6
    assert _share(np.asarray(prediction.masks), 19, 2) > 0.9
