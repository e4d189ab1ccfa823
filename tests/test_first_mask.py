"""Objects marked on the first frame: ids, slots, proposals from files and networks, online learning, and bad input."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxvos.data import open_video, write_mask, write_proposals
from jaxvos.errors import InputError
from jaxvos.inference import (
    OnlineConfig,
    adapt,
    jitted_predict,
    open_proposals,
    propose_video,
    read_told_mask,
    segment,
    stream,
)
from jaxvos.models import load_model
from jaxvos.system import Frame

SIZE = (48, 64)


def _clip(count=3):
    """Bars that move to the right."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    frames = [np.stack([(x - 3 * t) // 12 % 2 * 200, 4 * y, 2 * (x + y)], axis=-1) for t in range(count)]
    return np.stack(frames).astype(np.uint8)


def _mask(*ids):
    """A bar for each id."""
    mask = np.zeros(SIZE, np.uint8)
    for place, value in enumerate(ids):
        mask[4 + place : 44, 2 * place : 2 * place + 2] = value
    return mask


@pytest.fixture(scope="module")
def model(tiny_dmm):
    return load_model(tiny_dmm)


@pytest.fixture(scope="module")
def proposer(tiny_proposer):
    return load_model(tiny_proposer)


def _label(probabilities, threshold=0.5):
    from jaxvos.inference._tracker import _label

    return _label(np.asarray(probabilities, np.float32), threshold)[0]


def test_ids_come_back_as_they_were_given(model, proposer):
    mask = _mask(3, 7, 200)
    mask[46:, 60:] = 255  # void
    masks = segment(_clip(), model=model, first_mask=mask, proposals=proposer)
    assert masks.shape == (3, *SIZE)
    assert all(set(np.unique(mask)) == {0, 3, 7, 200} for mask in masks)  # in later frames too
    np.testing.assert_array_equal(masks[0], np.where(mask == 255, 0, mask))


def test_a_pixel_belongs_to_the_likeliest_object_or_to_none():
    pixels = np.array([[[0.6, 0.4, 0.0], [0.3, 0.3, 0.4], [0.1, 0.5, 0.4]]])  # 0.4 of 0.7 is above one half
    assert _label(pixels).tolist() == [[0, 2, 1]]
    assert _label(pixels, threshold=0.6).tolist() == [[0, 0, 1]]


def test_a_higher_threshold_leaves_less_of_an_object(model, proposer):
    low, high = (segment(_clip(2), model=model, first_mask=_mask(1), proposals=proposer, threshold=value)
                 for value in (0.3, 0.7))  # fmt: skip
    np.testing.assert_array_equal(low[0], high[0])  # given, not found
    assert (low[1] > 0).sum() > (high[1] > 0).sum()


def test_slots_are_powers_of_two_and_shared_by_videos(model, proposer):
    shapes = [read_told_mask(_mask(*range(1, count + 1)), size=SIZE).masks.shape[-1] for count in (1, 2, 3, 5, 8, 9)]
    assert shapes == [2, 3, 5, 9, 9, 17]
    before = jitted_predict(model.system)._cache_size()
    for count in (5, 7):
        segment(_clip(2), model=model, first_mask=_mask(*range(1, count + 1)), proposals=proposer)
    assert jitted_predict(model.system)._cache_size() == before + 1


def test_thirty_objects_are_all_followed(model, proposer):
    """None is dropped: the memory holds every one of them alive."""
    objects = read_told_mask(_mask(*range(1, 31)), size=SIZE)
    video = open_video(_clip(2))
    frame = Frame(jax.numpy.asarray(_clip(1)[0], jax.numpy.float32) / 255)
    frame = frame._replace(proposals=open_proposals(proposer, video)("00000", _clip(1)[0]))
    memory = jax.jit(model.system.start)(model.variables, frame, jax.numpy.asarray(objects.masks))
    assert memory.alive.sum() == 30 and memory.alive.shape == (32,)
    masks = segment(_clip(2), model=model, first_mask=objects.labels, proposals=proposer)
    assert len(np.unique(masks[0])) == 31
    assert masks[1].max() > 25  # objects of the last groups are refined as those of the first are


