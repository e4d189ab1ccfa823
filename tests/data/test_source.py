"""What a training run sees follows from its configuration, and a wrong one is refused before anything is read."""

from itertools import islice
from pathlib import Path

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import DataConfig, SyntheticConfig, find_sequences, training_data, write_flow, write_mask
from jaxvos.errors import InputError

SIZE = (24, 32)
SYNTHETIC = SyntheticConfig(num_frames=1, num_objects=1)


def _davis(root: Path, *, resolution: str = "480p", sequences=("bear", "bus", "cow")) -> Path:
    """Three sequences of three frames, told apart by their brightness, and their flow."""
    for number, name in enumerate(sequences):
        for index in range(3):
            path = root / "JPEGImages" / resolution / name / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE[::-1], (50 * (number + 1),) * 3).save(path)
            write_mask(root / "Annotations" / resolution / name / f"{index:05d}.png", np.full(SIZE, 1, np.uint8))
        for index in range(2):
            write_flow(root / "flow" / name / f"{index:05d}.flo", np.full((*SIZE, 2), number, np.float32))
    return root


def _config(root, **changes):
    options = {"davis": root, "size": SIZE, "flow": str(root / "flow"), "held_out": ("bus",), "synthetic": SYNTHETIC}
    return DataConfig(**options | changes)


def _levels(batches, count):
    """The brightness of the frames in the first batches."""
    clips = list(islice(batches(0), count))
    return {level for clip in clips for level in _each(clip)}


def _each(clip):
    return [round(float(x) * 255) for x in clip.images[:, 0, 0, 0, 0]]


def test_synthetic_clips_alone():
    batches, held_out = training_data(DataConfig(size=SIZE, synthetic=SYNTHETIC, batch_size=3), seed=0)
    clip = next(batches(0))
    assert held_out is None and clip.images.shape == (3, 1, *SIZE, 3) and clip.masks.shape == (3, 1, *SIZE, 2)
    chex.assert_trees_all_equal(next(batches(1)), list(islice(batches(0), 2))[1])
    other, _ = training_data(DataConfig(size=SIZE, synthetic=SYNTHETIC, batch_size=3), seed=1)
    assert (next(other(0)).images != clip.images).any()


def test_sequences_held_out_are_not_trained_on(tmp_path):
    batches, held_out = training_data(_config(_davis(tmp_path)), seed=0)
    assert held_out is not None and held_out.sequences == ("bus", "bus") and set(held_out.images.ravel()) == {100}
    assert _levels(batches, 4) == {50, 150}
    clip = next(batches(0))
    assert clip.images.shape == (2, 1, *SIZE, 3) and clip.masks.shape == (2, 1, *SIZE, 2)
    np.testing.assert_array_equal(clip.flow[:, 0, 0, 0, 0], [{50: 0, 150: 2}[level] for level in _each(clip)])
    _, nothing = training_data(_config(tmp_path, held_out=()), seed=0)
    assert nothing is None


def test_a_split_and_a_resolution(tmp_path):
    root = _davis(_davis(tmp_path), resolution="1080p", sequences=("ant", "bear", "bus"))
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "few.txt").write_text("bear\nbus\n")
    assert _levels(training_data(_config(root, split="few"), seed=0)[0], 4) == {50}
    assert _levels(training_data(_config(root, split="few", resolution="1080p"), seed=0)[0], 4) == {100}


def test_synthetic_clips_are_mixed_in(tmp_path):
    root = _davis(tmp_path)
    assert len(_levels(training_data(_config(root, synthetic_share=0.5), seed=0)[0], 12) - {50, 150}) > 2
    mixed = islice(training_data(_config(root, synthetic_share=0.5), seed=0)[0](0), 12)
    kinds = {tuple((name, x.shape, str(x.dtype)) for name, x in c._asdict().items() if x is not None) for c in mixed}
    assert len(kinds) == 1, "a step is compiled for one kind of batch"
    only, _ = training_data(_config(root, synthetic_share=1.0, batch_size=2), seed=4)
    alone, _ = training_data(DataConfig(size=SIZE, synthetic=SYNTHETIC, batch_size=2), seed=4)
    chex.assert_trees_all_equal(next(only(0)), next(alone(0)))


def test_the_cache_serves_a_second_run(tmp_path):
    root = _davis(tmp_path / "davis")
    first, _ = training_data(_config(root, cache=tmp_path / "cache"), seed=0)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["held_out.npz", "train.npz"]
    second, _ = training_data(_config(root, cache=tmp_path / "cache"), seed=0)
    chex.assert_trees_all_equal(next(first(0)), next(second(0)))
    with pytest.raises(InputError, match="train.npz was made from other sequences"):
        training_data(_config(root, cache=tmp_path / "cache", held_out=("cow",)), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"held_out": ("bus", "whale")}, "held-out sequences whale are not in .*; set --data.held-out"),
     ({"held_out": ("bear", "bus", "cow")}, "every sequence .* is held out"),
     ({"split": "val"}, "val"), ({"resolution": "720p"}, "no resolution 720p"),
     ({"flow": "raft"}, "there is no folder of flow raft/bear"),
     ({"davis": Path("/nowhere")}, "/nowhere does not exist")],
)  # fmt: skip
def test_a_wrong_configuration(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        training_data(_config(_davis(tmp_path), **changes), seed=0)


def test_find_sequences(tmp_path):
    root = _davis(tmp_path / "davis")
    place = root / "JPEGImages" / "480p"
    expected = {name: place / name for name in ("bear", "bus", "cow")}
    assert find_sequences(root) == find_sequences(str(place)) == expected
    assert list(find_sequences(place)) == ["bear", "bus", "cow"]
    (place / "empty").mkdir()
    (place / ".hidden").mkdir()
    (place / "notes.txt").write_text("")
    assert find_sequences(place) == expected  # what holds no frames is no sequence
    for video in (place / "bear", tmp_path / "none", f"{place}/bear/*.png", place / "notes.txt", place / "empty"):
        assert find_sequences(video) is None
    Image.new("RGB", (8, 8)).save(place / "00000.png")
    assert find_sequences(place) is None  # a folder with frames is a video, whatever else is in it


def test_find_sequences_is_told_which_resolution(tmp_path):
    root = _davis(_davis(tmp_path), resolution="1080p")
    with pytest.raises(InputError, match="several resolutions; name one: .*480p, .*1080p"):
        find_sequences(root)
    assert len(find_sequences(root / "JPEGImages" / "1080p")) == 3
