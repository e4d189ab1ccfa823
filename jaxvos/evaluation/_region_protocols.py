"""The protocols that give J and F of objects."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvos.errors import InputError
from jaxvos.evaluation._further import further_numbers
from jaxvos.evaluation._job import Job
from jaxvos.evaluation._objects import collect_objects, score_frame
from jaxvos.evaluation._plans import Plan, make_plans
from jaxvos.evaluation._protocols import PROTOCOLS
from jaxvos.evaluation._reading import in_parallel, read_labels, read_soft
from jaxvos.evaluation._stability import add_stability
from jaxvos.metrics import ObjectScores, Report, SequenceScores, assign_proposals, saliency_metric, score_proposals

__all__ = ["score_regions"]


def score_regions(job: Job, *, score_all_frames: bool, stability: bool, unseen: Sequence[str]) -> Report:
    """Scores a job under one of the protocols that give J and F."""
    plans = make_plans(job, score_all_frames=score_all_frames)
    tasks = [(plan, place) for plan in plans for place in range(len(plan.pairs))]
    found = in_parallel(functools.partial(_score, job), tasks, workers=job.workers, progress=job.progress)
    results = iter(found)
    by_plan = [[next(results) for _ in plan.pairs] for plan in plans]
    objects = [_collect(job, plan, frames) for plan, frames in zip(plans, by_plan, strict=True)]
    if stability:
        objects = add_stability(job, plans, objects)
    sequences = tuple(
        SequenceScores(plan.name, tuple(pair.name for pair in plan.pairs), items)
        for plan, items in zip(plans, objects, strict=True)
        if items
    )
    extra, notes = further_numbers(job, plans, sequences, found, score_all_frames=score_all_frames, unseen=unseen)
    if job.protocol not in ("davis16", "davis17"):  # which the table describes in its first line
        notes = (PROTOCOLS[job.protocol].summary, *notes)
    return Report(protocol=job.protocol, score_all_frames=score_all_frames, sequences=sequences, extra=extra,
                  notes=notes, **job.story)  # fmt: skip


def _score(job: Job, task: tuple[Plan, int]) -> Any:
    """Returns what one frame adds: scores by object, of proposals, or with the state of soft maps."""
    plan, place = task
    pair = plan.pairs[place]
    truth = job.annotated[plan.name].read(pair.truth)
    if job.protocol == "fbms":
        drawn, soft = read_soft(pair.drawn, truth, resize=job.resize)
        scores = score_frame(truth, (drawn > 127).astype(np.uint8), plan.objects, str(pair.drawn))
        metric = saliency_metric()
        mask = (truth != 0) & (truth != plan.objects.void)
        return scores, metric.update(metric.zero(), drawn, mask) if soft else None
    drawn = read_labels(pair.drawn, truth, resize=job.resize)
    if job.protocol == "davis17-unsupervised":
        try:
            return score_proposals(truth, drawn, plan.objects.labels)
        except InputError as error:
            raise InputError(f"{pair.drawn}: {error}") from None
    return score_frame(truth, drawn, plan.objects, str(pair.drawn), active=plan.active(place)), None


def _collect(job: Job, plan: Plan, frames: Sequence[Any]) -> tuple[ObjectScores, ...]:
    if job.protocol != "davis17-unsupervised":
        return collect_objects(plan.objects, [scores for scores, _ in frames])
    assigned = assign_proposals(frames)
    return tuple(
        ObjectScores(label, tuple(j.tolist()), tuple(f.tolist()), proposal=proposal)
        for label, j, f, proposal in zip(plan.objects.labels, assigned.j, assigned.f, assigned.proposals, strict=True)
    )
