"""A file appears under its name whole, or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from jaxvos.errors import InputError

__all__ = ["atomic_path"]


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that is renamed to `path` when the block ends without an error.

    The suffix is kept, so that writers that choose the format by it work. Missing parent folders are made.

    Args:
        path: where the finished file goes; an existing file is replaced.

    Yields:
        The path to write to.

    Raises:
        InputError: if the operating system refuses the folder, the file or the renaming.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write {path}: {reason}; choose another place or make room there") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
