"""Clips of several objects: the same fields from either source, and a pure function of the seed and the step."""

import contextlib
import dataclasses
from itertools import islice
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import (
    Augmentation,
    JitterConfig,
    ObjectDataConfig,
    SyntheticConfig,
    VideoProposals,
    object_batches,
    write_mask,
    write_proposals,
)
from jaxvos.errors import InputError
from jaxvos.system import Proposals

SIZE = (32, 48)
EXACT = JitterConfig(num_proposals=9, mask_size=8, copies=1, shift=0.0, scale=0.0, morphology=0.0, miss=0.0, clutter=0,
                     score_noise=0.0)  # fmt: skip
CONFIG = ObjectDataConfig(batch_size=2, size=SIZE, num_frames=2, num_objects=3, held_out=("bus",), jitter=EXACT,
                          synthetic=SyntheticConfig(distractors=2, min_objects=2, lookalikes=0.5))  # fmt: skip


def _davis(root: Path, *, sequences=("bear", "bus", "cow"), resolution="480p", objects=2) -> Path:
    """Sequences told apart by their brightness; the second object comes late, further ones cover a pixel."""
    for number, name in enumerate(sequences):
        for index in range(5):
            ids = np.zeros(SIZE, np.uint8)
            ids[4:20, 6 + index : 20] = 1
            ids[22:30, 30:44] = 2 if index or number else 0
            for extra in range(3, objects + 1):
                ids[2, 10 * (extra - 2)] = extra
            path = root / "JPEGImages" / resolution / name / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE[::-1], (50 * (number + 1), 10 * index, 0)).save(path)
            write_mask(root / "Annotations" / resolution / name / f"{index:05d}.png", ids)
    return root


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    return _davis(tmp_path_factory.mktemp("davis"))


def _take(config, count=1, *, seed=0, start=0):
    batches, _ = object_batches(config, seed=seed)
    with contextlib.closing(batches(start)) as iterator:
        return list(islice(iterator, count))


def _real(folder, **changes):
    return dataclasses.replace(CONFIG, **{"davis": (folder,), "synthetic_share": 0.0} | changes)


def _form(clip):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), clip)


def test_both_sources_have_the_same_fields(davis):
    synthetic, real = _take(CONFIG)[0], _take(_real(davis))[0]
    assert _form(synthetic) == _form(real) and synthetic.flow is None and synthetic.edges is None
    assert synthetic.images.shape == (2, 2, *SIZE, 3) and synthetic.masks.shape == (2, 2, *SIZE, 4)
    assert synthetic.proposals.masks.shape == (2, 2, 9, 8, 8)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((synthetic, real)))
    for config in (CONFIG, _real(davis)):
        assert _take(dataclasses.replace(config, jitter=None))[0].proposals is None


def test_a_batch_follows_from_the_seed_and_the_step(davis):
    for config in (CONFIG, _real(davis, synthetic_share=0.5)):
        straight = _take(config, 4)
        chex.assert_trees_all_equal(_take(config, 2, start=2), straight[2:])
        assert (_take(config, seed=1)[0].images != straight[0].images).any()
        assert (straight[0].images != straight[1].images).any()


@pytest.mark.parametrize("distractors", [0, 3])
def test_slots_of_synthetic_clips(distractors):
    config = dataclasses.replace(CONFIG, distractors=distractors, batch_size=4, min_area=0.01)
    clips = _take(config, 5)
    spared = 0
    for masks, alive in ((clip.masks[i], clip.alive[i]) for clip in clips for i in range(4)):
        np.testing.assert_array_equal(masks.sum(axis=-1), 1)
        shares = masks[0].mean(axis=(0, 1))
        np.testing.assert_array_equal(alive[1:], shares[1:] >= 0.01)
        assert alive[:2].all() and not masks[..., ~alive].any()
    for clip in clips:
        found = clip.proposals.valid[:, 0].sum(axis=1) - (clip.alive.sum(axis=1) - 1)
        assert (found >= 0).all()
        spared += found.clip(0).sum()
    assert (spared > 8) if distractors else (spared < 8)


