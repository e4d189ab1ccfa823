"""Archives of releases: unpacked whole, or refused in one line."""

import gzip
import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path

from jaxvos.errors import InputError

__all__ = ["is_archive", "unpack"]

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, lzma.LZMAError, EOFError)


def is_archive(path: Path) -> bool:
    """Says whether a file is called as an archive is (zip, tar, tar.gz, tgz, tar.bz2, tar.xz)."""
    return path.is_file() and path.name.lower().endswith((".zip", *_TAR))


def unpack(archive: Path, to: Path) -> None:
    """Unpacks an archive; what it holds outside of its own folder is refused.

    Args:
        archive: a file that `is_archive`.
        to: a folder that is not there yet.

    Raises:
        InputError: if it is truncated, damaged or has paths that lead out of the folder, or the disk is full.
    """
    to.mkdir(parents=True)
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as file:
                file.extractall(to)
        else:
            with tarfile.open(archive) as file:
                file.extractall(to, filter="data")
            _check_end(archive)
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"archive {archive} is damaged or cut short ({reason}): download it again") from error
    except OSError as error:
        raise InputError(f"archive {archive} cannot be unpacked into {to} ({error}): make room there") from error


def _check_end(archive: Path) -> None:
    """Refuses a plain tar file that stops between two of its files, which unpacking does not notice."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - 1024))
        if archive.suffix.lower() == ".tar" and file.read() != bytes(1024):
            raise tarfile.ReadError("it has no end")
