"""J and F of DAVIS-2017 against the same definition computed pair by pair: time and results, side by side in one run.

    python experiments/benchmarks/evaluation.py
    python experiments/benchmarks/evaluation.py --frames 1999 --repeats 1              # the whole ordinary job

"pairwise" is the baseline: frame by frame and object by object, every step on the whole frame, as the official code
takes them (davis2017-evaluation, which drew the same disk with scikit-image): boundaries by shifted copies, one
cv2.dilate for each of the two masks of a pair, the void taken out of both; one process. "jaxvos" is how `jaxvos
evaluate` scores, with one thread and with several. Both get label maps that are in memory, so that reading and checking
files is left out, and nothing is kept from one run to the next.

"ordinary" is a share of a job of the size of DAVIS-2017 val: 30 sequences, 1999 frames of 480x854, 61 objects, made of
moving shapes. "unsupervised" is one sequence of 3 objects and some void, with 20 proposals in every frame, all of them
compared with all objects, then assigned. Repeats are interleaved. Speed is the median over the repeats of the ratio of
wall times, with its range; on a busy machine the ratio of CPU times, which other programs disturb less, says more. The
script ends with an error where results differ by more than 1e-12.

Measured 2026-11-21 on 2 idle vCPU, opencv 5.0.0, seed 0, commit 8eb98d3: speed against "pairwise",
range over the repeats, and speed by CPU time. All results were equal, difference 0.

                    ordinary, 120 frames, 7 repeats    all 1999 frames, once    unsupervised, 12 frames, 7 repeats
    1 worker        12.0x (9.9 to 12.9), CPU 13.1x     12.4x, CPU 13.8x         28.6x (17 to 30), CPU 28.9x
    2 workers       9.3x (8.9 to 11.6), CPU 7.8x       8.6x, CPU 7.0x           28.3x (26 to 30), CPU 22.7x

A second thread does not help: scoring is many short NumPy calls, which wait for the interpreter's lock. Processes
gained nothing in a job of seconds when they had to be started first. `jaxvos evaluate` has threads for reading files,
which takes longer than scoring.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tyro
from scipy.optimize import linear_sum_assignment

from jaxvos.files import atomic_path
from jaxvos.metrics import ProposalScores, assign_proposals, label_scores, score_proposals
from jaxvos.training import describe_run

SEQUENCES, FRAMES, OBJECTS = 30, 1999, 61
VOID = 255
TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Config:
    frames: int = 120
    """Frames of the ordinary protocol, evenly from all sequences; all 1999 are 1.6 GB of label maps."""
    unsupervised_frames: int = 12
    """Frames of the unsupervised protocol."""
    proposals: int = 20
    """Proposals of the unsupervised protocol, from 3 to 20."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the frames."""
    workers: int = 2
    """Threads of jaxvos; one is timed too."""
    repeats: int = 3
    """Interleaved runs of every method; the median counts."""
    seed: int = 0
    """Of the shapes."""
    json: Path | None = None
    """Also write the numbers to this file."""


class Job(NamedTuple):
    """Frames of one sequence as label maps, and how many objects it has."""

    truth: list[np.ndarray]
    drawn: list[np.ndarray]
    objects: int


