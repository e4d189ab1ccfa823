"""The numbers beside J and F that some protocols have."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvos.errors import InputError
from jaxvos.evaluation._job import Job
from jaxvos.evaluation._plans import Plan
from jaxvos.evaluation._reading import in_parallel, read_labels
from jaxvos.metrics import ObjectScores, SequenceScores, instance_metric, saliency_metric

__all__ = ["further_numbers"]


def further_numbers(
    job: Job,
    plans: Sequence[Plan],
    sequences: Sequence[SequenceScores],
    found: Sequence[Any],
    *,
    score_all_frames: bool,
    unseen: Sequence[str],
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Returns the numbers that only this protocol has, and what is to be said of them."""
    match job.protocol:
        case "fbms":
            return _soft_scores([state for _, state in found])
        case "youtube-objects":
            by_category: dict[str, list[float]] = {}
            for sequence in sequences:
                by_category.setdefault(sequence.name.split("_")[0], []).append(sequence.j.mean)
            means = {f"J {name}": float(np.mean(values)) for name, values in sorted(by_category.items())}
            return means | {"J over categories": float(np.mean(list(means.values())))}, ()
        case "segtrack":
            return _instance_scores(job, plans, score_all_frames=score_all_frames), ()
        case "youtube-vos" if unseen:
            return _seen_and_unseen(job, sequences, unseen), ()
        case "youtube-vos":
            return {}, ("plain means over all objects: name the unseen categories for J_seen, J_unseen, ... and G",)
    return {}, ()


def _soft_scores(states: Sequence[Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    hard = sum(state is None for state in states)
    if hard:
        some = f"{hard} of {len(states)} predictions are indexed masks, not grey maps: no MAE and F-measure"
        return {}, (some,) if hard < len(states) else ()
    metric = saliency_metric()
    scores = metric.compute(functools.reduce(metric.merge, states))
    return {"MAE": scores.mae, "max F": scores.max_f}, ("J and F are of the maps above one half",)


def _instance_scores(job: Job, plans: Sequence[Plan], *, score_all_frames: bool) -> dict[str, float]:
    """A first frame that does not count need not be predicted: the ground truth stands in."""
    metric = instance_metric(first_frame=score_all_frames)

    def state(plan: Plan) -> Any:
        annotated = job.annotated[plan.name]
        truths = [annotated.read(files) for files in annotated.files.values()]
        drawn = [read_labels(pair.drawn, truths[0], resize=job.resize) for pair in plan.pairs]
        return metric.update(metric.zero(), drawn if score_all_frames else [truths[0], *drawn], truths)

    states = in_parallel(state, plans, workers=job.workers, progress=False)
    scores = metric.compute(functools.reduce(metric.merge, states))
    return {"mIoU*": scores.miou_star, "mIoU-dagger": scores.miou_dagger}


def _seen_and_unseen(job: Job, sequences: Sequence[SequenceScores], unseen: Sequence[str]) -> dict[str, float]:
    categories = _categories(Path(job.story["ground_truth"]))
    groups: dict[str, list[ObjectScores]] = {"seen": [], "unseen": []}
    for sequence in sequences:
        for item in sequence.objects:
            try:
                category = categories[sequence.name]["objects"][str(item.label)]["category"]
            except (KeyError, TypeError):
                raise InputError(f"meta.json has no category of object {item.label} in {sequence.name}: "
                                 "use the file of this release") from None  # fmt: skip
            groups["unseen" if category in unseen else "seen"].append(item)
    for group, items in groups.items():
        if not items:
            raise InputError(f"no scored object is of a category that is {group}: check the names of the unseen ones")
    numbers = {f"{letter}_{group}": float(np.mean([getattr(item, letter.lower()).mean for item in items]))
               for letter in "JF" for group, items in groups.items()}  # fmt: skip
    return numbers | {"G": float(np.mean(list(numbers.values())))}


def _categories(root: Path) -> dict[str, Any]:
    """Reads which category each object is of, from the `meta.json` beside the annotations."""
    path = next(
        (place / "meta.json" for place in (root, root.resolve().parent) if (place / "meta.json").is_file()), None
    )
    if path is None:
        raise InputError(f"no meta.json in {root} or beside it: it says of which category each object is")
    try:
        return json.loads(path.read_text(encoding="utf-8"))["videos"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): copy it from the release again") from error
