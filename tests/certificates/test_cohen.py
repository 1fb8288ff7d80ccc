"""Result files in the format of Cohen et al.: written files are read back, and malformed ones are refused."""

import pytest
from support import certificate

from deqsmooth.certificates import cohen, statements

LINES = """idx	label	predict	radius	correct	time
0	3	-1	0.0	0	15.3
20	7	7	0.613	1	0:00:14.250000
40	1	5	0.2	0	1:01:00
"""


def test_file_is_read(tmp_path):
    path = tmp_path / "published.tsv"
    path.write_text(LINES)
    found = cohen.read(path)
    assert found == [
        cohen.Published(0, 3, None, 0.0, False, 15.3),
        cohen.Published(20, 7, 7, 0.613, True, 14.25),
        cohen.Published(40, 1, 5, 0.2, False, 3660.0),
    ]
    assert statements.average_certified_radius(found) == pytest.approx(0.613 / 3)


def test_written_radii_are_rounded_down(tmp_path):
    path = tmp_path / "ours.tsv"
    chosen = [
        certificate(0, label=3, prediction=None, correct=False, radius=0.0, seconds=1.5),
        certificate(8, label=3, prediction=3, correct=True, radius=0.61299999, seconds=61.0),
    ]
    cohen.write(path, chosen)
    assert path.read_text().splitlines()[0] == "idx\tlabel\tpredict\tradius\tcorrect\ttime"
    assert cohen.read(path) == [
        cohen.Published(0, 3, None, 0.0, False, 1.5),
        cohen.Published(8, 3, 3, 0.612, True, 61.0),
    ]
    with pytest.raises(ValueError, match="image 8 has no label"):
        cohen.write(path, [certificate(8, label=None)])
    with pytest.raises(ValueError, match="cannot write"):
        cohen.write(tmp_path / "none" / "ours.tsv", chosen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("idx", "index"), "does not begin with the columns idx, label"),
        (("0.613", "wide"), "line 3: could not convert"),
        (("\t1\t0:00", "\t0\t0:00"), "line 3: correct is 0 for label 7 and prediction 7"),
        (("\t15.3", ""), "line 2: not enough values"),
    ],
)
def test_malformed_file_is_refused(tmp_path, change, message):
    path = tmp_path / "broken.tsv"
    path.write_text(LINES.replace(*change))
    with pytest.raises(ValueError, match=message):
        cohen.read(path)
    with pytest.raises(ValueError, match="cannot read"):
        cohen.read(tmp_path / "none.tsv")
