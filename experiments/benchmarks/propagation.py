"""What reading the reference frames costs: bytes that each backend of `propagate` needs on the way, and its time.

    python experiments/benchmarks/propagation.py                 # 480 x 854, 21 references, one object
    python experiments/benchmarks/propagation.py --repeats 0     # bytes alone: nothing runs

Bytes are XLA's own count of temporary memory, apart from what is given and returned, also as a share of the affinity of
all queries and all reference cells in float32. `dense` is compiled for that, and not run. Times are medians of repeats,
which take turns, with quartiles in brackets, and the median ratio to `scan` of the same turn; `online` answers another
question than the rest: all candidates rather than the best.

Measured 2026-11-27 on 2 vCPU beside a training job (not yet on an idle machine), jax 0.10.2, 60 x 107 cells, keys of
128 and values of 512 channels, 5 repeats; the affinity has 3.46 GB.

    scan, the best 10        46.7 MB  1.3 %   2.25 s [2.19, 3.20]
    window, the best 10      46.6 MB  1.3 %   2.77 s [2.09, 3.15]   0.96x the time of scan
    online, all             103.1 MB  3.0 %   8.93 s [7.00, 9.58]   3.15x
    dense, the best 10     6924.4 MB  200 %   not run
    dense, all             7200.5 MB  208 %   not run

Any accelerator: not yet measured.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from jaxvos.errors import exit_on_input_error
from jaxvos.ops import propagate


def clock(functions: dict[str, Callable[..., Any]], arrays: list[jax.Array], repeats: int) -> dict[str, list[float]]:
    """Seconds of each of several calls, of all functions in turn, after one that warms up."""
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(function(*arrays))
            seconds[name] += [time.perf_counter() - started] if repeat else []
    return seconds


def show(name: str, seconds: list[float], rival: list[float]) -> None:
    low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    ratio = statistics.median(one / other for one, other in zip(seconds, rival, strict=True))
    print(f"{name:24} {middle:8.2f} s [{low:.2f}, {high:.2f}] {ratio:6.2f}x the time of scan", flush=True)


def main(
    *, cells: tuple[int, int] = (60, 107), references: int = 21, key_width: int = 128, value_width: int = 512,
    objects: int = 1, top_k: int = 10, radius: float = 12.0, chunk: int = 2048, repeats: int = 3,
) -> None:  # fmt: skip
    """Prints the table.

    Args:
      cells: rows and columns of the map, an eighth of the frame's.
      references: frames that are read; the radius holds for all but the first.
      key_width: channels that are compared.
      value_width: channels that are read.
      objects: that are read.
      top_k: candidates that are read, where not all are.
      radius: in cells.
      chunk: queries that are compared at once.
      repeats: calls that are timed; none for the bytes alone.
    """
    p = cells[0] * cells[1]
    shapes = (p, key_width), (references, p, key_width), (objects, references, p, value_width)
    affinity, programs = 4 * p * references * p, {}
    print(f"{cells[0]} x {cells[1]} cells, {references} references: the affinity has {affinity / 1e9:.2f} GB")
    cases: list[tuple[Literal["dense", "scan", "window", "online"], int | None]] = [
        ("scan", top_k), ("window", top_k), ("online", None), ("dense", top_k), ("dense", None),
    ]  # fmt: skip
    for backend, best in cases:
        read = partial(propagate, size=cells, far=jnp.arange(references) == 0, top_k=best, radius=radius,
                       backend=backend, chunk=chunk)  # fmt: skip
        program = jax.jit(read).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
        temp = program.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]
        name = f"{backend}, {'all' if best is None else f'the best {best}'}"
        print(f"{name:24} {temp / 1e6:9.1f} MB {temp / affinity:8.1%} of the affinity", flush=True)
        if backend != "dense":
            programs[name] = program
    if repeats:
        keys = jax.random.split(jax.random.key(0), 3)
        arrays = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
        arrays = [*(x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in arrays[:2]), arrays[2]]
        seconds = clock(programs, arrays, repeats)
        for name, each in seconds.items():
            show(name, each, next(iter(seconds.values())))


if __name__ == "__main__":
    with exit_on_input_error():
        tyro.cli(main, description=__doc__)
