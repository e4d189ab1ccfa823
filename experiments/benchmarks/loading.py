"""Clips per second that the loader makes, against those that a training step of TransportNet's `lite` preset takes.

    python experiments/benchmarks/loading.py DAVIS --resolution 256p
    python experiments/benchmarks/loading.py DAVIS --resolution 256p --step-seconds 1.3       # do not time the step

"lite" are clips as that step wants them: one frame of 160x256 with its mask and its flow, which is read from `.flo`
files that DIS computes beforehand, into a temporary folder and out of the time. "video" are clips of three frames of
384x384 with up to two objects, strides up to 25, crop, flip, affine maps and colours, as memory networks are trained
on; no step is timed for them.

A loader runs alone, its batches thrown away, for `--seconds` from its first batch on; files are in the system's cache
after the first repeat. The step runs alone too, on one batch again and again, from random weights. Repeats are
interleaved and the median counts, with its range. "share" is the step's appetite over the loader's speed: below 100 %
the loader keeps ahead where it has cores of its own; where both need the same ones, the step becomes longer by about
that much.

Measured 2026-11-21 at commit 32b4dee on 2 idle vCPU, DAVIS-2016 train at 256 rows, batches of 4, seed 0, 3 repeats of
4 s: a step of `lite` takes 0.89 s, which is 4.5 clips/s.

                     1 worker                       2 workers
    lite             119 (111 to 129) clips/s       203 (174 to 216) clips/s      share 3.8 %, 2.2 %
    video             85 (83 to 102) clips/s        130 (124 to 136) clips/s
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import tyro

from jaxvos.data import (
    AffineRange,
    Augmentation,
    ClipConfig,
    ColourRange,
    DavisSequence,
    clip_batches,
    dis_flow,
    list_sequences,
    with_flow,
    write_flow,
)
from jaxvos.errors import exit_on_input_error
from jaxvos.files import atomic_path
from jaxvos.system import Clip
from jaxvos.systems import AugmentationConfig, TransportNetConfig, transportnet
from jaxvos.training import OptimizerConfig, create_state, describe_run, evolve, make_optimizer, train_step

LITE = ClipConfig(num_frames=1, size=(160, 256), num_objects=1, flow=True)
VIDEO = ClipConfig(
    num_frames=3, size=(384, 384), num_objects=2, max_skip=((0, 25),), reverse=0.5, crop=(0.6, 1.0), min_area=0.001,
    augmentation=Augmentation(
        flip=0.5, frame=AffineRange(rotation=15.0, shear=10.0),
        clip_colour=ColourRange(brightness=0.1, contrast=0.03, saturation=0.03, grey=0.05),
    ),
)  # fmt: skip
SYSTEM = evolve(
    TransportNetConfig(), backbone_app="efficientnet_lite0", backbone_mot="efficientnet_lite0", decoder_width=64,
    input_size=(224, 384), transport={"apply": "to_appearance", "residual": True},
    augmentation=AugmentationConfig(scale=(0.75, 1.5), flow="vector"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    davis: Annotated[Path, tyro.conf.Positional]
    """A folder in the layout of DAVIS."""
    resolution: str | None = None
    """Folder within its JPEGImages."""
    flow_sequences: int = 4
    """Sequences that "lite" reads; their flow takes the time and about 0.9 MB a frame of 256p."""
    batch_size: int = 4
    """Clips in a batch."""
    workers: tuple[int, ...] = (1, 2)
    """Threads of the loader."""
    seconds: float = 5.0
    """Of each measurement of a loader."""
    step_seconds: float | None = None
    """What a step takes; timed here where it is left out."""
    repeats: int = 5
    """Interleaved runs; of the step, each is 3 updates."""
    seed: int = 0
    """Of the clips and the weights."""
    json: Path | None = None
    """Also write the numbers to this file."""


def compute_flow(sequences: list[DavisSequence], folder: Path) -> None:
    provider = dis_flow()
    for sequence in sequences:
        (folder / sequence.name).mkdir()
        for frame in with_flow(sequence.frames(), provider, last_frame="skip"):
            write_flow(folder / sequence.name / f"{frame.name}.flo", frame.flow)


def clips_per_second(batches: Iterator[Clip], seconds: float) -> float:
    next(batches)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        count += len(next(batches).images)
    return count / elapsed


def make_step(clip: Clip, seed: int) -> Callable[[], float]:
    """Compiles an update of `lite`; what is returned makes three and tells the seconds of one."""
    system, key = transportnet(SYSTEM), jax.random.key(seed)
    clip = jax.tree.map(jax.numpy.asarray, clip)
    tx = make_optimizer(OptimizerConfig(lr=1e-3), jax.eval_shape(system.init, key, clip)["params"], 3000)
    state = jax.jit(partial(create_state, system=system, tx=tx))(key, clip)
    step = jax.jit(partial(train_step, system=system, tx=tx)).lower(state, clip).compile()
    jax.block_until_ready(step(state, clip))

    def measure() -> float:
        new, start = state, time.perf_counter()
        for _ in range(3):
            new, _ = step(new, clip)
        jax.block_until_ready(new)
        return (time.perf_counter() - start) / 3

    return measure


def spread(values: list[float], scale: float = 1.0) -> str:
    low, middle, high = (scale * x for x in (min(values), statistics.median(values), max(values)))
    return f"{middle:.2f} ({low:.2f}..{high:.2f})"


def main(config: Config) -> None:
    run = describe_run()
    print(f"{run['device']}, {os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}, commit {run['commit']}, "
          f"{config.davis}, batches of {config.batch_size}, seed {config.seed}", flush=True)  # fmt: skip
    sequences = list_sequences(config.davis, resolution=config.resolution)
    some = sequences[: config.flow_sequences]
    with tempfile.TemporaryDirectory() as folder:
        compute_flow(some, Path(folder))
        cases = {
            "lite": ([sequence.with_flow_folder(folder) for sequence in some], LITE),
            "video": (sequences, VIDEO),
        }

        def batches(name: str, workers: int) -> Iterator[Clip]:
            return clip_batches(*cases[name], batch_size=config.batch_size, seed=config.seed, num_workers=workers)(0)

        seconds, steps = config.step_seconds, []
        step = make_step(next(batches("lite", 1)), config.seed) if seconds is None else lambda: seconds
        speeds = {(name, workers): [] for name in cases for workers in config.workers}
        for _ in range(config.repeats):
            steps.append(step())
            for (name, workers), found in speeds.items():
                found.append(clips_per_second(batches(name, workers), config.seconds))
    appetite = config.batch_size / statistics.median(steps)
    print(f"step of lite: {spread(steps)} s, which takes {appetite:.2f} clips/s")
    for (name, workers), found in speeds.items():
        share = f", share {100 * appetite / statistics.median(found):.1f} %" if name == "lite" else ""
        print(f"{name}, {workers} worker{'s' * (workers > 1)}: {spread(found)} clips/s{share}")
    if config.json is not None:
        record = {"step_seconds": steps, "clips_per_second": {f"{n}/{w}": found for (n, w), found in speeds.items()}}
        with atomic_path(config.json) as partial_file:
            partial_file.write_text(json.dumps({**record, "device": run["device"], "commit": run["commit"]}) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main(tyro.cli(Config, description=__doc__))
