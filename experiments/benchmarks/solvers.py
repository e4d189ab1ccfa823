"""The matching solvers against their rivals: batches of small problems, streaming, memory; all ratios from one run.

    python experiments/benchmarks/solvers.py                                  # small, matching, memory, streaming 4,096
    python experiments/benchmarks/solvers.py --parts streaming --points 16384 --repeats 3

"small": batches of Sinkhorn problems (uniform costs in [0, 1], epsilon 0.05, 50 iterations) by `jax.vmap`, against
vmapped ott-jax that makes the same iterations, so that the marginal error is the same. "matching": 256 assignment
problems of 5 templates and 50 proposals: `pgd_matching` (40 x 5) against Algorithm 1 of DMM-Net restated in eager
JAX that solves one problem at a time, and `qp_matching` against `pgd_matching`. "streaming": `streaming_sinkhorn`
between N unit features of 256 channels with 256 channels of values, 10 iterations, against the dense solver and
against the matrix products alone that it cannot avoid (11 of costs, one of values). "memory": XLA's figure for the
temporary buffers of a gradient, against the number of iterations.

"grad" is a forward and a backward pass. Runs are interleaved; a ratio is the median over the repeats of the ratio of
two neighbouring runs, with the quartiles in brackets.

Measured 2026-11-21 at commit d540575 on 2 idle vCPU, no GPU, jax 0.10.2, ott-jax 0.6.0, seed 0, 15 repeats (streaming
5, gradients there 3):

    small, against ott unrolled    1024 of 30x30: forward, grad        256 of 5x50: forward, grad
    jaxvos                         4.2x [4.1, 4.2]   7.8x [7.6, 8.0]   7.8x [7.4, 8.1]   7.6x [6.1, 8.2]
    jaxvos, implicit               4.1x [4.0, 4.2]  19.9x [20, 20]     7.9x [7.2, 8.1]  25.2x [23, 27]
    jaxvos, log domain             1.3x [1.2, 1.3]   2.6x [2.6, 2.7]   0.9x [0.8, 1.0]   2.2x [2.1, 2.3]
    ott, kernel                    0.8x [0.8, 0.8]   0.4x [0.4, 0.5]   2.3x [2.2, 2.4]   0.4x [0.4, 0.5]
    ott, implicit                  1.0x [1.0, 1.0]   2.1x [2.0, 2.1]   1.0x [1.0, 1.1]   fails: non-finite solve

    matching, against pgd          forward           grad              |gap|   row sums off by   all rows right
    pgd 40 x 5                     1.0x              1.0x              1.779   0.56              81 %
    qp t=4, 20 rounds              3.5x [3.4, 3.8]   9.6x [8.7, 10]    0.114   4e-8              85 %
    qp t=4, 50 rounds              1.6x [1.5, 1.8]   4.9x [4.7, 5.0]   0.114   4e-8              85 %
    qp t=20, 50 rounds             1.5x [1.4, 1.7]   4.7x [4.5, 5.0]   0.017   3e-8              96 %
    hungarian                      6.8x [6.5, 7.7]   -                 0       0                 100 %
    Algorithm 1, eager, one at a time, against all 256 at once by pgd_matching: 2122x slower

Against ott's implicit form the implicit gradient of 1024 of 30x30 is 9.5 to 9.7 times as fast here, and was 10.2 and
10.4 times on the same machine with other jobs beside: three quarters of it are the forward iterations.

    memory (MiB), iterations       10      20      50     100
    unrolled                      8.2    16.2    20.7    21.2
    unrolled, log domain         20.1    20.1    20.2    20.4
    implicit                      4.0     4.0     4.0     4.0
    streaming                     2.0     2.0     2.0     2.0

    streaming                      N = 4,096                          N = 16,384
    forward, against its products  0.82x [0.81, 0.84]                 0.82x [0.78, 0.85]
    dense, against the products    3.0x [2.5, 4.0]                    1.7x [1.7, 1.8]
    memory, of dense log domain    10.2 MiB, 8.0 % of 128             40.6 MiB, 1.98 % of 2048
    grad, against dense implicit   0.40x [0.39, 0.65]                 0.40x [0.40, 0.42]
    memory of that                 26.4 MiB, 10 % of 264              105 MiB, 2.5 % of 4128
    ott, online                    fails on jax 0.10 (is_vmappable)   not run

(Streaming on an idle machine at the commit after 4446f74, 16,384 with 3 repeats.)

What bounds it: a streaming pass at 16,384 points is 137 GFLOP of products, 190 GFLOP/s here, and for each of 2.7e8
entries one exponential, one maximum, one sum and two products, of which the exponentials take about half of the 22 %
over the products; keeping them for their two uses (rather than making them twice, as XLA does when left alone) brought
1.28 to 1.22 times the products. Blocks of 64 and 256 rows are slower than 128. The dense solver makes one product
instead of eleven, so that on a CPU it is faster wherever it fits in memory. Any accelerator: not yet measured.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax import lax

from jaxvos.solvers import hungarian, pgd_matching, qp_matching, sinkhorn, streaming_sinkhorn
from jaxvos.training import describe_run

EPSILON = 0.05
Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    parts: tuple[Literal["small", "matching", "memory", "streaming"], ...] = (
        "small",
        "matching",
        "memory",
        "streaming",
    )
    """What to measure."""
    points: tuple[int, ...] = (4096,)
    """Numbers of features on each side for the streaming part."""
    repeats: int = 15
    """Interleaved runs."""
    seed: int = 0
    """Of costs and features."""


def compare(functions: dict[str, Function], base: str, arguments: tuple[Any, ...], repeats: int) -> dict[str, Any]:
    """Prints, for each function, its median time and how many times faster it is than `base`; returns the ratios."""
    ready = {}
    for name, function in functions.items():
        try:
            jax.block_until_ready(function(*arguments))
            ready[name] = function
        except Exception as error:  # a rival that fails is a result
            print(f"    {name:34} fails: {type(error).__name__}: {_reason(error)}")
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, function in ready.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            seconds[name].append(time.perf_counter() - start)
    ratios = {}
    for name, values in seconds.items():
        each = [slow / fast for slow, fast in zip(seconds[base], values, strict=True)]
        low, middle, high = statistics.quantiles(each, n=4) if len(each) > 1 else each * 3
        ratios[name] = middle
        print(f"    {name:34} {1e3 * statistics.median(values):10.2f} ms {middle:8.2f}x  [{low:.2f}, {high:.2f}]")
    return ratios


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "non-finite" in line or "Error" in line), lines[0])[:100]


def temporaries(function: Function, *arguments: Any) -> int:
    """Bytes of XLA's temporary buffers."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]