def test_proposals_of_a_file_are_those_of_the_network(model, proposer, tmp_path):
    video = open_video(_clip())
    found = propose_video(proposer, video, num_proposals=6)
    assert found.names == ("00000", "00001", "00002") and found.size == SIZE and found.detector == proposer.name
    online = segment(_clip(), model=model, first_mask=_mask(1, 2), proposals=proposer)
    write_proposals(tmp_path / "p.npz", found)
    stored = segment(_clip(), model=model, first_mask=_mask(1, 2), proposals=tmp_path / "p.npz")
    assert np.mean(online != stored) < 0.01 < np.mean(online[1:] > 0)  # masks are stored in steps of 1/255
    write_proposals(tmp_path / "p.json", found)
    assert segment(_clip(), model=model, first_mask=_mask(1, 2), proposals=tmp_path / "p.json").shape == (3, *SIZE)


def test_a_live_source_and_a_mask_in_memory(model, proposer):
    frames = stream(iter(_clip()), model=model, first_mask=_mask(1), proposals=proposer)
    assert [frame.name for frame in frames] == ["00000", "00001", "00002"]


def test_no_flow_is_computed_that_nobody_wants(model, proposer, monkeypatch):
    monkeypatch.setattr("jaxvos.inference._stream.open_flow", None)
    frames = list(stream(_clip(), model=model, first_mask=_mask(1), proposals=proposer))
    assert all(frame.flow_seconds == 0 and frame.proposal_seconds > 0 for frame in frames)


@pytest.mark.slow
def test_online_learning_changes_a_copy(model, proposer):
    provider = open_proposals(proposer, open_video(_clip()))
    image = jax.numpy.asarray(_clip()[0], jax.numpy.float32) / 255
    frame = Frame(image, proposals=provider("00000", _clip()[0]))
    masks = jax.numpy.asarray(read_told_mask(_mask(1), size=SIZE).masks)
    before = jax.tree.map(np.asarray, model.variables)
    adapted = adapt(model, frame, masks, online=OnlineConfig(num_steps=2, lr=1e-3))
    jax.tree.map(np.testing.assert_array_equal, before, model.variables)
    params = adapted.variables["params"]
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(before["params"]["refiner"]),
                                                 jax.tree.leaves(params["refiner"]), strict=True)]  # fmt: skip
    assert all(np.isfinite(moved)) and max(moved) > 1e-4
    answers = []
    for variables in (model.variables, adapted.variables):
        memory = jitted_predict(model.system)(variables, jax.jit(model.system.start)(variables, frame, masks), frame)[0]
        answers.append(jitted_predict(model.system)(variables, memory, frame)[1].masks)
    assert np.isfinite(answers).all() and np.abs(answers[0] - answers[1]).max() > 1e-4
    with pytest.raises(InputError, match="0 steps of online learning"):
        OnlineConfig(num_steps=0)


def test_masks_that_do_not_serve(tmp_path):
    write_mask(tmp_path / "small.png", np.ones((10, 12), np.uint8))
    write_mask(tmp_path / "empty.png", np.zeros(SIZE, np.uint8))
    for mask, words in (
        (tmp_path / "small.png", "is 12x10 but its frame is 64x48"), (tmp_path / "empty.png", "png holds no object"),
        (tmp_path / "none.png", "does not exist"), (np.zeros(SIZE, np.uint8), "the first mask holds no object"),
        (np.zeros((*SIZE, 3), np.uint8), "give ids 0..255"), (np.ones(SIZE, np.float32), "give ids 0..255"),
        (np.full(SIZE, 300), "give ids 0..255"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            read_told_mask(mask, size=SIZE)


def test_proposals_that_do_not_serve(model, proposer, tiny_model, tmp_path):
    found = propose_video(proposer, open_video(_clip(2)), num_proposals=6)
    write_proposals(tmp_path / "short.npz", found)
    whole = propose_video(proposer, open_video(_clip(3)), num_proposals=6)
    write_proposals(tmp_path / "large.npz", dataclasses.replace(whole, size=(480, 640)))
    for proposals, words in (
        (tmp_path / "short.npz", "00002"), (tmp_path / "large.npz", "640x480.*64x48|64x48.*640x480"),
        (tmp_path / "none.npz", "there is no proposal file"), (load_model(tiny_model), "makes no proposals"),
        (model, "makes no proposals"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            stream(_clip(3), model=model, first_mask=_mask(1), proposals=proposals)


def test_arguments_that_a_model_has_no_use_for(model, proposer, tiny_model):
    blind = load_model(tiny_model)
    for which, arguments, words in (
        (model, {}, "give their mask"), (blind, {"first_mask": _mask(1)}, "takes no first mask"),
        (blind, {"proposals": proposer}, "no use for proposals"),
        (blind, {"online": OnlineConfig()}, "no use for online"),
        (model, {"first_mask": _mask(1), "flow": "dis"}, "no use for flow"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            stream(_clip(), model=which, **arguments)
