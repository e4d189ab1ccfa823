"""Masks on any frame, objects that come and go: `stream` and `Tracker` with a system that follows colours."""

import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.data import Video, write_mask
from jaxvos.errors import InputError
from jaxvos.inference import SegmentedFrame, Tracker, read_told_mask, segment, stream
from jaxvos.inference._objects import Slots, plan_slots
from jaxvos.models import DEFAULT, FIRST_MASK, MATCHER, Model, default_model, load_model
from jaxvos.ops import tell_masks
from jaxvos.results import write_results
from jaxvos.system import Prediction, System

SIZE = (12, 40)
COLOURS = {1: (250, 0, 0), 7: (0, 250, 0), 30: (0, 0, 250), 200: (250, 250, 0), 254: (0, 250, 250)}


def _place(value, t):
    """Of the square of an id on frame t: they move to the right."""
    left = 8 * list(COLOURS).index(value) + t % 3
    return slice(2, 8), slice(left, left + 5)


def _clip(count=6):
    """A square of its own colour for each id."""
    frames = np.full((count, *SIZE, 3), 90, np.uint8)
    for t, value in itertools.product(range(count), COLOURS):
        frames[(t, *_place(value, t))] = COLOURS[value]
    return frames


def _mask(*ids, t=0):
    mask = np.zeros(SIZE, np.uint8)
    for value in ids:
        mask[_place(value, t)] = value
    return mask


class _Memory(NamedTuple):
    colours: Any
    alive: Any
    told: Any  # on the first frame
    first: Any


def _start(variables, frame, masks=None):
    slots = masks.shape[-1]
    return _Memory(jnp.zeros((slots, 3)).at[0].set(90 / 255), jnp.zeros(slots, bool).at[0].set(True), masks, True)


def _predict(variables, memory, frame):
    """A pixel is of the slot whose mean colour, where it was marked, is the nearest."""
    told = jnp.where(memory.first, memory.told, 0)
    if frame.masks is not None:
        told = jnp.where(jnp.any(frame.masks[..., 1:] > 0), frame.masks, told)
    told = told.at[..., 0].set(0)
    area = told.sum((0, 1))
    marked = jnp.einsum("hwk,hwc->kc", told, frame.image) / jnp.maximum(area, 1)[:, None]
    alive = memory.alive & frame.alive
    distance = jnp.linalg.norm(frame.image[:, :, None] - memory.colours, axis=-1)
    found = jax.nn.softmax(jnp.where(alive, -20 * distance, -jnp.inf))
    colours = jnp.where(area[:, None] > 0, marked, memory.colours)
    return _Memory(colours, alive | (area > 0), memory.told, False), Prediction(tell_masks(found, told))


def _model(predict=_predict):
    def unused(*args, **kwargs):
        raise AssertionError

    system = System(unused, unused, predict, _start, needs=("masks",), told_anytime=True)
    return Model("colours", system, {}, None, {})


@pytest.fixture(scope="module")
def model():
    return _model()


def _expected(followed):
    """Masks of the ids that are followed on each frame."""
    return np.stack([_mask(*ids, t=t) for t, ids in enumerate(followed)])


def test_objects_come_and_go(model):
    masks = {1: _mask(7, t=1), 3: _mask(254, 30, t=3)}
    found = segment(_clip(), model=model, masks=masks, removals={4: [7], 5: {30}})
    np.testing.assert_array_equal(found, _expected([(), (7,), (7,), (7, 30, 254), (30, 254), (254,)]))


def test_the_system_is_told_of_what_is_removed(model):
    """Its slot takes no pixel from the others and from the background."""
    found = list(stream(_clip(4), model=model, masks={0: _mask(1, 7)}, removals={2: [7]}))
    assert [frame.foreground[_place(7, t)].min() > 0.5 for t, frame in enumerate(found)] == [True, True, False, False]
    assert [frame.foreground[_place(1, t)].min() > 0.5 for t, frame in enumerate(found)] == [True] * 4


def test_what_was_told_stands_whatever_the_system_says():
    def stubborn(variables, memory, frame):
        return memory, Prediction(jax.nn.one_hot(jnp.full(SIZE, 1), memory.told.shape[-1]))

    found = segment(_clip(3), model=_model(stubborn), masks={0: _mask(1, 7), 1: _mask(1, t=1), 2: _mask(7, t=2)})
    np.testing.assert_array_equal(found[:2], [_mask(1, 7), _mask(1, t=1)])
    np.testing.assert_array_equal(found[2], np.where(_mask(7, t=2) > 0, 7, 1))


