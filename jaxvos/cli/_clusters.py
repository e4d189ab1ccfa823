"""`jaxvos clusters`."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxvos.cli._arguments import Output, Switch
from jaxvos.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from jaxvos.data import UnlabelledVideo
    from jaxvos.models import Model
    from jaxvos.systems import ClusterConfig, Clusters

__all__ = ["DrawClusters", "find_clusters", "first_clusters"]

_RESULTS = ("clusters.png", "masks", "clusters.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawClusters:
    """Cluster a video in space and time: a contact sheet of the clusters, kept or dropped, and masks of the kept ones.

    This is what `jaxvos fit` takes for objects, and `jaxvos segment --clusters` for those to follow.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INPUT")]
    """A video file, a folder of frames, or a quoted glob of frames."""
    output: Output
    """Folder for the results; it must be new or empty."""
    model: Annotated[str, tyro.conf.arg(metavar="RUN|imagenet")] = "imagenet"
    """In whose features: of a run of `jaxvos fit`, or of EfficientNet-Lite0 as ImageNet trained it."""
    method: Literal["kmeans", "ot"] = "kmeans"
    """k-means, or optimal transport with learned sizes."""
    num_clusters: int = 5
    """Clusters of the video."""
    max_share: float = 0.4
    """Clusters of a larger share of the video are dropped."""
    max_frames: int = 36
    """Frames, evenly spaced, that are clustered."""
    seed: int = 0
    """Of the starts."""
    overwrite: Switch = False
    """Replace earlier results in the output folder; other files there stay."""

    def run(self) -> None:
        import numpy as np

        from jaxvos.data import write_mask
        from jaxvos.drawing import write_image
        from jaxvos.results import check_apart, check_output, cluster_sheet, output_folder
        from jaxvos.systems import ClusterConfig, cluster_masks

        check_output(self.output, overwrite=self.overwrite, entries=_RESULTS)
        check_apart(self.output, self.input, entries=_RESULTS)
        config = ClusterConfig(method=self.method, num_clusters=self.num_clusters, max_share=self.max_share)
        video, found = find_clusters(self.input, load_features(self.model), config, max_frames=self.max_frames,
                                     seed=self.seed)  # fmt: skip
        kept, shares = np.asarray(found.kept), np.asarray(found.shares)
        masks = np.asarray(cluster_masks(found, size=video.frames.shape[1:3]))
        with output_folder(self.output) as partial:
            sheet = cluster_sheet(list(video.frames), list(np.asarray(found.labels)), kept, shares)
            write_image(partial / "clusters.png", sheet)
            (partial / "masks").mkdir()
            for index, mask in enumerate(masks):
                write_mask(partial / "masks" / f"{index:05d}.png", mask)
            report = {"input": self.input, "model": self.model, "frames": len(video), "kept": kept.tolist(),
                      "shares": shares.tolist(), "clusters": dataclasses.asdict(config)}  # fmt: skip
            (partial / "clusters.json").write_text(json.dumps(report, indent=1) + "\n")
        print(f"{int(kept.sum())} of {len(kept)} clusters of {len(video)} frames are kept; look at "
              f"{self.output / 'clusters.png'}")  # fmt: skip


def load_features(source: str) -> "Model":
    """A Mask-VOS to cluster by."""
    from jaxvos.models import load_model
    from jaxvos.systems import MaskVOSConfig

    model = load_model(source)
    if not isinstance(model.config, MaskVOSConfig):
        raise InputError(f"{source} has no features to cluster by: give a run of jaxvos fit, or imagenet")
    return model


def find_clusters(
    source: str, model: "Model", config: "ClusterConfig", *, max_frames: int = 36, seed: int = 0
) -> "tuple[UnlabelledVideo, Clusters]":
    """Reads a video, some frames of it, and clusters it."""
    import jax

    from jaxvos.data import read_videos
    from jaxvos.self_training import cluster_frames

    videos = read_videos(source, max_frames=max_frames, minimum=2, progress=False).videos
    if len(videos) > 1:
        raise InputError(f"{source} holds {len(videos)} videos: name one of them")
    return videos[0], cluster_frames(jax.random.key(seed), videos[0].frames, model.config, model.variables, config)


def first_clusters(source: str, model: "Model", size: tuple[int, int]) -> "np.ndarray":
    """What is kept of a video, on its first frame, as a mask of ids."""
    import numpy as np

    from jaxvos.systems import ClusterConfig, cluster_masks

    found = find_clusters(source, model, ClusterConfig())[1]
    mask = np.asarray(cluster_masks(found, size=size, frame=0))
    if not mask.any():
        raise InputError(f"no cluster of {source} is kept on its first frame: give --first-mask")
    return mask
