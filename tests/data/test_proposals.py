"""Proposal files: they keep what they should, put frames and scores in order, and refuse what is not of the video."""

import json

import numpy as np
import pytest

from jaxvos.data import VideoProposals, read_proposals, write_proposals
from jaxvos.errors import InputError
from jaxvos.system import Proposals

SIZE = (24, 32)


def _smooth(t, m, s):
    y, x = (np.arange(s) + 0.5) / s * np.pi, (np.arange(s) + 0.5) / s * np.pi
    hill = np.sin(y)[:, None] * np.sin(x)[None, :]
    return np.broadcast_to(hill, (t, m, s, s)).astype(np.float32)


def _video(t=3, m=4, s=28):
    """Proposals in the order of their scores; in frame 1 there are none, in frame 2 only two."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 12, (t, m, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(8, 12, (t, m, 2)).astype(np.float32)], -1)
    scores = -np.sort(-rng.uniform(0.1, 1, (t, m))).astype(np.float32)
    valid = np.ones((t, m), bool)
    valid[1], valid[2, 2:] = False, False
    fields = (boxes, _smooth(t, m, s), scores, valid)
    fields = [field * valid.reshape(t, m, *[1] * (field.ndim - 2)).astype(field.dtype) for field in fields]
    return VideoProposals("bear", ("00000", "00005", "last"), SIZE, Proposals(*fields), "a detector")


def _equal(one, other, tolerance=0.0):
    for name, a, b in zip(Proposals._fields, one, other, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, name
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance if name == "masks" else 0, err_msg=name)


def test_an_archive_is_exact_but_for_steps_of_masks(tmp_path):
    video = _video(s=10)
    write_proposals(tmp_path / "new" / "p.npz", video)
    read = read_proposals(tmp_path / "new" / "p.npz", names=video.names, size=SIZE)
    assert (read.video, read.names, read.size, read.detector) == ("bear", video.names, SIZE, "a detector")
    _equal(read.proposals, video.proposals, 0.5 / 255 + 1e-6)
    write_proposals(tmp_path / "again.npz", read)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "new" / "p.npz").read_bytes()


def test_json_keeps_boxes_and_scores_and_hard_masks(tmp_path):
    video = _video()
    write_proposals(tmp_path / "p.json", video)
    read = read_proposals(tmp_path / "p.json", names=video.names, size=SIZE)
    assert (read.video, read.names, read.size, read.detector) == ("bear", video.names, SIZE, "a detector")
    _equal(read.proposals._replace(masks=video.proposals.masks), video.proposals)
    assert np.abs(read.proposals.masks - (video.proposals.masks > 0.5))[video.proposals.valid].mean() < 0.1
    assert not read.proposals.masks[~video.proposals.valid].any()


def test_json_is_what_coco_has(tmp_path):
    video = _video()
    write_proposals(tmp_path / "p.json", video)
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["images"][1] == {"id": 1, "file_name": "00005", "height": 24, "width": 32}
    assert [a["image_id"] for a in content["annotations"]] == [0] * 4 + [2] * 2
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    first, (left, top, right, bottom) = content["annotations"][0], video.proposals.boxes[0, 0].tolist()
    assert first["bbox"] == [left, top, right - left, bottom - top] and first["iscrowd"] == 0
    assert first["segmentation"]["size"] == [24, 32] and 0 < first["area"] < (right - left) * (bottom - top)
    assert {a["category_id"] for a in content["annotations"]} == {c["id"] for c in content["categories"]}


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_frames_are_put_in_the_order_asked_for(tmp_path, suffix):
    video = _video()
    write_proposals(tmp_path / f"p{suffix}", video)
    read = read_proposals(tmp_path / f"p{suffix}", names=("last", "00000"))
    assert read.names == ("last", "00000") and len(read) == 2
    for name in read.names:
        np.testing.assert_array_equal(read.find(name).boxes, video.find(name).boxes)
    np.testing.assert_array_equal(read.frame(1).scores, video.frame(0).scores)
    with pytest.raises(InputError, match="no frame 00005"):
        read.find("00005")


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("num_proposals", [2, 6])
def test_best_first_cut_and_padded(tmp_path, suffix, num_proposals):
    video = _video()
    shuffled = Proposals(*(field[:, [2, 0, 3, 1]] for field in video.proposals))
    write_proposals(tmp_path / f"p{suffix}", VideoProposals("bear", video.names, SIZE, shuffled, ""))
    read = read_proposals(tmp_path / f"p{suffix}", num_proposals=num_proposals).proposals
    assert read.boxes.shape == (3, num_proposals, 4) and read.masks.shape[:2] == (3, num_proposals)
    both = min(4, num_proposals)
    for name in ("boxes", "scores", "valid"):
        field = getattr(read, name)
        np.testing.assert_array_equal(field[:, :both], getattr(video.proposals, name)[:, :both])
        assert not field[:, both:].any()
    assert not read.masks[~read.valid].any()


def test_proposals_without_area_are_dropped_and_scores_cut(tmp_path):
    video = _video()
    video.proposals.boxes[0, 1, 2] = video.proposals.boxes[0, 1, 0]
    video.proposals.scores[0, :] = [3, 2, 1, -1]
    video.proposals.scores[1, :] = video.proposals.boxes[1, :] = np.nan  # padding may hold anything
    video.proposals.masks[1, :] = np.nan
    write_proposals(tmp_path / "p.npz", video)
    read = read_proposals(tmp_path / "p.npz")
    assert read.proposals.scores[0].tolist() == [1, 1, 0, 0]
    assert read.proposals.valid[0].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(read.proposals.boxes[0, 1], video.proposals.boxes[0, 2])
    assert all(np.isfinite(field).all() for field in read.proposals)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize(("arguments", "message"), [
    ({"names": ("00000", "1", "2", "3", "4")}, r"p\.\w+ has no proposals for 4 of 5 frames \(1, 2, 3, \.\.\.\)"),
    ({"size": (480, 854)}, r"32x24 .* 854x480 .*make proposals again for this video"),
    ({"num_proposals": 0}, "0 proposals per frame"),
], ids=["names", "size", "number"])  # fmt: skip
def test_another_video_is_refused(tmp_path, suffix, arguments, message):
    write_proposals(tmp_path / f"p{suffix}", _video())
    with pytest.raises(InputError, match=message):
        read_proposals(tmp_path / f"p{suffix}", **arguments)


def test_not_a_file_of_proposals(tmp_path):
    with pytest.raises(InputError, match="there is no proposal file"):
        read_proposals(tmp_path / "p.npz")
    for function in (read_proposals, lambda path: write_proposals(path, _video())):
        with pytest.raises(InputError, match=r"use \.npz"):
            function(tmp_path / "p.pkl")
    write_proposals(tmp_path / "whole.npz", _video())
    whole = (tmp_path / "whole.npz").read_bytes()
    method = whole.index(b"PK\1\2") + 10  # of compression, in the archive's list of contents
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "pickled.npz", format=1, names=np.array([{}], object))
    contents = {"empty": b"", "text": b"hello", "cut": whole[:-200], "array": (tmp_path / "array.npy").read_bytes(),
                "changed": whole[:400] + b"\0\1\2" + whole[403:], "pickled": (tmp_path / "pickled.npz").read_bytes(),
                "method": whole[:method] + b"\x63" + whole[method + 1:]}
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.npz cannot be read"):
            read_proposals(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(("change", "message"), [
    ({"format": 2}, "format 2, this version reads 1"),
    ({"masks": None}, r"no proposals of jaxvos \(masks missing"),
    ({"masks": np.zeros((3, 4, 5, 5))}, r"\(masks missing or of another type"),
    ({"names": np.array("one")}, "missing or of another type"),
    ({"boxes": np.zeros((3, 5, 4))}, r"shapes boxes \(3, 5, 4\)"),
    ({"masks": np.zeros((3, 4, 5, 6), np.uint8)}, r"masks \(3, 4, 5, 6\)"),
    ({"names": np.array(["a", "b"])}, "for 2 frames"),
    ({"names": np.array(["a", "b", "a"])}, "two frames of the name a"),
    ({"names": np.zeros(0, "U1")}, "has no frames"),
    ({"boxes": np.full((3, 4, 4), np.nan)}, "boxes that are not finite"),
    ({"scores": np.full((3, 4), np.inf)}, "scores that are not finite"),
], ids=lambda value: value if isinstance(value, str) else None)  # fmt: skip
def test_damaged_archives_are_refused(tmp_path, change, message):
    write_proposals(tmp_path / "p.npz", _video())
    with np.load(tmp_path / "p.npz") as archive:
        arrays = {**archive, **change}
    np.savez(tmp_path / "p.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=message):
        read_proposals(tmp_path / "p.npz")


def test_wrong_arrays_are_not_written(tmp_path):
    video = _video()
    wrong = video.proposals._replace(scores=video.proposals.scores[:, :2])
    with pytest.raises(InputError, match=r"scores \(3, 2\)"):
        write_proposals(tmp_path / "p.npz", VideoProposals("bear", video.names, SIZE, wrong, ""))
    assert not list(tmp_path.iterdir())