def test_a_first_mask_is_the_mask_of_frame_0(model, tmp_path):
    write_mask(tmp_path / "m.png", _mask(1, 200))
    found = segment(_clip(3), model=model, first_mask=_mask(1, 200))
    np.testing.assert_array_equal(found, _expected([(1, 200)] * 3))
    np.testing.assert_array_equal(found, segment(_clip(3), model=model, masks={0: tmp_path / "m.png"}))
    with pytest.raises(InputError, match="two masks for frame 0"):
        stream(_clip(), model=model, first_mask=_mask(1), masks={0: _mask(1)})


def test_a_frame_is_answered_with_what_was_told_and_elsewhere_with_what_was_found(model):
    """A corner of object 1 is given to 30, which is marked where its own square is not."""
    told = np.zeros(SIZE, np.uint8)
    told[2:5, 3:5] = told[9:11, 20:30] = 30
    told[0, :] = 255  # void: nothing is told of it
    found = list(stream(_clip(4), model=model, masks={0: _mask(1, 30), 2: told}))
    expected = _mask(1, t=2)
    expected[told == 30] = 30
    np.testing.assert_array_equal(found[2].mask, expected)
    np.testing.assert_allclose(found[2].foreground[told == 30], 1)
    assert (found[1].mask == 30).sum() == 30 and not (found[3].mask[_place(30, 3)] == 30).any()  # it is corrected


def test_an_id_may_be_given_to_another_object(model):
    """On the frame that the first one is removed, beside one that stays, or later."""
    other = np.where(_mask(30, t=2) > 0, 7, 0)
    both = segment(_clip(4), model=model, masks={0: _mask(1, 7), 2: other}, removals={2: [7]})
    blue = [np.where(_mask(30, t=t) > 0, 7, 0) for t in (2, 3)]
    np.testing.assert_array_equal(both[2:], [np.maximum(_mask(1, t=t), blue[t - 2]) for t in (2, 3)])
    later = segment(_clip(4), model=model, masks={0: _mask(1, 7), 2: other}, removals={1: [7]})
    np.testing.assert_array_equal(later, [_mask(1, 7), _mask(1, t=1), *both[2:]])


def _slots_used(**told):
    """Slots that the memory has in a video."""
    used = []

    def predict(variables, memory, frame):
        used.append(len(memory.alive) - 1)
        return _predict(variables, memory, frame)

    found = segment(_clip(), model=_model(predict), **told)
    assert len(set(used)) == 1
    return used[0], found


def test_slots_are_planned_for_the_most_objects_at_once():
    assert _slots_used(masks={0: _mask(1), 2: _mask(7, 30, t=2), 4: _mask(200, 254, t=4)})[0] == 8
    assert _slots_used(masks={0: _mask(1), 2: _mask(7, t=2)})[0] == 2


def test_slots_of_removed_objects_are_given_to_others():
    masks = {t: _mask(value, t=t) for t, value in enumerate(COLOURS)}
    removals = {t: [list(COLOURS)[t - 2]] for t in range(2, 6)}
    slots, found = _slots_used(masks=masks, removals=removals)
    assert slots == 2
    ids = [0, *COLOURS]
    np.testing.assert_array_equal(found, _expected([ids[max(t, 1) : t + 2] for t in range(6)]))


def test_slots_are_given_in_order_of_appearance():
    slots = Slots((0,) * 3).joined((9, 200)).joined((5,))
    assert slots.ids == (9, 200, 5) and slots.joined((5, 9)) == slots
    assert slots.without([200]).joined((4,)).ids == (9, 4, 5)
    assert slots.palette.tolist() == [0, 9, 200, 5]
    masks = slots.without([9]).one_hot(np.array([[0, 5], [200, 5]], np.uint8))
    assert masks.argmax(-1).tolist() == [[0, 3], [2, 3]] and masks.sum() == 4
    mask = read_told_mask(_mask(1, 7, 30), size=SIZE)
    assert plan_slots({3: mask}, {5: [1, 7]}) == 4


