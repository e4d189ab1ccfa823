"""A folder of predictions against a folder of ground truth. Nothing is cached: scores are always new."""

from collections.abc import Sequence
from pathlib import Path

from jaxvos.errors import InputError
from jaxvos.evaluation._folders import listed_sequences
from jaxvos.evaluation._job import Job, find_job
from jaxvos.evaluation._measures import MEASURED, score_measures
from jaxvos.evaluation._objects import objects_in
from jaxvos.evaluation._protocols import Protocol
from jaxvos.evaluation._region_protocols import score_regions
from jaxvos.metrics import MeasureReport, Report

__all__ = ["score_folders"]

_WITH_ENDS = ("davis16", "davis17", "youtube-vos", "segtrack")
_CONSECUTIVE = ("davis16", "davis17", "davis17-unsupervised")


def score_folders(
    predictions: str | Path,
    ground_truth: str | Path,
    *,
    protocol: Protocol | None = None,
    sequences: Sequence[str] | Path | None = None,
    score_all_frames: bool = False,
    resize: bool = False,
    stability: bool | None = None,
    unseen: Sequence[str] = (),
    progress: bool = True,
    workers: int | None = None,
) -> Report | MeasureReport:
    """Scores a folder of predictions against a folder of ground truth.

    Args:
        predictions: PNGs of one sequence, or one folder of PNGs per sequence; either may keep them in a folder
            `masks`, as `jaxvos segment` does. Files are named as in the ground truth. Only scored frames are read.
        ground_truth: a DAVIS root (its `Annotations/480p`, or the only resolution there), a folder of sequences, the
            PNGs of one sequence, or a data set as it was released. Two single sequences belong together whatever their
            names are.
        protocol: see `PROTOCOLS`. None takes `davis17` if the first ground-truth frame of any sequence
            holds more than one object, else `davis16`; the report says which.
        sequences: which to score, or the text file of a split; each must be in both folders. None takes all of the
            ground truth, or the one that is predicted where that is only one. The report lists those that only one
            side has.
        score_all_frames: count also the frames that are given to a system: the first and the last of DAVIS, the first
            of SegTrack, the one in which an object of YouTube-VOS begins.
        resize: bring predictions of another size to that of the ground truth: to the nearest label, soft maps
            linearly.
        stability: also compute T; None does so under `davis16`. It takes longer than J and F, and on long videos
            uses processes: a script that calls this needs the guard `if __name__ == "__main__"`.
        unseen: under `youtube-vos`, the categories that were not trained on; `meta.json` says which object is of which.
        progress: show a bar on standard error.
        workers: threads and processes; None takes one per core.

    Returns:
        The scores of every sequence, object and frame: J and F in a `Report`, other measures in a `MeasureReport`.

    Raises:
        InputError: names the file or folder that is missing, of another size, not made of labels, or the ground truth
            itself; or the option that does nothing under this protocol.
    """
    sequences = listed_sequences(sequences) if isinstance(sequences, Path) else sequences
    job = find_job(Path(predictions), Path(ground_truth), protocol=protocol, sequences=sequences, resize=resize,
                   workers=workers, progress=progress)  # fmt: skip
    if protocol is None:
        job = job._replace(protocol=_guess(job))
    _check_options(job, score_all_frames=score_all_frames, stability=stability, unseen=unseen)
    if job.protocol in MEASURED:
        return score_measures(job)
    wanted = job.protocol == "davis16" if stability is None else stability
    return score_regions(job, score_all_frames=score_all_frames, stability=wanted, unseen=unseen)


def _guess(job: Job) -> str:
    first = (job.annotated[name] for name in job.names)
    several = any(len(objects_in(item.read(next(iter(item.files.values()))))) > 1 for item in first)
    return "davis17" if several else "davis16"


def _check_options(job: Job, *, score_all_frames: bool, stability: bool | None, unseen: Sequence[str]) -> None:
    if score_all_frames and job.protocol not in _WITH_ENDS:
        raise InputError(f"all annotated frames count under {job.protocol}: leave out the choice of all frames")
    if stability and job.protocol not in _CONSECUTIVE:
        raise InputError(
            f"no T under {job.protocol}: it compares consecutive frames, as {', '.join(_CONSECUTIVE)} have"
        )
    if unseen and job.protocol != "youtube-vos":
        raise InputError(f"unseen categories are those of youtube-vos, not of {job.protocol}: leave them out")
    if job.resize and job.protocol == "flow":
        raise InputError("flow is not resized, its vectors would have to change too: predict at the size of the truth")
