"""Short videos of one size, so that the tiny model is compiled once, and the command line as a function."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from jaxvos.cli import main
from jaxvos.drawing import VideoWriter


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def _frames(count: int, height: int, width: int) -> list[np.ndarray]:
    """A disc that crosses a striped background."""
    y, x = np.mgrid[:height, :width]
    background = np.stack([x * 3 % 256, y * 4 % 256, (x + y) % 256], axis=-1)
    discs = [(y - height / 2) ** 2 + (x - 12 - 2 * t) ** 2 < 100 for t in range(count)]
    return [np.where(disc[..., None], 230, background).astype(np.uint8) for disc in discs]


@pytest.fixture
def run(capsys) -> Callable[..., Outcome]:
    """Types a command."""

    def call(*args) -> Outcome:
        capsys.readouterr()
        try:
            main([str(arg) for arg in args])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def video(tmp_path) -> Callable[..., Path]:
    """Writes a video file."""

    def write(name: str = "clip.mp4", count: int = 6, height: int = 48, width: int = 64) -> Path:
        with VideoWriter(tmp_path / name, fps=12) as writer:
            for frame in _frames(count, height, width):
                writer.write(frame)
        return tmp_path / name

    return write


@pytest.fixture
def folder(tmp_path) -> Callable[..., Path]:
    """Writes a folder of JPEG frames."""

    def write(name: str = "clip", count: int = 4, height: int = 48, width: int = 64) -> Path:
        (tmp_path / name).mkdir(parents=True)
        for index, frame in enumerate(_frames(count, height, width)):
            Image.fromarray(frame).save(tmp_path / name / f"{index:05d}.jpg")
        return tmp_path / name

    return write


@pytest.fixture
def snapshot(tmp_path) -> Callable[[], dict[Path, bytes | None]]:
    """Reads everything that is on disk, hidden files included."""
    return lambda: {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}