def test_one_compilation_for_frames_that_are_told_and_one_for_the_others():
    model = _model(chex.assert_max_traces(_predict, n=2))
    for shift in range(2):
        masks = {shift: _mask(1, 7, t=shift), 2: _mask(7, t=2), 4: _mask(30, t=4)}
        found = list(stream(_clip(), model=model, masks=masks, removals={3: [1], 4: [7]}))
        assert [frame.warm_up for frame in found] == [t in (shift, 2) for t in range(6)]
        assert [frame.model_seconds > 0 for frame in found] == [t >= shift for t in range(6)]


def test_frames_before_the_first_mask_and_after_the_last_object_are_not_run(model):
    found = list(stream(_clip(), model=model, masks={2: _mask(1, t=2), 5: _mask(1, t=5)}, removals={3: [1]}))
    assert [frame.model_seconds > 0 for frame in found] == [False, False, True, False, False, True]
    assert [frame.mask.max() for frame in found] == [frame.foreground.max() for frame in found] == [0, 0, 1, 0, 0, 1]


def test_the_tracker_is_the_stream(model):
    clip, tracker = _clip(), Tracker(model, slots=3)
    masks, removals = {1: _mask(7, 200, t=1), 3: _mask(30, t=3), 5: _mask(1, t=5)}, {4: [7], 5: [200]}
    found = [tracker.step(image, masks=masks.get(t), remove=removals.get(t, ())) for t, image in enumerate(clip)]
    np.testing.assert_array_equal([frame.mask for frame in found],
                                  segment(clip, model=model, masks=masks, removals=removals))  # fmt: skip
    assert [frame.name for frame in found][:2] == ["00000", "00001"]


def test_the_tracker_goes_on_after_an_error(model):
    clip, tracker = _clip(), Tracker(model, slots=2)
    tracker.step(clip[0], masks=_mask(1, 7))
    for arguments, words in (
        ({"masks": _mask(30, t=1)}, r"3 objects at once do not fit into 2 slots: make room for more with slots="),
        ({"remove": [30]}, r"object 30 is not followed there.*\(followed are: 1, 7\)"),
        ({"masks": np.zeros(SIZE, np.uint8)}, "the mask of frame 1 holds no object"),
        ({"masks": np.ones((4, 5), np.uint8)}, "mask of frame 1 is 5x4 but its frame is 40x12"),
    ):
        with pytest.raises(InputError, match=words):
            tracker.step(clip[1], **arguments)
    with pytest.raises(InputError, match=r"frame 1 is 20x12 but those before were 40x12"):
        tracker.step(clip[1][:, :20])
    frame = tracker.step(clip[1], masks=_mask(30, t=1), remove=[1])
    assert frame.name == "00001"
    np.testing.assert_array_equal(frame.mask, _mask(7, 30, t=1))


def test_a_threshold_is_heeded(model):
    masks = {}
    for threshold in (0.5, 0.999999):
        tracker = Tracker(model, slots=1, threshold=threshold)
        tracker.step(_clip()[0], masks=_mask(1))
        masks[threshold] = tracker.step(np.full((*SIZE, 3), (190, 30, 30), np.uint8)).mask
    assert masks[0.5].all() and not masks[0.999999].any()


