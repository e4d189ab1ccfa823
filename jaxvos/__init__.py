"""Video object segmentation in JAX, with matching solved as it should be."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxvos.inference import segment, stream

__version__ = "0.1.0"
__all__ = ["__version__", "segment", "stream"]


def __getattr__(name: str):
    """Loads the video side of the house when it is first asked for, so that `import jaxvos.solvers` stays light."""
    if name in ("segment", "stream"):
        import jaxvos.inference

        return getattr(jaxvos.inference, name)
    raise AttributeError(f"module 'jaxvos' has no attribute {name!r}")
