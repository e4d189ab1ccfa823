"""Dense against factorised transport between two feature maps: time and memory, side by side in one run.

    python experiments/benchmarks/factorized.py                                        # 32x32x512 and 64x64x512
    python experiments/benchmarks/factorized.py --cases 64x64x256 128x128x256 --json times.json
    python experiments/benchmarks/factorized.py --cases 128x128x2048 --no-backward     # the paper's map

"dense log" is the baseline: a plain log-domain scan over the whole map, rematerialised per iteration when it is
differentiated. "SH" is jaxvos' stabilised solver on the same dense problem, "LSH", "SSH" and "LSSH" are its factorised
forms with 8 long-distance groups, "ott" is ott-jax (dense, log domain, unrolled) where it is installed. Every method
matches by 1 - cosine and moves both maps. "grad" is a forward and a backward pass, with respect to both maps. Memory is
XLA's own figure for temporary buffers, without inputs and outputs. Repeats are interleaved; times are medians.

Published: LSSH is 24.5x faster than SH and uses 15.8 % of its memory (TransportNet, ICCV 2021, Fig. 6: 128x128x2048 on
the authors' GPU, iterations, epsilon and direction not stated). Printed beside, never asserted.

Measured 2026-11-21 at commit 3519a49 on 2 vCPU (idle), no GPU, jax 0.10.2, seed 0, epsilon 0.05: speed against
"dense log" and percentage of its memory; 7 repeats, 128x128x256 3, 128x128x2048 1. Ratios move by a tenth or two
between runs ("LSSH" and "implicit" are the same program forward).

                 32x32x512, 20 it.             64x64x512, 20 it.              64x64x256, 20 it.
                 forward     grad              forward     grad               forward     grad
    SH        1.7x 100 %   1.9x 129 %        2.1x 100 %   2.5x 130 %        2.3x 100 %   3.4x 132 %
    LSH       5.6x  54 %  11.6x  49 %       19.9x  16 %  16.8x  11 %       20.5x 9.4 %  20.6x 6.6 %
    SSH      14.4x  50 %  33.0x  38 %       83.9x  13 %  56.1x  14 %        128x 6.3 %   127x 7.5 %
    LSSH      5.7x  50 %   6.8x  94 %       19.9x  17 %  15.7x  21 %       28.2x 9.4 %  23.4x  12 %
    implicit  5.3x  50 %   7.7x  87 %       19.6x  17 %  16.4x  21 %       27.7x 9.4 %  29.0x  11 %
    ott       1.0x 100 %   0.6x 969 %        1.0x 100 %   0.5x 1021 %       1.0x 100 %   0.5x 1066 %

    forward   128x128x256, 10 it.   128x128x2048, 10 it.
    SH            2.6x 100 %            1.7x 100 %
    LSH          25.5x 4.1 %           24.9x  16 %
    SSH           295x 1.6 %            111x  13 %
    LSSH         33.6x 4.1 %           24.6x  16 %
    implicit     41.0x 4.1 %           24.5x  16 %
    ott           1.0x 100 %          not measured

Gradients at 128x128, and any accelerator: not yet measured.
"""

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax import lax

from jaxvos.files import atomic_path
from jaxvos.solvers import factorized_sinkhorn
from jaxvos.training import describe_run

PAPER = "published (Fig. 6, 128x128x2048, the authors' GPU): LSSH 24.5x faster than SH, 15.8 % of its memory"
EPSILON = 0.05
CASES = {  # height = width, channels, iterations
    "32x32x512": (32, 512, 20),
    "64x64x512": (64, 512, 20),
    "64x64x256": (64, 256, 20),
    "128x128x256": (128, 256, 10),
    "128x128x2048": (128, 2048, 10),
}
Maps = tuple[jax.Array, ...]


