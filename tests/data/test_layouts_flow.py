"""Sets of true flow keep every vector, what is known of it and what the next frame hides, and gaps are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from data.dataset_fixtures import HEIGHT, MAKERS, WIDTH, flow, frame, ids, save

from jaxvos.data import LAYOUTS, open_dataset, prepare_dataset, read_flow, read_image, write_flow
from jaxvos.errors import InputError


def _made(name: str, root: Path) -> Path:
    MAKERS[name](root)
    return root


def _read(name: str, root: Path, split: str) -> list:
    prepare_dataset(name, root, root.parent / "prepared", progress=False)
    return open_dataset(name, split=split, data_dir=root.parent / "prepared")


def _refused(match: str, call, *args) -> None:
    with pytest.raises(InputError, match=match) as error:
        call(*args)
    assert "\n" not in str(error.value)


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def _vectors(value: float) -> np.ndarray:
    vectors = np.full((HEIGHT, WIDTH, 2), value, np.float32)
    vectors[0, :, 0] += np.arange(WIDTH)
    return vectors


def test_sintel(source):
    scene = _read("sintel", _made("sintel", source), "train_final")[0]
    *flows, last = scene.flows()
    assert last is None and len(flows) == 2
    for value, (read, known) in enumerate(flows, 1):
        assert np.array_equal(read, _vectors(value)) and known.all()
    *masks, last = scene.masks()
    assert last is None and all(np.array_equal(mask, ids(0, 1, 255, 255)) for mask in masks)
    shutil.rmtree(source / "training/occlusions")
    assert LAYOUTS["sintel"].scan(source)["train_clean"][0].masks == ()  # half of it would say something else


@pytest.mark.parametrize("name", ["kitti12_flow", "kitti15_flow"])
def test_sparse_flow_is_known_where_it_was(name, source):
    first, second = _read(name, _made(name, source), "train")
    for pair in (first, second):
        (read, known), last = pair.flows()
        assert last is None and np.array_equal(known, ids(0, 1, 1) > 0)
        exact = np.arange(read.size, dtype=np.float32).reshape(read.shape) / 64
        assert np.array_equal(read, np.where(known[..., None], exact, 0))
        mask, last = pair.masks()
        assert last is None and np.array_equal(mask, ids(255, 0, 1))
        assert [n[-3:] for n in pair.frames().names] == ["_10", "_11"]
    (test,) = open_dataset(name, split="test", data_dir=source.parent / "prepared")
    assert list(test.flows()) == [None, None]


def test_kitti_in_grey_and_without_what_is_hidden(source):
    _made("kitti12_flow", source)
    for part in ("training", "testing"):
        (source / part / "colored_0").rename(source / part / "image_0")
    shutil.rmtree(source / "training/flow_occ")
    save(source / "training/image_0/000000_10.png", ids(0, 200), "L")
    pair = _read("kitti12_flow", source, "train")[0]
    assert np.array_equal(next(iter(pair.frames())), ids(0, 200)[..., None].repeat(3, -1))
    assert list(pair.masks()) == [None, None]
    (_, known), _ = pair.flows()
    assert np.array_equal(known, ids(0, 1, 0) > 0)


@pytest.mark.parametrize("place", ["data/FlyingChairs_train_val.txt", "data/chairs_split.txt", "../chairs_split.txt"])
def test_the_list_of_flying_chairs(place, source):
    _made("flying_chairs", source)
    (source / "FlyingChairs_train_val.txt").rename(source / place)
    (pair,) = LAYOUTS["flying_chairs"].scan(source)["val"]
    assert [path.name for path in pair.images] == ["00002_img1.ppm", "00002_img2.ppm"]
    assert pair.flows == (source / "data/00002_flow.flo", None)


@pytest.mark.parametrize(("name", "split"), [("monkaa", "val_final"), ("driving", "test_clean")])
def test_scene_flow_is_the_left_one_forwards(name, split, source):
    _made(name, source)
    for value, pair in enumerate(_read(name, source, split), 1):
        (read, known), last = pair.flows()
        assert last is None and np.array_equal(read, _vectors(value)) and known.all()
        folder = "frames_finalpass_webp" if name == "monkaa" else "frames_cleanpass"
        (path,) = (p for p in (source / folder).rglob(f"{value + 1:04d}.*")
                   if pair.name.startswith(p.parents[1].relative_to(source / folder).as_posix() + "/")
                   and p.parent.name == "left")  # fmt: skip
        assert np.array_equal(list(pair.frames())[1], read_image(path))
    assert value == 2


def test_scene_flow_as_flo(source):
    _made("driving", source)
    scene = source / "optical_flow/15mm_focallength/scene_forwards/fast/into_future/left"
    flow(scene / "OpticalFlowIntoFuture_0001_L.flo", 5)
    (scene / "OpticalFlowIntoFuture_0001_L.pfm").unlink()
    (scene / "OpticalFlowIntoFuture_0003_L.pfm").unlink()  # of the last frame: not asked for
    pairs = LAYOUTS["driving"].scan(source)["test_clean"]
    paths = [path for pair in pairs for path in pair.flows if path is not None]
    assert [read_flow(path)[0][1, 0, 0] for path in paths] == [5, 2]


def test_part_of_scene_flow(source):
    _made("monkaa", source)
    shutil.rmtree(source / "frames_cleanpass")
    assert list(LAYOUTS["monkaa"].scan(source)) == ["train_final", "val_final"]
    shutil.rmtree(source / "frames_finalpass_webp/eating_x2")
    assert list(LAYOUTS["monkaa"].scan(source)) == ["train_final"]


def test_published_numbers_of_pairs():
    """SegFlow counts both cameras, directions of time and renderings."""
    for name, held, numbers in (("monkaa", "val", (63400, 5720)), ("driving", "test", (32744, 2392))):
        sizes = LAYOUTS[name].sizes
        for split, number in zip(("train", held), numbers, strict=True):
            assert 2 * 2 * (sizes[f"{split}_clean"] + sizes[f"{split}_final"]) == number


def _unlink(path: str):
    return lambda root: (root / path).unlink()


def _write(path: str, content: bytes | None = None):
    """Replaces a file, or cuts it in half."""
    return lambda root: (root / path).write_bytes(
        (root / path).read_bytes()[: (root / path).stat().st_size // 2] if content is None else content
    )


def _wide(path: str):
    return lambda root: flow(root / path, 1.0, WIDTH + 1)


_MONKAA_FLOW = "optical_flow/eating_x2/into_future/left/OpticalFlowIntoFuture_0002_L.pfm"
_DRIVING = "35mm_focallength/scene_backwards/slow"
WRONG = [  # what is done to a good copy, and what is said of it
    ("sintel", _unlink("training/flow/ambush_2/frame_0002.flo"), "no flow file .*ambush_2/frame_0002.flo"),
    ("sintel", _unlink("training/clean/ambush_2/frame_0002.png"), "the frame after .*ambush_2/frame_0001.png is mis"),
    ("sintel", _unlink("training/clean/ambush_2/frame_0003.png"), "ambush_2/frame_0002.flo is from or to a fr"),
    ("sintel", _unlink("training/invalid/alley_1/frame_0002.png"), "invalid/alley_1/frame_0002.png does not exist"),
    ("sintel", _wide("training/flow/alley_1/frame_0001.flo"), "alley_1/frame_0001.flo is 13x8 but its frame frame_00"),
    ("sintel", _write("training/flow/alley_1/frame_0002.flo"), "alley_1/frame_0002.flo declares 12x8 .* cut short"),
    ("kitti12_flow", _unlink("training/colored_0/000007_11.png"), "000007_11.png does not exist"),
    ("kitti12_flow", _unlink("training/flow_occ/000007_10.png"), "no flow file .*flow_occ/000007_10.png"),
    ("kitti12_flow", _wide("training/flow_occ/000007_10.png"), "000007_10.png is 13x8 but its frame 000007_10.png"),
    ("kitti12_flow", _wide("training/flow_noc/000007_10.png"), "flow_noc/000007_10.png is 13x8 but"),
    ("kitti15_flow", lambda r: [shutil.rmtree(r / "training" / k) for k in ("flow_occ", "flow_noc")], "neither flow_o"),
    ("kitti15_flow", lambda r: frame(r / "training/flow_occ/000000_10.png"), "000000_10.png is not a KITTI flow PNG"),
    ("kitti15_flow", _write("training/flow_occ/000000_10.png", b"no"), "000000_10.png cannot be read"),
    ("flying_chairs", _unlink("data/00003_flow.flo"), "no flow file .*00003_flow.flo"),
    ("flying_chairs", _unlink("data/00003_img2.ppm"), "00003_img2.ppm does not exist"),
    ("flying_chairs", _unlink("data/00003_img1.ppm"), "1 or 2, for each of the 2 pairs in .* has 3 lines"),
    ("flying_chairs", _write("FlyingChairs_train_val.txt", b"1\n3\n2\n"), "should have a line, 1 or 2, for each"),
    ("flying_chairs", _unlink("FlyingChairs_train_val.txt"), "FlyingChairs_train_val.txt is missing: download it"),
    ("monkaa", _unlink(_MONKAA_FLOW), "no flow file .*OpticalFlowIntoFuture_0002_L.pfm"),
    ("monkaa", _write(_MONKAA_FLOW), "0002_L.pfm declares 12x8 .* cut short"),
    ("monkaa", _write(_MONKAA_FLOW, b"Pf\n12 8\n-1.0\n" + bytes(4 * 96)), "0002_L.pfm has one channel"),
    ("driving", _unlink(f"frames_cleanpass/{_DRIVING}/left/0002.png"), "the frame after .*left/0001.png is missing"),
    ("driving", lambda r: shutil.rmtree(r / "frames_cleanpass"), "not in the layout of driving"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "harm", "message"), WRONG)
def test_the_first_wrong_file_is_named(name, harm, message, source):
    _made(name, source)
    harm(source)
    _refused(message, LAYOUTS[name].scan, source)


@pytest.mark.parametrize("kind", ["flow_occ", "flow_noc"])
def test_flow_of_which_nothing_is_known(kind, source):
    import cv2

    _made("kitti12_flow", source)
    path = source / "training" / kind / "000007_10.png"
    vectors = np.full((HEIGHT, WIDTH, 3), 32768, np.uint16)
    vectors[..., 0] = 0  # known, as OpenCV orders the channels
    cv2.imwrite(str(path), vectors)
    _refused(f"no vector of flow .*{kind}/000007_10.png is known", _read, "kitti12_flow", source, "train")
    assert not list((source.parent / "prepared").rglob("*.array_record*"))


@pytest.mark.data
@pytest.mark.parametrize("name", ["Dimetrodon", "Grove2", "RubberWhale", "Venus"])
def test_real_pairs(name, data_dir, source):
    """Middlebury's pairs, as a scene of Sintel has its frames."""
    pair = data_dir / "flow" / name
    for kind, target, files in (
        ("clean", "frame_00{}.png", ("frame10.png", "frame11.png")),
        ("flow", "frame_00{}.flo", ("flow10.flo",)),
    ):
        (source / "training" / kind / name).mkdir(parents=True)
        for file in files:
            number = "".join(filter(str.isdigit, file))
            (source / "training" / kind / name / target.format(number)).symlink_to(pair / file)
    (read,) = _read("sintel", source, "train_clean")
    (vectors, known), _ = read.flows()
    expected, valid = read_flow(pair / "flow10.flo")
    assert vectors.tobytes() == expected.tobytes() and np.array_equal(known, valid)
    assert all(
        np.array_equal(a, read_image(pair / f"frame{n}.png")) for a, n in zip(read.frames(), (10, 11), strict=True)
    )
    write_flow(source / "again.pfm", vectors)
    assert read_flow(source / "again.pfm")[0].tobytes() == expected.tobytes()
