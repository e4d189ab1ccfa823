"""Several processes as one run: how they find one another, and how they end together."""

import jax

from jaxvos.errors import InputError
from jaxvos.training._config import HostsConfig

__all__ = ["connect"]


def connect(config: HostsConfig) -> None:
    """Joins the processes of a run; nothing happens where there is one alone. To be called before any device is used.

    A process that ends, or gives no sign of life for `config.timeout` seconds, ends all others.

    Raises:
        InputError: if they do not find one another in that time, or the cluster does not tell who they are.
    """
    if config.coordinator is None and not config.detect:
        return
    try:
        jax.distributed.initialize(
            config.coordinator, config.num_processes, config.process_id, initialization_timeout=config.timeout,
            heartbeat_timeout_seconds=config.timeout, shutdown_timeout_seconds=config.timeout,
            cluster_detection_method=None if config.detect else "deactivate",
        )  # fmt: skip
    except ValueError:
        raise InputError("hosts.detect finds no cluster that JAX knows: give hosts.coordinator, hosts.num_processes "
                         "and hosts.process_id") from None  # fmt: skip
    except (RuntimeError, jax.errors.JaxRuntimeError) as error:
        where = config.coordinator or "the cluster's coordinator"
        reason = str(error).splitlines()[0]
        raise InputError(f"the {config.num_processes or ''} processes do not meet at {where} within {config.timeout} "
                         f"s ({reason}): start all of them, with the same address") from None  # fmt: skip