def _gradient(plan: Function) -> Function:
    return jax.jit(jax.grad(lambda cost, weights: jnp.vdot(plan(cost), weights)))


# -------------------------------------------------------------------------------------------- batches of small problems


def _ours(cost: jax.Array, **options: Any) -> jax.Array:
    return sinkhorn(cost, epsilon=EPSILON, num_iters=50, **options).plan


def _ott(cost: jax.Array, *, lse_mode: bool = True, unrolled: bool = True) -> jax.Array:
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.implicit_differentiation import ImplicitDiff
    from ott.solvers.linear.sinkhorn import Sinkhorn

    counts: dict[str, Any] = {"min_iterations": 50, "max_iterations": 50, "inner_iterations": 50, "threshold": -1.0}
    solver = Sinkhorn(lse_mode=lse_mode, implicit_diff=None if unrolled else ImplicitDiff(), **counts)
    return solver(LinearProblem(Geometry(cost, epsilon=EPSILON, relative_epsilon=None))).matrix


def small(config: Config) -> None:
    table: dict[str, Function] = {
        "jaxvos": _ours,
        "jaxvos, log domain": partial(_ours, domain="log"),
        "jaxvos, implicit": partial(_ours, diff="implicit"),
    }
    base = "jaxvos, log domain"
    if find_spec("ott") is not None:
        base = "ott, unrolled"
        table |= {
            base: _ott,
            "ott, kernel": partial(_ott, lse_mode=False),
            "ott, implicit": partial(_ott, unrolled=False),
        }
    for shape in ((1024, 30, 30), (256, 5, 50)):
        keys = jax.random.split(jax.random.key(config.seed))
        cost, weights = jax.random.uniform(keys[0], shape), jax.random.normal(keys[1], shape)
        methods = {name: jax.vmap(method) for name, method in table.items()}
        for name in (name for name in table if name in ("jaxvos", "ott, unrolled")):
            error = jnp.abs(jax.jit(methods[name])(cost).sum(1) * shape[2] - 1).mean()
            print(f"  {name}: mean error of a column sum, relative, {error:.2e}")
        forward = {name: jax.jit(lambda cost, _, m=method: m(cost)) for name, method in methods.items()}
        print(f"  {shape[0]} of {shape[1]}x{shape[2]}, forward, against {base!r}")
        compare(forward, base, (cost, weights), config.repeats)
        print(f"  {shape[0]} of {shape[1]}x{shape[2]}, grad, against {base!r}")
        compare({name: _gradient(m) for name, m in methods.items()}, base, (cost, weights), config.repeats)


# ------------------------------------------------------------------------------------------------------------- matching


