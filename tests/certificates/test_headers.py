"""Headers compared: settings are named before what follows from them, with both values."""

import dataclasses

import pytest
from support import VOTES, header_of, signed

from deqsmooth.certificates import headers


def different(one, other):
    return headers.differences(one, other, "in the file", "now")


def test_settings_are_named_before_digests():
    model = {"checkpoint": "1" * 64, "solver": "x"}
    text = different(header_of(), header_of(dataclasses.replace(VOTES, seed=2, alpha=0.001), reference=model))
    assert text == ("alpha is 0.01 in the file and 0.001 now; seed is 0 in the file and 2 now; the model differs")
    assert "0000" not in text and "sha256" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "other"}, 'device is "abacus" in the file and "other" now'),
        ({"num_images": 10}, "num_images is 360 in the file and 10 now"),
        ({"reference": {"checkpoint": "1" * 64, "solver": "sketched-anderson"}}, "the model differs"),
        ({"data": "sha256:" + "1" * 64}, "the data set differs"),
        ({"schema": 3, "seed": 9}, "schema is 5 in the file and 3 now; seed is null in the file and 9 now"),
        ({"training": {"epochs": 3}}, "training.epochs is null in the file and 3 now"),
        ({"kind": "attack", "schema": 7}, 'kind is "header" in the file and "attack" now'),
    ],
)
def test_entry_is_named_with_both_values(change, message):
    assert different(header_of(), signed({**header_of(), **change})) == message


def test_digest_is_named_if_alone():
    assert different(header_of(), {**header_of(), "sha256": "1" * 64}) == "the sha256 differs"


def test_many_differences_are_counted():
    other = header_of(dataclasses.replace(VOTES, seed=1, alpha=0.5, sigma=1, lanes=5, budget=7))
    text = different(header_of(), other)
    assert text.count("in the file") == 4 and text.endswith("; and 1 more")


def test_same_header_is_accepted():
    headers.same_run("run.jsonl", header_of(), header_of())
    with pytest.raises(ValueError, match=r"run.jsonl was begun by another run: .* give another --out"):
        headers.same_run("run.jsonl", header_of(), header_of(device="other"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_images": 0}, "num_images is 0"),
        ({"num_images": "9"}, "num_images is 9"),
        ({"smoothing": {"sigma": -1}}, "sigma is -1"),
        ({"smoothing": {"lanes": 0}}, "lanes is 0"),
        ({"smoothing": []}, "no settings"),
        ({"selection": {"dataset": "digits", "stride": 0}}, "stride is 0"),
        ({"reference": None}, "no settings"),
        ({"reference": {}}, "no entry 'solver'"),
    ],
)
def test_impossible_header_is_refused(change, message):
    with pytest.raises(ValueError, match=rf"run.jsonl, line 1: .*{message}"):
        headers.terms("run.jsonl", {**header_of(), **change})
