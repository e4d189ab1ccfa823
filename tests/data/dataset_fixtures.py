"""Tiny copies of every release: the folders, names, formats and oddities of the real ones, a few pixels each."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvos.data import write_flow, write_mask

HEIGHT, WIDTH = 8, 12


def ids(*values: int) -> np.ndarray:
    """Returns a mask of upright stripes, one of each value."""
    return np.array(values, np.uint8).repeat(-(-WIDTH // len(values)))[:WIDTH][None].repeat(HEIGHT, 0)


def frame(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng([seed, len(path.name)]).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(image).save(path)


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(path)


def _list(root: Path, name: str, *lines: str) -> None:
    path = root / "ImageSets" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def davis16(root: Path) -> None:
    for name in ("bear", "bus", "camel"):
        for i in range(2):
            frame(root / f"JPEGImages/480p/{name}/{i:05d}.jpg", i)
            stored = {"bear": "L", "bus": "LA", "camel": "RGB"}[name]
            save(root / f"Annotations/480p/{name}/{i:05d}.png", ids(0, 255, 0), stored)
    for split, names in (("train", ("bus", "bear")), ("val", ("camel",))):
        lines = (f"/JPEGImages/480p/{n}/{i:05d}.jpg /Annotations/480p/{n}/{i:05d}.png" for n in names for i in range(2))
        _list(root, f"480p/{split}", *lines)


def davis17(root: Path, annotations: str = "Annotations") -> None:
    for name in ("bear", "bmx-trees", "camel"):
        for i in range(2):
            frame(root / f"JPEGImages/480p/{name}/{i:05d}.jpg", i)
            write_mask(root / annotations / f"480p/{name}/{i:05d}.png", ids(0, 1, 2, 255))
            frame(root / f"JPEGImages/Full-Resolution/{name}/{i:05d}.jpg", i)
    _list(root, "2016/train", "bear")
    _list(root, "2017/train", "bmx-trees", "bear")
    _list(root, "2017/val", "camel")


def davis17_unsupervised(root: Path) -> None:
    davis17(root, "Annotations_unsupervised")


def davis17_test_dev(root: Path) -> None:
    for i in range(3):
        frame(root / f"JPEGImages/480p/aerobatics/{i:05d}.jpg", i)
    write_mask(root / "Annotations/480p/aerobatics/00000.png", ids(0, 1, 2))
    _list(root, "2017/test-dev", "aerobatics")


def youtube_vos(root: Path) -> None:
    for split in ("train", "valid"):
        for i in (0, 5, 10):
            frame(root / f"{split}/JPEGImages/0a7b27fde9/{i:05d}.jpg", i)
        masks = {0: ids(0, 3), 5: ids(0, 3, 7), 10: ids(0, 7)} if split == "train" else {0: ids(0, 3), 5: ids(0, 7)}
        for i, mask in masks.items():
            write_mask(root / f"{split}/Annotations/0a7b27fde9/{i:05d}.png", mask)
        objects = {
            "3": {"category": "sedan", "frames": ["00000", "00005"]},
            "7": {"category": "cat", "frames": ["00005", "00010"]},
        }
        (root / split / "meta.json").write_text(json.dumps({"videos": {"0a7b27fde9": {"objects": objects}}}))
    for i in range(11):
        frame(root / f"valid_all_frames/JPEGImages/0a7b27fde9/{i:05d}.jpg", i)


RED, WHITE = 0xFF0000, 0xFFFFFF


def fbms59(root: Path) -> None:
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    for name in ("bear01", "cats01"):
        folder = root / "Trainingset" / name
        for i in (1, 2, 20):
            frame(folder / f"{name}_{i:04d}.jpg", i)
        for i in (1, 20):
            save(folder / f"GroundTruth/{name}_{i:04d}_gt.ppm", colours[ids(0, 2, 1)])
            save(folder / f"GroundTruth/{name}_{i:04d}PROB_gt.ppm", colours[ids(1, 1)])
    definition = f"Total number of regions:\n3\nScale of region 0:\n{WHITE}\nScale of region 1:\n255\n" \
                 f"Scale of region 2:\n{RED}\nTotal number of frames in this shot:\n20\n"  # fmt: skip
    (root / "Trainingset/bear01/GroundTruth/bear01Def.dat").write_text(definition)
    for i in (1, 2):
        frame(root / f"Testset/tennis/tennis{i}.jpg", i)
    save(root / "Testset/tennis/GroundTruth/tennis001.pgm", ids(0, 127, 255))


def visal(root: Path) -> None:
    for i in range(3):
        frame(root / f"aeroplane/Imgs/{i:05d}.jpg", i)
    save(root / "aeroplane/GT_object_level/00001.png", ids(0, 100, 200, 255))
    frame(root / "bird/Imgs/00000.png")
    save(root / "bird/GT_object_level/00000.png", ids(0, 1))


def youtube_objects(root: Path) -> None:
    for category, video in (("aeroplane", "0001"), ("cat", "0012")):
        shot = root / category / "data" / video / "shots/001"
        for i in range(1, 13):
            frame(shot / f"images/frame{i:04d}.jpg", i)
        for i in (1, 11):
            save(shot / f"labels/{i:05d}.jpg", ids(0, 255, 255).repeat(2, 0)[:HEIGHT])
    frame(root / "dog/data/0001/shots/002/frame0001.jpg")  # a shot without masks


def segtrack_v2(root: Path) -> None:
    for i in (0, 1):
        frame(root / f"JPEGImages/birdfall/birdfall_{i:05d}.png", i)
        save(root / f"GroundTruth/birdfall/birdfall_{i:05d}.png", ids(0, 255, 255), "RGB")
        frame(root / f"JPEGImages/cheetah/cheetah_{i:05d}.bmp", i)
        save(root / f"GroundTruth/cheetah/1/cheetah_{i:05d}.bmp", ids(0, 255, 255), "RGB")
        save(root / f"GroundTruth/cheetah/2/cheetah_{i:05d}.png", ids(0, 0, 255), "RGB")


def vip(root: Path) -> None:
    for name in ("videos1", "videos30"):
        for i in (1, 26):
            frame(root / f"Images/{name}/{i:012d}.jpg", i)
            save(root / f"Annotations/Category_ids/{name}/{i:012d}.png", ids(0, 5, 19))
            save(root / f"Annotations/Human_ids/{name}/{i:012d}.png", ids(0, 1, 1, 2))
    (root / "lists").mkdir()
    (root / "lists/train_videos.txt").write_text("videos30\n")
    (root / "lists/val_videos.txt").write_text("videos1\n")


def static(root: Path) -> None:
    for image, mask in (
        ("DUTS-TR/DUTS-TR-Image/sun.jpg", "DUTS-TR/DUTS-TR-Mask/sun.png"),
        ("HRSOD_train/1.jpg", "HRSOD_train_mask/1.png"),
        ("fss/abacus/1.jpg", "fss/abacus/1.png"),
        ("BIG/2007_im.jpg", "BIG/2007_gt.png"),
        ("own/images/a.png", "own/masks/a.png"),
    ):
        frame(root / image)
        save(root / mask, ids(0, 90, 160, 255))


def flow(path: Path, value: float = 0.0, width: int = WIDTH) -> None:
    vectors = np.full((HEIGHT, width, 2), value, np.float32)
    vectors[0, :, 0] += np.arange(width)
    write_flow(path, vectors)


def sintel(root: Path) -> None:
    for rendering in ("clean", "final"):
        for part, scene in (("training", "alley_1"), ("training", "ambush_2"), ("test", "ambush_1")):
            for i in (1, 2, 3):
                frame(root / part / rendering / scene / f"frame_{i:04d}.png", i)
    for scene in ("alley_1", "ambush_2"):
        for i in (1, 2):
            flow(root / f"training/flow/{scene}/frame_{i:04d}.flo", i)
            save(root / f"training/occlusions/{scene}/frame_{i:04d}.png", ids(0, 255, 255, 0))
        for i in (1, 2, 3):  # of the last frame too, as the release has it
            save(root / f"training/invalid/{scene}/frame_{i:04d}.png", ids(0, 0, 255, 255))


def kitti_flow(root: Path, images: str) -> None:
    for name, part in (("000000", "training"), ("000007", "training"), ("000000", "testing")):
        for i in (9, 10, 11):  # 9 is of the multi-view extension
            frame(root / part / images / f"{name}_{i:02d}.png", i)
    vectors = np.arange(HEIGHT * WIDTH * 2, dtype=np.float32).reshape(HEIGHT, WIDTH, 2) / 64
    for name in ("000000", "000007"):
        for kind, known in (("flow_occ", ids(0, 1, 1)), ("flow_noc", ids(0, 1, 0))):
            path = root / "training" / kind / f"{name}_10.png"
            write_flow(path, vectors, known > 0)


def kitti12_flow(root: Path) -> None:
    kitti_flow(root, "colored_0")


def kitti15_flow(root: Path) -> None:
    kitti_flow(root, "image_2")


def flying_chairs(root: Path) -> None:
    for i in (1, 2, 3):
        for j in (1, 2):
            frame(root / f"data/{i:05d}_img{j}.ppm", j)
        flow(root / f"data/{i:05d}_flow.flo", i)
    (root / "FlyingChairs_train_val.txt").write_text("1\n2\n1\n")


def _scene_flow(root: Path, scene: str, frames: str, kind: str) -> None:
    for i in (1, 2, 3):
        for side in ("left", "right"):
            frame(root / f"{frames}/{scene}/{side}/{i:04d}.{kind}", i)
            for time, sign in (("Future", 1), ("Past", -1)):
                name = f"into_{time.lower()}/{side}/OpticalFlowInto{time}_{i:04d}_{side[0].upper()}.pfm"
                flow(root / "optical_flow" / scene / name, sign * (i + 10 * (side == "right")))


def monkaa(root: Path) -> None:
    for scene in ("a_rain_of_stones_x2", "eating_x2"):
        _scene_flow(root, scene, "frames_cleanpass", "png")
        _scene_flow(root, scene, "frames_finalpass_webp", "webp")


def driving(root: Path) -> None:
    for scene in ("15mm_focallength/scene_forwards/fast", "35mm_focallength/scene_backwards/slow"):
        _scene_flow(root, scene, "frames_cleanpass", "png")


MAKERS = {
    "davis16": davis16,
    "davis17": davis17,
    "davis17_unsupervised": davis17_unsupervised,
    "davis17_test_dev": davis17_test_dev,
    "youtube_vos_2018": youtube_vos,
    "youtube_vos_2019": youtube_vos,
    "fbms59": fbms59,
    "visal": visal,
    "youtube_objects": youtube_objects,
    "segtrack_v2": segtrack_v2,
    "vip": vip,
    "vip_humans": vip,
    "static": static,
    "sintel": sintel,
    "kitti12_flow": kitti12_flow,
    "kitti15_flow": kitti15_flow,
    "flying_chairs": flying_chairs,
    "monkaa": monkaa,
    "driving": driving,
}
"""Writes each data set into a folder that exists."""


def flow_files(root: Path, count: int) -> tuple[Path | None, ...]:
    """Writes flow of each kind, and leaves the last frame without."""
    paths = [root / f"{i:05d}.{'flo' if i % 2 else 'png'}" for i in range(count - 1)]
    for i, path in enumerate(paths):
        write_flow(path, np.full((HEIGHT, WIDTH, 2), i + 0.5, np.float32))
    return (*paths, None)
