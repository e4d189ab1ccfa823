"""Scalars to minimise."""

from jaxvos.losses._segmentation import edge_cross_entropy, mask_cross_entropy

__all__ = ["edge_cross_entropy", "mask_cross_entropy"]