def test_a_clip_without_an_object_large_enough():
    clip = _take(dataclasses.replace(CONFIG, min_area=1.0))[0]
    assert not clip.alive[:, 1:].any() and (clip.masks[..., 0] == 1).all() and clip.proposals.valid.any()


def test_proposals_are_those_of_the_frames(davis):
    for config in (CONFIG, _real(davis)):
        clip = _take(config)[0]
        for b, t, slot in np.argwhere(clip.masks.any(axis=(2, 3)) & clip.alive[:, None]):
            if slot == 0:
                continue
            rows, columns = np.nonzero(clip.masks[b, t, ..., slot])
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes = clip.proposals.boxes[b, t][clip.proposals.valid[b, t]]
            assert (boxes == np.float32(box)).all(axis=1).any()


def test_objects_of_davis_are_seen_in_the_first_frame(tmp_path):
    root = _davis(tmp_path, objects=4)
    clips = _take(_real(root, batch_size=4, min_area=0.001), 4)
    for clip in clips:
        np.testing.assert_array_equal(clip.alive, clip.masks[:, 0].any(axis=(1, 2)))
        assert not clip.alive[:, 3].any()  # single pixels are too small
        late = np.rint(clip.images[:, 0, 0, 0] * 255)[:, :2] == [50, 0]  # bear, frame 0
        assert (~clip.alive[late.all(axis=1), 2]).all()
    assert any(clip.alive[:, 2].all() for clip in clips) and not all(clip.alive[:, 2].all() for clip in clips)


def test_sequences_are_joined_and_held_out(davis, tmp_path):
    other = _davis(tmp_path, sequences=("ant", "bat", "cat", "dog", "bus"))  # its bus is brighter than any other
    batches, held_out = object_batches(_real(davis, davis=(davis, other), batch_size=12), seed=0)
    with contextlib.closing(batches(0)) as iterator:
        levels = set(np.rint(next(iterator).images[:, 0, 0, 0, 0] * 255).tolist())
    assert [sequence.name for sequence in held_out] == ["bus"] and held_out[0].image_paths[0].is_relative_to(davis)
    assert levels == {50, 100, 150, 200}  # 250 is the other bus
    assert {level for level in np.rint(_take(_real(davis, batch_size=8))[0].images[:, 0, 0, 0, 0] * 255)} == {50, 150}


def test_split_and_resolution(tmp_path):
    root = _davis(_davis(tmp_path), resolution="1080p", sequences=("ant", "bus", "bear"))
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "few.txt").write_text("bear\nbus\n")
    for resolution, level in ((None, 50), ("1080p", 150)):
        clip = _take(_real(root, split="few", resolution=resolution))[0]
        assert set(np.rint(clip.images[..., 0, 0, 0] * 255).ravel()) == {level}


CHANGES = {"size": (40, 56), "num_frames": 3, "num_objects": 2, "min_area": 0.2, "max_skip": 9, "batch_size": 3,
           "synthetic": SyntheticConfig(), "distractors": 4, "jitter": JitterConfig(), "skip_ramp": ((0, 9),),
           "adjacent": True}  # fmt: skip
REAL = {"crop": (0.5, 0.6), "max_skip": 1, "synthetic_share": 1.0, "held_out": ("bear",), "min_area": 0.1,
        "reverse": 1.0, "static": True, "augmentation": Augmentation(flip=1.0), "skip_ramp": ((0, 1),)}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_synthetic_clips(name):
    _assert_differ(_take(CONFIG, 2), _take(dataclasses.replace(CONFIG, **{name: CHANGES[name]}), 2))


@pytest.mark.parametrize("name", REAL)
def test_every_option_changes_clips_of_davis(davis, name):
    _assert_differ(_take(_real(davis), 3), _take(_real(davis, **{name: REAL[name]}), 3))


