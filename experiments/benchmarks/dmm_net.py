"""Frames per second of DMM-Net's step, and the share of matching in it, against Hungarian by a call back to the host.

    python experiments/benchmarks/dmm_net.py

"step" is `predict` on one frame, jitted: encode, compare, match, refine; proposals are given. Matchers run alone,
jitted as well, on costs like those of Eq. 1 in float32; "host" is SciPy's linear_sum_assignment by way of
`jax.pure_callback`, which is how a Hungarian that is no JAX program gets into one. "share" is a matcher's time over
that of the step. Random weights and proposals: neither changes the work. Repeats are interleaved, the median counts,
with its quartiles.

Measured 2026-11-26 on 2 idle vCPU, commit d8a604a, 5 objects and 50 proposals in 854x480, 20 repeats: `lite` 4.8
frames/s, ResNet-50 with the light refiner at 255x448 2.9 frames/s. Matching is at most 0.2 % of the step, whichever it
is; Hungarian under jit takes 1.1 and 0.8 of the time of that on the host:

                   lite, ms   share    paper, ms   share
    pgd               0.365   0.18 %       0.242   0.07 %
    qp                0.267   0.13 %       0.167   0.05 %
    sinkhorn          0.199   0.10 %       0.145   0.04 %
    hungarian         0.206   0.10 %       0.123   0.04 %
    greedy            0.090   0.04 %       0.075   0.02 %
    host              0.190   0.09 %       0.149   0.04 %
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.optimize import linear_sum_assignment

from jaxvos.errors import exit_on_input_error
from jaxvos.files import atomic_path
from jaxvos.solvers import match
from jaxvos.system import Clip, Frame, Proposals
from jaxvos.systems import DMMNetConfig, dmm_net
from jaxvos.training import describe_run

LITE = DMMNetConfig(backbone="efficientnet_lite0", input_size=(240, 432), match_width=64, roi_size=7,
                    skip_widths=(24, 32, 48, 64), light_widths=(64, 48, 32, 16))  # fmt: skip
NETS = {"lite": LITE, "paper": DMMNetConfig(), "heavy": DMMNetConfig(refiner="heavy")}
METHODS = ("pgd", "qp", "sinkhorn", "hungarian", "greedy", "host")


def host_hungarian(cost: jax.Array) -> jax.Array:
    """Column of each row, found by SciPy on the host."""

    def solve(cost: np.ndarray) -> np.ndarray:
        return linear_sum_assignment(cost)[1].astype(np.int32)

    return jax.pure_callback(solve, jax.ShapeDtypeStruct((cost.shape[0],), jnp.int32), cost)


def step(config: DMMNetConfig, objects: int, proposals: int, size: tuple[int, int]) -> Callable[[], Any]:
    """A jitted `predict` with its inputs: the second frame of a video, and those after it."""
    rng, system = np.random.default_rng(0), dmm_net(config)
    corner = rng.uniform(0, 0.6, (proposals, 2)) * (size[1], size[0])
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (proposals, 2)) * (size[1], size[0])], axis=1)
    found = Proposals(boxes.astype(np.float32), rng.random((proposals, 28, 28), np.float32),
                      np.ones(proposals, np.float32), np.ones(proposals, bool))  # fmt: skip
    frame = jax.tree.map(jnp.asarray, Frame(rng.random((*size, 3), np.float32), proposals=found))
    labels = np.minimum(np.arange(size[1]) * (objects + 1) // size[1], objects)
    masks = jax.nn.one_hot(jnp.broadcast_to(labels, size), objects + 1)
    variables = jax.jit(system.init)(jax.random.key(0), Clip(frame.image[None, None]))
    memory = jax.jit(system.start)(variables, frame, masks)
    predict = jax.jit(system.predict)
    memory, _ = predict(variables, memory, frame)
    return partial(predict, variables, memory, frame)


def matcher(method: str, objects: int, proposals: int) -> Callable[[], Any]:
    cost = jax.random.uniform(jax.random.key(0), (objects, proposals), minval=-1.0, maxval=0.0)
    run = jax.jit(host_hungarian if method == "host" else partial(match, method=method, null_cost=-0.2))
    return partial(run, cost)


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each; cheap ones are timed over many calls."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        jax.block_until_ready(run())
    for _ in range(repeats):
        for name, run in runs.items():
            calls = 1 if name == "step" else 20
            started = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(run())
            times[name].append(1000 * (time.perf_counter() - started) / calls)
    return times


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Times the step and the matchers."""

    nets: tuple[str, ...] = ("lite", "paper")
    """Of lite, paper (ResNet-50, 255x448), heavy."""
    objects: int = 5
    """Templates."""
    proposals: int = 50
    """Proposals of a frame."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the video."""
    repeats: int = 20
    """Of every time."""
    json: Path | None = None
    """Also write all times there."""


def main(args: Arguments) -> None:
    results = {}
    for net in args.nets:
        runs = {"step": step(NETS[net], args.objects, args.proposals, args.size)}
        runs |= {method: matcher(method, args.objects, args.proposals) for method in METHODS}
        results[net] = times = measure(runs, args.repeats)
        whole = statistics.median(times["step"])
        print(f"{net}: {args.objects} objects, {args.proposals} proposals, {args.size[1]}x{args.size[0]}: "
              f"{1000 / whole:.1f} frames/s")  # fmt: skip
        for name, values in times.items():
            low, middle, high = statistics.quantiles(values, n=4)
            print(f"  {name:10} {middle:9.3f} ms ({low:.3f} to {high:.3f})  share {100 * middle / whole:6.2f} %")
    if args.json is not None:
        with atomic_path(args.json) as partial_path:
            partial_path.write_text(json.dumps({"milliseconds": results, **describe_run()}, indent=2) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main(tyro.cli(Arguments, description=__doc__))