@dataclass(frozen=True, kw_only=True)
class Config:
    cases: tuple[Literal["32x32x512", "64x64x512", "64x64x256", "128x128x256", "128x128x2048"], ...] = (
        "32x32x512",
        "64x64x512",
    )
    """Maps to time, height x width x channels; those of 128x128 take 10 iterations, the others 20."""
    repeats: int = 5
    """Interleaved runs of every method; the median counts."""
    backward: bool = True
    """Also time the gradients."""
    ott: bool = True
    """Also time ott-jax, where it is installed."""
    seed: int = 0
    """Of the features."""
    json: Path | None = None
    """Also write the numbers to this file."""


def features(size: int, channels: int, seed: int) -> Maps:
    """Six kinds of blocks, moved by half a block between the maps, with noise, rectified: as a backbone's would be."""
    keys = jax.random.split(jax.random.key(seed), 4)
    kinds = jax.random.normal(keys[0], (6, channels))
    labels = jax.random.randint(keys[1], (size // 8, size // 8), 0, 6).repeat(8, 0).repeat(8, 1)

    def draw(labels: jax.Array, key: jax.Array) -> jax.Array:
        return jax.nn.relu(kinds[labels] + 0.7 * jax.random.normal(key, (size, size, channels)))

    return draw(labels, keys[2]), draw(jnp.roll(labels, 4, axis=1), keys[3])


def dense_cost(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = (z.reshape(-1, z.shape[-1]) for z in (x, y))
    x, y = (z * lax.rsqrt((z**2).sum(-1, keepdims=True) + 1e-12) for z in (x, y))
    return 1 - jnp.dot(x, y.T, precision=lax.Precision.HIGHEST)


def apply(plan: jax.Array, x: jax.Array, y: jax.Array) -> Maps:
    return tuple((plan @ z.reshape(-1, z.shape[-1])).reshape(z.shape) for z in (x, y))


def dense_log(x: jax.Array, y: jax.Array, num_iters: int) -> Maps:
    L = -dense_cost(x, y) / EPSILON

    @jax.checkpoint
    def step(potentials: Maps, _: None) -> tuple[Maps, None]:
        f, g = potentials
        g = -jax.nn.logsumexp(L + f[:, None], axis=0)
        f = -jax.nn.logsumexp(L + g, axis=1)
        return (f, g), None

    zeros = jnp.zeros(len(L))
    (f, g), _ = lax.scan(step, (zeros, zeros), length=num_iters)
    return apply(jnp.exp(L + f[:, None] + g), x, y)


def dense_ott(x: jax.Array, y: jax.Array, num_iters: int) -> Maps:
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    geometry = Geometry(dense_cost(x, y), epsilon=EPSILON, relative_epsilon=None)
    ones = jnp.ones(geometry.shape[0])
    counts: dict[str, Any] = {"min_iterations": num_iters, "max_iterations": num_iters, "inner_iterations": num_iters}
    solver = Sinkhorn(lse_mode=True, threshold=-1.0, implicit_diff=None, **counts)
    return apply(solver(LinearProblem(geometry, ones, ones)).matrix, x, y)


def jaxvos(x: jax.Array, y: jax.Array, num_iters: int, **options: Any) -> Maps:
    solution = factorized_sinkhorn(x, y, epsilon=EPSILON, num_iters=num_iters, **options)
    return solution.x, solution.y


def methods(num_iters: int, ott: bool) -> dict[str, Callable[..., Maps]]:
    table = {
        "dense log": dense_log,
        "SH": partial(jaxvos, partition=(1, 1), order=("long",)),
        "LSH": partial(jaxvos, order=("long",)),
        "SSH": partial(jaxvos, order=("short",)),
        "LSSH": jaxvos,
        "LSSH implicit": partial(jaxvos, diff="implicit"),
    }
    if ott:
        table["ott"] = dense_ott
    return {name: partial(method, num_iters=num_iters) for name, method in table.items()}


def gradient(method: Callable[..., Maps]) -> Callable[..., Maps]:
    """Of both maps' product with given cotangents, as a network would hand them back."""

    def loss(x: jax.Array, y: jax.Array, x_bar: jax.Array, y_bar: jax.Array) -> jax.Array:
        new_x, new_y = method(x, y)
        return jnp.vdot(new_x, x_bar) + jnp.vdot(new_y, y_bar)

    return jax.grad(loss, (0, 1))


def available_bytes() -> int | None:
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable" in line)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(
    functions: dict[str, Callable[..., Maps]], arguments: tuple[jax.Array, ...], repeats: int
) -> dict[str, Any]:
    """For each function: median seconds and temporary bytes, or the reason why there are none."""
    compiled, results = {}, {}
    for name, function in functions.items():
        program = jax.jit(function).lower(*arguments).compile()
        temp = program.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]
        results[name] = {"temp_bytes": temp}
        free = available_bytes()
        if free is not None and temp > 0.8 * free:
            results[name]["skipped"] = f"needs {temp / 2**30:.1f} GiB of the {free / 2**30:.1f} available"
            say(f"  {name}: skipped, {results[name]['skipped']}")
            continue
        jax.block_until_ready(program(*arguments))
        compiled[name] = program
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for repeat in range(repeats):
        for name, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            seconds[name].append(time.perf_counter() - start)
        say(f"  repeat {repeat + 1} of {repeats}")
    gc.collect()
    for name, values in seconds.items():
        results[name]["seconds"] = statistics.median(values)
    return results


def cells(result: dict[str, Any] | None, base: dict[str, Any]) -> str:
    if result is None:
        return ""
    memory = f"{result['temp_bytes'] / 2**20:9.1f} {100 * result['temp_bytes'] / base['temp_bytes']:7.1f}"
    if "skipped" in result:
        return f"{'-':>10} {'-':>8} {memory}"
    speed = f"{base['seconds'] / result['seconds']:7.1f}x" if "seconds" in base else f"{'-':>8}"
    return f"{1e3 * result['seconds']:10.1f} {speed} {memory}"


def table(results: dict[str, Any]) -> str:
    forward, backward = results["forward"], results.get("backward", {})
    columns = f"{'ms':>10} {'speed':>8} {'MiB':>9} {'%':>7}"
    lines = [f"{'':14}{'forward':>37}", f"{'':14}{columns}"]
    if backward:
        lines = [f"{lines[0]} |{'forward and backward':>37}", f"{lines[1]} |{columns}"]
    for name, result in forward.items():
        line = f"{name:14}" + cells(result, forward["dense log"])
        if backward:
            line += " |" + cells(backward[name], backward["dense log"])
        reasons = [r["skipped"] for r in (result, backward.get(name, {})) if "skipped" in r]
        lines.append(line + (f"  skipped: {'; '.join(reasons)}" if reasons else ""))
    return "\n".join(lines)


def save(path: Path, record: dict[str, Any]) -> None:
    with atomic_path(path) as partial_file:
        partial_file.write_text(json.dumps(record, indent=1) + "\n")


def main(config: Config) -> None:
    ott = config.ott and find_spec("ott") is not None
    if config.ott and not ott:
        print("ott: skipped, ott-jax is not installed")
    run = describe_run()
    record = {
        "device": f"{run['device']}, {os.cpu_count()} CPU cores, {platform.machine()}",
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "commit": run["commit"],
        "dtype": "float32",
        "epsilon": EPSILON,
        "repeats": config.repeats,
        "seed": config.seed,
        "cases": {},
    }
    print("  ".join(f"{key} {value}" for key, value in record.items() if key != "cases"))
    print(PAPER)
    for case in config.cases:
        size, channels, num_iters = CASES[case]
        functions = methods(num_iters, ott)
        maps = features(size, channels, config.seed)
        say(f"{case}: forward")
        results = {"num_iters": num_iters, "forward": measure(functions, maps, config.repeats)}
        if config.backward:
            say(f"{case}: backward")
            gradients = {name: gradient(method) for name, method in functions.items()}
            results["backward"] = measure(gradients, (*maps, *reversed(maps)), config.repeats)
        record["cases"][case] = results
        print(
            f"\n{case}, {num_iters} iterations; speed and % against the dense log-domain scan\n{table(results)}",
            flush=True,
        )
        if config.json is not None:
            save(config.json, record)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
