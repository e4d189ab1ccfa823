"""Proposals as files: one file per video, which any detector can write and every command reads.

`.npz`, NumPy's archive, exact but for masks in steps of 1/255. Of `t` frames with `m` places for proposals each:

| array | type | meaning |
|---|---|---|
| `format` | integer | 1 |
| `video` | string | name of the video |
| `detector` | string | what made the proposals |
| `names` | string `(t,)` | of the frames: the stem of the image file, or its number in a video file as `00000` |
| `size` | integer `(2,)` | height and width of the frames in pixels |
| `boxes` | float `(t, m, 4)` | left, top, right, bottom in pixels of the frame: edges, of which pixel i has i and i + 1 |
| `masks` | uint8 `(t, m, s, s)` | probability x 255 in the cells of a grid that is spread over the box; s is 28 for Mask R-CNN |
| `scores` | float `(t, m)` | how likely it is an object, in [0, 1]; others are cut to it |
| `valid` | bool `(t, m)` | False for places that hold no proposal, whatever the other arrays have there |

`.json`, COCO's object format, for exchange with other tools. It has hard masks: what is above 0.5 in the whole frame.

| field | meaning |
|---|---|
| `info` | `jaxvos_format` (1), `video`, `detector`, `description`; all may be absent |
| `images` | for each frame `id`, `file_name` (its name; a folder and the suffix of an image do not count), `height`, `width` |
| `annotations` | for each proposal `id`, `image_id`, `category_id`, `bbox` [left, top, width, height], `score`, `area`, `iscrowd`, `segmentation` |
| `categories` | one, `object` |

Of others are read: `predictions` in place of `annotations`; a `segmentation` in compressed or plain run lengths, as
polygons, or none (then the whole box is the mask); no `bbox` (then that of the mask); no `score` (then 1); and a bare
list of such entries, whose `image_id` is the name of the frame, the number that its name is, or its place in the video
from 0 or, if that cannot be, from 1. Categories, areas and ids are not looked at.
"""  # noqa: E501

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvos.data._coco import FORMAT, read_coco
from jaxvos.data._proposals_coco import coco_content, proposals_of_coco
from jaxvos.data._video_proposals import VideoProposals, best_proposals, check_arrays, check_size, frames_of
from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.system import Proposals

__all__ = ["read_proposals", "write_proposals"]

_FIELDS = {"format": "iu", "video": "U", "detector": "U", "names": "U", "size": "iu", "boxes": "f", "masks": "u",
           "scores": "f", "valid": "b"}  # and the kinds of type they may have


def write_proposals(path: str | Path, proposals: VideoProposals) -> None:
    """Writes the proposals of a video in the format that the suffix names, whole or not at all.

    Args:
        path: ends in `.npz` (masks in steps of 1/255) or `.json` (COCO; masks are hard, and read again from pixels).
        proposals: of every frame.

    Raises:
        InputError: for another suffix, arrays that do not fit together, or if it cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path)
    check_arrays(proposals.proposals, len(proposals.names), f"what is to be written to {path}")
    with atomic_path(path) as temporary:
        if suffix == ".json":
            temporary.write_text(json.dumps(coco_content(proposals), separators=(",", ":")))
        else:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **_arrays(proposals))


def read_proposals(path: str | Path, *, names: Sequence[str] | None = None, size: tuple[int, int] | None = None,
                   num_proposals: int | None = None) -> VideoProposals:
    """Reads the proposals of a video: files of `write_proposals`, and COCO JSON of other detectors.

    A frame may have no proposals. Those whose box has no area are dropped.

    Args:
        path: ends in `.npz` or `.json`.
        names: of the frames, in the order wanted (`Video.frame_name`); what the file has where it is None.
        size: height and width that the frames must have, in pixels.
        num_proposals: `m`: so many of the best are kept, fewer are padded. `None` keeps all.

    Returns:
        The proposals, sorted by score in each frame. From JSON, masks are averages over 28 x 28 cells of their boxes.

    Raises:
        InputError: if there is no such file, it is damaged, of a later format or holds no proposals; if frames are
            missing or of another size; if boxes, scores or masks are not finite or not of the shapes above; and for a
            bare list of results without `names` and `size`.
    """
    path = Path(path)
    suffix = _suffix(path)
    if num_proposals is not None and num_proposals < 1:
        raise InputError(f"{num_proposals} proposals per frame are asked for: give 1 or more")
    if not path.is_file():
        raise InputError(f"there is no proposal file {path}: check the path")
    if suffix == ".json":
        return proposals_of_coco(read_coco(path, names=names, size=size), path, num_proposals=num_proposals)
    stored = _load(path)
    found: list[str] = stored["names"].tolist()
    read = Proposals(*(stored[field] for field in Proposals._fields))
    check_arrays(read, len(found), f"the file {path}")
    names = found if names is None else names
    order = frames_of(found, names, f"the file {path}")
    size = check_size(tuple(stored["size"].tolist()), size, path)
    read = Proposals(*(field[order] for field in read))._replace(masks=read.masks[order] / np.float32(255))
    kept = best_proposals(read, num_proposals=num_proposals or max(1, read.valid.shape[1]))
    return VideoProposals(str(stored["video"]), tuple(names), size, kept, str(stored["detector"]))


def _suffix(path: Path) -> str:
    if path.suffix.lower() not in (".npz", ".json"):
        raise InputError(f"{path} is not named as a proposal file: use .npz (NumPy) or .json (COCO)")
    return path.suffix.lower()


def _arrays(proposals: VideoProposals) -> dict[str, Any]:
    boxes, masks, scores, valid = proposals.proposals
    used = np.where(valid[..., None, None], masks, 0)
    return {
        "format": np.int32(FORMAT), "video": proposals.video, "detector": proposals.detector,
        "names": np.array(proposals.names, np.str_), "size": np.array(proposals.size, np.int32),
        "boxes": boxes.astype(np.float32), "masks": np.rint(np.clip(used, 0, 1) * 255).astype(np.uint8),
        "scores": scores.astype(np.float32), "valid": valid.astype(bool),
    }  # fmt: skip


def _load(path: Path) -> dict[str, Any]:
    """Reads the arrays of an archive, and knows that there are all, of the right types."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files if name in _FIELDS}
    except Exception as error:  # a damaged archive makes a dozen kinds of error, which have nothing in common
        raise InputError(f"proposals {path} cannot be read ({error}): the file is damaged or not an archive of NumPy; "
                         "make it again") from error
    version = stored.get("format")
    if version is not None and version.shape == () and version != FORMAT:
        raise InputError(f"proposals {path} are of format {version}, this version reads {FORMAT}: update jaxvos or "
                         "make them again")
    wrong = [name for name, kinds in _FIELDS.items() if name not in stored or stored[name].dtype.kind not in kinds]
    if wrong or stored["masks"].dtype != np.uint8 or stored["size"].shape != (2,) or stored["names"].ndim != 1:
        named = ", ".join(wrong) or "masks, size or names"
        raise InputError(f"{path} holds no proposals of jaxvos ({named} missing or of another type): write it as "
                         "jaxvos.data.write_proposals does")
    return stored