def shapes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Star-shaped outlines: centre, velocity, radius (in frame heights), weights of four waves and their phases."""
    place = rng.uniform((0.2, 0.3), (0.8, 1.5), (count, 2))
    velocity, radius = rng.normal(0, 0.004, (count, 2)), rng.uniform(0.08, 0.25, (count, 1))
    weights, phases = rng.normal(0, 0.12, (count, 4)), rng.uniform(0, 2 * np.pi, (count, 4))
    return np.concatenate([place, velocity, radius, weights, phases], axis=1)


def draw(outlines: np.ndarray, frame: int, size: tuple[int, int]) -> np.ndarray:
    """The label map of shapes, later ones in front; they bend as they move."""
    labels = np.zeros(size, np.uint8)
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    for label, (y, x, y_speed, x_speed, radius, *waves) in enumerate(outlines, start=1):
        bends = np.cos(np.outer(angle, (2, 3, 5, 11)) + waves[4:] + 0.1 * frame) @ waves[:4]
        distance = radius * (1 + bends.clip(-0.6, 0.6))
        points = [x + frame * x_speed + distance * np.cos(angle), y + frame * y_speed + distance * np.sin(angle)]
        cv2.fillPoly(labels, [np.rint(np.stack(points, axis=1) * size[0]).astype(np.int32)], (label,))
    return labels


def ordinary_jobs(config: Config) -> list[Job]:
    """The objects of each sequence, and as predictions the same shapes, moved and bent."""
    objects = [(1, 3, 2)[index % 3] for index in range(SEQUENCES)]
    objects[0] += OBJECTS - sum(objects)
    starts = [index * FRAMES // SEQUENCES for index in range(SEQUENCES + 1)]
    chosen = np.unique(np.linspace(0, FRAMES - 1, config.frames).astype(int))
    jobs = []
    for index, count in enumerate(objects):
        frames = [int(frame) - starts[index] for frame in chosen if starts[index] <= frame < starts[index + 1]]
        truth, drawn = predicted(np.random.default_rng((config.seed, index)), count)
        annotations, predictions = (
            [draw(outlines, frame, config.size) for frame in frames] for outlines in (truth, drawn)
        )
        jobs.append(Job(annotations, predictions, count))
    return jobs


def unsupervised_job(config: Config) -> Job:
    """Three objects and a void, and as proposals those shapes, moved and bent, in front of others."""
    rng = np.random.default_rng((config.seed, SEQUENCES))
    truth, drawn = predicted(rng, 3)
    drawn = np.concatenate([shapes(rng, config.proposals - 3), drawn])
    truth = np.concatenate([truth, shapes(rng, 1)])
    frames = range(config.unsupervised_frames)
    annotations = [draw(truth, frame, config.size) for frame in frames]
    annotations = [np.where(labels == 4, np.uint8(VOID), labels) for labels in annotations]
    return Job(annotations, [draw(drawn, frame, config.size) for frame in frames], 3)


def predicted(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shapes, and the same less exactly."""
    truth = shapes(rng, count)
    return truth, truth + rng.normal(0, [0.01] * 2 + [2e-4] * 2 + [0.005] + [0.03] * 4 + [0.1] * 4, truth.shape)


# --------------------------------------------------------------------------------------------------------- pair by pair


