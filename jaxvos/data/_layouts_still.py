"""Body parts and people of VIP, and single images with masks for training before video."""

from pathlib import Path

from jaxvos.data._images import list_images
from jaxvos.data._layouts_raw import RawSequence, folders, foreground, list_masks, listed_names
from jaxvos.errors import InputError

__all__ = ["read_static", "read_vip"]

_VIP_SPLITS = {"train": ("train", "Training"), "val": ("val", "Validation"), "test": ("test", "Testing")}
_MASK_FOLDERS = ("masks", "Masks", "mask", "Mask", "GT", "gt", "ground_truth_mask", "GroundTruth", "Annotations")


def read_vip(root: Path, *, labels: str) -> dict[str, list[RawSequence]]:
    """Finds the videos of each split: by `lists/<split>_videos.txt`, or in `Training/`, `Validation/`, `Testing/`.

    Args:
        root: holds `Images/`, or the folders of the splits.
        labels: `Category_ids` (parts) or `Human_ids` (people).
    """
    splits = {}
    for split, (short, long) in _VIP_SPLITS.items():
        names, base = root / "lists" / f"{short}_videos.txt", root / long
        if names.is_file():
            splits[split] = [_vip_video(root, name, labels) for name in listed_names(names)]
        elif (base / "Images").is_dir():
            splits[split] = [_vip_video(base, folder.name, labels) for folder in folders(base / "Images")]
    if not splits:
        raise InputError(f"{root} has neither lists/val_videos.txt nor Validation/Images: give the folder VIP_Fine")
    return splits


def _vip_video(base: Path, name: str, labels: str) -> RawSequence:
    folder = base / "Images" / name
    if not folder.is_dir():
        raise InputError(f"the lists name {name} but there is no folder {folder}: complete the data")
    annotations = [base / "Annotations" / labels / name, base / labels / name]
    masks = next((list_masks(path) for path in annotations if path.is_dir()), [])
    images = list_images(folder)
    by_name = {path.stem: path for path in masks}
    unknown = sorted(by_name.keys() - {path.stem for path in images})
    if unknown:
        raise InputError(f"mask {by_name[unknown[0]]} has no frame of its name in {folder}: complete the data")
    found = tuple((by_name[path.stem],) if path.stem in by_name else () for path in images)
    return RawSequence(name, tuple(images), found)


def read_static(root: Path) -> dict[str, list[RawSequence]]:
    """Finds every image with a mask, however deep; each is a sequence of one frame, named by its path.

    The mask of an image is beside it (`1.jpg` and `1.png`, `a_im.jpg` and `a_gt.png`), or in a folder beside its own
    that is called as masks are.

    Raises:
        InputError: for the first image without a mask.
    """
    known = {root, *(path for path in root.rglob("*") if path.is_dir())}
    masks_of = {folder: _mask_folder(folder, known) for folder in sorted(known)}
    found = []
    for folder in sorted(known - set(masks_of.values())):
        files, elsewhere = list_images(folder), masks_of[folder]
        images = files if elsewhere else [path for path in files if path.suffix.lower() != ".png"]
        masks = {path.stem: path for path in list_masks(elsewhere or folder) if elsewhere or path not in images}
        for image in images:
            stem = image.stem.removesuffix("_im")
            mask = next((masks[s] for s in (stem, f"{stem}_gt", f"{stem}_mask") if s in masks), None)
            if mask is None:
                raise InputError(f"image {image} has no mask {stem}.png in {elsewhere or folder}: add it or remove it")
            name = str(image.relative_to(root).with_suffix(""))
            found.append(RawSequence(name, (image,), ((mask,),), ids=foreground))
    return {"train": found}


def _mask_folder(folder: Path, known: set[Path]) -> Path | None:
    """Returns the folder beside one of images that holds their masks, as DUTS, HRSOD, ECSSD and others name it."""
    if folder.name in _MASK_FOLDERS:
        return None
    renamed = [folder.name.replace(a, b) for a, b in (("Image", "Mask"), ("image", "mask")) if a in folder.name]
    names = [*renamed, f"{folder.name}_mask", *_MASK_FOLDERS]
    return next((folder.with_name(name) for name in names if folder.with_name(name) in known), None)