def _algorithm_1(cost: jax.Array) -> jax.Array:
    """Algorithm 1 of DMM-Net (40 steps of 0.1, 5 rounds), one operation at a time, as a PyTorch layer would run."""
    n, m = cost.shape
    x, total = jnp.full((n, m), 1 / m), jnp.zeros((n, m))
    for _ in range(40):
        x = x - 0.1 * cost
        p = q = r = jnp.zeros((n, m))
        for _ in range(5):
            y = x + p
            x = y - (y.sum(1, keepdims=True) - 1) / m
            p = y - x
            y = x + q
            x = y - jnp.maximum(y.sum(0) - 1, 0) / n
            q = y - x
            y = x + r
            x = jnp.maximum(y, 0)
            r = y - x
        total = total + x
    return total / 40


def matching(config: Config) -> None:
    keys = jax.random.split(jax.random.key(config.seed))
    shape = (256, 5, 50)
    cost, weights = jax.random.uniform(keys[0], shape, minval=-1.0), jax.random.normal(keys[1], shape)
    optimum = jax.jit(jax.vmap(hungarian))(cost).cost
    methods = {
        "pgd 40 x 5": lambda cost: pgd_matching(cost).plan,
        "qp t=4, 20 rounds": lambda cost: qp_matching(cost, num_iters=20).plan,
        "qp t=4, 50 rounds": lambda cost: qp_matching(cost, num_iters=50).plan,
        "qp t=20, 50 rounds": lambda cost: qp_matching(cost, t=20.0, num_iters=50).plan,
        "hungarian": lambda cost: hungarian(cost).plan,
    }
    batched = {name: jax.vmap(method) for name, method in methods.items()}
    print("  how far from the optimum, in the mean over 256 problems of 5x50 with costs in [-1, 1]")
    for name, method in batched.items():
        plan = jax.jit(method)(cost)
        gap = jnp.abs((plan * cost).sum((1, 2)) - optimum).mean()
        rows = jnp.abs(plan.sum(2) - 1).max(1).mean()
        agree = (plan.argmax(2) == jax.vmap(hungarian)(cost).assignment).all(1).mean()
        print(f"    {name:34} |gap| {gap:7.4f}   row sums off by {rows:.1e}   all rows right in {100 * agree:.1f} %")
    print("  forward, against 'pgd 40 x 5'")
    forward = {name: jax.jit(lambda cost, _, m=method: m(cost)) for name, method in batched.items()}
    compare(forward, "pgd 40 x 5", (cost, weights), config.repeats)
    print("  grad, against 'pgd 40 x 5'")
    gradients = {name: _gradient(method) for name, method in batched.items() if name != "hungarian"}
    compare(gradients, "pgd 40 x 5", (cost, weights), config.repeats)
    print("  the first 8 problems one at a time, eager, against all 256 at once")
    start = time.perf_counter()
    for problem in cost[:8]:
        _algorithm_1(problem).block_until_ready()
    one = (time.perf_counter() - start) / 8
    program = forward["pgd 40 x 5"]
    batch = statistics.median(_seconds(program, cost, weights) for _ in range(config.repeats))
    difference = jnp.abs(program(cost, weights)[0] - _algorithm_1(cost[0])).max()
    print(f"    {256 * one / batch:.0f}x   (equal to {difference:.0e})")


