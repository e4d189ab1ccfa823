"""`jaxvos evaluate` as a user types it."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import write_mask
from jaxvos.evaluation import PROTOCOLS


def _square(shift, label=1):
    mask = np.zeros((24, 40), np.uint8)
    mask[4:12, 5 + shift : 15 + shift] = label
    return mask


@pytest.fixture
def folders(tmp_path):
    """Two sequences, drawn two pixels off; the predictions as `jaxvos segment` leaves them."""
    for name in ("one", "two"):
        for index in range(5):
            write_mask(tmp_path / "davis" / "Annotations" / "480p" / name / f"{index:05d}.png", _square(index))
            write_mask(tmp_path / "drawn" / name / "masks" / f"{index:05d}.png", _square(index + 2))
    return tmp_path / "drawn", tmp_path / "davis"


def test_table_and_report(run, folders, tmp_path):
    code, out, err = run("evaluate", *folders, "-o", tmp_path / "new" / "report.json")
    assert code == 0 and err == ""
    assert "one" in out and "two" in out and "66.7" in out.replace("0.667", "66.7")
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["protocol"] == "davis16" and len(report["sequences"]) == 2
    code, every, _ = run("evaluate", *folders, "--all-frames", "--protocol", "davis17")
    assert code == 0 and every != out
    single = run("evaluate", folders[0] / "one", folders[1] / "Annotations" / "480p" / "one")
    assert single.code == 0 and "one" in single.out


def test_every_kind_of_report(run, folders, tmp_path):
    before = run("evaluate", *folders, "--report", tmp_path / "rep")
    assert before.code == 0
    assert sorted(path.name for path in (tmp_path / "rep").iterdir()) == ["objects.csv", "report.html", "results.json"]
    files = ["-o", tmp_path / "a.json", "--csv", tmp_path / "a.csv", "--html", tmp_path / "a.html"]
    assert run("evaluate", *folders, *files, "--workers", "1") == before
    for name, suffix in (("results", "json"), ("objects", "csv"), ("report", "html")):
        assert (tmp_path / "rep" / f"{name}.{suffix}").read_text() == (tmp_path / f"a.{suffix}").read_text()
    write_mask(folders[0] / "one" / "masks" / "00002.png", _square(2))
    assert run("evaluate", *folders, "--report", tmp_path / "rep").out != before.out
    assert (tmp_path / "rep" / "results.json").read_text() != (tmp_path / "a.json").read_text()


def test_images_are_drawn_on(run, folders, tmp_path):
    (tmp_path / "frames" / "one").mkdir(parents=True)
    Image.new("RGB", (40, 24)).save(tmp_path / "frames" / "one" / "00002.jpg")
    page = ["--html", tmp_path / "a.html"]
    assert run("evaluate", *folders, *page, "--images", tmp_path / "frames").code == 0
    assert (tmp_path / "a.html").read_text().count("<img") == 2
    for options, message in (
        (["--images", tmp_path / "frames"], "images are for the page: name it with --html or --report"),
        ([*page, "--images", tmp_path / "none"], "there is no folder"),
        ([*page, "--images", tmp_path / "drawn"], "no image in"),
    ):
        code, _, err = run("evaluate", *folders, *options)
        assert code == 2 and message in err and err.count("\n") == 1


def test_options_reach_the_scores(run, folders, tmp_path):
    def table(*options):
        code, out, err = run("evaluate", *folders, *options)
        assert code == 0, err
        return out

    plain = table()
    assert "|      T" in plain and "|      T" not in table("--no-stability")
    davis17 = table("--protocol", "davis17")
    assert "|      T" not in davis17 and "|      T" in table("--protocol", "davis17", "--stability")
    (tmp_path / "val.txt").write_text("/JPEGImages/480p/one/00000.jpg /Annotations/480p/one/00000.png\n")
    one = table("--sequences", "one")
    assert one != plain and one == table("--sequences", tmp_path / "val.txt")
    assert table("--sequences", "one,two") == plain
    meta = {"videos": {n: {"objects": {"1": {"category": c}}} for n, c in (("one", "cat"), ("two", "ox"))}}
    (folders[1] / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "unseen.txt").write_text("giant panda\nox\n")
    unseen = table("--protocol", "youtube-vos", "--unseen", "ox")
    assert "G: 0." in unseen and unseen == table("--protocol", "youtube-vos", "--unseen", tmp_path / "unseen.txt")
    write_mask(folders[0] / "two" / "masks" / "00002.png", np.kron(_square(4), np.ones((2, 2), np.uint8)))
    assert run("evaluate", *folders).code == 2 and table("--resize") == plain


def test_bad_input(run, folders, snapshot, tmp_path):
    drawn, davis = folders
    masks = drawn / "two" / "masks"
    report = ["-o", tmp_path / "report.json"]

    def refused(*args):
        before = snapshot()
        code, out, err = run("evaluate", *args)
        assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert snapshot() == before
        return err

    assert "no folder" in refused(tmp_path / "none", davis, *report)
    assert "no folder" in refused(drawn, tmp_path / "none", *report)
    assert "lie in the folder of the ground truth" in refused(davis, davis, *report)
    assert "is a folder: name a file" in refused(drawn, davis, "-o", tmp_path)
    assert "is a folder: name a file" in refused(drawn, davis, "--html", tmp_path)
    image = davis / "Annotations" / "480p" / "one" / "00000.png"
    assert "is a file: name a folder for the reports" in refused(drawn, davis, "--report", image)
    assert "there is no list val.txt" in refused(drawn, davis, "--sequences", "val.txt", *report)
    assert "no name in ','" in refused(drawn, davis, "--sequences", ",", *report)
    assert "no sequence three in the ground truth" in refused(drawn, davis, "--sequences", "three", *report)
    assert "no T under fbms" in refused(drawn, davis, "--protocol", "fbms", "--stability", *report)
    assert "leave out --no-stability" in refused(drawn, davis, "--protocol", "davis17", "--no-stability", *report)
    assert "no FLO or PFM or PNG" in refused(tmp_path / "davis" / "Annotations", davis, "--protocol", "flow", *report)

    (masks / "00002.png").rename(tmp_path / "00002.png")
    assert "1 of 3 scored frames of" in refused(drawn, davis, *report)
    write_mask(masks / "00002.png", np.zeros((12, 20), np.uint8))
    assert "00002.png is 20x12 and the ground truth 40x24" in refused(drawn, davis, *report)
    Image.fromarray(_square(2) * 255).resize((80, 48), Image.Resampling.BICUBIC).resize((40, 24)).convert("RGB").save(
        masks / "00002.png")  # fmt: skip
    assert "save as indexed PNG" in refused(drawn, davis, *report)
    write_mask(masks / "00002.png", _square(2, label=7))
    assert "has label 7" in refused(drawn, davis, "--protocol", "davis17", *report)
    (masks / "00002.png").write_bytes(b"\x89PNG")
    assert "cannot be read" in refused(drawn, davis, *report)


def test_a_report_that_cannot_be_written(run, folders, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run("evaluate", *folders, "-o", tmp_path / "file" / "report.json")
    assert code == 2 and err.startswith("error: cannot write") and err.count("\n") == 1 and "one" in out


def test_every_protocol_can_be_named(run, tmp_path):
    for protocol in PROTOCOLS:
        _, _, err = run("evaluate", tmp_path / "none", tmp_path / "none", "--protocol", protocol)
        assert "no folder" in err, protocol
