"""The tables of the README files against the records that they name."""

import pathlib
import re

import numpy as np
import pytest

from deqsmooth.certificates import record, rounding
from deqsmooth.statistics import bounds

ROOT = pathlib.Path(__file__).parent.parent
TABLE = re.compile(r"<!-- records: (\S+) -->\n(\|.*)\n.*\n((?:\|.*\n)+)")


def cells(line):
    return [cell.strip().strip("*") for cell in line.strip("|\n").split("|")]


def mean(found, name):
    return np.mean([getattr(certificate, name) for certificate in found])


def expected(found, first):
    """What a table says of certificates, by the headings; the first row is what the others are compared with."""
    correct, radii = [c.correct for c in found], [c.radius for c in found]
    said = {
        "samples": f"{mean(found, 'num_estimation'):,.0f}",
        "evaluations": f"{mean(found, 'evaluations'):,.0f}",
        "fewer": f"{mean(first, 'evaluations') / mean(found, 'evaluations'):.1f}",
        "s/image": f"{mean(found, 'seconds'):.2f}",
        "less": f"{mean(first, 'seconds') / mean(found, 'seconds'):.1f}",
        "mismatch %": "",
        "ACR": rounding.down(bounds.average_certified_radius(correct, radii), 3),
    }
    audited = sum(c.num_audit for c in found)
    if audited:
        said["mismatch %"] = f"{100 * sum(c.mismatches for c in found) / audited:.1f}"
    for radius in ("0", "0.25", "0.5", "0.75", "1"):
        said[radius] = rounding.percent(bounds.certified_accuracy(correct, radii, float(radius)))
    return said


@pytest.mark.parametrize("page", ["README.md", "results/README.md"])
def test_tables_say_what_their_records_say(page):
    path = ROOT / page
    tables = TABLE.findall(path.read_text())
    assert tables
    for folder, heading, lines in tables:
        headings = [name.removeprefix("r ") for name in cells(heading)[1:]]
        first = None
        for line in lines.splitlines():
            name, *shown = cells(line)
            file = name.split(":")[0].replace(",", "").replace(" ", "-") + ".jsonl"
            _, found = record.read(path.parent / folder / file)
            first = first or found
            said = expected(found, first) | ({"fewer": "1", "less": "1"} if found is first else {})
            shown_by_heading = dict(zip(headings, shown, strict=True))
            assert shown_by_heading == {heading: said[heading] for heading in headings}, name
