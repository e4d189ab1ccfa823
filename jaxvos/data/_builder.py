"""Data sets as tensorflow-datasets builders: the files of each sequence, as they are, in one record.

This is the only file that imports tensorflow-datasets, and only when a function is called. TensorFlow is not needed, so
the builder is one that writes shards as they come: tfds sorts the examples of a `GeneratorBasedBuilder` on disk, which
takes TensorFlow, as soon as a split has a gigabyte.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from jaxvos.data._layouts import Layout, find_layout
from jaxvos.data._layouts_archive import is_archive, unpack
from jaxvos.data._layouts_raw import RawSequence
from jaxvos.errors import InputError

__all__ = ["Prepared", "SplitCounts", "annotation_marks", "load_builder", "prepare_dataset", "split_checksum"]

_VERSION = "1.0.0"  # of the records; another version is prepared again
_SHARD = 256 << 20  # bytes


class SplitCounts(NamedTuple):
    """How much there is of a split."""

    sequences: int
    frames: int
    masks: int
    flows: int


class Prepared(NamedTuple):
    """What `prepare_dataset` made."""

    folder: Path
    splits: dict[str, SplitCounts]
    notes: tuple[str, ...]  # where the number of sequences is not the published one

    def summary(self) -> str:
        """Returns what to tell the user, one line for each split."""
        lines = [
            f"{split}: {n.sequences} sequences, {n.frames} frames, {n.masks} with masks"
            + (f", {n.flows} with flow" if n.flows else "")
            for split, n in self.splits.items()
        ]
        return "\n".join([f"prepared {self.folder}", *lines, *(f"note: {note}" for note in self.notes)])


def prepare_dataset(name: str, source: str | Path, to: str | Path, *, progress: bool = True) -> Prepared:
    """Checks a data set as it was released and copies it into records, whole or not at all.

    The records are in `<to>/<name>/1.0.0` as tensorflow-datasets has them (`tfds.builder_from_directory`); an example
    is a sequence: its name, the names of its frames, and the bytes of their images, masks and flow files. Whatever
    interrupts it, that folder appears when it is complete; what an earlier, killed run has left is removed.

    Args:
        name: of a layout in `LAYOUTS`.
        source: the folder of the release, or an archive of it (zip, tar, tar.gz), which is unpacked beside the records
            for the time being.
        to: the folder of all prepared data sets.
        progress: show a bar where standard error is a terminal.

    Raises:
        InputError: for a name without layout, a file that is missing or wrong, a damaged archive, a data set that is
            prepared already, or a folder that cannot be written to.
    """
    layout, to, source = find_layout(name), Path(to).expanduser(), Path(source).expanduser()
    _tensorflow_datasets()
    folder = to / name / _VERSION
    if folder.exists():
        raise InputError(f"{folder} is there already: remove it to prepare {name} again")
    if not source.exists():
        raise InputError(f"there is no {source}: give the folder or the archive of {layout.title}")
    if source.is_file() and not is_archive(source):
        raise InputError(f"{source} is neither a folder nor a zip or tar archive: give one of {layout.title}")
    with _workplace(to, name) as work:
        root = source
        if is_archive(source):
            root = work / "unpacked"
            unpack(source, root)
        splits = layout.scan(root)
        counts = {split: _counts(sequences) for split, sequences in splits.items()}
        _write(layout, splits, _metadata(layout, source, splits, counts), to, work, progress=progress)
    notes = tuple(
        f"{split} has {counts[split].sequences} sequences, the release {published}"
        for split, published in layout.sizes.items()
        if split in counts and counts[split].sequences != published
    )
    return Prepared(folder, counts, notes)


def load_builder(folder: Path) -> Any:
    """Opens a prepared data set as tensorflow-datasets' read-only builder.

    Args:
        folder: what `prepare_dataset` made, with or without the version.

    Raises:
        InputError: if it is not there, not complete or cannot be read.
    """
    tfds = _tensorflow_datasets()
    folder = next((f for f in (folder, folder / _VERSION) if (f / "dataset_info.json").is_file()), folder)
    if not (folder / "dataset_info.json").is_file():
        found = "is not complete" if any(folder.glob("incomplete.*")) else "is no prepared data set"
        raise InputError(f"{folder} {found}: run `jaxvos datasets prepare`")
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # of which tensorflow-datasets and what it reads with have many
        raise InputError(f"{folder} cannot be read ({error}): remove it and prepare it again") from error


def split_checksum(names: Sequence[str]) -> str:
    """Returns the SHA-256 of the names of a split's sequences in their order, one in a line."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def annotation_marks(masks: Iterable[Any]) -> str:
    """Returns one digit for each frame of a sequence: 1 where it has a mask, else 0."""
    return "".join("01"[bool(mask)] for mask in masks)


