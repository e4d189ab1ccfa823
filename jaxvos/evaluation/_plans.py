"""Which objects of a sequence are scored in which of its frames, under each of the protocols that give J and F."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxvos.evaluation._job import Job
from jaxvos.evaluation._objects import Objects, find_objects, objects_in
from jaxvos.evaluation._pairing import Pair, pair_frames, scored_frames
from jaxvos.evaluation._reading import in_parallel

__all__ = ["Plan", "make_plans"]

_MERGED = ("davis16", "fbms", "youtube-objects")
_VOID = 255


class Plan(NamedTuple):
    """The frames of a sequence that are scored, and of each object the first of them that counts, by its place."""

    name: str
    pairs: tuple[Pair, ...]
    objects: Objects
    starts: Mapping[int, int]

    def active(self, place: int) -> set[int]:
        """Returns the objects that count in a frame."""
        return {label for label, start in self.starts.items() if start <= place}


def make_plans(job: Job, *, score_all_frames: bool) -> list[Plan]:
    """Plans every sequence of a job."""
    if job.protocol in ("youtube-vos", "segtrack"):
        return _by_appearance(job, score_all_frames=score_all_frames)
    ends = 0 if score_all_frames or job.protocol not in ("davis16", "davis17") else 1
    plans = []
    for name in job.names:
        annotated = job.annotated[name]
        chosen = scored_frames(list(annotated.files), str(annotated.folder), start=ends, end=ends)
        pairs = pair_frames(annotated, job.predicted[name], chosen, suffixes=job.suffixes)
        first = next(iter(annotated.files.values()))
        objects = find_objects(annotated.read(first), str(first[0]), merged=job.protocol in _MERGED)
        plans.append(Plan(name, pairs, objects, dict.fromkeys(objects.labels, 0)))
    return plans


def _by_appearance(job: Job, *, score_all_frames: bool) -> list[Plan]:
    """Plans sequences whose objects may begin at any frame; all of SegTrack count from its second frame on."""
    frames = [(name, files) for name in job.names for files in job.annotated[name].files.values()]
    found = in_parallel(lambda frame: objects_in(job.annotated[frame[0]].read(frame[1])), frames, workers=job.workers,
                        progress=False)  # fmt: skip
    plans = []
    for name in job.names:
        annotated = job.annotated[name]
        by_frame = [labels for (owner, _), labels in zip(frames, found, strict=True) if owner == name]
        labels = tuple(sorted({label for here in by_frame for label in here}))
        begin = {label: next(i for i, here in enumerate(by_frame) if label in here) for label in labels}
        if job.protocol == "segtrack":
            begin = dict.fromkeys(labels, 0)
        after = 0 if score_all_frames else 1
        start = min(begin.values(), default=0) + after
        chosen = scored_frames(list(annotated.files), str(annotated.folder), start=start)
        pairs = pair_frames(annotated, job.predicted[name], chosen, suffixes=job.suffixes)
        starts = {label: place + after - start for label, place in begin.items()}
        plans.append(Plan(name, pairs, Objects(labels, False, _VOID), starts))
    return plans