def _seconds(function: Function, *arguments: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------------- memory and streaming


def memory(_: Config) -> None:
    cost = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    weights = cost
    print("  temporary MiB of a gradient, 1024x1024; iterations 10, 20, 50, 100")
    x = jax.ShapeDtypeStruct((1024, 64), jnp.float32)

    def dense(num_iters: int, **options: Any) -> int:
        def loss(cost: jax.Array, weights: jax.Array) -> jax.Array:
            return jnp.vdot(sinkhorn(cost, epsilon=EPSILON, num_iters=num_iters, **options).plan, weights)

        return temporaries(jax.grad(loss), cost, weights)

    def streamed(num_iters: int) -> int:
        def loss(x: jax.Array, y: jax.Array) -> jax.Array:
            return streaming_sinkhorn(x, y, y, epsilon=EPSILON, num_iters=num_iters, block_size=64).values.sum()

        return temporaries(jax.grad(loss, (0, 1)), x, x)

    methods = {
        "unrolled": dense,
        "unrolled, log domain": partial(dense, domain="log"),
        "implicit": partial(dense, diff="implicit"),
        "streaming (features)": streamed,
    }
    for name, method in methods.items():
        print(f"    {name:24}" + "".join(f"{method(n) / 2**20:9.1f}" for n in (10, 20, 50, 100)))


def _products(x: jax.Array, y: jax.Array, values: jax.Array, *, block_size: int = 256) -> jax.Array:
    """The matrix products that 10 streaming iterations cannot avoid, and nothing else but reading what they wrote."""
    blocks = x.reshape(-1, block_size, x.shape[1])

    def block(seed: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = lax.optimization_barrier(jnp.dot(rows + seed, y.T, precision=lax.Precision.HIGHEST))
        return scores[0, 0] * 1e-30, scores[0, :8]

    def last(seed: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = lax.optimization_barrier(jnp.dot(rows + seed, y.T, precision=lax.Precision.HIGHEST))
        return scores[0, 0] * 1e-30, jnp.dot(scores, values, precision=lax.Precision.HIGHEST)

    seed, _ = lax.scan(lambda seed, _: lax.scan(block, seed, blocks), jnp.zeros(()), length=10)
    return lax.scan(last, seed, blocks)[1]


def _dense(x: jax.Array, y: jax.Array, values: jax.Array, **options: Any) -> jax.Array:
    x, y = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    cost = 1 - jnp.dot(x, y.T, precision=lax.Precision.HIGHEST)
    plan = sinkhorn(cost, epsilon=EPSILON, num_iters=10, **options).plan
    return jnp.dot(plan, values, precision=lax.Precision.HIGHEST)


def _streamed(x: jax.Array, y: jax.Array, values: jax.Array) -> jax.Array:
    return streaming_sinkhorn(x, y, values, epsilon=EPSILON, num_iters=10).values


def _ott_online(x: jax.Array, y: jax.Array, values: jax.Array) -> jax.Array:
    from ott.geometry.costs import Cosine
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    geometry = PointCloud(x, y, cost_fn=Cosine(), epsilon=EPSILON, relative_epsilon=None, batch_size=256)
    counts: dict[str, Any] = {"min_iterations": 10, "max_iterations": 10, "inner_iterations": 10, "threshold": -1.0}
    return Sinkhorn(implicit_diff=None, **counts)(LinearProblem(geometry)).apply(values.T, axis=1).T


def _feature_gradient(method: Function) -> Function:
    def loss(x: jax.Array, y: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.vdot(method(x, y, values), x)

    return jax.grad(loss, (0, 1, 2))


def streaming(config: Config) -> None:
    for n in config.points:
        keys = jax.random.split(jax.random.key(config.seed), 3)
        x, y, values = (jax.random.normal(key, (n, 256)) for key in keys)
        repeats = min(config.repeats, 5)
        methods: dict[str, Function] = {
            "products alone": _products,
            "streaming": _streamed,
            "dense": _dense,
            "dense, log domain": partial(_dense, domain="log"),
        }
        if find_spec("ott") is not None and n <= 4096:
            methods["ott, online"] = _ott_online
        dense_bytes = temporaries(partial(_dense, domain="log"), x, y, values)
        for name in ("streaming", "dense", "dense, log domain"):
            size = temporaries(methods[name], x, y, values)
            print(f"  {n}: {name}: {size / 2**20:.1f} MiB, {100 * size / dense_bytes:.2f} % of the dense log domain")
        difference = None
        if n <= 4096:
            exact = jax.jit(methods["dense, log domain"])(x, y, values)
            difference = jnp.abs(jax.jit(_streamed)(x, y, values) - exact).max() / jnp.abs(exact).max()
            print(f"  {n}: streaming against dense: largest difference {difference:.1e} of the largest value")
        print(f"  {n}, forward, against the matrix products alone (2 N^2 (11 x 256 + 256) floating-point operations)")
        compare({name: jax.jit(method) for name, method in methods.items()}, "products alone", (x, y, values), repeats)
        gc.collect()

        gradients = {"dense, implicit": partial(_dense, diff="implicit"), "streaming": _streamed}
        sizes = {name: temporaries(_feature_gradient(method), x, y, values) for name, method in gradients.items()}
        for name, size in sizes.items():
            print(f"  {n}: grad, {name}: {size / 2**20:.1f} MiB, {100 * size / sizes['dense, implicit']:.2f} %")
        print(f"  {n}, grad, against 'dense, implicit'")
        programs = {name: jax.jit(_feature_gradient(method)) for name, method in gradients.items()}
        compare(programs, "dense, implicit", (x, y, values), min(repeats, 3))
        gc.collect()


def main(config: Config) -> None:
    run = describe_run()
    print(f"{run['device']}, {os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}, commit "
          f"{run['commit']}, float32, seed {config.seed}, {config.repeats} repeats")  # fmt: skip
    parts = {"small": small, "matching": matching, "memory": memory, "streaming": streaming}
    for part in config.parts:
        print(f"\n{part}", flush=True)
        parts[part](config)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