def full_boundary(mask: np.ndarray) -> np.ndarray:
    east, south, diagonal = (np.zeros_like(mask) for _ in range(3))
    east[:, :-1], south[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    boundary = (mask ^ east) | (mask ^ south) | (mask ^ diagonal)
    boundary[-1], boundary[:, -1], boundary[-1, -1] = mask[-1] ^ east[-1], mask[:, -1] ^ south[:, -1], False
    return boundary


def pair_j(truth: np.ndarray, drawn: np.ndarray, void: np.ndarray) -> float:
    union = np.sum((truth | drawn) & ~void)
    return np.sum((truth & drawn) & ~void) / union if union else 1.0


def pair_f(truth: np.ndarray, drawn: np.ndarray, void: np.ndarray) -> float:
    radius = np.ceil(0.008 * np.linalg.norm(truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    truth, drawn = full_boundary(truth & ~void), full_boundary(drawn & ~void)
    near_truth, near_drawn = (cv2.dilate(boundary.astype(np.uint8), disk) for boundary in (truth, drawn))
    n_truth, n_drawn = np.sum(truth), np.sum(drawn)
    if not n_truth or not n_drawn:
        return float(n_truth == n_drawn)
    precision, recall = np.sum(drawn * near_truth) / n_drawn, np.sum(truth * near_drawn) / n_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def pairwise_ordinary(jobs: list[Job]) -> list[np.ndarray]:
    """J and F by frame and object of every sequence."""
    return [
        np.array(
            [
                [
                    [pair(truth == label, drawn == label, truth == VOID) for pair in (pair_j, pair_f)]
                    for label in range(1, job.objects + 1)
                ]
                for truth, drawn in zip(job.truth, job.drawn, strict=True)
            ]
        )
        for job in jobs
    ]


def pairwise_unsupervised(job: Job) -> list[np.ndarray]:
    """J and F by object and frame of the assigned proposals."""
    proposals = range(1, max(*(int(drawn.max()) for drawn in job.drawn), job.objects) + 1)
    scores = np.array([
        [[[pair(truth == label, drawn == proposal, truth == VOID)
           for truth, drawn in zip(job.truth, job.drawn, strict=True)]
          for label in range(1, job.objects + 1)]
         for proposal in proposals]
        for pair in (pair_j, pair_f)
    ])  # fmt: skip
    chosen, objects = linear_sum_assignment(scores.mean((0, 3)), maximize=True)
    order = np.argsort(objects)
    return [scores[measure, chosen[order], objects[order]] for measure in (0, 1)]


# --------------------------------------------------------------------------------------------------------------- jaxvos


def ordinary_frame(truth: np.ndarray, drawn: np.ndarray, objects: int) -> tuple[list[tuple[float, float]], float]:
    start = time.thread_time()
    scores = list(label_scores(truth, drawn, range(1, objects + 1)))
    return scores, time.thread_time() - start


def ordinary(pool: ThreadPoolExecutor, jobs: list[Job]) -> tuple[list[np.ndarray], float]:
    """J and F by frame and object of every sequence, and CPU seconds of all workers."""
    frames = [(*maps, job.objects) for job in jobs for maps in zip(job.truth, job.drawn, strict=True)]
    scores, seconds = zip(*pool.map(ordinary_frame, *zip(*frames, strict=True)), strict=True)
    found = iter(scores)
    return [np.array([next(found) for _ in job.truth]) for job in jobs], sum(seconds)


def unsupervised_frame(truth: np.ndarray, drawn: np.ndarray, labels: range) -> tuple[ProposalScores, float]:
    start = time.thread_time()
    return score_proposals(truth, drawn, labels), time.thread_time() - start


def unsupervised(pool: ThreadPoolExecutor, job: Job) -> tuple[list[np.ndarray], float]:
    """J and F by object and frame of the assigned proposals, and CPU seconds of all workers."""
    labels = [range(1, job.objects + 1)] * len(job.truth)
    scores, seconds = zip(*pool.map(unsupervised_frame, job.truth, job.drawn, labels), strict=True)
    start = time.thread_time()
    assigned = assign_proposals(scores)
    return [assigned.j, assigned.f], sum(seconds) + time.thread_time() - start


# -------------------------------------------------------------------------------------------------------------- timing


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Returns a result, wall seconds, and CPU seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def measure(
    pairwise: Callable[[Any], Any],
    fast: Callable[[ThreadPoolExecutor, Any], Any],
    job: Any,
    pools: dict[int, ThreadPoolExecutor],
    repeats: int,
) -> dict[str, Any]:
    """Wall and CPU seconds of every repeat by method, and the largest difference of a result."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    difference = 0.0
    for pool in pools.values():
        fast(pool, job)  # starts the workers
    for _ in range(repeats):
        expected, *spent = timed(lambda: pairwise(job))
        seconds.setdefault("pairwise", []).append((spent[0], spent[1]))
        for count, pool in pools.items():
            (found, cpu), wall, _ = timed(lambda pool=pool: fast(pool, job))
            seconds.setdefault(f"jaxvos, {count}", []).append((wall, cpu))
            apart = [np.abs(a - b).max() for a, b in zip(found, expected, strict=True) if a.size]
            difference = max(difference, *apart)
    return {"seconds": seconds, "difference": float(difference)}


def table(results: dict[str, Any], frames: int) -> str:
    base = np.array(results["seconds"]["pairwise"])
    lines = [f"{'':14}{'ms a frame':>11}{'speed':>9}{'range':>17}{'CPU ms':>9}{'CPU speed':>11}"]
    for name, values in results["seconds"].items():
        ratio, own = base / np.array(values), 1e3 * np.median(values, axis=0) / frames
        speed, cpu_speed = np.median(ratio, axis=0)
        span = f"{ratio[:, 0].min():.1f} to {ratio[:, 0].max():.1f}"
        lines.append(f"{name:14}{own[0]:11.2f}{speed:8.1f}x{span:>17}{own[1]:9.2f}{cpu_speed:10.1f}x")
    return "\n".join([*lines, f"largest difference {results['difference']:.1e}"])


def main(config: Config) -> None:
    run = describe_run()
    record = {
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "load": os.getloadavg()[0],
        "commit": run["commit"],
        "opencv": cv2.__version__,
        "size": config.size,
        "workers": config.workers,
        "repeats": config.repeats,
        "seed": config.seed,
        "protocols": {},
    }
    print("  ".join(f"{key} {value}" for key, value in record.items() if key != "protocols"))
    jobs, job = ordinary_jobs(config), unsupervised_job(config)
    with ExitStack() as stack:
        pools = {count: stack.enter_context(ThreadPoolExecutor(count)) for count in sorted({1, config.workers})}
        for name, frames, (pairwise, fast, work) in (
            ("ordinary", sum(len(job.truth) for job in jobs), (pairwise_ordinary, ordinary, jobs)),
            ("unsupervised", len(job.truth), (pairwise_unsupervised, unsupervised, job)),
        ):
            results = measure(pairwise, fast, work, pools, config.repeats)
            record["protocols"][name] = {"frames": frames, **results}
            print(f"\n{name}, {frames} frames\n{table(results, frames)}", flush=True)
    if config.json is not None:
        with atomic_path(config.json) as partial_file:
            partial_file.write_text(json.dumps(record, indent=1) + "\n")
    if (worst := max(results["difference"] for results in record["protocols"].values())) > TOLERANCE:
        sys.exit(f"results differ by {worst}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
