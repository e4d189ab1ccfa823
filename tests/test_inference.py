"""A system over a video: the stream and the scan say the same, it compiles once, and every option does something."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvos
from jaxvos.data import dis_flow, write_flow
from jaxvos.errors import InputError
from jaxvos.inference import fold, fold_clip, jitted_predict, segment, stream
from jaxvos.models import load_model
from jaxvos.system import Frame

SIZE = (40, 56)


def _clip(count=4, size=SIZE):
    """A square that crosses a smooth background."""
    y, x = np.mgrid[: size[0], : size[1]]
    images = np.repeat(np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1)[None].astype(np.uint8), count, 0)
    for index in range(count):
        images[index, 12:28, 5 + 3 * index : 21 + 3 * index] = 220
    return images


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model)


def _frames(count=4):
    rng = np.random.default_rng(1)
    flow = jnp.asarray(rng.normal(0, 3, (count, *SIZE, 2)), jnp.float32)
    return Frame(jnp.asarray(_clip(count) / np.float32(255)), flow=flow)


def test_the_stream_is_the_scan(model):
    frames = _frames(3)
    one_by_one = [jax.tree.map(lambda x, i=i: x[i], frames) for i in range(3)]
    streamed = [prediction for _, prediction in fold(model.system, model.variables, one_by_one)]
    _, scanned = jax.jit(lambda f: fold_clip(model.system, model.variables, f))(frames)
    chex.assert_trees_all_close(jax.tree.map(lambda *x: jnp.stack(x), *streamed), scanned, atol=1e-5)
    np.testing.assert_allclose(scanned.masks.sum(-1), 1, atol=1e-5)


def test_memory_is_carried_from_frame_to_frame():
    """With a system that counts frames and adds up what it was told at the start."""
    from jaxvos.system import Prediction, System

    def start(variables, frame, masks=None):
        return jnp.sum(masks)

    def predict(variables, memory, frame):
        return memory + 1, Prediction(jnp.stack([1 - memory * frame.image[..., 0], memory * frame.image[..., 0]], -1))

    system = System(None, None, predict, start)  # type: ignore[arg-type]
    frames, masks = Frame(jnp.ones((3, 4, 4, 3)) / 100), jnp.ones((4, 4, 2))
    memories, streamed = zip(*fold(system, {}, [jax.tree.map(lambda x: x[0], frames)] * 3, masks=masks), strict=True)
    last, scanned = fold_clip(system, {}, frames, masks=masks)
    assert [float(memory) for memory in memories] == [33, 34, 35] and last == 35
    np.testing.assert_allclose(jnp.stack([p.masks for p in streamed]), scanned.masks)
    np.testing.assert_allclose(scanned.masks[:, 0, 0, 1], [0.32, 0.33, 0.34], atol=1e-6)


def test_one_compilation_for_each_size(model):
    counted = model._replace(system=model.system._replace(predict=chex.assert_max_traces(model.system.predict, n=1)))
    for seed in range(2):
        assert len(list(stream(np.roll(_clip(), seed, axis=1), model=counted))) == 4
    assert jitted_predict(counted.system)._cache_size() == 1


def test_loading_a_model_again_compiles_nothing_again(tiny_model):
    once, again = load_model(tiny_model), load_model(str(tiny_model))
    assert jitted_predict(once.system) is jitted_predict(again.system)


def test_what_a_frame_of_the_stream_holds(model):
    clip = _clip()
    found = list(stream(clip, model=model))
    assert [frame.name for frame in found] == ["00000", "00001", "00002", "00003"]
    for frame, image in zip(found, clip, strict=True):
        np.testing.assert_array_equal(frame.image, image)
        assert frame.mask.shape == frame.foreground.shape == SIZE and frame.mask.dtype == np.uint8
        np.testing.assert_array_equal(frame.mask, frame.foreground >= 0.5)
        assert frame.model_seconds > 0
    np.testing.assert_array_equal(segment(clip, model=model), [frame.mask for frame in found])
    assert jaxvos.segment is segment and jaxvos.stream is stream
    assert 0 < np.mean([frame.mask for frame in found]) < 1  # else the other tests here prove nothing


def test_a_camera_is_segmented_as_it_comes(model):
    asked = []

    def camera():
        for index in itertools.count():
            asked.append(index)
            yield _clip()[index % 4]

    live = stream(camera(), model=model)
    first = next(live)
    assert first.name == "00000" and asked == [0, 1]  # one frame ahead, for the flow
    for _ in range(3):
        next(live)
    assert len(asked) == 5
    np.testing.assert_array_equal(first.mask, segment(_clip(), model=model)[0])


def test_options_change_the_result(model, tmp_path):
    clip = _clip()
    plain = segment(clip, model=model)
    levels = [segment(clip, model=model, threshold=t).mean() for t in (0.1, 0.5, 0.9)]
    assert levels[0] > levels[1] > levels[2]

    foreground = {option: np.stack([frame.foreground for frame in stream(clip, model=model, last_frame=option)])
                  for option in ("reuse", "backward", "skip")}
    assert len(foreground["skip"]) == 3 and len(foreground["backward"]) == 4
    np.testing.assert_array_equal(foreground["skip"], foreground["reuse"][:3])
    np.testing.assert_array_equal(foreground["backward"][:3], foreground["reuse"][:3])
    assert np.abs(foreground["backward"][3] - foreground["reuse"][3]).max() > 1e-4

    x = np.broadcast_to(np.linspace(-8, 8, SIZE[1], dtype=np.float32)[None, :, None], (*SIZE, 2))
    for index in range(3):
        write_flow(tmp_path / f"{index:05d}.flo", np.ascontiguousarray(x))
    given = segment(clip, model=model, flow=tmp_path)
    assert (given != plain).any()
    np.testing.assert_array_equal(given, segment(clip, model=model, flow=lambda image, following: x))
    np.testing.assert_array_equal(plain, segment(clip, model=model, flow=dis_flow()))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"threshold": 0.0}, "threshold 0.0: give a probability"), ({"threshold": float("nan")}, "threshold nan"),
     ({"last_frame": "reverse"}, "last_frame 'reverse': give one of reuse, backward, skip"),
     ({"flow": "raft"}, "there is no model raft.*'dis' or a folder"),
     ({"model": "nonsense"}, "there is no model nonsense")],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_refused_before_the_first_frame(model, options, message):
    with pytest.raises(InputError, match=message):
        stream(_clip(), **({"model": model} | options))


@pytest.fixture
def unchecked():
    """Names a `Literal` that is wrong: in the tests the type checker would be first to say so."""
    import jaxtyping

    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_wrong_videos_are_refused_before_the_first_frame(model, tmp_path):
    for video, message in ((_clip(1), "one frame has no motion"), (tmp_path / "none.mp4", "there is no video"),
                           (iter([]), "holds no frames")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            stream(video, model=model)


def test_an_unequal_frame_ends_the_stream(model):
    live = stream(iter([*_clip(3), _clip(1, (20, 28))[0]]), model=model)
    assert len(list(itertools.islice(live, 2))) == 2
    with pytest.raises(InputError, match="all frames of a video must have one size"):
        next(live)
