"""The judge: J, F and T as the DAVIS benchmark defines them, measures of saliency, classes and flow, and their summary.

NumPy, and SciPy for the assignment of proposals. Nothing that is judged is imported here.
"""

from jaxvos.metrics._boundary import boundary_map, boundary_measure
from jaxvos.metrics._flow import FlowScores, angular_error, end_point_error, flow_metric
from jaxvos.metrics._format import format_csv, format_json, format_table
from jaxvos.metrics._metric import GroupScores, Metric, grouped, mean_metric
from jaxvos.metrics._object import label_scores, mask_scores, object_metric
from jaxvos.metrics._recall import ProposalRecall, proposal_recall
from jaxvos.metrics._region import region_similarity
from jaxvos.metrics._regions import InstanceScores, SemanticScores, instance_metric, semantic_metric
from jaxvos.metrics._report import MeasureReport, ObjectScores, Report, SequenceMeasures, SequenceScores
from jaxvos.metrics._saliency import (
    SaliencyScores,
    adaptive_f_measure,
    f_measure_curve,
    mean_absolute_error,
    min_max_stretch,
    precision_recall_curve,
    saliency_metric,
    structure_measure,
)
from jaxvos.metrics._stability import sequence_stability, temporal_stability
from jaxvos.metrics._statistics import Statistics, statistics
from jaxvos.metrics._unsupervised import Assignment, ProposalScores, assign_proposals, score_proposals

__all__ = ["Assignment", "FlowScores", "GroupScores", "InstanceScores", "MeasureReport", "Metric", "ObjectScores",
           "ProposalRecall", "ProposalScores", "Report", "SaliencyScores", "SemanticScores", "SequenceMeasures",
           "SequenceScores", "Statistics", "adaptive_f_measure", "angular_error", "assign_proposals", "boundary_map",
           "boundary_measure", "end_point_error", "f_measure_curve", "flow_metric", "format_csv", "format_json",
           "format_table", "grouped", "instance_metric", "label_scores", "mask_scores", "mean_absolute_error",
           "mean_metric", "min_max_stretch", "object_metric", "precision_recall_curve", "proposal_recall",
           "region_similarity", "saliency_metric", "score_proposals", "semantic_metric", "sequence_stability",
           "statistics", "structure_measure", "temporal_stability"]
