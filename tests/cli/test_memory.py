"""Memory does not grow with the length of a video."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from jaxvos.cli import main
main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_times_the_frames_need_no_more_memory(video, tmp_path, tiny_model):
    peaks = {}
    for count in (200, 2000):
        source = video(f"{count}.mp4", count=count, height=64, width=96)
        command = [sys.executable, "-c", PROGRAM, "segment", source, "-o", tmp_path / f"{count}", "--model", tiny_model]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout.split()[-1])
        assert len(list((tmp_path / f"{count}" / "masks").iterdir())) == count
    print(f"peak KiB by number of frames: {peaks}")
    assert peaks[2000] < 1.1 * peaks[200]
