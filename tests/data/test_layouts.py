"""Every release is found with its oddities, and the first thing wrong with it is named in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from data.dataset_fixtures import HEIGHT, MAKERS, WIDTH, frame, ids, save

from jaxvos.data import LAYOUTS, find_layout, read_annotation, write_mask
from jaxvos.errors import InputError


def _made(name: str, root: Path) -> Path:
    MAKERS[name](root)
    return root


def _scan(name: str, root: Path) -> dict:
    return LAYOUTS[name].scan(root)


def _decode(sequence, index: int, tmp_path: Path) -> np.ndarray | None:
    stored = sequence.mask_bytes(index)
    if not stored:
        return None
    (tmp_path / "stored.png").write_bytes(stored)
    return read_annotation(tmp_path / "stored.png")


def _masks(sequence, tmp_path: Path) -> list:
    return [_decode(sequence, i, tmp_path) for i in range(len(sequence.images))]


def _refused(match: str, call, *args) -> None:
    with pytest.raises(InputError, match=match) as error:
        call(*args)
    assert "\n" not in str(error.value)


EXPECTED = {  # splits in order, the sequences of each with the number of frames, and of masks
    "davis16": {"train": [("bus", 2, 2), ("bear", 2, 2)], "val": [("camel", 2, 2)]},
    "davis17": {"train": [("bmx-trees", 2, 2), ("bear", 2, 2)], "val": [("camel", 2, 2)]},
    "davis17_unsupervised": {"train": [("bmx-trees", 2, 2), ("bear", 2, 2)], "val": [("camel", 2, 2)]},
    "davis17_test_dev": {"test_dev": [("aerobatics", 3, 1)]},
    "youtube_vos_2018": {
        "train": [("0a7b27fde9", 3, 3)],
        "valid": [("0a7b27fde9", 3, 2)],
        "valid_all_frames": [("0a7b27fde9", 11, 2)],
    },
    "fbms59": {"train": [("bear01", 3, 2), ("cats01", 3, 2)], "test": [("tennis", 2, 1)]},
    "visal": {"test": [("aeroplane", 3, 1), ("bird", 1, 1)]},
    "youtube_objects": {"test": [("aeroplane_0001_001", 12, 2), ("cat_0012_001", 12, 2)]},
    "segtrack_v2": {"test": [("birdfall", 2, 2), ("cheetah", 2, 2)]},
    "vip": {"train": [("videos30", 2, 2)], "val": [("videos1", 2, 2)]},
    "vip_humans": {"train": [("videos30", 2, 2)], "val": [("videos1", 2, 2)]},
    "static": {
        "train": [
            (name, 1, 1)
            for name in ("BIG/2007_im", "DUTS-TR/DUTS-TR-Image/sun", "HRSOD_train/1", "fss/abacus/1", "own/images/a")
        ]
    },
    "sintel": {
        **{f"train_{r}": [("alley_1", 3, 2), ("ambush_2", 3, 2)] for r in ("clean", "final")},
        **{f"test_{r}": [("ambush_1", 3, 0)] for r in ("clean", "final")},
    },
    "kitti12_flow": {"train": [("000000", 2, 1), ("000007", 2, 1)], "test": [("000000", 2, 0)]},
    "flying_chairs": {"train": [("00001", 2, 0), ("00003", 2, 0)], "val": [("00002", 2, 0)]},
    "monkaa": {
        f"{split}_{r}": [(f"{scene}/{i:04d}", 2, 0) for i in (1, 2)]
        for r in ("clean", "final")
        for split, scene in (("train", "a_rain_of_stones_x2"), ("val", "eating_x2"))
    },
    "driving": {
        f"{split}_clean": [(f"{scene}/{i:04d}", 2, 0) for i in (1, 2)]
        for split, scene in (
            ("train", "35mm_focallength/scene_backwards/slow"),
            ("test", "15mm_focallength/scene_forwards/fast"),
        )
    },
}
EXPECTED["kitti15_flow"] = EXPECTED["kitti12_flow"]
EXPECTED["youtube_vos_2019"] = EXPECTED["youtube_vos_2018"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(name, tmp_path):
    assert LAYOUTS.keys() == MAKERS.keys()
    root = _made(name, tmp_path)
    found = _scan(name, root)
    counts = {s: [(q.name, len(q.images), sum(map(bool, q.masks))) for q in qs] for s, qs in found.items()}
    assert counts == EXPECTED[name] and list(found) == list(EXPECTED[name])
    text = LAYOUTS[name].describe()
    assert text.startswith(f"{name}: ") and LAYOUTS[name].terms in text
    for other in set(LAYOUTS[name].sizes) & set(found):
        assert str(LAYOUTS[name].sizes[other]) in text


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_outer_folder_and_a_wrong_one(name, tmp_path):
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "__MACOSX").mkdir()
    (tmp_path / "outer" / "readme.txt").touch()
    _made(name, inner)
    if name != "static":  # takes any folder
        files = [[(s, q.name, q.images, q.masks) for s, qs in _scan(name, root).items() for q in qs]
                 for root in (inner, tmp_path / "outer")]  # fmt: skip
        assert files[0] and files[0] == files[1]
        (tmp_path / "wrong" / "a").mkdir(parents=True)
        (tmp_path / "wrong" / "b").mkdir()
        _refused(f"wrong is not in the layout of {name}: it should hold", _scan, name, tmp_path / "wrong")
    _refused("no folder .*nowhere: give the folder or the archive of", _scan, name, tmp_path / "nowhere")


def test_unknown_name():
    _refused("no data set 'davis2016'; there are: davis16, davis17,", find_layout, "davis2016")
    assert find_layout("visal") is LAYOUTS["visal"]


def test_ids_of_davis(tmp_path):
    (tmp_path / "16").mkdir()
    (tmp_path / "17").mkdir()
    for sequence in sum(_scan("davis16", _made("davis16", tmp_path / "16")).values(), []):
        assert all(np.array_equal(mask, ids(0, 1, 0)) for mask in _masks(sequence, tmp_path))  # L, LA and RGB
        assert sequence.mask_bytes(0) == sequence.masks[0][0].read_bytes()
        assert sequence.image_bytes(1) == sequence.images[1].read_bytes()
    for sequence in sum(_scan("davis17", _made("davis17", tmp_path / "17")).values(), []):
        assert all(np.array_equal(mask, ids(0, 1, 2, 255)) for mask in _masks(sequence, tmp_path))
        assert sequence.images[0].parts[-3] == "480p"
    assert [s.name for s in _scan("davis16", tmp_path / "17")["train"]] == ["bear"]  # by the list in ImageSets/2016


def test_ids_of_youtube_vos_keep_gaps_and_late_starts(tmp_path):
    found = _scan("youtube_vos_2019", _made("youtube_vos_2019", tmp_path))
    first, second, third = _masks(found["train"][0], tmp_path)
    assert [np.unique(m).tolist() for m in (first, second, third)] == [[0, 3], [0, 3, 7], [0, 7]]
    dense = _masks(found["valid_all_frames"][0], tmp_path)
    assert [i for i, mask in enumerate(dense) if mask is not None] == [0, 5]
    assert np.array_equal(dense[5], ids(0, 7))
    (tmp_path / "train/meta.json").unlink()
    assert len(_scan("youtube_vos_2019", tmp_path)["train"]) == 1  # the folders say it too


def test_ids_of_region_colours(tmp_path):
    found = _scan("fbms59", _made("fbms59", tmp_path))
    defined, sorted_ = (_masks(sequence, tmp_path) for sequence in found["train"])
    assert np.array_equal(defined[0], ids(0, 1, 2)) and defined[1] is None  # blue is region 1, red is region 2
    assert np.array_equal(sorted_[2], ids(0, 1, 2))  # blue sorts before red
    grey = _masks(found["test"][0], tmp_path)
    save(tmp_path / "Testset/tennis/GroundTruth/tennis001.png", ids(0, 255))  # the same once more: the PGM counts
    assert _scan("fbms59", tmp_path)["test"][0].masks == found["test"][0].masks
    assert np.array_equal(grey[0], ids(0, 1, 2)) and grey[1] is None
    (tmp_path / "Trainingset/bear01/GroundTruth/bear01Def.dat").write_text("Scale of region 0:\n255\n")
    other = _masks(_scan("fbms59", tmp_path)["train"][0], tmp_path)
    assert np.array_equal(other[0], ids(255, 0, 255))  # colours of no region are void
    (tmp_path / "Trainingset/bear01/GroundTruth/bear01Def.dat").write_text("Scale of region 0:\nwhite\n")
    _refused("bear01Def.dat does not say the colours", _scan, "fbms59", tmp_path)


def test_masks_of_one_object(tmp_path):
    for name in ("visal", "youtube_objects", "static"):
        (tmp_path / name).mkdir()
    aeroplane, bird = _scan("visal", _made("visal", tmp_path / "visal"))["test"]
    assert np.array_equal(_masks(aeroplane, tmp_path)[1], ids(0, 0, 1, 1))
    assert np.array_equal(_masks(bird, tmp_path)[0], ids(0, 1))  # stored as 0 and 1
    shot = _scan("youtube_objects", _made("youtube_objects", tmp_path / "youtube_objects"))["test"][0]
    assert [i for i, mask in enumerate(_masks(shot, tmp_path)) if mask is not None] == [0, 10]
    assert np.array_equal(_masks(shot, tmp_path)[0][:, (0, -1)], ids(0, 1)[:, (0, -1)])  # a JPEG, sharp far from edges
    for image in _scan("static", _made("static", tmp_path / "static"))["train"]:
        assert np.array_equal(_masks(image, tmp_path)[0], ids(0, 0, 1, 1))


def test_folders_for_all_videos(tmp_path):
    for name, split, masks in (("visal", "test", "GT"), ("fbms59", "test", "Annotations")):
        root = tmp_path / name / ("Testset" if name == "fbms59" else "")
        for i in range(2):
            frame(root / f"JPEGImages/cars1/{i:05d}.jpg", i)
        save(root / masks / "cars1/00001.png", ids(0, 255), "RGB")  # white is the object in a PNG
        (sequence,) = _scan(name, tmp_path / name)[split]
        assert sequence.name == "cars1" and _masks(sequence, tmp_path)[0] is None
        assert np.array_equal(_masks(sequence, tmp_path)[1], ids(0, 1))
    frame(tmp_path / "yto/JPEGImages/cat/0001/1.jpg")
    save(tmp_path / "yto/Annotations/cat/0001/1.png", ids(0, 255))
    assert [s.name for s in _scan("youtube_objects", tmp_path / "yto")["test"]] == ["cat_0001"]


def test_objects_are_merged(tmp_path):
    birdfall, cheetah = _scan("segtrack_v2", _made("segtrack_v2", tmp_path))["test"]
    assert np.array_equal(_masks(birdfall, tmp_path)[1], ids(0, 1, 1))
    assert np.array_equal(_masks(cheetah, tmp_path)[0], ids(0, 1, 2))  # the second overlaps the first


def test_parts_and_people(tmp_path):
    root = _made("vip", tmp_path)
    assert np.array_equal(_masks(_scan("vip", root)["val"][0], tmp_path)[0], ids(0, 5, 19))
    assert np.array_equal(_masks(_scan("vip_humans", root)["val"][0], tmp_path)[1], ids(0, 1, 1, 2))
    shutil.rmtree(root / "lists")
    (root / "Validation").mkdir()
    (root / "Images").rename(root / "Validation/Images")
    (root / "Annotations/Category_ids").rename(root / "Validation/Category_ids")
    (video, _) = _scan("vip", root)["val"]
    assert video.name == "videos1" and np.array_equal(_masks(video, tmp_path)[0], ids(0, 5, 19))


def _unlink(*paths: str):
    return lambda root: [(root / path).unlink() for path in paths]


def _remove(path: str):
    return lambda root: shutil.rmtree(root / path)


def _meta(text: str):
    return lambda root: (root / "train/meta.json").write_text(text)


def _remove_frames(root: Path) -> None:
    for path in (*root.glob("*/*/videos1/*"), *root.glob("*/videos1/*")):
        path.unlink()


_LISTED_ONLY = json.dumps({"videos": {"ffff": {"objects": {}}}})
WRONG = [  # what is done to a good copy, and what is said of it
    ("davis16", _unlink("Annotations/480p/bear/00001.png"), "bear/00001.jpg has no annotation bear/00001.png in"),
    ("davis16", _remove("JPEGImages/480p/bus"), r"1 of the 2 sequences .* \(bus\)"),
    ("davis16", _remove("ImageSets"), "ImageSets has no list of sequences: it should hold 480p/train.txt or"),
    ("davis17", lambda r: (r / "ImageSets/2017/val.txt").write_text(""), "no sequences in split 2017/val"),
    ("davis17_unsupervised", _unlink("Annotations_unsupervised/480p/camel/00000.png"), "camel/00000.jpg has no anno"),
    (
        "davis17_unsupervised",
        _remove("JPEGImages"),
        "not in the layout of DAVIS: give the folder that holds JPEGImages",
    ),
    ("davis17_test_dev", _unlink("Annotations/480p/aerobatics/00000.png"), "00000.jpg has no annotation aerobatics"),
    ("youtube_vos_2018", _unlink("valid/Annotations/0a7b27fde9/00005.png"), "00005.png, the first of object 7, is mi"),
    ("youtube_vos_2018", _unlink("train/JPEGImages/0a7b27fde9/00005.jpg"), "00005.jpg, of object 3, is missing"),
    ("youtube_vos_2018", _remove("train/Annotations"), "no masks in .*train/Annotations: unpack"),
    ("youtube_vos_2018", _meta("{"), r"meta.json cannot be read \(JSONDecodeError: .*copy it"),
    ("youtube_vos_2018", _meta("[1]"), r"meta.json cannot be read \(TypeError"),
    ("youtube_vos_2018", _meta(_LISTED_ONLY), "lists ffff but there is no folder .*train/JPEGImages/ffff"),
    ("youtube_vos_2018", _meta('{"videos": {}}'), "split train of youtube_vos_2018 in .* has no sequences"),
    ("fbms59", _unlink("Testset/tennis/tennis1.jpg"), "tennis001.pgm has no frame of its name or number"),
    ("fbms59", _remove("Testset/tennis/GroundTruth"), "video tennis has no folder of masks"),
    ("vip", _remove_frames, "sequence videos1 has no jpg or png frames"),
    ("visal", _unlink("bird/GT_object_level/00000.png"), "no mask in .*bird/GT_object_level"),
    ("youtube_objects", _unlink("cat/data/0012/shots/001/images/frame0011.jpg"), "00011.jpg has no frame of its name"),
    ("segtrack_v2", _unlink("GroundTruth/cheetah/2/cheetah_00001.png"), r"cheetah_00001.bmp has no mask .*cheetah/2"),
    ("segtrack_v2", _remove("GroundTruth/birdfall"), "video birdfall has no folder of masks"),
    ("segtrack_v2", _remove("JPEGImages"), "no folder .*JPEGImages"),
    ("vip", _remove("Images/videos1"), "the lists name videos1 but there is no folder"),
    ("vip", _unlink("Images/videos1/000000000026.jpg"), "000000000026.png has no frame of its name"),
    ("static", _unlink("HRSOD_train_mask/1.png"), "HRSOD_train/1.jpg has no mask 1.png in .*HRSOD_train_mask"),
    ("static", _unlink("fss/abacus/1.png"), "abacus/1.jpg has no mask 1.png in .*abacus"),
]


@pytest.mark.parametrize(("name", "harm", "message"), WRONG)
def test_the_first_wrong_file_is_named(name, harm, message, tmp_path):
    root = _made(name, tmp_path)
    harm(root)
    _refused(message, _scan, name, root)


def test_headers_are_read(tmp_path):
    for name, path in (("davis17", "Annotations/480p/bear/00001.png"), ("vip", "Images/videos1/000000000026.jpg")):
        root = tmp_path / name
        root.mkdir()
        wrong = _made(name, root) / path
        wrong.write_bytes(b"not an image")
        _refused(f"{wrong.name} cannot be read", _scan, name, root)
        write_mask(wrong, np.zeros((HEIGHT, WIDTH + 1), np.uint8))
        _refused(f"{wrong.name} is {WIDTH + 1}x{HEIGHT} but", _scan, name, root)


def test_what_headers_do_not_tell(tmp_path):
    sequence = _scan("davis17", _made("davis17", tmp_path))["val"][0]
    for path, read in ((sequence.images[0], sequence.image_bytes), (sequence.masks[0][0], sequence.mask_bytes)):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        _refused(f"{path.name} cannot be read", read, 0)