def test_models_that_the_tracker_does_not_run(model, tiny_dmm):
    hungry = model._replace(system=model.system._replace(needs=("masks", "flow")))
    for arguments, words in (
        ({"model": tiny_dmm}, "tiny-dmm is told nothing after the first frame: give .* STCN or XMem"),
        ({"model": hungry}, "colours wants flow beside the image"), ({"model": model, "slots": 0}, "0 slots"),
        ({"model": model, "threshold": 1.0}, "threshold 1.0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            Tracker(**arguments)


def test_what_is_refused_before_anything_is_computed(model, tmp_path):
    one = {1: _mask(1)}
    for arguments, words in (
        ({}, "colours follows objects that are marked on a frame: give their mask .*--mask FRAME:PNG"),
        ({"removals": {1: [1]}}, "give their mask"),
        ({"masks": {1: np.zeros(SIZE, np.uint8)}}, "the mask of frame 1 holds no object"),
        ({"masks": {1: np.ones((4, 5), np.uint8)}}, "mask of frame 1 is 5x4 but its frame is 40x12"),
        ({"masks": {1: tmp_path / "none.png"}}, "none.png does not exist"),
        ({"masks": {6: _mask(1)}}, "there is no frame 6 in array, which has 6"),
        ({"masks": one, "removals": {9: [1]}}, "there is no frame 9 in array, which has 6"),
        ({"masks": {-1: _mask(1)}}, "there is no frame -1"),
        ({"masks": one, "removals": {2: [3]}}, r"frame 2: object 3 is not followed there.*\(followed are: 1\)"),
        ({"masks": one, "removals": {0: [1]}}, r"frame 0: object 1 is not followed there.*\(followed are: none\)"),
        ({"masks": one, "removals": {1: [1]}}, "frame 1: object 1 is not followed there"),
        ({"masks": one, "removals": {2: [1], 3: [1]}}, "frame 3: object 1 is not followed there"),
        ({"masks": one, "removals": {2: [0]}}, "frame 2: object 0 is not followed there"),
    ):
        with pytest.raises(InputError, match=words) as error:
            stream(_clip(), model=model, **arguments)
        assert "\n" not in str(error.value)


def test_models_that_are_told_of_the_first_frame_alone(tiny_dmm, tiny_model):
    for path in (tiny_dmm, tiny_model):
        for arguments in ({"masks": {2: _mask(1)}}, {"masks": {0: _mask(1)}, "removals": {2: [1]}}):
            with pytest.raises(InputError, match="is told nothing after the first frame: give .* STCN or XMem"):
                stream(_clip(), model=path, **arguments)
    with pytest.raises(InputError, match="dmm-net-lite is told nothing"):  # the default where proposals are given
        stream(_clip(), masks={2: _mask(1)}, proposals=str(tiny_dmm))


def test_the_default_is_chosen_by_what_is_given():
    assert default_model(marked=False, matching=False) == DEFAULT
    assert default_model(marked=True, matching=False) == FIRST_MASK
    assert default_model(marked=True, matching=True) == MATCHER
    told, matches = (load_model(name).system for name in (FIRST_MASK, MATCHER))
    assert told.told_anytime and matches.adaptation is not None and "proposals" in matches.needs


def test_a_video_that_ends_too_early(model):
    frames = stream(iter(_clip(4)), model=model, masks={1: _mask(1, t=1), 4: _mask(7)})
    assert len(list(itertools.islice(frames, 4))) == 4
    with pytest.raises(InputError, match="there is no frame 4 in frames, which has 4"):
        next(frames)


def test_a_container_may_declare_too_few_frames(model):
    video = Video("film", SIZE, 24.0, 3, lambda: iter(_clip(6)))
    assert segment(video, model=model, masks={5: _mask(1, t=5)}).shape[0] == 6
    with pytest.raises(InputError, match="there is no frame 6 in film, which has 6"):
        stream(video, model=model, masks={6: _mask(1)})


@pytest.mark.parametrize("name", ["tiny_stcn", "tiny_xmem"])
def test_networks(name, request):
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (6, 32, 48, 3), np.uint8)
    masks = {t: np.zeros((32, 48), np.uint8) for t in (1, 3, 4)}
    masks[1][4:20, 4:20], masks[3][10:30, 24:44], masks[4][2:8, 30:44] = 9, 3, 77
    model = load_model(request.getfixturevalue(name))
    found = segment(clip, model=model, masks=masks, removals={4: [9]})
    assert not found[0].any()
    np.testing.assert_array_equal(found[1], masks[1])
    for t, followed in enumerate([(), (9,), (9,), (9, 3), (3, 77), (3, 77)]):
        assert set(np.unique(found[t])) <= {0, *followed}
    for t, value in ((3, 3), (4, 77)):
        np.testing.assert_array_equal(found[t] == value, masks[t] > 0)


def test_speed_is_that_of_frames_that_run_and_do_not_compile(tmp_path):
    """Compiling took 2 and 3 seconds."""
    image, mask = np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.uint8)
    seconds = [(0.0, False), (2.5, True), (0.5, False), (3.5, True), (0.5, False), (0.0, False)]
    frames = [SegmentedFrame(f"{t}", image, mask, np.zeros((24, 32), np.float32), 0.5, model_seconds, warm_up=warm_up)
              for t, (model_seconds, warm_up) in enumerate(seconds)]  # fmt: skip
    report = write_results(frames, tmp_path, fps=12.0, length=None, story={})
    assert report["frames_per_second"]["model"] == pytest.approx(2.0) and report["frames"] == 6
    assert report["frames_per_second"]["steady"] == pytest.approx(1.0)
    assert report["compile_seconds"] == pytest.approx(5.0)
