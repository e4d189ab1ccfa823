"""The report as a page and as CSV: self-contained, well-formed, with what was scored and nothing invented."""

import csv
import io
import os
import re
from html.parser import HTMLParser
from xml.dom import minidom

import numpy as np
import pytest
from evaluation.scenes import SIZE, moving, score, square, write
from PIL import Image

from jaxvos.data import write_flow
from jaxvos.errors import InputError
from jaxvos.evaluation import write_csv, write_html
from jaxvos.metrics import MeasureReport, SequenceMeasures, format_csv, format_json, format_table

_MISS = 2  # the frame of "two" that is drawn far off


class _Balanced(HTMLParser):
    """Fails on a tag that is not closed where it should be."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _page(report, tmp_path, **options):
    write_html(report, tmp_path / "report.html", **options)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    parser = _Balanced()
    parser.feed(text)
    assert not parser.open
    outside = [value for _, attrs in parser.seen for key, value in attrs.items() if key in ("src", "href")]
    assert all(value.startswith("data:") for value in outside) and "http" not in re.sub('base64,[^"]*', "", text)
    for svg in re.findall("<svg.*?</svg>", text):
        minidom.parseString(svg)
    return text, parser.seen


@pytest.fixture
def folders(tmp_path):
    davis = tmp_path / "davis"
    write(davis / "Annotations" / "480p" / "one", moving())
    write(davis / "Annotations" / "480p" / "two", moving(other=2))
    write(tmp_path / "a<b" / "one", moving(off=2))
    drawn = moving(off=2, other=2)
    drawn[_MISS] = square(1, shift=24)
    write(tmp_path / "a<b" / "two", drawn)
    return tmp_path / "a<b", davis


def _images(root, value=100):
    for name in ("one", "two"):
        (root / name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(np.full((48, 80, 3), value, np.uint8)).save(root / name / f"{index:05d}.png")
    return root


def test_numbers_bars_and_curves(folders, tmp_path):
    report = score(*folders, protocol="davis17", stability=True)
    text, seen = _page(report, tmp_path)
    for value in (report.j.mean, report.f.recall, report.j_and_f, report.t, report.sequences[1].j.mean):
        assert f"<td>{value:.3f}</td>" in text
    assert "a&lt;b" in text and "a<b" not in text
    bars = [attrs for tag, attrs in seen if tag == "rect" and attrs["fill"] != "#eee"]
    assert [float(bar["width"]) / 180 for bar in bars] == pytest.approx(
        [number for s in report.sequences for number in (s.j.mean, s.f.mean)], abs=1e-5)  # fmt: skip
    paths = [attrs for tag, attrs in seen if tag == "path"]
    assert len(paths) == 2 * 3, "J and F of each object"
    second = re.findall(r"[ML]([\d.]+),([\d.]+)", paths[3]["d"])
    assert paths[2]["stroke"] == "rgb(128,0,0)" and paths[3]["stroke"] == "rgb(0,128,0)"
    heights = [(166 - float(y)) / 156 for _, y in second]
    assert heights == pytest.approx(report.sequences[1].objects[1].j_frames, abs=1e-3)
    assert "<img" not in text


def test_the_worst_frames_are_drawn(folders, tmp_path):
    drawn, davis = folders
    _images(davis / "JPEGImages" / "480p")
    report = score(drawn, davis, protocol="davis17")
    text, _ = _page(report, tmp_path)
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert captions[0].startswith(f"two, frame 0000{_MISS}: J 0.000") and len(captions) == 4
    assert sum(caption.startswith("two") for caption in captions) == 2
    within, _ = _page(score(drawn, davis / "Annotations" / "480p", protocol="davis17"), tmp_path)
    assert within.count("<img") == 8
    other, _ = _page(report, tmp_path, images=_images(tmp_path / "dark", 0))
    assert other.count("<img") == 8 and other != text
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image in .*empty belongs to a scored frame"):
        write_html(report, tmp_path / "report.html", images=tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content"),
    [("db_info.yml", "attributes: [OCC, MB]\nsequences:\n- attributes: [OCC, MB]\n  name: one\n  set: val\n"
                     "- attributes:\n  - OCC\n  name: two\n  set: val\n"),
     ("attributes.txt", "# sequence: attributes\none: OCC, MB\ntwo: OCC\n")],
)  # fmt: skip
def test_attributes_where_they_are_known(folders, tmp_path, name, content):
    drawn, davis = folders
    report = score(drawn, davis, protocol="davis17")
    assert "By attribute" not in _page(report, tmp_path)[0]
    (davis / name).write_text(content)
    text, _ = _page(report, tmp_path)
    blur = report.objects[0]
    assert f"<td>MB</td><td>1</td><td>{blur.j.mean:.3f}</td><td>{blur.f.mean:.3f}</td>" in text
    assert f"<td>OCC</td><td>3</td><td>{report.j.mean:.3f}</td>" in text


def test_objects_that_begin_later_and_soft_maps(tmp_path):
    write(tmp_path / "truth" / "a", [square(3), *(square(3, other=7) for _ in range(3))])
    write(tmp_path / "drawn" / "a", [square(3, other=7)] * 4)
    _, seen = _page(score(tmp_path / "drawn", tmp_path / "truth", protocol="youtube-vos"), tmp_path)
    starts = [re.match(r"M([\d.]+),", attrs["d"])[1] for tag, attrs in seen if tag == "path"][:2]
    assert float(starts[0]) == 40 and float(starts[1]) == 40 + 670 / 2
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / "a" / "00001.png")
    soft = tmp_path / "soft" / "a"
    soft.mkdir(parents=True)
    for index in range(4):
        Image.fromarray(square(90, other=200)).save(soft / f"{index:05d}.png")
    text, _ = _page(score(tmp_path / "soft", tmp_path / "truth", protocol="fbms"), tmp_path, images=tmp_path / "images")
    assert "max F" in text and text.count("<img") == 2


def test_other_measures_have_a_page_too(tmp_path):
    for place, value in (("truth", 0.0), ("drawn", 3.0)):
        for index in range(3):
            write_flow(tmp_path / place / "a" / f"{index}.flo", np.full((4, 6, 2), value * index, np.float32))
    report = score(tmp_path / "drawn", tmp_path / "truth", protocol="flow")
    text, seen = _page(report, tmp_path)
    assert f"{report.measures['EPE']:.3f}" in text and sum(tag == "path" for tag, _ in seen) == 2
    assert [row[0] for row in csv.reader(io.StringIO(format_csv(report)))] == ["sequence", "a", "all"]


def test_csv_has_every_object(folders, tmp_path):
    report = score(*folders, protocol="davis17", stability=True)
    write_csv(report, tmp_path / "objects.csv")
    rows = list(csv.DictReader((tmp_path / "objects.csv").read_text().splitlines()))
    assert [(row["sequence"], row["object"]) for row in rows] == [
        ("one", "1"),
        ("two", "1"),
        ("two", "2"),
        ("all", "all"),
    ]
    assert float(rows[1]["J recall"]) == report.objects[1].j.recall and float(rows[3]["T"]) == report.t
    assert rows[2]["frames"] == "3" and float(rows[3]["J&F"]) == report.j_and_f
    without = score(*folders, protocol="davis17")
    assert list(csv.DictReader(io.StringIO(format_csv(without))))[0]["T"] == ""
    assert "|      T" in format_table(report) and "|      T" not in format_table(without)
    assert '"T"' in format_json(report) and '"T"' not in format_json(without)


def test_a_measure_that_does_not_exist_is_null():
    frames = SequenceMeasures("a", ("0",), {"EPE": float("nan")}, {"EPE": (float("nan"),)})
    report = MeasureReport("flow", "a", "b", {"EPE": float("nan")}, (frames,))
    assert format_json(report).count("null") == 3 and format_csv(report).splitlines()[1] == "a,1,"


def test_a_page_that_cannot_be_written_leaves_the_old_one(folders, tmp_path, monkeypatch):
    report, path = score(*folders, stability=False), tmp_path / "pages" / "report.html"
    write_html(report, path)
    before = path.read_text()
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InputError, match="cannot write"):
        write_html(report._replace(protocol="davis16"), path)
    assert path.read_text() == before and os.listdir(path.parent) == ["report.html"]
