"""The releases with true optical flow: MPI Sintel, KITTI, Flying Chairs, Monkaa and Driving.

What the next frame hides is an annotation of a frame: 0 where a point is seen in both, 1 where it is hidden, 255 where
the flow is not known.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxvos.data._flow_files import flow_size, read_flow
from jaxvos.data._images import image_size, list_images, natural_order
from jaxvos.data._layouts_raw import RawSequence, folders, foreground
from jaxvos.errors import InputError

__all__ = ["read_chairs", "read_driving", "read_kitti_flow", "read_monkaa", "read_sintel"]

_RENDERINGS = ("clean", "final")
_MONKAA_VAL = frozenset({"eating_x2", "flower_storm_x2", "lonetree_x2"})  # held out by Cheng et al., ICCV 2017
_DRIVING_TEST = frozenset({"15mm_focallength/scene_forwards/fast"})
_CHAIRS_LISTS = ("FlyingChairs_train_val.txt", "chairs_split.txt")


def read_sintel(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the scenes of each part and rendering.

    Raises:
        InputError: if a frame, flow or mask is missing or flow has another size than its frame.
    """
    found = {}
    for split, part in (("train", "training"), ("test", "test")):
        for rendering in _RENDERINGS:
            if (root / part / rendering).is_dir():
                scenes = folders(root / part / rendering)
                found[f"{split}_{rendering}"] = [_sintel_scene(s, root / part, split == "train") for s in scenes]
    return found


def _sintel_scene(folder: Path, part: Path, has_flow: bool) -> RawSequence:
    images = list_images(folder)
    _require_consecutive(images)
    if not has_flow:
        return RawSequence(folder.name, tuple(images))
    flows = [part / "flow" / folder.name / f"{image.stem}.flo" for image in images[:-1]]
    if alone := sorted(set((part / "flow" / folder.name).glob("*.flo")) - set(flows)):
        raise InputError(f"flow {alone[0]} is from or to a frame that is missing in {folder}: complete the data")
    kinds = [part / kind / folder.name for kind in ("occlusions", "invalid")]
    if not all(kind.is_dir() for kind in kinds):
        return _with_flow(folder.name, images, flows)
    masks = [tuple(kind / f"{image.stem}.png" for kind in kinds) for image in images[:-1]]
    return _with_flow(folder.name, images, flows, masks, _sintel_hidden)


def _sintel_hidden(paths: tuple[Path, ...]) -> UInt8[np.ndarray, "h w"]:
    hidden, invalid = foreground(paths[:1]), foreground(paths[1:])
    return np.where(invalid == 1, np.uint8(255), hidden)


def read_kitti_flow(root: Path, *, images: Sequence[str]) -> dict[str, list[RawSequence]]:
    """Finds the pairs of frames 10 and 11; only those of training have flow.

    Args:
        root: holds `training/` or `testing/`.
        images: the folders that may hold the frames, the first that exists counts.

    Raises:
        InputError: if there is no flow for training, or a frame or flow is missing or they differ in size.
    """
    found = {}
    for split, part in (("train", root / "training"), ("test", root / "testing")):
        frames = next((part / name for name in images if (part / name).is_dir()), None)
        if frames is not None:
            firsts = sorted(frames.glob("*_10.png"), key=natural_order)
            found[split] = [_kitti_pair(first, part, split == "train") for first in firsts]
    return found


def _kitti_pair(first: Path, part: Path, has_flow: bool) -> RawSequence:
    name = first.stem.removesuffix("_10")
    pair = [first, first.with_name(f"{name}_11.png")]
    if not has_flow:
        return RawSequence(name, tuple(pair))
    truths = [part / kind / first.name for kind in ("flow_occ", "flow_noc") if (part / kind).is_dir()]
    if not truths:
        raise InputError(f"there is neither flow_occ nor flow_noc in {part}: complete the data")
    if len(truths) == 1:
        return _with_flow(name, pair, truths)
    return _with_flow(name, pair, truths[:1], [tuple(truths)], _kitti_hidden)


def _kitti_hidden(paths: tuple[Path, ...]) -> UInt8[np.ndarray, "h w"]:
    (_, known), (_, seen) = (read_flow(path) for path in paths)
    return np.where(known, np.where(seen, np.uint8(0), np.uint8(1)), np.uint8(255))


