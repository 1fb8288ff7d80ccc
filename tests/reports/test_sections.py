"""Sections and tables of a report: their order, the sign of differences, settings in common, and files."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from support import rewritten

from deqsmooth.certificates import cohen
from deqsmooth.reports import canvas, comparisons, overview, pictures, runs, sections, tables

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


def test_averages_are_of_common_images(pair, tmp_path):
    """Published radii have no interval, and no evaluations."""
    (row,) = comparisons.averages(*pair).rows
    assert row == ("ACR", "0.319", "0.500", "+0.180")
    (shorter,) = runs.read([published(tmp_path / "c.tsv", [0.6, 0.1])]).runs
    table = comparisons.averages(pair[1], shorter)
    assert table.rows[0][1:] == ("0.600", "0.350", "-0.250") and table.title.endswith(" over 2 images")


def test_fewer_evaluations_are_a_ratio(run, tmp_path):
    """With an interval of ACR, as the file holds votes; equal runs differ by nothing."""

    def cheaper(header, records):
        for one in records:
            one["evaluations"] = 2 * one["evaluations"]

    files = [run, rewritten(run, tmp_path / "b.jsonl", cheaper)]
    first, second = runs.read(files).runs
    table = comparisons.averages(first, second)
    assert table.title == "B minus A, averages over 9 images"
    assert table.rows[1][0] == "cell evaluations of an image" and table.rows[1][3] == "2 times more"
    assert table.rows[0][3].startswith("+0.000 (-") and " to " in table.rows[0][3]
    assert comparisons.averages(second, first).rows[1][3] == "2 times fewer"
    assert comparisons.averages(first, first).rows[1][3] == "equal"
    _, together = comparisons.together([first, second], [0.0, 0.5])
    assert together.rows == ((second.label, table.rows[0][3], "2 times more"),)


def test_differing_images_are_listed_once(pair):
    """As pictures if there are any, else as a table."""
    row = pictures.Row("differing", (pictures.Picture(b"", ()),))
    for album, num in (
        (None, 1),
        (pictures.Album((), (row,)), 0),
        (pictures.Album((), (row._replace(pictures=()),)), 1),
    ):
        found = next(one for one in sections.sections(pair, album) if one.heading == "Comparison").parts
        assert sum(isinstance(one, tables.Table) and "differ most" in one.title for one in found) == num
        assert sum(isinstance(one, pictures.Row) for one in found) == 1 - num


def test_page_says_what_was_not_drawn(run, pair):
    (meaning,) = [
        one for one in sections.sections(runs.read([run]).runs, None) if one.heading == "What this means"
    ]
    assert "not drawn again: `deqsmooth-verify FILE --replay N`" in meaning.parts[-1]
    (meaning,) = [one for one in sections.sections(pair, None) if one.heading == "What this means"]
    assert "deqsmooth-verify" not in " ".join(meaning.parts)


def test_evaluations_are_of_cells(run, tmp_path):
    """Of a model that solves; of whole networks for the others."""
    (found,) = runs.read([run]).runs
    assert (
        "cell evaluations" in overview.overview([found]).title
        and overview.evaluations([found]) == "cell evaluations"
    )
    explicit = rewritten(run, tmp_path / "b.jsonl", lambda header, _: header["reference"].update(solver=None))
    both = runs.read([run, explicit]).runs
    assert overview.evaluations(both[1:]) == "network evaluations"
    assert overview.evaluations(both) == "cell or network evaluations"


def test_residuals_stand_beside_evaluations(run):
    (found,) = runs.read([run]).runs
    (table,) = overview.costs([found])
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert list(row)[1:3] == ["evaluations", "residual"]
    residuals = [c.residuals[0] for c in found.found]
    assert float(row["residual"]) == pytest.approx(np.median(residuals), rel=0.05)
    assert "not of the equilibrium" in table.title and "cell evaluations" in table.title
    assert ("mismatches" in row) == (found.checked.settings.sampler == "serial")


def test_published_radii_have_no_costs(pair):
    assert list(overview.costs(pair)) == []


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
    assert [name for name, _ in headings(three) if " minus A" in name] == ["B minus A", "C minus A"]
    assert {("B minus A", True), ("C minus A", True)} <= set(headings(three))
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
    rows = dict(alone[0].rows)
    assert rows["soundness check"] == "passed"
    assert rows["images"] == "9 of 360: indices 0, 40, 80, ..."
    digests = {"checkpoint": "0123456789abcdef", "program": "fedcba9876543210"}
    own = rewritten(run, tmp_path / "d.jsonl", lambda header, _: header["reference"].update(digests))
    rows = dict(next(overview.settings(runs.read([own]).runs)).rows)
    assert (rows["parameters (digest)"], rows["code (digest)"]) == ("0123456789ab", "fedcba987654")
    assert list(overview.settings(runs.read([tmp_path / "b.tsv"]).runs)) == []


def test_files_are_identified(run, tmp_path):
    (found,) = runs.read([run]).runs
    (row,) = overview.files([found]).rows
    assert row[:2] == (found.label, str(run))
    assert found.checked.header["sha256"].startswith(row[2]) and found.checked.file.lines[-1].chain.startswith(
        row[3]
    )
    assert len(row[2]) == len(row[3]) == 12
