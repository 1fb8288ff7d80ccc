"""Pictures of a report: which images are shown, from which data, and why there are none."""

import io
import sys

import numpy as np
import pytest
from PIL import Image
from support import rewritten

import deqsmooth as ds
from deqsmooth.certificates import cohen, rounding, verification
from deqsmooth.commands import report
from deqsmooth.reports import canvas, pictures, runs


@pytest.fixture(autouse=True)
def unrendered(monkeypatch):
    """Empty images in place of figures."""
    monkeypatch.setattr(canvas.Figure, "_render", lambda figure, page, kind: b"")


class Images:
    """A data set of images in which the number of the image is the value of every pixel."""

    identity, class_names = "digits/test", tuple(f"class {number}" for number in range(10))

    def __init__(self, labels, channels=1):
        self._labels, self._channels = labels, channels

    def __getitem__(self, index):
        return np.full((8, 8, self._channels), index / 510, np.float32), self._labels.get(index)


@pytest.fixture
def labels(run):
    return {c.index: c.label for c in verification.verify(run).found}


def change(header, records):
    """Radii that are spread, no prediction of image 0, and a wrong one of the next image."""
    for place, one in enumerate(records):
        one |= {"radius": 0.1 * (place + 1), "prediction": one["label"], "correct": True}
    records[0] |= {"prediction": None, "correct": False, "radius": 0.0}
    records[1] |= {"prediction": (records[1]["label"] + 1) % 10, "correct": False}


def value(picture):
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
    assert pixels.shape[:2] == (8, 8) and np.ptp(pixels) == 0
    return round(pixels.flat[0] / 255 * 510)


def test_least_and_most_robust_are_shown(run, tmp_path, labels):
    path = rewritten(run, tmp_path / "changed.jsonl", change)
    found = runs.read([path]).runs
    least, most = pictures.album(found, Images(labels)).extremes
    correct = [c.index for c in sorted(found[0].found, key=lambda c: c.radius) if c.correct]
    assert [value(one) for one in least.pictures] == correct[:6]
    assert [value(one) for one in most.pictures] == correct[6:][::-1] and len(correct) == 7
    name = f"class {labels[correct[0]]}"
    lines = (f"image {correct[0]}", f"label {name}", f"prediction {name}", f"radius {rounding.radius(0.1 * 3)}")
    assert least.pictures[0].lines == lines
    assert all("[NOT VERIFIED]" in row.title for row in (least, most))


def test_images_on_which_runs_differ(run, tmp_path, labels):
    """The largest difference first; images on which runs agree are not shown."""
    path = rewritten(run, tmp_path / "changed.jsonl", change)
    found = runs.read([run, path]).runs
    (row,) = pictures.album(found, Images(labels)).differing
    signed = [{c.index: c.radius if c.correct else -c.radius for c in one.found} for one in found]
    differences = [abs(signed[0][value(one)] - signed[1][value(one)]) for one in row.pictures]
    assert differences == sorted(differences, reverse=True) and 0 < len(differences) <= 6
    for one in row.pictures:
        assert one.lines[2].startswith("A: ") and one.lines[3].startswith("B [NOT VERIFIED]: ")
    (run.parent / "twin").mkdir(exist_ok=True)
    (run.parent / "twin" / run.name).write_bytes(run.read_bytes())
    same = runs.read([run, run.parent / "twin" / run.name]).runs
    assert pictures.album(same, Images(labels)).differing[0].pictures == ()


def other_identity(images):
    images.identity = "digits/train"


def other_label(images):
    images._labels = {index: (label + 1) % 10 for index, label in images._labels.items()}


def other_channels(images):
    images._channels = 2


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_identity, "the data set is digits/train, and the certificates are about digits/test"),
        (other_label, "in the data set and"),
        (other_channels, "a picture has 1, 3 or 4 channels"),
    ],
)
def test_unfit_pictures_are_left_out(run, tmp_path, labels, spoil, reason):
    """With a sentence on the page; the rest of the report is there."""
    images = Images(labels)
    spoil(images)
    # A correct image must be there to be shown.
    path = rewritten(run, tmp_path / "changed.jsonl", change)
    found = ds.report(path, images)
    assert found.album is None and reason in found.left_out[0]
    page = found.save(tmp_path / "report").read_text()
    assert "Pictures are left out: " in page and "image/png" not in page and "<table>" in page


def test_published_results_have_no_pictures(run, tmp_path, labels):
    cohen.write(tmp_path / "a.tsv", verification.verify(run).found)
    found = ds.report(tmp_path / "a.tsv", Images(labels))
    assert found.left_out == ["Pictures are left out: no file says exactly which data its images are from"]


@pytest.mark.parametrize("dataset", ["digits", 3, np.zeros((2, 8, 8, 1))])
def test_what_is_no_data_set(run, dataset):
    with pytest.raises(ValueError, match=r"dataset is of type .*; it must be a data set"):
        ds.report(run, dataset)


def test_page_describes_every_picture(run, tmp_path, labels):
    path = rewritten(run, tmp_path / "changed.jsonl", change)
    images = Images(labels)
    images.class_names = ("<b>",) * 10
    page = ds.report([run, path], images).save(tmp_path / "report").read_text()
    assert page.count('<img class="small" src="data:image/png;base64,') == page.count('alt="image ')
    assert page.count('alt="image ') >= 6 and "<b>" not in page and "label &lt;b&gt;" in page


def test_large_images_are_made_smaller():
    png = pictures._png(np.zeros((600, 300, 3)))
    assert Image.open(io.BytesIO(png)).size == (112, 224)


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_are_kept(grey, channels):
    pixels = np.asarray(Image.open(io.BytesIO(pictures._png(np.full((5, 7, channels), grey)))))
    assert pixels.shape[:2] == (5, 7) and np.all(pixels == round(255 * grey))


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deqsmooth-report", *map(str, arguments)])
    return report.main()


def test_command_reads_the_named_data(run, tmp_path, monkeypatch, capsys):
    path = rewritten(run, tmp_path / "changed.jsonl", change)
    call(monkeypatch, path, "--images", "--out", tmp_path / "report")
    assert "left out" not in capsys.readouterr().err
    assert "data:image/png;base64" in (tmp_path / "report" / "index.html").read_text()
    assert call(monkeypatch, run, "--out", tmp_path / "report") == 0
    assert "data:image/png;base64" not in (tmp_path / "report" / "index.html").read_text()


def test_missing_data_are_no_error(run, tmp_path, monkeypatch, capsys):
    def moved(header, records):
        header["selection"] |= {"dataset": "cifar10"}
        header["data"] = "cifar10/3.0.2/test"

    path = rewritten(run, tmp_path / "moved.jsonl", moved)
    status = call(monkeypatch, path, "--images", "--data-dir", tmp_path, "--out", tmp_path / "report")
    errors = capsys.readouterr().err
    # The header was changed, so that the file does not verify.
    assert status == 1 and "Pictures are left out: data set cifar10 is not prepared in" in errors
    assert 'class="faint">Pictures are left out: ' in (tmp_path / "report" / "index.html").read_text()
    assert call(monkeypatch, run, "--data-dir", tmp_path) == 2
    assert "data_dir is" in capsys.readouterr().err
