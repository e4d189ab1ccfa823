"""Scores of systems and of folders of predictions, as the benchmarks define them; reports; submissions.

`PROTOCOLS` says of each protocol what is compared, in which frames, how it is averaged, and which numbers result;
`describe_protocols()` is that as text.
"""

from jaxvos.evaluation._memory import FrameScores, flow_error, held_out_scores, score_masks, score_sequence
from jaxvos.evaluation._protocols import PROTOCOLS, Protocol, Rule, describe_protocols
from jaxvos.evaluation._score import score_folders
from jaxvos.evaluation._submission import Submission, check_submission, write_submission
from jaxvos.evaluation._write import write_csv, write_html, write_report
from jaxvos.metrics import MeasureReport, Report, format_table

__all__ = [
    "PROTOCOLS",
    "FrameScores",
    "MeasureReport",
    "Protocol",
    "Report",
    "Rule",
    "Submission",
    "check_submission",
    "describe_protocols",
    "flow_error",
    "format_table",
    "held_out_scores",
    "score_folders",
    "score_masks",
    "score_sequence",
    "write_csv",
    "write_html",
    "write_report",
    "write_submission",
]
