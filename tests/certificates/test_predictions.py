"""Files of predictions: the class follows from the votes, and a run goes on only in a file that verifies."""

import dataclasses
import json

import pytest
from support import VOTES, header_of

from deqsmooth.certificates import predictions, writing
from deqsmooth.certificates.predictions import Prediction

HEADER = predictions.header(header_of(VOTES))
FOUND = [
    Prediction(0, 0, 0, (90, 10, 0)),
    Prediction(8, 0, None, (50, 49, 1)),
    Prediction(16, 0, 1, (10, 90, 0)),
]


@pytest.fixture
def path(tmp_path):
    with writing.Lines(tmp_path / "run.jsonl", HEADER, predictions.read) as file:
        for one in FOUND:
            file.write(one)
    return tmp_path / "run.jsonl"


def test_what_is_written_is_read(path):
    file = predictions.parse("run.jsonl", path.read_text())
    assert (file.header, file.predictions, file.is_whole) == (json.loads(json.dumps(HEADER)), FOUND, True)
    assert predictions.differences(file) == []
    assert [one.correct for one in FOUND] == [True, False, False]
    with writing.Lines(path, HEADER, predictions.read) as again:
        assert again.done == FOUND


def test_cut_off_line_is_written_again(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert not predictions.parse("run.jsonl", path.read_text()).is_whole
    with writing.Lines(path, HEADER, predictions.read) as again:
        assert again.done == FOUND[:2]
        again.write(FOUND[2])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": 1}, "line 2: prediction is 1; it should be 0"),
        ({"prediction": None}, "line 2: prediction is None; it should be 0"),
        ({"counts": (50, 49, 1)}, "line 2: prediction is 0; it should be None"),
        ({"counts": (90, 9, 0)}, "line 2: counts adds up to 99; the header says 100"),
        ({"counts": (110, -10, 0)}, "line 2: counts is"),
        ({"counts": ()}, "line 2: counts is"),
        ({"label": 2}, "line 2: label is 2; it must be from 0 to 1"),
        ({"index": 16}, "line 4: image 16 has a prediction already, in line 2"),
        ({"index": 1}, "line 2: index is 1, which the header does not select"),
        ({"index": 360}, "line 2: index is 360, beyond the 360 images"),
        ({"index": "0"}, "line 2, is no prediction: index is '0'; it must be int"),
        ({"counts": "many"}, "line 2, is no prediction: counts is"),
    ],
)
def test_changed_value_ends_the_run(path, tmp_path, change, message):
    lines = [HEADER, dataclasses.asdict(FOUND[0]) | change, *map(dataclasses.asdict, FOUND[1:])]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"run\.jsonl, {message}"):
        writing.Lines(path, HEADER, predictions.read)
    assert path.read_bytes() == before


def test_changed_header_is_found(path):
    file = predictions.parse("run.jsonl", path.read_text().replace('"alpha": 0.01', '"alpha": 0.02'))
    assert ["line 1: sha256 is" in message for message in predictions.differences(file)] == [True]
