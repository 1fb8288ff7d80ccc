"""Flags of every command: their help in groups, and malformed ones, which end in one sentence."""

import importlib
import re
import sys
import warnings

import pytest
import tyro

from deqsmooth.commands import (
    attack,
    certify,
    convert,
    flags,
    listing,
    merge,
    plan,
    recertify,
    report,
    reproduce,
    train,
    verify,
)

COMMANDS = {
    "attack": attack.Flags,
    "certify": certify.Flags,
    "convert": convert.Flags,
    "merge": merge.Flags,
    "plan": plan.Flags,
    "recertify": recertify.Flags,
    "report": report.Flags,
    "reproduce": reproduce.Flags,
    "train": train.Flags,
    "train --phase start": train.StartFlags,
    "verify": verify.Flags,
}
COMMON = {"certify": 12, "train": 12, "train --phase start": 14}


def call(monkeypatch, command, *words):
    """The exit status of a command."""
    name, *more = command.split()
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *more, *words])
    try:
        return importlib.import_module(f"deqsmooth.commands.{name}").main()
    except SystemExit as end:
        return end.code


def shown(text):
    """The flags that a help shows."""
    return re.findall(r"^  (--[\w.-]+|[A-Z]+(?= |$)|\[[A-Z]+\])", text, re.MULTILINE)


def names(command):
    return [flag.name for flag in listing.flags(COMMANDS[command])]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_one_heading(command):
    fields = {flag.field for flag in listing.flags(COMMANDS[command])}
    grouped = [name for pair in COMMANDS[command].GROUPS.values() for part in pair for name in part.split()]
    assert sorted(grouped) == sorted(fields)


@pytest.mark.parametrize("command", COMMANDS)
def test_listed_flags_are_those_parsed(command):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(COMMANDS[command])
    parsed = {word for action in parser._actions for word in action.option_strings} - {"-h", "--help"}
    switches = {f"--no-{flag.name[2:]}" for flag in listing.flags(COMMANDS[command]) if not flag.values}
    # A switch of a nested dataclass is negated after the dot.
    switches = {re.sub(r"--no-(.+)\.(.+)", r"--\1.no-\2", name) for name in switches}
    listed = {name for name in names(command) if name.startswith("--")}
    assert listed | switches == parsed


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_have_help_texts(command):
    assert [flag.name for flag in listing.flags(COMMANDS[command]) if not flag.text.endswith((".", "`"))] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_most_needed_flags(monkeypatch, capsys, command):
    assert call(monkeypatch, command, "--help") == 0
    page = capsys.readouterr().out
    assert call(monkeypatch, command, "--help-all") == 0
    whole = capsys.readouterr().out
    every = len(names(command))
    assert set(shown(page)) <= set(shown(whole)) and len(shown(whole)) == every
    assert command not in COMMON or len(shown(page)) == COMMON[command]
    hidden = every - len(shown(page))
    assert page.splitlines()[-1] == f"--help-all shows {hidden} more flags" or not hidden
    assert "more flags" not in whole and "default: None" not in " ".join(whole.split())


def test_help_is_grouped_and_narrow(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "70")
    assert call(monkeypatch, "certify", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if line in certify.Flags.GROUPS]
    assert headings == list(certify.Flags.GROUPS)
    assert lines[lines.index("noise and statistics") + 1].startswith("  --sigma FLOAT ")
    assert max(map(len, lines)) <= 70


def test_help_shows_defaults_of_preset(monkeypatch, capsys):
    assert call(monkeypatch, "certify", "--preset", "mdeq-5b", "--help-all") == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "(default: broyden)" in page and "(default: independent)" in page and "(default: 0)" in page


def test_all_flags_are_accepted(monkeypatch):
    words = ["--stop-radius=0.5", "--looks", "100,1000", "--num_estimation", "1000", "--sampler", "independent"]
    monkeypatch.setattr(
        sys, "argv", ["certify.py", *words, "--no-predict", "--data-dir", "1,2", "--block", "auto"]
    )
    found = flags.parse(certify.Flags, "certify", certify.preset)
    assert (found.smoothing.stop_radius, found.smoothing.looks) == (0.5, (100, 1000))
    assert (found.selection.data_dir, found.smoothing.block) == ("1,2", "auto")


