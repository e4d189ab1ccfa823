"""The data sets that can be prepared: what each looks like on disk, how large it is, and under which terms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxvos.data._layouts_davis import read_davis, read_youtube_vos
from jaxvos.data._layouts_flow import read_chairs, read_driving, read_kitti_flow, read_monkaa, read_sintel
from jaxvos.data._layouts_motion import read_fbms, read_segtrack, read_visal, read_youtube_objects
from jaxvos.data._layouts_raw import RawSequence, folders
from jaxvos.data._layouts_still import read_static, read_vip
from jaxvos.errors import InputError

__all__ = ["LAYOUTS", "Layout", "find_layout"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One data set as its release has it on disk."""

    name: str
    title: str
    source: str  # who published it, and where
    terms: str
    tree: str  # the folders that are expected
    sizes: Mapping[str, int]  # published number of sequences of each split; empty where there is no such number
    quirks: str  # what the release does differently, and what is made of it
    marks: tuple[str, ...]  # entries of which a folder of this data set has one
    read: Callable[[Path], dict[str, list[RawSequence]]]

    def scan(self, root: str | Path) -> dict[str, list[RawSequence]]:
        """Finds every sequence and checks its files by their headers, so that nothing is read half.

        Args:
            root: the folder of the release, or one that holds nothing but it.

        Returns:
            The sequences of each split that is there, in the order of the release.

        Raises:
            InputError: for the first file that is missing or wrong.
        """
        splits = self.read(self.enter(Path(root)))
        for split, sequences in splits.items():
            if not sequences:
                raise InputError(f"split {split} of {self.name} in {root} has no sequences: complete the data")
            for sequence in sequences:
                sequence.check()
        if not splits:
            raise self._other(Path(root))
        return splits

    def enter(self, root: Path) -> Path:
        """Returns the folder that the layout is about: `root`, or the only folder in it, and so on.

        Raises:
            InputError: if there is none.
        """
        if not root.is_dir():
            raise InputError(f"there is no folder {root}: give the folder or the archive of {self.title}")
        folder = root
        while not any(next(folder.glob(mark), None) for mark in self.marks):
            inside = folders(folder)
            if len(inside) != 1:
                raise self._other(root)
            folder = inside[0]
        return folder

    def describe(self) -> str:
        """Returns what a user has to know, in lines."""
        sizes = ", ".join(f"{split} {count}" for split, count in self.sizes.items()) or "as many as there are"
        lines = [f"{self.name}: {self.title}", f"  from: {self.source}", f"  terms: {self.terms}",
                 f"  sequences: {sizes}", f"  layout: {self.tree}"]  # fmt: skip
        return "\n".join([*lines, f"  note: {self.quirks}"] if self.quirks else lines)

    def _other(self, root: Path) -> InputError:
        return InputError(f"{root} is not in the layout of {self.name}: it should hold {' or '.join(self.marks)} "
                          f"({self.tree})")  # fmt: skip


_DAVIS_URL = "https://davischallenge.org"
_DAVIS_TREE = "JPEGImages/480p/SEQUENCE/00000.jpg, {}/480p/SEQUENCE/00000.png, ImageSets/{}.txt"
_DAVIS_QUIRKS = (
    "480p is taken where there are several resolutions, or else the first that has every listed sequence. Ids are "
    "those of the files and 255 is void; masks that are only 0 and 255 (grey, with alpha or in colours) are 0 and 1."
)
_DAVIS_TERMS = "non-commercial research (CC BY-NC 4.0); a few sequences have terms of their owners"
_YOUTUBE_VOS = {
    "source": "N. Xu et al., YouTube-VOS, ECCV 2018, https://youtube-vos.org",
    "terms": "non-commercial research; the annotations are CC BY 4.0",
    "tree": "train/JPEGImages/VIDEO/00000.jpg, train/Annotations/VIDEO/00000.png, train/meta.json; valid, test alike",
    "quirks": "Every fifth frame has a mask in train; in valid and test an object's first frame has. Objects start at "
    "any frame and their ids have gaps; both stay as they are. VIDEO of SPLIT_all_frames has the masks of SPLIT.",
    "marks": ("train/JPEGImages", "valid/JPEGImages", "test/JPEGImages", "*_all_frames/JPEGImages"),
    "read": read_youtube_vos,
}
_VIP = {
    "source": "Q. Zhou et al., Adaptive Temporal Encoding Network for Video Instance-level Human Parsing, ACM MM 2018",
    "terms": "not stated in the release; research",
    "sizes": {"train": 304, "val": 50, "test": 50},
    "marks": ("lists/*_videos.txt", "Training/Images", "Validation/Images", "Testing/Images"),
}
_KITTI_QUIRKS = (
    "A sequence is frames 10 and 11 of a scene; the others of the multi-view extension are left. The flow is that of "
    "flow_occ, or of flow_noc where that is not there, and is known at some pixels only. Where both are there, the "
    "mask of frame 10 is 1 where the point is hidden in frame 11 and 255 where the flow is not known."
)
_KITTI_TERMS = "non-commercial (CC BY-NC-SA 3.0)"
_KITTI_TREE = "training/{{{0},flow_occ,flow_noc}}/000000_10.png, training/{0}/000000_11.png; testing/{0} alike"
_SCENE_FLOW = {
    "source": "N. Mayer et al., CVPR 2016, https://lmb.informatik.uni-freiburg.de/resources/datasets",
    "terms": "non-commercial research",
}
_SCENE_FLOW_QUIRKS = (
    "A sequence is a frame and its next, for as one record a scene is too large; a frame is stored in two of them. "
    "Taken is the left camera, forwards in time (into_future). Frames may be PNG or WebP (frames_cleanpass_webp), flow "
    ".pfm or .flo; that of the last frame has no next one and is left. Vectors may be infinite: unknown. "
)

