"""The judge: region similarity J, contour accuracy F, and their summary, as the DAVIS benchmark defines them.

NumPy and OpenCV only. Nothing that is judged is imported here.
"""

from jaxvos.metrics._boundary import boundary_map, boundary_measure
from jaxvos.metrics._region import region_similarity
from jaxvos.metrics._report import ObjectScores, Report, SequenceScores, format_json, format_table
from jaxvos.metrics._statistics import Statistics, statistics

__all__ = ["ObjectScores", "Report", "SequenceScores", "Statistics", "boundary_map", "boundary_measure",
           "format_json", "format_table", "region_similarity", "statistics"]
