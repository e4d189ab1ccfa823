"""Models that look at the next frame: the last frame, masks, online learning, and the flow they give to others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.data import open_video
from jaxvos.errors import InputError
from jaxvos.inference import (
    OnlineConfig,
    adapt,
    estimate_flow,
    jitted_predict,
    open_flow,
    read_told_mask,
    segment,
    stream,
)
from jaxvos.inference._inputs import take_frames
from jaxvos.models import load_model
from jaxvos.system import Frame

SIZE = (48, 64)
Y, X = np.mgrid[: SIZE[0], : SIZE[1]]
CLIP = np.stack([np.stack([(X - 3 * t) // 12 % 2 * 200, 4 * Y, 2 * (X + Y)], axis=-1) for t in range(3)])
CLIP = CLIP.astype(np.uint8)
ONE = np.where((X >= 5) & (X < 25), 7, 0).astype(np.uint8)
TWO = np.where(X >= 35, 9, ONE).astype(np.uint8)


@pytest.fixture(scope="module")
def segflow(tiny_segflow):
    return load_model(tiny_segflow)


@pytest.fixture(scope="module")
def pwc(tiny_pwc):
    return load_model(tiny_pwc)


@pytest.fixture(scope="module")
def blind(tiny_model):
    """A model that wants flow and does not learn online."""
    return load_model(tiny_model)


@pytest.fixture
def learned(monkeypatch):
    """The state that each online learning ended in."""
    from jaxvos.inference import _adapt

    states, fit = [], _adapt.fit
    monkeypatch.setattr(_adapt, "fit", lambda *args, **options: states.append(fit(*args, **options)) or states[-1])
    return states


def _frame(index=0, following=1):
    image, next_image = (jnp.asarray(CLIP[i], jnp.float32) / 255 for i in (index, following))
    return Frame(image, next_image=next_image)


def _adapted(model, **options):
    masks = jnp.asarray(read_told_mask(ONE, size=SIZE).masks)
    return adapt(model, _frame(), masks, online=OnlineConfig(**options))


def _distances(before, after):
    """How far the parameters of each module moved at most."""
    distance = lambda a, b: float(np.abs(a - b).max())  # noqa: E731
    return {name: max(jax.tree.leaves(jax.tree.map(distance, part, after["params"][name])))
            for name, part in before["params"].items()}  # fmt: skip


@pytest.mark.parametrize(("last_frame", "following"), [("reuse", [1, 2, 2]), ("backward", [1, 2, 1]), ("skip", [1, 2])])
def test_the_last_frame(segflow, last_frame, following):
    found = list(stream(CLIP, model=segflow, last_frame=last_frame))
    assert [frame.name for frame in found] == ["00000", "00001", "00002"][: len(following)]
    expected = [1 - jitted_predict(segflow.system)(segflow.variables, jnp.ones(2, bool), _frame(*pair))[1].masks[..., 0]
                for pair in enumerate(following)]  # fmt: skip
    np.testing.assert_allclose([frame.foreground for frame in found], expected, atol=1e-6)
    other = jitted_predict(segflow.system)(segflow.variables, jnp.ones(2, bool), _frame(2, {1: 2, 2: 1}[following[-1]]))
    assert np.abs(1 - other[1].masks[..., 0] - expected[-1]).max() > 1e-4
    assert all(frame.flow_seconds == frame.adapt_seconds == 0 for frame in found)


@pytest.mark.parametrize(("last_frame", "count"), [("reuse", 1), ("backward", 1), ("skip", 0)])
def test_a_frame_alone_is_its_own_next(last_frame, count):
    frames = list(take_frames(open_video(CLIP[:1]), flow=None, proposals=None, next_image=True, last_frame=last_frame))
    assert len(frames) == count
    for taken in frames:
        np.testing.assert_array_equal(taken.frame.next_image, taken.frame.image)


def test_no_next_frame_for_who_does_not_want_it():
    frames = take_frames(open_video(CLIP), flow=None, proposals=None, next_image=False, last_frame="skip")
    assert [taken.frame.next_image for taken in frames] == [None] * 3


def test_one_object_without_learning_it(segflow):
    masks, free = segment(CLIP, model=segflow, first_mask=ONE), segment(CLIP, model=segflow)
    np.testing.assert_array_equal(masks[0], ONE)
    assert free.max() == 1 and free[1:].any()
    np.testing.assert_array_equal(masks[1:], 7 * free[1:])


@pytest.mark.slow
def test_several_objects_after_learning_them(segflow, learned):
    """A copy learns them, all but its flow branch."""
    with pytest.raises(InputError, match="tells 2 objects apart only after learning them: add --online"):
        stream(CLIP, model=segflow, first_mask=TWO)
    before = jax.tree.map(np.array, segflow.variables)
    found = list(stream(CLIP, model=segflow, first_mask=TWO, online=OnlineConfig(num_steps=2, lr=1e-3), threshold=0.01))
    np.testing.assert_array_equal(found[0].mask, TWO)
    assert {7, 9} <= set(np.unique([frame.mask for frame in found[1:]])) <= {0, 7, 9}
    assert [frame.adapt_seconds > 0 for frame in found] == [True, False, False]
    jax.tree.map(np.testing.assert_array_equal, before, segflow.variables)
    (state,) = learned
    after = state.variables
    heads = {"scores_3", "scores_4", "scores_5"}
    moved = _distances({"params": {name: part for name, part in before["params"].items() if name not in heads}}, after)
    assert moved.pop("flow_net") == 0 and moved.pop("encoder") > 1e-4 and not moved
    jax.tree.map(np.testing.assert_array_equal, before["batch_stats"], after["batch_stats"])
    assert {after["params"][name]["own"]["kernel"].shape[-1] for name in heads} == {3}


@pytest.mark.slow
def test_heads_alone_until_they_stop_getting_better(segflow, learned):
    adapted = _adapted(segflow, num_steps=200, lr=1.0, heads_only=True, patience=1)
    assert int(learned[0].step) in range(20, 200, 10)
    moved = _distances(segflow.variables, adapted.variables)
    assert {name for name, distance in moved.items() if distance > 0} == {"scores_3", "scores_4", "scores_5"}
    assert adapted.system is segflow.system


def test_online_learning_that_cannot_be(segflow, pwc, blind):
    for model, arguments, words in (
        (segflow, {}, "learns online from the first mask: give their mask"),
        (pwc, {"first_mask": ONE}, "no use for online learning"), (blind, {}, "no use for online learning"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            stream(CLIP, model=model, online=OnlineConfig(), **arguments)
    with pytest.raises(InputError, match="does not learn online"):
        _adapted(blind, num_steps=1)
    with pytest.raises(InputError, match="a patience of 0 evaluations"):
        OnlineConfig(patience=0)


def test_a_model_of_flow_alone_segments_nothing(pwc):
    with pytest.raises(InputError, match="tiny-pwc segments nothing"):
        segment(CLIP, model=pwc)
    with pytest.raises(InputError, match="takes no first mask"):
        stream(CLIP, model=pwc, first_mask=ONE)


def test_flow_of_networks_for_a_model_that_wants_it(blind, pwc, segflow, tiny_pwc):
    of_pwc, of_segflow, of_dis = (
        np.stack([frame.foreground for frame in stream(CLIP, model=blind, flow=flow)]) for flow in (pwc, segflow, None)
    )
    assert np.abs(of_pwc - of_segflow).max() > 1e-4 and np.abs(of_pwc - of_dis).max() > 1e-4
    own = list(stream(CLIP, model=blind, flow=estimate_flow(pwc)))
    np.testing.assert_array_equal([frame.foreground for frame in own], of_pwc)
    for source in (tiny_pwc, str(tiny_pwc)):
        np.testing.assert_array_equal(open_flow(source)(*CLIP[:2], name=""), estimate_flow(pwc)(*CLIP[:2], name=""))


def test_a_network_gives_flow_in_pixels_of_the_frame(pwc):
    flow = estimate_flow(pwc)(CLIP[0], CLIP[2], name="")
    assert flow.shape == (*SIZE, 2) and flow.dtype == np.float32
    expected = jitted_predict(pwc.system)(pwc.variables, (), _frame(0, 2))[1].flow
    np.testing.assert_allclose(flow, expected, atol=1e-6)
    assert np.abs(flow - estimate_flow(pwc)(CLIP[2], CLIP[0], name="")).max() > 1e-4


def test_flow_that_is_not_found(blind, segflow, tmp_path):
    with pytest.raises(InputError, match="tiny estimates no flow: give a flow network, such as"):
        open_flow(blind)
    with pytest.raises(InputError, match="there is no model nonsense: give .*; flow also comes from 'dis' or a folder"):
        open_flow("nonsense")
    with pytest.raises(InputError, match=r"no .flo, .pfm or .png flow files"):
        open_flow(tmp_path)
    with pytest.raises(InputError, match="tiny-segflow has no use for flow"):
        stream(CLIP, model=segflow, flow="dis")
