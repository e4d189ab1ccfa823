"""Predictions as files, brought to the size of the ground truth if that is allowed, and work done in parallel."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image
from tqdm import tqdm

from jaxvos.data import read_image, read_mask
from jaxvos.errors import InputError

__all__ = ["fit", "in_parallel", "read_labels", "read_soft"]

_Map = UInt8[np.ndarray, "_ _"]


def read_labels(path: Path, truth: Shaped[np.ndarray, "h w"], *, resize: bool) -> _Map:
    """Reads a predicted label map; of another size than the truth, it is resized to the nearest label if allowed."""
    return fit(read_mask(path), truth, path, resize=resize, smooth=False)


def read_soft(path: Path, truth: Shaped[np.ndarray, "h w"], *, resize: bool) -> tuple[_Map, bool]:
    """Reads a map of bytes, and whether it is soft. An indexed or one-bit image is a hard mask: not 0 is 255.

    Raises:
        InputError: for colours, and for another size unless it may be resized (linearly).
    """
    read_image(path)
    with Image.open(path) as image:
        mode, pixels = image.mode, np.array(image)
    if mode == "L":
        return fit(pixels, truth, path, resize=resize, smooth=True), True
    if mode not in ("P", "1"):
        raise InputError(f"{path} has mode {mode}: save the map as an 8-bit grey PNG, 255 for certain foreground")
    return fit(np.where(pixels > 0, 255, 0).astype(np.uint8), truth, path, resize=resize, smooth=False), False


def fit(pixels: _Map, truth: Shaped[np.ndarray, "h w"], path: Path, *, resize: bool, smooth: bool) -> _Map:
    """Returns a map at the size of the truth, or refuses another size."""
    if pixels.shape == truth.shape:
        return pixels
    sizes = [f"{shape[1]}x{shape[0]}" for shape in (pixels.shape, truth.shape)]
    if not resize:
        raise InputError(f"{path} is {sizes[0]} and the ground truth {sizes[1]} (width x height): "
                         "predict at the size of the ground truth, or allow --resize")  # fmt: skip
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.array(Image.fromarray(pixels).resize(truth.shape[::-1], method))


def in_parallel(
    function: Callable[[Any], Any], tasks: Sequence[Any], *, workers: int | None, progress: bool, unit: str = "frame"
) -> list[Any]:
    """Maps over threads (decoding and NumPy let go of the interpreter); after an error the rest is dropped."""
    workers = workers or os.cpu_count() or 1
    return list(tqdm(_mapped(function, tasks, workers), total=len(tasks), unit=unit, disable=not progress))


def _mapped(function: Callable[[Any], Any], tasks: Sequence[Any], workers: int) -> Iterator[Any]:
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(cancel_futures=True)
