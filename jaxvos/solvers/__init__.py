"""Matching and optimal transport in pure JAX; nothing here has heard of an image."""

from jaxvos.solvers._dykstra import DykstraSolution, dykstra
from jaxvos.solvers._factorized import FactorizedSolution, factorized_sinkhorn, factorized_transport
from jaxvos.solvers._hungarian import greedy, hungarian
from jaxvos.solvers._kmeans import KMeansSolution, kmeans
from jaxvos.solvers._matching import match, sinkhorn_matching
from jaxvos.solvers._ot_clustering import OTClusteringSolution, ot_clustering
from jaxvos.solvers._partition import merge_long, merge_short, split_long, split_short
from jaxvos.solvers._pgd import pgd_matching
from jaxvos.solvers._projections import (
    project_columns,
    project_columns_printed,
    project_nonnegative,
    project_rows,
    project_simplex,
)
from jaxvos.solvers._qp import project_birkhoff, qp_matching
from jaxvos.solvers._sinkhorn import SinkhornSolution, sinkhorn
from jaxvos.solvers._solution import MatchingSolution
from jaxvos.solvers._streaming import StreamingSolution, streaming_sinkhorn

__all__ = [
    "DykstraSolution",
    "FactorizedSolution",
    "KMeansSolution",
    "MatchingSolution",
    "OTClusteringSolution",
    "SinkhornSolution",
    "StreamingSolution",
    "dykstra",
    "factorized_sinkhorn",
    "factorized_transport",
    "greedy",
    "hungarian",
    "kmeans",
    "match",
    "merge_long",
    "merge_short",
    "ot_clustering",
    "pgd_matching",
    "project_birkhoff",
    "project_columns",
    "project_columns_printed",
    "project_nonnegative",
    "project_rows",
    "project_simplex",
    "qp_matching",
    "sinkhorn",
    "sinkhorn_matching",
    "split_long",
    "split_short",
    "streaming_sinkhorn",
]
