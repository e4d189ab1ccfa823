"""What a command leaves on disk for a video: files of every frame, a video, a contact sheet and the run's numbers."""

from jaxvos.results._clusters import cluster_sheet
from jaxvos.results._flow import FLOW_RESULTS, write_flow_results
from jaxvos.results._folder import check_apart, check_output, output_folder
from jaxvos.results._proposals import proposal_sheet
from jaxvos.results._segmentation import RESULTS, Speed, write_results

__all__ = [
    "FLOW_RESULTS",
    "RESULTS",
    "Speed",
    "check_apart",
    "check_output",
    "cluster_sheet",
    "output_folder",
    "proposal_sheet",
    "write_flow_results",
    "write_results",
]
