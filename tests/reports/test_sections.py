"""Sections and tables of a report: their order, the sign of differences, settings in common, and files."""

import itertools

import pytest
from matplotlib.figure import Figure

from deqsmooth.certificates import cohen
from deqsmooth.reports import canvas, comparisons, overview, runs, sections, tables

TSV = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def published(path, radii, label=1):
    """Results of images 0, 1, ...; a negative radius is that of a wrong prediction."""
    lines = (
        f"{i}\t{label}\t{label if r >= 0 else 0}\t{abs(r)}\t{int(r >= 0)}\t0.1\n" for i, r in enumerate(radii)
    )
    path.write_text(TSV + "".join(lines))
    return path


@pytest.fixture
def pair(tmp_path):
    first = published(tmp_path / "a.tsv", [0.6, 0.1, 0.6, -0.9, 0.3])
    return runs.read([first, published(tmp_path / "b.tsv", [0.6, 0.6, 0.6, 0.7, -0.3])]).runs


def test_difference_is_second_minus_first(pair):
    """At 0.5 only B certifies images 1 and 3."""
    table = comparisons.comparison(*pair, [0.0, 0.5])
    assert table.headings == ("radius", "only A", "only B", "B minus A, points (95 % interval)", "p")
    assert table.rows[1][:3] == ("0.5", "0", "2") and table.rows[1][3].startswith("+40.0 (")
    assert table.rows[0][:3] == ("0", "1", "1") and table.rows[0][3].startswith("+0.0 (")
    assert comparisons.comparison(*pair[::-1], [0.5]).rows[0][3].startswith("-40.0 (")
    assert "'Only A' counts" in comparisons.convention(pair) and "always B minus A" in comparisons.convention(pair)


def test_largest_differences_come_first(pair):
    rows = comparisons.disagreements(*pair).rows
    assert [row[0] for row in rows] == ["3", "4", "1"]
    assert rows[0][1:] == ("1", "0", "0.900", "1", "0.700")


def test_first_table_has_few_columns(tmp_path):
    """Evenly spaced radii from 0, however large the radii are."""
    for largest in (0.1, 0.8, 4.0, 1e6):
        (run,) = runs.read([published(tmp_path / "a.tsv", [largest, 0.1])]).runs
        few = overview.few_radii([run])
        table = overview.overview([run])
        assert few[0] == 0 and len(few) >= 2 and len(table.headings) <= 9
        assert [f"r = {radius:g}" for radius in few] == list(table.headings[1 : 1 + len(few)])
        assert all(b - a == pytest.approx(few[1]) for a, b in itertools.pairwise(few))


def headings(found):
    return [(section.heading, section.is_folded) for section in found]


def test_page_begins_with_curve_and_table(run, tmp_path):
    found = runs.read([run]).runs
    first, *others = sections.sections(found, None)
    assert first.heading == "" and not first.is_folded
    curve, table = first.parts
    assert isinstance(curve, canvas.Figure) and curve.name == "certified-accuracy"
    assert isinstance(table, tables.Table) and table.rows[0][0] == found[0].label
    names = [section.heading for section in others]
    assert names[0] == "What this means" and names[-1] == "Files"
    assert not {"Comparison", "Comparisons", "Accuracy against evaluations", "Pictures"} & set(names)


def test_third_run_brings_the_trade(run, tmp_path):
    """Each other run is then compared in a section of its own."""
    files = [tmp_path / f"{place}.jsonl" for place in range(3)]
    for file in files:
        file.write_bytes(run.read_bytes())
    two, three = (sections.sections(runs.read(files[:num]).runs, None) for num in (2, 3))
    assert ("Comparison", False) in headings(two)
    assert "Accuracy against evaluations" not in dict(headings(two))
    assert ("Accuracy against evaluations", False) in headings(three) and ("Comparisons", False) in headings(three)
    folded = [name for name, is_folded in headings(three) if is_folded and " minus A" in name]
    assert len(folded) == 2 and folded[0].startswith("B: ") and folded[1].startswith("C: ")
    figure = next(s for s in three if s.heading == "Accuracy against evaluations").parts[0]
    axes = Figure().add_subplot()
    figure.draw(axes)
    assert len({tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() != "None"}) == 1


def test_settings_in_common_are_said_once(run, tmp_path):
    cohen.write(tmp_path / "b.tsv", runs.read([run]).runs[0].found)
    (tmp_path / "c.jsonl").write_bytes(run.read_bytes())
    alone = list(overview.settings(runs.read([run]).runs))
    together = list(overview.settings(runs.read([run, tmp_path / "b.tsv", tmp_path / "c.jsonl"]).runs))
    assert [table.rows for table in alone] == [table.rows for table in together]
    assert dict(alone[0].rows)["soundness check"] == "passed"
    assert list(overview.settings(runs.read([tmp_path / "b.tsv"]).runs)) == []


def test_files_are_identified(run, tmp_path):
    (found,) = runs.read([run]).runs
    (row,) = overview.files([found]).rows
    assert row[:2] == (found.label, str(run))
    assert found.checked.header["sha256"].startswith(row[2]) and found.checked.file.lines[-1].chain.startswith(
        row[3]
    )
    assert len(row[2]) == len(row[3]) == 12
