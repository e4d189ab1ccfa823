"""Clips with flow: a pure function of the seed and the step, from a pool, and with what data sets leave unknown."""

import contextlib
import dataclasses
from itertools import islice

import chex
import jax
import numpy as np
import pytest
from data.dataset_fixtures import MAKERS

from jaxvos.data import FlowDataConfig, SyntheticConfig, flow_batches, prepare_dataset
from jaxvos.errors import InputError

SIZE = (16, 24)
SCENES = SyntheticConfig(distractors=1, num_objects=1, flow_noise=0.0)
CONFIG = FlowDataConfig(batch_size=2, size=SIZE, synthetic=SCENES)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Releases of 8x12 pixels; those of Flying Chairs and KITTI are pairs, KITTI's known in part."""
    for name in ("sintel", "kitti15_flow", "flying_chairs", "davis16"):
        source = tmp_path_factory.mktemp(name)
        MAKERS[name](source)
        prepare_dataset(name, source, source.parent / "prepared", progress=False)
    return source.parent / "prepared"


def _take(config, count=1, *, seed=0, start=0):
    with contextlib.closing(flow_batches(config, seed=seed)(start)) as iterator:
        return list(islice(iterator, count))


def _with(**changes):
    return dataclasses.replace(CONFIG, **changes)


def _real(folder, *names, **changes):
    sets = tuple((name, "train_clean" if name == "sintel" else "train") for name in names or ("sintel",))
    return _with(**{"data_dir": folder, "sets": sets, "crop": None, **changes})


def _form(clip):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), clip)


def _pictures(batches):
    """The first frames, clip by clip."""
    return [clip.images[index, 0].tobytes() for clip in batches for index in range(len(clip.images))]


def test_both_sources_have_the_same_fields(prepared):
    synthetic, real = _take(CONFIG)[0], _take(_real(prepared))[0]
    assert _form(synthetic) == _form(real)
    assert synthetic.images.shape == (2, 2, *SIZE, 3) and synthetic.flow.shape == (2, 2, *SIZE, 2)
    assert {name for name, value in synthetic._asdict().items() if value is not None} == {"images", "flow", "valid"}
    assert synthetic.valid.all() and np.isfinite(synthetic.flow).all() and synthetic.images.max() <= 1
    assert _take(_with(num_frames=3, batch_size=1, size=(32, 16)))[0].flow.shape == (1, 3, 32, 16, 2)


def test_masks_are_kept_for_who_learns_them():
    plain, kept = _take(CONFIG)[0], _take(_with(keep_masks=True))[0]
    assert kept.masks.shape == (2, 2, *SIZE, 2) and kept.alive.shape == (2, 2)
    np.testing.assert_array_equal(kept.masks.sum(axis=-1), 1)
    chex.assert_trees_all_equal(plain, kept._replace(masks=None, alive=None))


@pytest.mark.parametrize("kind", ["synthetic", "pool", "sets", "mixed"])
def test_a_batch_follows_from_the_seed_and_the_step(kind, prepared):
    config = {"synthetic": CONFIG, "pool": _with(pool=3), "sets": _real(prepared, crop=(0.5, 1.0)),
              "mixed": _real(prepared, synthetic_share=0.5)}[kind]  # fmt: skip
    straight = _take(config, 6)
    chex.assert_trees_all_equal(_take(config, 3, start=3), straight[3:])
    assert _pictures(_take(config, 6, seed=1)) != _pictures(straight)
    assert len(set(_pictures(straight))) > 3 - (kind == "pool")


@pytest.mark.parametrize("pool", [3, 4])
def test_every_clip_of_a_pool_comes_once_an_epoch(pool):
    seen = _pictures(_take(_with(pool=pool), 4 * pool))  # eight epochs of batches of two
    epochs = [tuple(seen[start : start + pool]) for start in range(0, len(seen), pool)]
    every = set(_pictures(_take(_with(batch_size=1), pool)))  # the first clips of those without end
    assert len(every) == pool and all(set(epoch) == every for epoch in epochs)
    assert len(set(epochs)) > 1
    assert len(set(_pictures(_take(CONFIG, 4)))) == 8  # without a pool none comes again


