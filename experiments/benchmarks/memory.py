"""What following an object costs: a step of the fold, reading by top-k or everything, and bytes of the memory.

    python experiments/benchmarks/memory.py                     # stcn-lite's net at 480 x 864
    python experiments/benchmarks/memory.py --net xmem_paper

Medians of repeats with quartiles in brackets, on weights drawn at random, which cost the same. The rival of each way of
reading is the softmax over all entries, in the same run.

Measured 2026-11-27 on 2 vCPU, idle, commit 738bedd, --repeats 15, the net of stcn-lite and 12 frames of 480 x 864 in
memory: a step takes 255 ms [247, 262], of which encoding the frame 78, reading 103 and decoding with all else 74; one
that remembers takes 68 more. Where one frame in five is remembered, that is 3.7 frames/s. Reading the best 20 of 19,440
entries, once they are compared, has 1.7x and the best 30 1.5x the speed of reading all. The memory of one object has 15
MiB.
(Beside the tests the same step took six times as long, and reading the best 20 seemed 5.6x as fast.)
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from jaxvos.errors import exit_on_input_error
from jaxvos.models import FIRST_MASK, load_model
from jaxvos.ops import Keys, read_memory, similarity
from jaxvos.system import Clip, Frame, System
from jaxvos.systems import MemoryConfig, STCNConfig, XMemConfig, stcn, stcn_keys, xmem
from jaxvos.training import evolve


def clock(function: Callable[..., Any], *args: Any, repeats: int) -> list[float]:
    """Seconds of each of several calls, after one that compiles."""
    jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - started)
    return seconds


def show(name: str, seconds: list[float], rival: list[float] | None = None) -> None:
    low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    ratio = "" if rival is None else f"  {statistics.median(rival) / middle:5.2f}x the speed of reading all"
    print(f"{name:44} {1e3 * middle:9.1f} ms [{1e3 * low:.1f}, {1e3 * high:.1f}]{ratio}", flush=True)


def build(net: str, memory: dict[str, Any]) -> tuple[System, Any]:
    match net:
        case "lite":
            config = evolve(load_model(FIRST_MASK).config, memory=memory)
            return stcn(config), config
        case "paper":
            config = STCNConfig(memory=evolve(MemoryConfig(), **memory))
            return stcn(config), config
        case _:
            config = evolve(XMemConfig(), memory=memory)
            return xmem(config), config


def steps(net: str, size: tuple[int, int], frames: int, repeats: int) -> dict[str, float]:
    """Steps of the fold with their parts, and the bytes of what it carries; returns medians of the parts."""
    image, masks = jnp.zeros((*size, 3)) + 0.5, jnp.zeros((*size, 2)).at[..., 0].set(1)
    masks = masks.at[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2].set(jnp.array([0.0, 1.0]))
    variables, medians = None, {}
    for name, every in (("a frame that is not remembered", 10_000), ("a frame that is remembered", 1)):
        system, config = build(net, {"every": every, "frames": frames, "short_side": None})
        if variables is None:
            variables = jax.jit(system.init)(jax.random.key(0), Clip(image[None, None]))
        predict, memory = jax.jit(system.predict), jax.jit(system.start)(variables, Frame(image), masks)
        for _ in range(frames):  # until the memory is full, if all are remembered
            memory, _ = predict(variables, memory, Frame(image))
        seconds = clock(predict, variables, memory, Frame(image), repeats=repeats)
        show(name, seconds)
        medians[name] = statistics.median(seconds)
        if isinstance(config, STCNConfig) and every > 1:
            seconds = clock(jax.jit(stcn_keys, static_argnums=0), config, variables, image[None], repeats=repeats)
            show("  of which encoding it", seconds)
            medians["encode"] = statistics.median(seconds)
    size_of = sum(x.nbytes for x in jax.tree.leaves(memory))
    print(f"memory of {frames} frames of one object: {size_of / 2**20:.0f} MiB, of any length of video")
    return medians


def reading(queries: int, frames: int, width: int, top_k: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Ways to read; returns the medians of comparing and of reading by the first of `top_k`."""
    query_key, entry_key, value_key = jax.random.split(jax.random.key(0), 3)
    query, entries = (Keys(jax.random.normal(key, (n, 64)))
                      for key, n in ((query_key, queries), (entry_key, frames * queries)))  # fmt: skip
    values, valid = jax.random.normal(value_key, (1, frames * queries, width)), jnp.ones(frames * queries, bool)
    compared = clock(jax.jit(similarity), query, entries, repeats=repeats)
    show(f"similarity, {queries} x {frames * queries}", compared)
    scores, medians = jax.jit(similarity)(query, entries), {"compare": statistics.median(compared)}
    rival = None
    for k in (None, *top_k):
        read = jax.jit(lambda scores, values, k=k: read_memory(scores, values, valid=valid, top_k=k).values)
        seconds = clock(read, scores, values, repeats=repeats)
        show(f"reading {'all' if k is None else f'the best {k}'}, {width} channels", seconds, rival)
        rival = rival or seconds
        if k is not None:
            medians.setdefault("read", statistics.median(seconds))
    return medians


def main(
    *, net: Literal["lite", "paper", "xmem_paper"] = "lite", size: tuple[int, int] = (480, 864), frames: int = 12,
    top_k: tuple[int, ...] = (20, 30), width: int = 128, repeats: int = 5,
) -> None:  # fmt: skip
    """Prints the tables.

    Args:
      net: that of stcn-lite, the published STCN, or the published XMem.
      size: of a frame, multiples of 16.
      frames: that the memory holds.
      top_k: entries that are read.
      width: channels of what is read.
      repeats: calls that are timed.
    """
    parts = steps(net, size, frames, repeats) | reading(size[0] * size[1] // 256, frames, width, top_k, repeats)
    step, remembered = parts["a frame that is not remembered"], parts["a frame that is remembered"]
    if "encode" not in parts:
        return
    told = {"encode": parts["encode"], "read": parts["compare"] + parts["read"]}
    told |= {"decode and all else": step - sum(told.values()), "remember": remembered - step}
    print("; ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in told.items()))
    print(f"{5 / (4 * step + remembered):.2f} frames/s where one in five is remembered")


if __name__ == "__main__":
    with exit_on_input_error():
        tyro.cli(main, description=__doc__)
