"""Pure array functions on images, masks and flow."""

from jaxvos.ops._augment import Similarity, random_similarity, transform_flow, transform_image
from jaxvos.ops._edges import disc_edges, sobel_edges
from jaxvos.ops._flow_color import flow_to_color
from jaxvos.ops._resize import resize, resize_flow

__all__ = [
    "Similarity",
    "disc_edges",
    "flow_to_color",
    "random_similarity",
    "resize",
    "resize_flow",
    "sobel_edges",
    "transform_flow",
    "transform_image",
]
