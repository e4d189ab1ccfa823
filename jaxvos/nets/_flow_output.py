"""What flow networks give."""

from typing import NamedTuple

from jaxtyping import Array

__all__ = ["FlowOutput"]


class FlowOutput(NamedTuple):
    """What a flow network makes of each level; level `l` is a `2**l`-th of the size."""

    flows: dict[int, Array]  # levels 6 to 2: (b, y, x, 2), in units of 20 pixels of the images
    features: dict[int, Array]  # of the same levels, or those below the coarsest: what flow is predicted from
