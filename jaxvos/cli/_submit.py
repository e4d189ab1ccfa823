"""`jaxvos submit`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxvos.cli._arguments import Switch
from jaxvos.errors import InputError

__all__ = ["Submit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit:
    """Check predictions against what a benchmark's server expects, say all that is wrong, and zip them.

    davis17: SEQUENCE/00000.png at the root of the archive; youtube-vos: Annotations/VIDEO/00000.png. The same files
    give the same archive, byte for byte.
    """

    results: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULTS")]
    """Folder of predicted PNGs, one folder per sequence; what `jaxvos segment` writes will do."""
    to: Annotated[Literal["davis17", "youtube-vos"], tyro.conf.arg(metavar="davis17|youtube-vos")]
    """Which benchmark."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE.zip")] = None
    """The archive; an older one is replaced."""
    against: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER|FILE")] = None
    """What there should be: a folder of the frames or the annotations of every sequence, the root of the data set, or
    a list of sequences, one in a line, such as DAVIS/ImageSets/2017/val.txt, which takes the frames from that data set.
    Left out: the predictions are only checked in themselves."""
    check_only: Switch = False
    """Write nothing."""

    def run(self) -> None:
        from jaxvos.evaluation import check_submission, write_submission

        if self.check_only == (self.output is not None):
            raise InputError("name the archive with -o, or check only: one of the two")
        if self.output is not None and self.output.suffix != ".zip":
            raise InputError(f"{self.output} is not named as an archive: use .zip")
        found = check_submission(self.results, benchmark=self.to, against=self.against)
        for line in found.notes:
            print(f"note: {line}")
        if found.problems:
            print("\n".join(found.problems))
            raise InputError(f"{self.results} is no submission to {self.to}: {len(found.problems)} kinds of problems")
        print(f"{len(found.files)} masks of {found.num_sequences} sequences are as {self.to} expects")
        if self.output is not None:
            write_submission(found, self.output)
            print(f"wrote {self.output}")
