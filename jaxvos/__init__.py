"""Video object segmentation in JAX, with matching solved as it should be."""

__version__ = "0.1.0"
__all__ = ["__version__"]