def test_the_last_frames_are_adjacent_and_strides_follow_the_step(davis):
    """The green of a frame is ten times its number; backwards, too, the last two frames are neighbours."""
    for reverse in (0.0, 1.0):
        config = _real(davis, adjacent=True, reverse=reverse, num_frames=3, synthetic_share=0.0)
        numbers = np.concatenate([np.rint(clip.images[:, :, 0, 0, 1] * 25.5) for clip in _take(config, 4)])
        assert set(np.diff(numbers)[:, -1]) == {1.0 - 2 * reverse}
    ramp = _real(davis, skip_ramp=((0, 1), (2, 4)), num_frames=2, synthetic_share=0.0)
    strides = [np.diff(np.rint(clip.images[:, :, 0, 0, 1] * 25.5)) for clip in _take(ramp, 8)]
    assert np.max(strides[:2]) == 1 and np.max(strides[2:]) > 1


def _write_proposals(folder, names, *, frames=5):
    """One proposal in frame i, of the box (i, 2, 20, 12)."""
    boxes = np.array([[[i, 2, 20, 12]] for i in range(frames)], np.float32)
    ones = np.ones((frames, 1), np.float32)
    found = Proposals(boxes, np.ones((frames, 1, 28, 28), np.float32), 0.5 * ones, ones > 0)
    for name in names:
        stored = VideoProposals(name, tuple(f"{i:05d}" for i in range(frames)), SIZE, found, "by hand")
        write_proposals(folder / f"{name}.npz", stored)


def test_proposals_come_from_files(davis, tmp_path):
    """Those of the very frames that a clip shows, at the size of the clip, padded to the number of `jitter`."""
    _write_proposals(tmp_path, ("bear", "cow"))
    clip = _take(_real(davis, proposals=tmp_path, size=(64, 144)))[0]
    assert clip.proposals.boxes.shape == (2, 2, 9, 4) and clip.proposals.masks.shape == (2, 2, 9, 28, 28)
    frames = np.rint(clip.images[:, :, 0, 0, 1] * 25.5)  # the green of a frame is ten times its number
    np.testing.assert_allclose(clip.proposals.boxes[:, :, 0, 0], 3 * frames)
    np.testing.assert_allclose(clip.proposals.boxes[:, :, 0, 1:], np.broadcast_to([4, 60, 24], (2, 2, 3)))
    assert clip.proposals.valid[..., 0].all() and not clip.proposals.valid[..., 1:].any()


def test_proposal_files_that_do_not_serve(davis, tmp_path):
    _write_proposals(tmp_path, ("bear",))
    with pytest.raises(InputError, match="neither cow.npz nor cow.json"):
        _take(_real(davis, proposals=tmp_path))
    _write_proposals(tmp_path, ("cow",), frames=1)
    with pytest.raises(InputError, match="no frame 0000"):
        _take(_real(davis, proposals=tmp_path), 3)
    for wrong in ({"jitter": None}, {"crop": (0.5, 1.0)}):
        with pytest.raises(InputError, match="whole frames"):
            _real(davis, proposals=tmp_path, **wrong)


def test_no_option_is_forgotten():
    tested = {*CHANGES, *REAL, "davis", "split", "resolution", "proposals"}
    assert tested == {field.name for field in dataclasses.fields(ObjectDataConfig)}


def _assert_differ(first, second):
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(first, second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"held_out": ("bus", "whale")}, "held-out sequences whale are not in .*; set --data.held-out"),
     ({"held_out": ("bear", "bus", "cow")}, "every sequence .* is held out"), ({"split": "val"}, "val"),
     ({"resolution": "720p"}, "no resolution 720p"), ({"davis": (Path("/nowhere"),)}, "/nowhere does not exist")],
)  # fmt: skip
def test_a_wrong_source(davis, changes, message):
    with pytest.raises(InputError, match=message):
        object_batches(_real(davis, **changes), seed=0)


@pytest.mark.parametrize("options", [{"distractors": -1}, {"max_skip": 0}, {"synthetic_share": 1.5}])
def test_bad_configs(options):
    with pytest.raises(InputError, match="at least 0, at least 1, and 0..1"):
        ObjectDataConfig(**options)


@pytest.mark.data
def test_real_sequences(data_dir):
    config = _real(data_dir / "davis2016", resolution="256p", split="train", held_out=CONFIG.held_out)
    clip = _take(config)[0]
    assert clip.alive.sum(axis=1).tolist() == [2, 2] and clip.proposals.valid.any(axis=-1).all()
    assert (clip.images.std(axis=(1, 2, 3)) > 0.02).all()
