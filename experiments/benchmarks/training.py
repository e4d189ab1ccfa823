"""What the options of training cost: seconds, memory and FLOPs of a step of TransportNet, and of more devices.

    python experiments/benchmarks/training.py                          # `lite`'s net, thin frames: minutes on a CPU
    python experiments/benchmarks/training.py --preset paper --size 512 512 --batch 2 --peak-teraflops 989    # an H100
    python experiments/benchmarks/training.py --devices 1 2 4 8        # simulated, on a CPU

Every row is a run of `fit` in a process of its own, on one batch again and again from random weights; rows are repeated
in turns, and the median counts. Memory is that of temporary buffers as XLA plans them, FLOPs are as XLA counts them in
one device's program. With --peak-teraflops, utilisation is FLOPs over seconds over that. With --devices the batch
grows with them (weak scaling): simulated devices share the same cores, so that n of them at best take n times as long,
and "overhead" is what they take beyond that.

Solvers stay float32 whatever the layers are: plans between two frames of bikes.mp4 in ImageNet's features of stage 4
(EfficientNet-Lite0 at 512x512, dense Sinkhorn, epsilon 0.05, 20 iterations) have rows that miss their mass by at most
7.0e-7 from float32 features and 6.7e-7 from bfloat16 ones; with the iterations in bfloat16 as well, by 8.3e-3.

Weak scaling, measured 2026-11-27 at commit 24649ac on 2 idle vCPU, `--size 64 64 --batch 2 --devices 1 2 4 8`, 3 runs:
0.07, 0.21, 0.38 and 0.77 s a step, an overhead of 56, 45 and 47 % on 2, 4 and 8 simulated devices: it comes with the
first cut of the batch and does not grow from there. Rows of options: not yet measured; nothing on an accelerator.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any, Literal

import jax
import tyro

from jaxvos.data import SyntheticConfig, synthetic_batch
from jaxvos.errors import exit_on_input_error
from jaxvos.systems import TransportNetConfig, transportnet
from jaxvos.training import TrainingConfig, describe_run, evolve, fit, read_log

NETS = {
    "paper": TransportNetConfig(),
    "lite": TransportNetConfig(backbone_app="efficientnet_lite0", backbone_mot="efficientnet_lite0", decoder_width=64),
}
ROWS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "accumulate 2": {"accumulate": 2},
    "remat": {"remat": ("appearance", "motion")},
    "remat, bfloat16": {"remat": ("appearance", "motion"), "precision": "bfloat16"},
    "ema": {"ema": 0.999},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the options of training cost."""

    preset: Literal["paper", "lite"] = "lite"
    """Whose net."""
    size: tuple[int, int] = (96, 160)
    """Height and width of a frame."""
    batch: int = 4
    """Frames in a batch of one device."""
    steps: int = 6
    """Steps of a run; the first third does not count."""
    repeats: int = 3
    """Runs of each row."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which rows."""
    devices: tuple[int, ...] = ()
    """Simulate so many devices of a CPU, for a row each, in place of the rows of options."""
    peak_teraflops: float | None = None
    """Of the device, as its data sheet has it, to tell utilisation by."""


def measure(arguments: Arguments, options: dict[str, Any], devices: int | None) -> dict[str, float]:
    """One run, in a process of its own."""
    environment = dict(os.environ)
    if devices is not None:
        environment |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    task = json.dumps([dataclasses.asdict(arguments), options, devices or 1])
    result = subprocess.run([sys.executable, __file__, "--run", task], env=environment, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(result.stderr[-2000:])
    return json.loads(result.stdout.splitlines()[-1])


def run(task: str) -> None:
    """Prints the numbers of a run."""
    given, options, devices = json.loads(task)
    arguments = Arguments(**{name: tuple(x) if isinstance(x, list) else x for name, x in given.items()})
    size = arguments.size
    system = transportnet(dataclasses.replace(NETS[arguments.preset], input_size=size))
    scenes = SyntheticConfig(height=size[0], width=size[1], num_frames=1, flow_noise=0.0)
    clip = synthetic_batch(0, 0, scenes, batch_size=arguments.batch * devices)._replace(edges=None)
    skipped = max(1, arguments.steps // 3)
    options = {name: tuple(x) if isinstance(x, list) else x for name, x in options.items()}
    config = evolve(TrainingConfig(num_steps=arguments.steps, log_every=1, checkpoint_every=arguments.steps), **options)

    def data(start: int):
        while True:
            yield clip

    with tempfile.TemporaryDirectory() as folder:
        fit(system, data, config, workdir=folder, progress=False)
        log = read_log(folder)
    speeds = [speed for step, speed in log["clips_per_second"] if step > skipped]
    seconds = len(clip.images) / statistics.median(speeds)
    print(json.dumps({"seconds": seconds, **{name: log[name][0][1] for name in ("gigaflop", "temporary_megabyte")}}))


def main(arguments: Arguments) -> None:
    rows = {name: (ROWS[name], None) for name in arguments.rows}
    if arguments.devices:
        rows = {f"{count} devices": ({}, count) for count in arguments.devices}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(arguments.repeats):
        for name, (options, devices) in rows.items():
            found[name].append(measure(arguments, options, devices))
    story = describe_run()
    print(f"{story['commit'][:7]}, {story['device']}, jax {jax.__version__}; {arguments.preset}, {arguments.size[0]}x"
          f"{arguments.size[1]}, batches of {arguments.batch}, {arguments.repeats} repeats")  # fmt: skip
    first = None
    for name, runs in rows.items():
        times = [each["seconds"] for each in found[name]]
        seconds, last = statistics.median(times), found[name][-1]
        first = seconds if first is None else first
        text = f"{name:16} {seconds:7.2f} s/step ({min(times):.2f} to {max(times):.2f}), "
        if runs[1] is None:
            text += f"{seconds / first:5.2f} of the first, {arguments.batch / seconds:6.1f} clips/s"
        else:
            text += f"{100 * (seconds / first / (runs[1] / arguments.devices[0]) - 1):+5.0f} % overhead"
        text += f", {last['temporary_megabyte']:8.0f} MB, {last['gigaflop']:8.1f} GFLOP"
        if arguments.peak_teraflops is not None:
            text += f", {last['gigaflop'] / seconds / arguments.peak_teraflops / 10:5.1f} % of the peak"
        print(text, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2])
    else:
        with exit_on_input_error():
            main(tyro.cli(Arguments, description=__doc__))
