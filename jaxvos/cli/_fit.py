"""`jaxvos fit`."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxvos.cli._arguments import Switch
from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.training import as_json, describe_run, evolve

if TYPE_CHECKING:
    from jaxvos.systems import MaskVOSConfig

__all__ = ["Fit"]

_RUN = "run.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """Learn to segment from your own videos, without a single label (Mask-VOS).

    A net first learns which places of different frames are the same; then clusters of each video serve as fake objects
    that it learns to follow. Use it with `jaxvos segment INPUT --first-mask PNG --model RUN`, or let `jaxvos segment
    INPUT --clusters --model RUN` find what to follow. The same command again goes on where a run was stopped.
    """

    videos: Annotated[str, tyro.conf.arg(metavar="FOLDER|VIDEO")]
    """A folder of video files or of folders of frames, or a single video to adapt to. What cannot be read is skipped,
    named and counted."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o", "--out"), metavar="RUN")]
    """Folder of the run: weights, logs, curves, and a contact sheet of the clusters each time they are made."""
    encoder: Literal["efficientnet_lite0", "resnet18", "resnet50"] = "efficientnet_lite0"
    """Encoder of frames and of frames with masks."""
    weights: Annotated[str, tyro.conf.arg(metavar="imagenet|random|FILE")] = "imagenet"
    """Where the encoder of frames begins: imagenet (trained with labels of whole pictures; of efficientnet_lite0
    alone), at random, or torchvision's state dict of a ResNet."""
    init_from: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Begin with an earlier run instead, of the same encoder."""
    steps: tuple[int, int] | None = None
    """Steps of the two phases; if left out, eight for each video, from 150 to 3000."""
    size: int = 192
    """Side of a training frame in pixels, a multiple of 8."""
    method: Literal["kmeans", "ot"] = "kmeans"
    """How videos are clustered: k-means, or optimal transport with learned sizes."""
    num_clusters: int = 5
    """Clusters of a video."""
    rounds: int = 1
    """Times that masks are refined once they are carried on, when the run is used."""
    short_side: int = 256
    """Videos are kept in memory with so many rows (or columns, if there are fewer)."""
    max_frames: int = 36
    """Frames of a video, evenly spaced, that are kept."""
    exclude: tuple[str, ...] = ()
    """Videos, by name, that are left out."""
    seed: int = 0
    """Of everything that is random."""
    quiet: Switch = False
    """Show no progress."""

    def run(self) -> None:
        from jaxvos.data import read_videos
        from jaxvos.models import save_model
        from jaxvos.self_training import learn_from_videos, small_net, small_recipe
        from jaxvos.systems import ClusterConfig

        system = evolve(small_net(self.encoder), memory={"rounds": self.rounds})
        self._check_output()
        start = self._start(system)
        folder = read_videos(self.videos, short_side=self.short_side, max_frames=self.max_frames, exclude=self.exclude,
                             progress=not self.quiet)  # fmt: skip
        for name, reason in folder.skipped.items():
            print(f"skipped {name}: {reason}")
        frames = sum(len(video) for video in folder.videos)
        print(f"{len(folder.videos)} videos, {frames} frames; {len(folder.skipped)} skipped")
        recipe, training, joint = small_recipe(len(folder.videos), steps=self.steps, size=self.size, seed=self.seed)
        clusters = ClusterConfig(method=self.method, num_clusters=self.num_clusters)
        recipe = dataclasses.replace(recipe, clusters=clusters)
        self._claim({"encoder": self.encoder, "net": as_json(system.net), "recipe": as_json(recipe),
                     "number of steps": [training.num_steps, joint.num_steps], "seed": self.seed,
                     "start": self.init_from or self.weights,
                     "set of videos": {video.name: list(video.frames.shape) for video in folder.videos}})  # fmt: skip
        variables = learn_from_videos(folder.videos, system, recipe, training=training, joint_training=joint,
                                      workdir=self.output, variables=start, progress=not self.quiet)  # fmt: skip
        story = {
            "data": f"{len(folder.videos)} videos of {self.videos}, without labels", "licence": "as the videos",
            "started_from": self.init_from or self.weights, "recipe": as_json(recipe), "training": as_json(training),
            "joint_training": as_json(joint),
            "command": shlex.join(["jaxvos", *sys.argv[1:]]), **describe_run()}  # fmt: skip
        save_model(self.output / "model.safetensors", variables, system="mask_vos", config=system, metadata=story,
                   half=True)  # fmt: skip
        print(f"weights in {self.output / 'model.safetensors'}; look at {self.output}/clusters-*.png; use it with: "
              f"jaxvos segment INPUT --first-mask PNG --model {self.output}")  # fmt: skip

    def _check_output(self) -> None:
        if self.output.exists() and not self.output.is_dir():
            raise InputError(f"{self.output} is a file: name a folder for the run")
        if self.output.is_dir() and any(self.output.iterdir()) and not (self.output / _RUN).is_file():
            raise InputError(f"{self.output} is not empty, and not a run of jaxvos fit: choose another folder")

    def _claim(self, settings: dict[str, Any]) -> None:
        """Writes down what the run is told, or finds out that the one in the folder was told something else."""
        path = self.output / _RUN
        if path.is_file():
            try:
                known = json.loads(path.read_text())
                other = [name for name, value in settings.items() if known[name] != value]
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path} cannot be read: choose another folder") from None
            if other:
                raise InputError(f"{self.output} is a run with another {other[0]}: give the one it has, or another "
                                 "folder")  # fmt: skip
        self.output.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n")

    def _start(self, system: "MaskVOSConfig") -> Any:
        """Variables, or a part of their tree, to begin with."""
        from jaxvos.models import load_model, pretrained_start
        from jaxvos.systems import MaskVOSConfig, mask_vos

        if self.init_from is not None:
            model = load_model(self.init_from)
            if not isinstance(model.config, MaskVOSConfig) or model.config.net != system.net:
                raise InputError(f"{self.init_from} is not a run of {self.encoder}: name the encoder that it has, or "
                                 "begin without it")  # fmt: skip
            return model.variables
        if self.weights == "random":
            return None
        return pretrained_start(mask_vos(system), {"encoder": self.encoder}, self.weights)