def read_chairs(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the pairs of each split of the list, which is in the folder, in `data/` or beside the folder.

    Raises:
        InputError: if the list is missing or does not fit the pairs, a frame or flow is missing, or they differ in
            size.
    """
    places = [folder / name for folder in (root, root / "data", root.parent) for name in _CHAIRS_LISTS]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"the list of splits {places[0]} is missing: download it from the page of the data set")
    firsts = sorted((root / "data").glob("*_img1.ppm"), key=natural_order)
    numbers = path.read_text(errors="replace").split()
    if set(numbers) - {"1", "2"} or len(numbers) != len(firsts):
        raise InputError(f"{path} should have a line, 1 or 2, for each of the {len(firsts)} pairs in {root / 'data'} "
                         f"but has {len(numbers)} lines: complete the data")  # fmt: skip
    chosen = {split: [f for f, n in zip(firsts, numbers, strict=True) if n == number]
              for split, number in (("train", "1"), ("val", "2"))}  # fmt: skip
    return {split: [_chairs_pair(first) for first in pairs] for split, pairs in chosen.items() if pairs}


def _chairs_pair(first: Path) -> RawSequence:
    name = first.stem.removesuffix("_img1")
    return _with_flow(name, [first, first.with_name(f"{name}_img2.ppm")], [first.with_name(f"{name}_flow.flo")])


def read_monkaa(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the pairs of neighbours of each scene; as for `read_sintel`."""
    return _read_scene_flow(root, "*", "val", _MONKAA_VAL)


def read_driving(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the pairs of neighbours of each focal length, direction and speed; as for `read_sintel`."""
    return _read_scene_flow(root, "*_focallength/scene_*/*", "test", _DRIVING_TEST)


def _read_scene_flow(root: Path, scenes: str, held: str, held_out: frozenset[str]) -> dict[str, list[RawSequence]]:
    """Makes a sequence of each pair: as a record, a scene would be larger than the 2 GiB that one can have."""
    found = {}
    for rendering in _RENDERINGS:
        frames = next((f for end in ("", "_webp") if (f := root / f"frames_{rendering}pass{end}").is_dir()), None)
        if frames is None:
            continue
        pairs: dict[str, list[RawSequence]] = {"train": [], held: []}
        for folder in sorted(frames.glob(f"{scenes}/left"), key=natural_order):
            scene = folder.parent.relative_to(frames).as_posix()
            pairs[held if scene in held_out else "train"] += _scene_flow_pairs(scene, folder, root / "optical_flow")
        found |= {f"{split}_{rendering}": sequences for split, sequences in pairs.items() if sequences}
    return found


def _scene_flow_pairs(scene: str, folder: Path, flows: Path) -> list[RawSequence]:
    images = list_images(folder)
    _require_consecutive(images)
    names = [flows / scene / "into_future/left" / f"OpticalFlowIntoFuture_{image.stem}_L.pfm" for image in images]
    paths = [flo if (flo := path.with_suffix(".flo")).is_file() else path for path in names]
    return [
        _with_flow(f"{scene}/{pair[0].stem}", pair, [path]) for pair, path in zip(pairwise(images), paths, strict=False)
    ]


def _with_flow(
    name: str,
    images: Sequence[Path],
    flows: Sequence[Path],
    masks: Sequence[tuple[Path, ...]] = (),
    ids: Callable[[tuple[Path, ...]], UInt8[np.ndarray, "h w"]] | None = None,
) -> RawSequence:
    """Makes a sequence of all frames and of what is there for all but the last, once the headers agree."""
    for image, flow in zip(images, flows, strict=False):
        (height, width), size = image_size(image), flow_size(flow)
        if size != (height, width):
            raise InputError(f"flow {flow} is {size[1]}x{size[0]} but its frame {image.name} is {width}x{height} "
                             "(width x height): copy both from the release again")  # fmt: skip
    return RawSequence(name, tuple(images), (*masks, ()) if masks else (), (*flows, None), ids)


def _require_consecutive(images: Sequence[Path]) -> None:
    """Refuses a gap, over which flow would be taken to another frame than its own."""
    numbers = [int((re.findall(r"\d+", image.stem) or [-1])[-1]) for image in images]
    for image, number, following in zip(images, numbers, numbers[1:], strict=False):
        if following != number + 1:
            raise InputError(f"the frame after {image} is missing: complete the data")
