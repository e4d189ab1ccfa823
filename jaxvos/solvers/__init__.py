"""Matching and optimal transport in pure JAX; nothing here has heard of an image."""

from jaxvos.solvers._factorized import FactorizedSolution, factorized_sinkhorn, factorized_transport
from jaxvos.solvers._partition import merge_long, merge_short, split_long, split_short
from jaxvos.solvers._sinkhorn import SinkhornSolution, sinkhorn

__all__ = [
    "FactorizedSolution",
    "SinkhornSolution",
    "factorized_sinkhorn",
    "factorized_transport",
    "merge_long",
    "merge_short",
    "sinkhorn",
    "split_long",
    "split_short",
]
