"""Several processes as one run: how they find one another, and how they end together."""

import contextlib
import os
import sys
from collections.abc import Iterator

import jax

from jaxvos.errors import InputError
from jaxvos.training._config import HostsConfig

__all__ = ["connect", "end_with_the_others"]

_TRY_AGAIN = 75  # exit code, EX_TEMPFAIL of sysexits.h


def connect(config: HostsConfig) -> None:
    """Joins the processes of a run; nothing happens where there is one alone. To be called before any device is used.

    A process that ends, or gives no sign of life for `config.timeout` seconds, ends all others.

    If they do not all meet in that time JAX ends this process, with a message of its own below the one printed here.

    Raises:
        InputError: if the cluster does not tell who they are, or there is no such address.
    """
    if config.coordinator is None and not config.detect:
        return
    if config.coordinator is not None:
        print(f"process {config.process_id} of {config.num_processes}: waiting up to {config.timeout} s for the others "
              f"at {config.coordinator}", file=sys.stderr, flush=True)  # fmt: skip
    try:
        jax.distributed.initialize(
            config.coordinator, config.num_processes, config.process_id, initialization_timeout=config.timeout,
            heartbeat_timeout_seconds=config.timeout, shutdown_timeout_seconds=config.timeout,
            cluster_detection_method=None if config.detect else "deactivate",
        )  # fmt: skip
    except ValueError:
        raise InputError("hosts.detect finds no cluster that JAX knows: give hosts.coordinator, hosts.num_processes "
                         "and hosts.process_id") from None  # fmt: skip
    except RuntimeError as error:
        raise InputError(f"hosts.coordinator {config.coordinator} cannot be used ({str(error).splitlines()[0]}): give "
                         "HOST:PORT of process 0, with a port that is free there") from None  # fmt: skip


@contextlib.contextmanager
def end_with_the_others() -> Iterator[None]:
    """Ends this process at once, with one line and code 75, where a computation fails that others take part in.

    What it would wait for on its way out will not come. Where nothing fails, but a process answers no more, JAX ends
    the others when `HostsConfig.timeout` has passed.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        print(f"error: process {jax.process_index()} of {jax.process_count()} cannot go on ({reason}): another one has "
              "ended, or this one is out of memory; start all of them again, and they go on from the last checkpoint",
              file=sys.stderr, flush=True)  # fmt: skip
        os._exit(_TRY_AGAIN)
