"""One file for each system: its configuration, its net, and a builder that returns a `System`."""

from jaxvos.systems._transportnet import AugmentationConfig, TransportNetConfig, transportnet

__all__ = ["AugmentationConfig", "TransportNetConfig", "transportnet"]
