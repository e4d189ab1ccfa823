"""COCO JSON of other detectors: each form of entry, list and numbering; what is damaged is refused."""

import json

import numpy as np
import pytest

from jaxvos.data import encode_rle, read_proposals
from jaxvos.data._polygons import fill_polygons
from jaxvos.errors import InputError

SIZE = (24, 32)
NAMES = ("00000", "00001", "00002")
BOX = [5, 6, 14, 9]  # left, top, width, height
POLYGON = [5, 6, 19, 6, 19, 15, 5, 15]


def _pixels():
    mask = np.zeros(SIZE, bool)
    mask[6:15, 5:19] = True
    return mask


COUNTS = [126, *([9, 15] * 13), 9, 24 * 32 - 126 - 13 * 24 - 9]
SEGMENTATIONS = {"compressed": encode_rle(_pixels()), "plain": {"size": list(SIZE), "counts": COUNTS},
                 "polygon": [POLYGON], "absent": None, "no polygon": []}  # fmt: skip

FORMS = [(name, BOX) for name in SEGMENTATIONS] + [(name, None) for name in ("compressed", "plain", "polygon")]


def _read(tmp_path, content, **arguments):
    (tmp_path / "p.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_proposals(tmp_path / "p.json", **arguments)


def _object(entries, *, key="annotations", names=NAMES):
    images = [{"id": 10 + i, "file_name": f"bear/{name}.jpg", "height": 24, "width": 32}
              for i, name in enumerate(names)]
    return {"images": images, key: entries}


@pytest.mark.parametrize(("segmentation", "box"), [(SEGMENTATIONS[name], box) for name, box in FORMS])
def test_every_form_of_a_mask(tmp_path, segmentation, box):
    read = _read(tmp_path, _object([{"image_id": 11, "bbox": box, "segmentation": segmentation}]))
    assert read.names == NAMES and read.size == SIZE and read.proposals.valid.tolist() == [[False], [True], [False]]
    np.testing.assert_array_equal(read.proposals.boxes[1, 0], [5, 6, 19, 15])
    np.testing.assert_allclose(read.proposals.masks[1, 0], 1, atol=1e-6)
    assert read.proposals.scores[1, 0] == 1 and read.detector == "unknown" and read.video == "p"


def test_a_mask_is_averaged_in_the_box_given(tmp_path):
    read = _read(tmp_path, _object([{"image_id": 11, "bbox": [5, 6, 28, 9], "segmentation": [POLYGON]}]))
    mask = read.proposals.masks[1, 0]
    np.testing.assert_allclose(mask, np.broadcast_to(np.arange(28) < 14, (28, 28)), atol=1e-5)


@pytest.mark.parametrize("key", ["annotations", "predictions"])
def test_more_entries_than_are_unpacked_together(tmp_path, key):
    entries = [{"image_id": 10 + i % 3, "score": i / 40, "segmentation": [[i % 20, 2, i % 20 + 5, 2, i % 20 + 5, 20]]}
               for i in range(40)]  # fmt: skip
    read = _read(tmp_path, _object(entries, key=key))
    assert read.proposals.valid.sum(axis=1).tolist() == [14, 13, 13]
    lefts = read.proposals.boxes[..., 0]
    assert lefts[0, :4].tolist() == [39 % 20, 36 % 20, 33 % 20, 30 % 20] and lefts[1, 0] == 37 % 20
    np.testing.assert_allclose(np.diff(read.proposals.scores[0]), -3 / 40, atol=1e-6)
    few = _read(tmp_path, _object(entries, key=key), num_proposals=3, names=("00001",))
    for one, other in zip(few.proposals, read.proposals, strict=True):
        np.testing.assert_array_equal(one[0], other[1, :3])


def test_what_is_empty_is_no_proposal(tmp_path):
    empty = encode_rle(np.zeros(SIZE, bool))
    read = _read(tmp_path, _object([{"image_id": 11, "segmentation": empty}, {"image_id": 11, "bbox": [3, 3, 0, 4]},
                                    {"image_id": 11, "bbox": BOX, "score": 0.1}]))  # fmt: skip
    assert read.proposals.valid.sum() == 1 and read.proposals.valid[1, 0]
    none = _read(tmp_path, _object([]))
    assert none.proposals.boxes.shape == (3, 1, 4) and not none.proposals.valid.any()


@pytest.mark.parametrize(("ids", "names", "frames"), [
    ([0, 2], NAMES, [0, 2]),
    ([1, 3], NAMES, [0, 2]),
    ([1, 2], ("a", "b", "c"), [1, 2]),
    ([3, 1], ("a", "b", "c"), [2, 0]),
    ([1, 2], ("00001", "00002", "00003"), [0, 1]),
    ([0, 10], ("00000", "00005", "00010"), [0, 2]),
    (["00002", "bear/00000.jpg"], NAMES, [2, 0]),
    (["b", "elsewhere"], ("a", "b", "c"), [1]),
], ids=["from 0", "from 1", "places", "places from 1", "in names", "gaps", "names", "other frames"])  # fmt: skip
def test_the_frame_that_an_image_id_means(tmp_path, ids, names, frames):
    entries = [{"image_id": i, "bbox": BOX, "score": 0.5, "category_id": 3} for i in ids]
    read = _read(tmp_path, entries, names=names, size=SIZE)
    assert read.names == names and np.flatnonzero(read.proposals.valid[:, 0]).tolist() == sorted(frames)


def test_a_bare_list_needs_frames_that_fit(tmp_path):
    entries = [{"image_id": 0, "bbox": BOX}]
    for arguments in ({}, {"names": NAMES}, {"size": SIZE}):
        with pytest.raises(InputError, match="give the names and the size"):
            _read(tmp_path, entries, **arguments)
    for image_id in (4, "other"):
        with pytest.raises(InputError, match=r"neither names of the 3 frames nor numbers from 0 to 2 or from 1 to 3"):
            _read(tmp_path, [{"image_id": image_id, "bbox": BOX}], names=NAMES, size=SIZE)


def test_the_size_may_be_told(tmp_path):
    content = _object([{"image_id": 11, "bbox": BOX}])
    for image in content["images"]:
        del image["height"]
    assert _read(tmp_path, content, size=SIZE).size == SIZE
    with pytest.raises(InputError, match="how large"):
        _read(tmp_path, content)


@pytest.mark.parametrize(("content", "message"), [
    ("{", "not JSON"),
    ("[" * 100000, "not JSON"),
    ('"text"', "holds no proposals"),
    ({"images": []}, "holds no proposals"),
    ({"images": [], "annotations": []}, "no images"),
    ({"images": [{"id": 1}], "annotations": []}, "no images"),
    (_object([{"bbox": BOX}]), "entry 0 of .* has no image_id"),
    (_object([{"image_id": 99, "bbox": BOX}]), "belongs to no image"),
    (_object([{"image_id": 10}]), "neither bbox nor segmentation"),
    (_object([{"image_id": 10, "bbox": [1, 2, 3]}]), "four finite numbers"),
    (_object([{"image_id": 10, "bbox": [1, 2, 3, float("nan")]}]), "four finite numbers"),
    (_object([{"image_id": 10, "bbox": [1, 2, 3, 10**400]}]), "four finite numbers"),
    (_object([{"image_id": 10, "bbox": BOX, "score": "high"}]), "score"),
    (_object([{"image_id": 10, "segmentation": {"size": [24, 32], "counts": "d0"}}]), "entry 0 of .*: the run lengths"),
    (_object([{"image_id": 10, "segmentation": encode_rle(_pixels().T)}]), "mask of 24x32 but its frame is 32x24"),
    (_object([{"image_id": 10, "segmentation": [[1, 2, 3, 4]]}]), "polygons of three points or more"),
    (_object([{"image_id": 10, "segmentation": "mask.png"}]), "run lengths, or polygons"),
    (_object([], names=("a", "b", "a")), "two frames of the name a"),
    (_object([]) | {"info": {"jaxvos_format": 7}}, "format 7, this version reads 1"),
    ({"images": [{"id": i, "file_name": str(i), "height": 24, "width": 30 + i} for i in range(2)], "annotations": []},
     r"30x24 and 31x24"),
])  # fmt: skip
def test_damaged_files_are_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        _read(tmp_path, content)


def test_polygons_hold_the_pixels_whose_centre_is_inside():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :30] + 0.5
    for corners in rng.uniform(-5, 35, (10, 3, 2)):
        edges = np.roll(corners, -1, axis=0) - corners
        side = [dx * (y - cy) - dy * (x - cx) for (cx, cy), (dx, dy) in zip(corners, edges, strict=True)]
        inside = np.all(np.array(side) > 0, axis=0) | np.all(np.array(side) < 0, axis=0)
        np.testing.assert_array_equal(fill_polygons([corners.ravel().tolist()], (20, 30)), inside)
    square, other = [2, 2, 5, 2, 5, 5, 2, 5], [4, 4, 8, 4, 8, 8, 4, 8]
    joined = fill_polygons([square, other], (10, 10))
    assert joined.sum() == 9 + 16 - 1 and joined[2, 2] and not joined[5, 2]