def _tensorflow_datasets() -> Any:
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            f"prepared data sets need tensorflow-datasets ({error}): pip install 'jaxvos[data]'"
        ) from error
    return tensorflow_datasets


@contextlib.contextmanager
def _workplace(to: Path, name: str) -> Iterator[Path]:
    """Gives a temporary folder beside the records, and removes what a killed run has left there."""
    try:
        to.mkdir(parents=True, exist_ok=True)
        for stale in (*to.glob(f".{name}-preparing-*"), *to.glob(f"{name}/incomplete.*")):
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=f".{name}-preparing-", dir=to) as work:
            yield Path(work)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write into {to}: {reason}; choose another place or make room there") from error


def _counts(sequences: Sequence[RawSequence]) -> SplitCounts:
    return SplitCounts(
        len(sequences),
        sum(len(sequence.images) for sequence in sequences),
        sum(bool(paths) for sequence in sequences for paths in sequence.masks),
        sum(path is not None for sequence in sequences for path in sequence.flows),
    )


def _metadata(
    layout: Layout, source: Path, splits: Mapping[str, Sequence[RawSequence]], counts: Mapping[str, SplitCounts]
) -> dict[str, Any]:
    lists = {}
    for split, sequences in splits.items():
        names = [sequence.name for sequence in sequences]
        lists[split] = {
            **counts[split]._asdict(),
            "names": names,
            "annotated": [annotation_marks(s.masks or [()] * len(s.images)) for s in sequences],
            "sha256": split_checksum(names),
        }
    return {
        "name": layout.name,
        "title": layout.title,
        "published": layout.source,
        "terms": layout.terms,
        "prepared_from": str(source.resolve()),
        "jaxvos": importlib.metadata.version("jaxvos"),
        "splits": lists,
    }


def _write(
    layout: Layout,
    splits: Mapping[str, Sequence[RawSequence]],
    metadata: dict[str, Any],
    to: Path,
    work: Path,
    *,
    progress: bool,
) -> None:
    tfds = _tensorflow_datasets()
    files = tfds.features.Sequence(tfds.features.Text())  # takes bytes as they are
    features = {"name": tfds.features.Text(), "frames": files, "images": files, "masks": files, "flows": files}

    with tfds.core.registered.skip_registration():  # one class for each data set, not for good

        class Builder(tfds.core.dataset_builder.ShardBasedBuilder):
            name = layout.name
            VERSION = tfds.core.Version(_VERSION)

            def _info(self) -> Any:
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=layout.describe(),
                    citation=layout.source,
                    license=layout.terms,
                    features=tfds.features.FeaturesDict(features),
                    metadata=tfds.core.MetadataDict(metadata),
                )

            def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator[Any]]]]:
                return {
                    split: [partial(_examples, shard, bar) for shard in _shards(sequences)]
                    for split, sequences in splits.items()
                }

    tfds.disable_progress_bar()
    total = sum(map(len, splits.values()))
    with (
        tqdm(total=total, unit="sequence", desc=layout.name, disable=None if progress else True) as bar,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        builder = Builder(data_dir=str(to), file_format="array_record")
        builder.download_and_prepare(download_dir=str(work / "downloads"))


def _shards(sequences: Sequence[RawSequence]) -> list[list[RawSequence]]:
    """Divides a split where the bytes reach `_SHARD`; tfds holds one shard in memory while it writes it."""
    shards: list[list[RawSequence]] = [[]]
    size = 0
    for sequence in sequences:
        if size >= _SHARD:
            shards.append([])
            size = 0
        shards[-1].append(sequence)
        size += sum(path.stat().st_size for path in (*sequence.images, *sequence.flows) if path is not None)
    return shards


def _examples(sequences: Sequence[RawSequence], bar: tqdm) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, sequence in enumerate(sequences):
        yield index, _example(sequence)
        bar.update()


def _example(sequence: RawSequence) -> dict[str, Any]:
    frames = range(len(sequence.images))
    return {
        "name": sequence.name,
        "frames": list(sequence.frame_names),
        "images": [sequence.image_bytes(i) for i in frames],
        "masks": [sequence.mask_bytes(i) for i in frames],
        "flows": [sequence.flow_bytes(i) for i in frames],
    }
