"""A trace of some steps, as JAX's profiler writes it for TensorBoard and Perfetto."""

from pathlib import Path
from types import TracebackType

import jax

from jaxvos.errors import InputError

__all__ = ["Profile"]


class Profile:
    """Traces the steps from the first to the last of `steps` into `workdir / "profile"`; none if that is None.

    Raises:
        InputError: if there are steps and no workdir.
    """

    def __init__(self, workdir: Path | str | None, steps: tuple[int, int] | None):
        if steps is not None and workdir is None:
            raise InputError("a profile is written to the folder of the run: give --workdir")
        self._folder = None if workdir is None else Path(workdir) / "profile"
        self._first, self._last = steps or (0, -1)
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def before(self, step: int) -> None:
        """Notes that a step begins."""
        if self._first <= step <= self._last and not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int) -> None:
        """Notes that a step was given to the devices, and the one before it was finished."""
        if self._running and step >= self._last:
            self._stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running:
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False
