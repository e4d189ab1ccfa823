"""The DAVIS layout is read in each of its variants, and departures from it are said in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import DavisSequence, find_sequence, list_sequences, read_annotation, write_mask
from jaxvos.errors import InputError

SIZE = (12, 16)


def _mask(ids=(0, 1, 2)) -> np.ndarray:
    return np.array(ids, np.uint8).repeat(6)[: SIZE[1]][None].repeat(SIZE[0], 0)


def _make(root: Path, *, resolutions=("480p",), sequences=("bear", "bmx-trees"), frames=3, annotated=3) -> Path:
    for resolution in resolutions:
        for sequence in sequences:
            for i in range(frames):
                path = root / "JPEGImages" / resolution / sequence / f"{i:05d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", SIZE[::-1], (40 * i, 0, 0)).save(path)
                if i < annotated:
                    write_mask(root / "Annotations" / resolution / sequence / f"{i:05d}.png", _mask())
    return root


def _split(root: Path, name: str, *lines: str) -> None:
    path = root / "ImageSets" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _refused(match: str, call) -> None:
    with pytest.raises(InputError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


def test_every_sequence(tmp_path):
    found = list_sequences(_make(tmp_path))
    assert [s.name for s in found] == ["bear", "bmx-trees"] and [len(s) for s in found] == [3, 3]
    video = found[0].frames()
    assert (video.name, video.size, video.length, list(video.names)) == ("bear", SIZE, 3, ["00000", "00001", "00002"])
    assert all(np.array_equal(mask, _mask()) for mask in found[0].masks())
    assert find_sequence(str(tmp_path), "bear") == found[0]


def test_splits(tmp_path):
    root = _make(tmp_path, sequences=("a", "b", "c"))
    _split(root, "train", "c", "", "a")
    _split(root, "2016/val", "/JPEGImages/480p/b/00000.jpg /Annotations/480p/b/00000.png",
           "/JPEGImages/480p/b/00001.jpg /Annotations/480p/b/00001.png")
    _split(root, "2017/val", "a", "b")
    _split(root, "2017/test-dev", "a", "z")
    for split, expected in (("train", "ca"), ("train.txt", "ca"), ("2016/val", "b"), ("2017/val", "ab")):
        assert "".join(s.name for s in list_sequences(root, split=split)) == expected
    _refused("say '2016/val' or '2017/val'", lambda: list_sequences(root, split="val"))
    _refused("no split 'tran' .*did you mean train", lambda: list_sequences(root, split="tran"))
    _refused(r"1 of the 2 sequences .* \(z\): complete the data", lambda: list_sequences(root, split="test-dev"))
    _split(root, "2016/val", "a", "b")
    assert len(list_sequences(root, split="val")) == 2  # both files say the same now
    _split(root, "none", "")
    _refused("no sequences in split none", lambda: list_sequences(root, split="none"))


def test_resolutions(tmp_path):
    root = _make(tmp_path, resolutions=("256p", "Full-Resolution"))
    assert list_sequences(root)[0].image_paths[0].parts[-3] == "256p"
    assert list_sequences(root, resolution="Full-Resolution")[0].image_paths[0].parts[-3] == "Full-Resolution"
    _make(root, resolutions=("480p",), sequences=("bear",))
    assert list_sequences(root)[0].image_paths[0].parts[-3] == "480p"
    assert "480p" in str(find_sequence(root, "bear").mask_paths[0])
    _refused("no resolution 720p .* 256p, 480p, Full-Res", lambda: list_sequences(root, resolution="720p"))
    _split(root, "all", "bear", "bmx-trees")
    _refused('not in .*480p .bmx-trees.: pass resolution="256p"', lambda: list_sequences(root, split="all"))


def test_annotations_in_the_only_folder(tmp_path):
    root = _make(tmp_path)
    (root / "Annotations" / "480p").rename(root / "Annotations" / "2017")
    assert next(list_sequences(root)[0].masks()).shape == SIZE


def test_frames_without_annotation(tmp_path):
    sequence = list_sequences(_make(tmp_path / "first", annotated=1))[0]
    first, *others = sequence.masks()
    assert np.array_equal(first, _mask()) and others == [None, None] and sequence.mask_paths[1] is None
    assert list(list_sequences(_make(tmp_path / "none", annotated=0))[0].masks()) == [None] * 3


def test_binary_and_multi_object_annotations(tmp_path):
    binary = _mask((0, 255, 0))
    for name, image in (("grey", Image.fromarray(binary)), ("colour", Image.fromarray(np.dstack([binary] * 3))),
                        ("alpha", Image.fromarray(np.dstack([binary] * 3 + [np.full_like(binary, 255)])))):
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_annotation(tmp_path / f"{name}.png"), binary // 255)
    for ids in ((0, 1, 255), (0, 255, 0), (0, 3, 9)):
        write_mask(tmp_path / "indexed.png", _mask(ids))
        assert np.array_equal(read_annotation(tmp_path / "indexed.png"), _mask(ids))  # void stays void
    Image.fromarray(_mask((0, 2, 255))).save(tmp_path / "grey_ids.png")
    assert np.array_equal(read_annotation(tmp_path / "grey_ids.png"), _mask((0, 2, 255)))
    Image.new("RGB", SIZE, (128, 0, 0)).save(tmp_path / "red.png")
    _refused("not palette indices", lambda: read_annotation(tmp_path / "red.png"))


def test_what_is_not_davis(tmp_path):
    _refused("does not exist: give the folder that holds JPEGImages", lambda: list_sequences(tmp_path / "none"))
    _refused("not in the layout of DAVIS", lambda: list_sequences(tmp_path))
    (tmp_path / "JPEGImages").mkdir()
    _refused("no resolution folder .*no folders", lambda: list_sequences(tmp_path))
    (tmp_path / "JPEGImages" / "480p").mkdir()
    _refused("no sequences in", lambda: list_sequences(tmp_path))
    root = _make(tmp_path)
    _refused("no sequence 'baer' .*did you mean bear", lambda: find_sequence(root, "baer"))
    _refused("no sequence 'xyz' .*it has bear, bmx-trees", lambda: find_sequence(root, "xyz"))
    _refused("no split 'val' .*it is empty", lambda: list_sequences(root, split="val"))
    (root / "JPEGImages" / "480p" / "empty").mkdir()
    _refused("no jpg or png frames in .*empty", lambda: list_sequences(root))


def test_sizes_must_agree(tmp_path):
    root = _make(tmp_path)
    write_mask(root / "Annotations" / "480p" / "bear" / "00001.png", np.zeros((6, 8), np.uint8))
    _refused("00001.png is 8x6 but its frame is 16x12", lambda: list(find_sequence(root, "bear").masks()))


@pytest.mark.data
def test_real_davis_2016(data_dir):
    root = data_dir / "davis2016"
    assert [s.name for s in list_sequences(root)] == ["dog-agility", "drift-turn", "soccerball"]
    _refused('pass resolution="256p"', lambda: list_sequences(root, split="train"))
    train = list_sequences(root, split="train", resolution="256p")
    assert len(train) == 30 and sum(map(len, train)) == 2079
    assert all(None not in sequence.mask_paths for sequence in train)
    bear = train[0]
    assert isinstance(bear, DavisSequence) and bear.name == "bear"
    mask, frame = next(bear.masks()), next(iter(bear.frames()))
    assert np.unique(mask).tolist() == [0, 1] and mask.shape == frame.shape[:2]


@pytest.mark.data
def test_real_first_frames_of_davis_2017(data_dir):
    found = list_sequences(data_dir / "multi_object/testdev_first_frames")
    assert len(found) == 30
    for sequence in found:
        mask = next(sequence.masks())
        assert mask is not None and mask.max() >= 1 and mask.max() < 255