@pytest.mark.parametrize("words", [("--seed", "random"), ("--seed=random",)])
def test_random_seed_becomes_a_number(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["certify.py", *words])
    seeds = {flags.parse(certify.Flags, "certify").smoothing.seed for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("preset", [(), ("--preset", "mdeq-5a"), ("--preset=mdeq-5a",)])
def test_few_flags_are_enough(monkeypatch, preset):
    monkeypatch.setattr(sys, "argv", ["certify.py", *preset])
    found = flags.parse(certify.Flags, "certify", certify.preset)
    assert found.preset == ("mdeq-5a" if preset else None)
    assert found.smoothing.sigma == 0.5 and found.selection.dataset == "digits"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert flags.parse(train.Flags, "train").settings.sigma == 0.5


def test_negative_numbers_of_lists_are_values(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--jacobian-budget", "-2,1"])
    assert flags.parse(train.Flags, "train").settings.jacobian_budget == (-2, 1)


@pytest.mark.parametrize(
    ("command", "words", "rule"),
    [
        ("certify", "--alpha nan", "alpha is nan; it must be in (0, 1)"),
        ("certify", "--alpha 0,5", "--alpha is 0,5; it must be a number"),
        ("certify", "--sigma inf", "sigma is inf; it must be a finite positive number"),
        ("certify", "--sigma=-inf", "sigma is -inf; it must be a finite positive number"),
        ("certify", "--max-images 0", "max_images is 0; it must be at least 1"),
        ("certify", "--max-images=1.5", "--max-images is 1.5; it must be a whole number"),
        ("certify", "--looks 100,,200", "--looks is 100,,200; it must be a whole number"),
        (
            "certify",
            "--looks 100,10000, --sampler independent",
            "--looks is 100,10000,; it must be a whole number",
        ),
        ("certify", "--looks 100;200", "--looks is 100;200; it must be a whole number"),
        ("certify", "--seed -1", "seed is -1; it must be from 0 to 2**32 - 1"),
        ("certify", "--seed 1e3", "--seed is 1e3; it must be a whole number"),
        ("certify", "--seed 4294967296", "seed is 4294967296; it must be from 0 to 2**32 - 1"),
        ("certify", "--seed random,1", "--seed is random,1; it must be a whole number"),
        ("certify", "--stride 0", "stride is 0; it must be at least 1"),
        ("certify", "--block automatic", "--block is automatic; it must be a whole number or auto"),
        ("certify", "--tolerance nan", "tolerance is nan; it must be a finite positive number"),
        ("certify", "--preset nonsense", "unknown preset 'nonsense'; known: mdeq-1a"),
        ("certify", "--preset nonsense --help", "unknown preset 'nonsense'; known: mdeq-1a"),
        ("train", "--epochs 1e1", "--epochs is 1e1; it must be a whole number"),
        ("train", "--learning-rate nan", "learning_rate is nan; it must be"),
        ("train", "--sigma x", "--sigma is x; it must be a number"),
        ("train", "--model.channels 8.0", "--model.channels is 8.0; it must be a whole number"),
        ("train", "--preset digit", "unknown preset 'digit'; known: digits"),
        ("train --phase start", "--fine-tune nan", "fine_tune is nan; it must be"),
        ("train --phase start", "--seed -1", "seed is -1; it must be from 0 to 2**32 - 1"),
        ("plan", "--radius nan", "radius is nan; it must be a finite positive number"),
        ("plan", "--radius 1 --seed 1e3", "--seed is 1e3; it must be a whole number"),
        ("plan", "--radius 1 --max-samples 0", "max_samples is 0; it must be at least 1"),
        ("attack", "x --max-images 0", "max_images is 0; it must be at least 1"),
        ("attack", "x --radii 0.5,,1", "--radii is 0.5,,1; it must be a number"),
        ("attack", "x --alpha nan", "alpha is nan; it must be in (0, 1)"),
        ("recertify", "x --num-pairs 0", "num_pairs is 0; it must be at least 1"),
        ("recertify", "x --tolerance inf", "tolerance is inf; it must be a finite positive number"),
        ("reproduce", "solvers --sigma 0.5,nan", "sigma is nan; it must be a finite positive number"),
        ("convert", "x --out y --model.channels 8,x", "--model.channels is 8,x; it must be a whole number"),
        ("convert", "x --out y --preset nonsense", "unknown preset 'nonsense'; known: mdeq-small"),
        ("verify", "x --replay 1.5", "--replay is 1.5; it must be a whole number"),
        ("verify", "x --replay -1", "replay is -1; it must be at least 0"),
        ("verify", "", "no file of certificates is given"),
        ("merge", "--out x", "no file of certificates is given"),
        ("report", "", "no file of certificates is given"),
    ],
)
def test_malformed_flag_gives_one_sentence(monkeypatch, capsys, command, words, rule):
    assert call(monkeypatch, command, *words.split()) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith(f"error: {rule}") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words", "hint"),
    [
        ("certify", "--sigam 0.25", "--sigma"),
        ("train", "--leaning-rate 1", "--learning-rate"),
        ("plan", "--radius 1 --max-sample 5", "--max-samples"),
        ("verify", "x --replays 1", "--replay"),
        ("certify", "--preset", "Missing value for argument '--preset'"),
        ("certify", "--sigma", "Missing value for argument '--sigma'"),
        ("plan", "", "--radius"),
        ("merge", "x", "--out"),
    ],
)
def test_wrong_flag_is_named(monkeypatch, capsys, command, words, hint):
    assert call(monkeypatch, command, *words.split()) == 2
    assert hint in capsys.readouterr().err