def test_the_scenes_are_those_that_are_asked_for():
    still = dataclasses.replace(SCENES, camera_motion=0.0, object_motion=0.0)
    moving, at_rest = (np.abs(_take(config)[0].flow).max() for config in (CONFIG, _with(synthetic=still)))
    assert at_rest < 1e-3 < moving


def test_flow_of_a_data_set_is_in_pixels_of_the_clip(prepared):
    """The fixtures' flow is 1 from the first frame, 2 from the second, but for the top row; it is doubled with them.

    Beyond the border it is taken for 0, which an enlarged frame shows in its outermost pixels.
    """
    clips = _take(_real(prepared, batch_size=1), 16)
    assert {tuple(np.unique(clip.flow[0, 0, 4:-1, 1:-1, 1]).round(4)) for clip in clips} == {(2.0,), (4.0,)}
    for clip in clips:
        first, second = clip.flow[0, :, 4:-1, 1:-1, 1]
        assert np.isnan(second).all() if first[0, 0] > 3 else np.allclose(second, 4)


@pytest.mark.parametrize("name", ["flying_chairs", "kitti15_flow"])
def test_pairs_without_a_third_frame(name, prepared):
    clip = _take(_real(prepared, name))[0]
    assert np.isnan(clip.flow[:, 1]).all()
    known = np.isfinite(clip.flow[:, 0]).all(axis=-1)
    if name == "flying_chairs":
        assert known.all() and np.abs(clip.flow[:, 0]).min() > 0
    else:  # a third is unknown, from the left
        assert known[:, :, 12:].all() and not known[:, :, :6].any()


def test_a_window_of_the_frames(prepared):
    whole, windows = _take(_real(prepared), 3), _take(_real(prepared, crop=(0.5, 0.6)), 3)
    assert _form(whole[0]) == _form(windows[0])
    assert _pictures(whole) != _pictures(windows)
    largest = max(np.nanmax(clip.flow[..., 1]) for clip in windows)  # a half is enlarged twice as much
    assert largest > 6 > max(np.nanmax(clip.flow[..., 1]) for clip in whole)


def test_several_sets_and_a_share_of_synthetic_clips(prepared):
    of_all = set(_pictures(_take(_real(prepared, "sintel", "kitti15_flow"), 20)))
    apart = [set(_pictures(_take(_real(prepared, name), 20))) for name in ("sintel", "kitti15_flow")]
    assert of_all == apart[0] | apart[1] and not apart[0] & apart[1]
    made = [[picture in of_all for picture in _pictures([clip])]
            for clip in _take(_real(prepared, synthetic_share=0.5), 20)]  # fmt: skip
    assert all(len(set(batch)) == 1 for batch in made) and 4 < sum(batch[0] for batch in made) < 16


def test_what_cannot_be(prepared):
    for changes, words in (
        ({"num_frames": 1}, "1 frames: motion takes 2 at least"), ({"pool": 0}, "a pool of 0 clips"),
        ({"keep_masks": True, "sets": (("sintel", "train_clean"),)}, "data sets of flow have no masks"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            _with(**changes)
    for config, words in (
        (_real(prepared, "monkaa"), "monkaa"), (_real(prepared, sets=(("sintel", "val"),)), "there is no split 'val'"),
        (_with(batch_size=0), "0 clips in a batch"), (_with(size=(8, 8)), "synthetic clips of 8x8"),
        (_real(prepared, crop=(0.0, 1.0)), "crop"),
        (_real(prepared, "flying_chairs", num_frames=3), "no sequence has 3 frames in a row"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            flow_batches(config, seed=0)
    with pytest.raises(InputError, match="has no flow"):
        _take(_real(prepared, "davis16"))
