"""Where results may go, and folders that are filled whole or not at all."""

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxvos.errors import InputError
from jaxvos.results._segmentation import RESULTS

__all__ = ["check_apart", "check_output", "output_folder"]


def check_output(folder: Path, *, overwrite: bool, entries: Sequence[str] = RESULTS) -> None:
    """Checks that results may go to a folder: it is new, empty or, with `overwrite`, holds nothing else of those names.

    Args:
      folder: where results shall go.
      overwrite: earlier results may be replaced.
      entries: what will be written there; the last one tells that the others are ours.

    Raises:
      InputError: it is a file, it is not empty, or what would be replaced was not written by jaxvos.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the results")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{folder} is not empty: choose another folder or add --overwrite")
    there = [name for name in entries if (folder / name).exists()]
    if there and not (folder / entries[-1]).is_file():
        raise InputError(f"{folder / there[0]} would be replaced, but is not of an earlier run (no {entries[-1]} "
                         "beside it): choose another folder")  # fmt: skip


def check_apart(folder: Path, source: str | Path, *, entries: Sequence[str] = RESULTS) -> None:
    """Refuses to write results among the frames that they are made from, or over them.

    Args:
      folder: where results shall go.
      source: a video file, a folder or a pattern.
      entries: what will be written there.

    Raises:
      InputError: `folder` is the folder of the frames or lies in it, or `source` is one of the results in `folder`.
    """
    place, output = Path(source).expanduser(), folder.resolve()
    places = {place} if place.exists() else {Path(match).parent for match in glob.iglob(str(place), recursive=True)}
    for path in (place.resolve() for place in places):
        if path.is_dir() and output.is_relative_to(path):
            raise InputError(f"{folder} is or lies in {path}, the folder of the input: results would mix with frames; "
                             "choose a folder elsewhere")  # fmt: skip
        if any(path.is_relative_to(output / name) for name in entries):
            raise InputError(f"{source} would be replaced by its own results in {folder}: choose another folder")


@contextlib.contextmanager
def output_folder(folder: Path, *, outdated: Sequence[str] = ()) -> Iterator[Path]:
    """Gives a hidden folder to fill, whose entries appear in `folder` when the block ends well, and never otherwise.

    A new folder appears whole. Of one that exists, files of the same name are replaced; in a folder of the same name
    those of the same kind are (all earlier masks, not a note beside them); all others stay.

    Args:
      folder: where the results go.
      outdated: patterns such as `flow/*.flo`: earlier results that are removed although nothing has their name or kind.

    Raises:
      InputError: if the operating system refuses, or as the block does, which then names `folder`, not the hidden one.
    """
    target = folder.resolve()
    exists = target.is_dir()
    missing = [parent for parent in target.parents if not parent.exists()]
    partial = (target if exists else target.parent) / f".{target.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
        if exists:
            for path in [path for pattern in outdated for path in target.glob(pattern)]:
                path.unlink()
            for entry in sorted(partial.iterdir()):
                _replace(entry, target / entry.name)
        else:
            partial.rename(target)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write to {folder}: {reason}; choose another place or make room there") from error
    except InputError as error:
        raise InputError(str(error).replace(str(partial), str(folder))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # a parent that is not empty stays, and so do those above it
            for parent in missing:
                parent.rmdir()


def _replace(new: Path, old: Path) -> None:
    if not (new.is_dir() and old.is_dir()):
        os.replace(new, old)
        return
    kinds = {path.suffix for path in new.iterdir()}
    for path in old.iterdir():
        if path.suffix in kinds and path.is_file():
            path.unlink()
    for path in new.iterdir():
        os.replace(path, old / path.name)
