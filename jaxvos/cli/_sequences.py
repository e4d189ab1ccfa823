"""The videos that a command is given, checked before anything is computed."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvos.errors import InputError

if TYPE_CHECKING:
    from jaxvos.data import Video

__all__ = ["is_model", "named", "open_sequences"]


def open_sequences(
    source: str, output: Path, *, overwrite: bool, entries: Sequence[str]
) -> "dict[str, tuple[Path, Video]]":
    """Opens a video, or all sequences of a folder of such, and checks that results may go beside each other.

    Args:
      source: a video file, a folder of frames, a glob, or a folder of sequences.
      output: where the results go; those of several sequences into folders of their names.
      overwrite: earlier results may be replaced.
      entries: what will be written there.

    Returns:
      Where each video was found, and the video, by the name of the sequence; of a single video that is "".

    Raises:
      InputError: a video cannot be read or has one frame, or its results cannot be written.
    """
    from jaxvos.data import find_sequences, open_video
    from jaxvos.results import check_apart, check_output

    check_output(output, overwrite=overwrite, entries=entries)
    opened = {}
    for name, place in (find_sequences(source) or {"": Path(source)}).items():
        check_apart(output, place.parent if name else place, entries=entries)
        with named(name):
            check_apart(output / name, place, entries=entries)
            check_output(output / name, overwrite=overwrite, entries=entries)
            opened[name] = place, open_video(place, minimum_frames=2)
    return opened


def is_model(source: str | Path) -> bool:
    """Tells a network, or what may be the name of one, from a folder of files for each sequence."""
    path = Path(source).expanduser()
    return not path.is_dir() or (path / "config.json").is_file()


@contextlib.contextmanager
def named(sequence: str, more: str = "") -> Iterator[None]:
    """Says which sequence it was, if there are several."""
    try:
        yield
    except InputError as error:
        raise (InputError(f"{sequence}: {error}{more}") if sequence else error) from None