_ALL = (
    Layout(
        name="davis16",
        title="DAVIS-2016, one foreground",
        source=f"F. Perazzi et al., CVPR 2016, {_DAVIS_URL}",
        terms=_DAVIS_TERMS,
        tree=_DAVIS_TREE.format("Annotations", "480p/train"),
        sizes={"train": 30, "val": 20},
        quirks=f"{_DAVIS_QUIRKS} The lists of 2016 inside DAVIS-2017 are taken too, but its masks tell objects apart.",
        marks=("JPEGImages",),
        read=partial(
            read_davis, lists={s: (f"480p/{s}", f"2016/{s}", f"1080p/{s}", s) for s in ("train", "val")}
        ),
    ),
    Layout(
        name="davis17",
        title="DAVIS-2017, several objects, semi-supervised",
        source=f"J. Pont-Tuset et al., arXiv:1704.00675, {_DAVIS_URL}",
        terms=_DAVIS_TERMS,
        tree=_DAVIS_TREE.format("Annotations", "2017/train"),
        sizes={"train": 60, "val": 30},
        quirks=_DAVIS_QUIRKS,
        marks=("JPEGImages",),
        read=partial(read_davis, lists={s: (f"2017/{s}", s) for s in ("train", "val")}),
    ),
    Layout(
        name="davis17_unsupervised",
        title="DAVIS-2017, several objects, unsupervised",
        source=f"S. Caelles et al., arXiv:1905.00737, {_DAVIS_URL}",
        terms=_DAVIS_TERMS,
        tree=_DAVIS_TREE.format("Annotations_unsupervised", "2017/train"),
        sizes={"train": 60, "val": 30},
        quirks=_DAVIS_QUIRKS,
        marks=("Annotations_unsupervised",),
        read=partial(
            read_davis,
            lists={s: (f"2017/{s}", s) for s in ("train", "val")},
            annotations="Annotations_unsupervised",
        ),
    ),
    Layout(
        name="davis17_test_dev",
        title="DAVIS-2017 test-dev",
        source=f"J. Pont-Tuset et al., arXiv:1704.00675, {_DAVIS_URL}",
        terms=_DAVIS_TERMS,
        tree=_DAVIS_TREE.format("Annotations", "2017/test-dev"),
        sizes={"test_dev": 30},
        quirks=f"Only the first frame has a mask. {_DAVIS_QUIRKS}",
        marks=("JPEGImages",),
        read=partial(read_davis, lists={"test_dev": ("2017/test-dev", "test-dev")}, every_frame=False),
    ),
    Layout(
        name="youtube_vos_2018",
        title="YouTube-VOS 2018",
        sizes={"train": 3471, "valid": 474, "test": 508},
        **_YOUTUBE_VOS,
    ),
    Layout(
        name="youtube_vos_2019",
        title="YouTube-VOS 2019",
        sizes={"train": 3471, "valid": 507, "test": 541},
        **_YOUTUBE_VOS,
    ),
    Layout(
        name="fbms59",
        title="Freiburg-Berkeley motion segmentation, 59 videos",
        source="P. Ochs, J. Malik, T. Brox, PAMI 2014, https://lmb.informatik.uni-freiburg.de/resources/datasets",
        terms="not stated in the release; research",
        tree="Trainingset/VIDEO/VIDEO_0001.jpg, Trainingset/VIDEO/GroundTruth/{VIDEODef.dat, VIDEO_0001_gt.ppm}; "
        "Testset alike; or Testset/{JPEGImages,Annotations}/VIDEO",
        sizes={"train": 29, "test": 30},
        quirks="About every 20th frame has a mask of region colours. The id is the place of a region in VIDEODef.dat, "
        "0 the background; without that file, the place of its colour, white (in other than PPM black) being "
        "the background. Some regions of marple2, 7, 10 and 13 are parts of the background by some protocols. "
        "Frames and masks of other numbering (tennis1.jpg, tennis001.pgm) are matched by number; PROB files are left.",
        marks=("Trainingset", "TrainingSet", "Testset", "TestSet"),
        read=read_fbms,
    ),
    Layout(
        name="visal",
        title="ViSal, video saliency, 17 videos",
        source="W. Wang, J. Shen, L. Shao, TIP 2015",
        terms="not stated in the release; research",
        tree="VIDEO/{Imgs,GT_object_level} or VIDEO/ and GT/VIDEO/ or {JPEGImages,Annotations}/VIDEO",
        sizes={"test": 17},
        quirks="About every fifth frame has a mask; what is brighter than half is 1.",
        marks=("*/GT*", "*/ground-truth", "*/GroundTruth", "GT", "GroundTruth", "ground-truth", "Annotations"),
        read=read_visal,
    ),
    Layout(
        name="youtube_objects",
        title="YouTube-Objects with the masks of Jain and Grauman",
        source="A. Prest et al., CVPR 2012; S. D. Jain, K. Grauman, ECCV 2014",
        terms="not stated in the release; research",
        tree="CATEGORY/data/VIDEO/shots/SHOT/{images,labels} or {JPEGImages,Annotations}/CATEGORY/SHOT",
        sizes={"test": 126},
        quirks="About every tenth frame has a mask, a JPEG or PNG; what is brighter than half is 1. "
        "A sequence is called CATEGORY_VIDEO_SHOT.",
        marks=("*/data/*/shots", "JPEGImages/*/*"),
        read=read_youtube_objects,
    ),
    Layout(
        name="segtrack_v2",
        title="SegTrack v2, 14 videos, 24 objects",
        source="F. Li et al., ICCV 2013, https://web.engr.oregonstate.edu/~lif/SegTrack2/dataset.html",
        terms="not stated in the release; research",
        tree="JPEGImages/VIDEO/00000.png or .bmp, GroundTruth/VIDEO/00000.png or GroundTruth/VIDEO/{1,2,...}/00000.png",
        sizes={"test": 14},
        quirks="One folder for each object where there are several: merged to ids 1, 2, ..., the later one in front. "
        "What is brighter than half is the object.",
        marks=("GroundTruth", "Annotations"),
        read=read_segtrack,
    ),
    Layout(
        name="vip",
        title="Video Instance-level Parsing, body parts",
        tree="Images/videosN/*.jpg, Annotations/Category_ids/videosN/*.png, lists/val_videos.txt",
        quirks="Ids are the 19 parts, 0 the background. One frame in 25 has a mask; test may have none.",
        read=partial(read_vip, labels="Category_ids"),
        **_VIP,
    ),
    Layout(
        name="vip_humans",
        title="Video Instance-level Parsing, people",
        tree="Images/videosN/*.jpg, Annotations/Human_ids/videosN/*.png, lists/val_videos.txt",
        quirks="Ids are people, 0 the background; a person may have another id in another frame.",
        read=partial(read_vip, labels="Human_ids"),
        **_VIP,
    ),
    Layout(
        name="static",
        title="Single images with masks (DUTS, HRSOD, ECSSD, BIG, FSS-1000, your own), for training before video",
        source="the authors of each",
        terms="those of each",
        tree="images/ and masks/, or DUTS-TR-Image/ and DUTS-TR-Mask/, or HRSOD_train/ and HRSOD_train_mask/, "
        "or CLASS/1.jpg beside CLASS/1.png, or a_im.jpg beside a_gt.png, any number of them, however deep",
        sizes={},
        quirks="Each image is a sequence of one frame, named by its path; what is brighter than half is 1.",
        marks=("*",),
        read=read_static,
    ),
    Layout(
        name="sintel",
        title="MPI Sintel, optical flow of an animated film",
        source="D. J. Butler et al., ECCV 2012, http://sintel.is.tue.mpg.de",
        terms="research; the film is CC BY 3.0, (c) Blender Foundation",
        tree="training/{clean,final}/SCENE/frame_0001.png, training/flow/SCENE/frame_0001.flo, "
        "training/{occlusions,invalid}/SCENE/frame_0001.png; test/{clean,final}",
        sizes={"train_clean": 23, "train_final": 23, "test_clean": 12, "test_final": 12},
        quirks="1041 pairs for training and 552 for testing, which have no flow. The mask of a frame is 1 where the "
        "next one hides the point and 255 where the flow is marked invalid, if both folders are there; the flow itself "
        "is as stored, invalid vectors too. Other folders (albedo, flow_viz) are left.",
        marks=("training/clean", "training/final", "test/clean", "test/final"),
        read=read_sintel,
    ),
    Layout(
        name="kitti12_flow",
        title="KITTI 2012, optical flow of street scenes that do not move",
        source="A. Geiger, P. Lenz, R. Urtasun, CVPR 2012, https://www.cvlibs.net/datasets/kitti",
        terms=_KITTI_TERMS,
        tree=_KITTI_TREE.format("colored_0"),
        sizes={"train": 194, "test": 195},
        quirks=f"The grey frames of image_0 are taken where there are no colored_0. {_KITTI_QUIRKS}",
        marks=("training/colored_0", "training/image_0", "testing/colored_0", "testing/image_0"),
        read=partial(read_kitti_flow, images=("colored_0", "image_0")),
    ),
    Layout(
        name="kitti15_flow",
        title="KITTI 2015, optical flow of street scenes with moving cars",
        source="M. Menze, A. Geiger, CVPR 2015, https://www.cvlibs.net/datasets/kitti",
        terms=_KITTI_TERMS,
        tree=_KITTI_TREE.format("image_2"),
        sizes={"train": 200, "test": 200},
        quirks=_KITTI_QUIRKS,
        marks=("training/image_2", "testing/image_2"),
        read=partial(read_kitti_flow, images=("image_2",)),
    ),
    Layout(
        name="flying_chairs",
        title="Flying Chairs, optical flow of pasted chairs",
        source="A. Dosovitskiy et al., ICCV 2015, https://lmb.informatik.uni-freiburg.de/resources/datasets",
        terms="non-commercial research",
        tree="data/{00001_img1.ppm,00001_img2.ppm,00001_flow.flo}, FlyingChairs_train_val.txt",
        sizes={"train": 22232, "val": 640},
        quirks="A sequence is a pair. The list, downloaded apart, has a line for each pair, 1 (train) or 2 (val); it "
        "may be in data/ or beside the folder too, and be called chairs_split.txt.",
        marks=("data/*_flow.flo", "data/*_img1.ppm"),
        read=read_chairs,
    ),
    Layout(
        name="monkaa",
        title="Monkaa of Scene Flow, optical flow of animated scenes",
        tree="frames_{cleanpass,finalpass}/SCENE/left/0000.png, "
        "optical_flow/SCENE/into_future/left/OpticalFlowIntoFuture_0000_L.pfm",
        sizes={f"{split}_{rendering}": n for rendering in ("clean", "final") for split, n in
               (("train", 7925), ("val", 715))},
        quirks=f"{_SCENE_FLOW_QUIRKS}Scenes eating_x2, flower_storm_x2 and lonetree_x2 are val, as for SegFlow.",
        marks=("optical_flow/*/into_future",),
        read=read_monkaa,
        **_SCENE_FLOW,
    ),
    Layout(
        name="driving",
        title="Driving of Scene Flow, optical flow of animated streets",
        tree="frames_{cleanpass,finalpass}/15mm_focallength/scene_forwards/fast/left/0001.png, optical_flow/"
        "15mm_focallength/scene_forwards/fast/into_future/left/OpticalFlowIntoFuture_0001_L.pfm; also 35mm, "
        "scene_backwards, slow",
        sizes={f"{split}_{rendering}": n for rendering in ("clean", "final") for split, n in
               (("train", 4093), ("test", 299))},
        quirks=f"{_SCENE_FLOW_QUIRKS}15mm_focallength/scene_forwards/fast is test, as for SegFlow.",
        marks=("optical_flow/*_focallength",),
        read=read_driving,
        **_SCENE_FLOW,
    ),
)  # fmt: skip

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in _ALL}
"""Every data set that `prepare_dataset` knows, by name."""


def find_layout(name: str) -> Layout:
    """Returns the layout of a data set.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in LAYOUTS:
        raise InputError(f"there is no data set '{name}'; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
