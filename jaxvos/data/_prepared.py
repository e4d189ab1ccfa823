"""Prepared data sets, read sequence by sequence as the folders they were made from would be."""

import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32

from jaxvos.data._builder import annotation_marks, load_builder, split_checksum
from jaxvos.data._flow_files import read_flow
from jaxvos.data._sequences import AnnotatedSequence
from jaxvos.data._video import Video
from jaxvos.errors import InputError

__all__ = ["PreparedSequence", "open_dataset"]


@dataclass(frozen=True, eq=False)
class PreparedSequence(AnnotatedSequence):
    """One sequence of a prepared data set; the last few records that were read are kept."""

    marks: str  # a digit for each frame: 1 where it has a mask
    record: Callable[[], dict[str, Any]] = field(repr=False)  # reads what `prepare_dataset` stored

    def __len__(self) -> int:
        return len(self.marks)

    def frames(self) -> Video:
        stems = tuple(map(self.frame_name, range(len(self))))
        return Video(self.name, self.size, 24.0, len(self), lambda: map(self.image, range(len(self))), stems)

    def frame_name(self, index: int) -> str:
        return _record(self.record)["frames"][index].decode()

    def has_mask(self, index: int) -> bool:
        return self.marks[index] == "1"

    def flows(self) -> Iterator[tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]] | None]:
        """Yields the prepared flow and where it is known, from each frame to the next; `None` where there is none."""
        files = (self._file("flows", index) for index in range(len(self)))
        return (None if file is None else read_flow(file) for file in files)

    def _file(self, kind: Literal["images", "masks", "flows"], index: int) -> "_StoredFile | None":
        content = _record(self.record)[kind][index]
        return _StoredFile(content, f"{self.name}/{self.frame_name(index)}") if content else None


@functools.lru_cache(maxsize=8)
def _record(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A record is read as a whole, and mostly for several of its frames in a row."""
    return read()


class _StoredFile(io.BytesIO):
    """A file in memory that messages call by its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._name = name

    def __str__(self) -> str:
        return self._name


def open_dataset(
    name_or_folder: str | Path, *, split: str, data_dir: str | Path | None = None
) -> list[PreparedSequence]:
    """Opens a split of a prepared data set.

    Args:
        name_or_folder: of a data set in `data_dir`, or the folder that `prepare_dataset` made.
        split: such as `train`; the splits are those of the layout.
        data_dir: the folder of all prepared data sets.

    Returns:
        The sequences in the order of the release's list.

    Raises:
        InputError: if it is not prepared, has no such split, or its list of sequences is not the one that was
            prepared; while reading, for a damaged record.
    """
    folder = Path(name_or_folder).expanduser()
    builder = load_builder(folder if data_dir is None else Path(data_dir).expanduser() / folder)
    splits = (builder.info.metadata or {}).get("splits", {})
    if split not in splits:
        raise InputError(f"there is no split '{split}' in {builder.data_path}: it has {', '.join(splits) or 'none'}")
    names, annotated = splits[split]["names"], splits[split].get("annotated", ())
    if split_checksum(names) != splits[split]["sha256"] or len(annotated) != len(names):
        raise InputError(f"the list of split {split} in {builder.data_path} was changed: prepare the data set again")
    try:
        missing = [path.name for path in builder.info.splits[split].filepaths if not path.exists()]
        records = builder.as_data_source(split=split)
        stored = len(records)
    except Exception as error:  # the reader of the records has no exception of its own
        raise _damaged(f"split {split}", builder, error) from error
    if missing or stored != len(names):
        reason = f"{missing[0]} is missing" if missing else f"{stored} records for {len(names)} sequences"
        raise _damaged(f"split {split}", builder, reason)
    return [
        PreparedSequence(name, marks, _reader(builder, records, index, name, marks))
        for index, (name, marks) in enumerate(zip(names, annotated, strict=True))
    ]


def _reader(builder: Any, records: Any, index: int, name: str, marks: str) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        try:
            record = records[index]
        except Exception as error:
            raise _damaged(f"sequence {name}", builder, error) from error
        if record["name"].decode() != name or annotation_marks(record["masks"]) != marks:
            raise _damaged(f"sequence {name}", builder, "it is another one")
        return record

    return read


def _damaged(what: str, builder: Any, reason: Exception | str) -> InputError:
    return InputError(
        f"{what} in {builder.data_path} cannot be read ({reason}): remove the folder and prepare it again"
    )
