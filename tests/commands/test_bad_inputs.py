"""Bad input of commands that go on from certificates, or that run others: status 2, and nothing is written."""

import importlib
import json
import sys

import pytest

FLAGS = {
    "recertify": ["--budget 0", "--budget many", "--solver andersen", "--dtype float64", "--start nowhere",
                  "--tolerance nan", "--num-pairs 0", "--alpha-pairs 1", "--alpha-pairs 0", "--no-such-flag",
                  "--checkpoint nowhere", "--before nowhere", "--start previous"],
    "attack": ["--radii 0", "--radii -1", "--radii nan", "--radii 0.5,0.5", "--radii many", "--attack.steps 0",
               "--steps 0", "--restarts 0", "--draws 0", "--target nothing", "--num-estimation 0", "--alpha 1",
               "--checkpoint nowhere", "--no-such-flag"],
    "plan": ["", "--radius 0", "--radius -1", "--radius nan", "--radius inf", "--radius far",
             "--radius 1 --sigma 0",
             "--radius 1 --sigma nan", "--radius 1 --alpha 0", "--radius 1 --alpha 1", "--radius 1 --slack 1",
             "--radius 1 --pilot-images 0", "--radius 1 --pilot-samples 0", "--radius 1 --max-samples 0",
             "--radius 1 --dtype float64", "--radius 1 --seed -1", "--radius 1 --dataset digitz",
             "--radius 1 --split none", "--radius 1 --checkpoint nowhere", "--radius 1 --sigma 0.33",
             "--radius 1 --dataset arrays", "--radius 1 --dataset arrays --data-dir nowhere.npz"],
    "reproduce": ["nothing", "solver", "solvers --scale huge", "solvers --sigma 0", "solvers --sigma nan",
                  "solvers --sigma 0.33", "solvers --dataset digitz", "solvers --checkpoint nowhere",
                  "solvers --checkpoint a b", "solvers --dataset arrays", "solvers --sigma 0.5,0.5",
                  "solvers --sigma -1", "solvers --sigma many", "solvers --no-such-flag", "solvers --scale",
                  "solvers --dataset cifar10 --data-dir nowhere", "solvers --sigma inf", "solvers --out",
                  "bounds --checkpoint nowhere"],
}  # fmt: skip
FILES = ["missing.jsonl", "folder", "empty.jsonl", "text.jsonl", "page.json", "headless.jsonl", "edited.jsonl"]


def call(monkeypatch, capsys, command, *words):
    monkeypatch.setattr(sys, "argv", [f"deqsmooth-{command}", *words])
    try:
        status = importlib.import_module(f"deqsmooth.commands.{command}").main()
    except SystemExit as exit:
        status = exit.code
    output = capsys.readouterr()
    return status, output.out + output.err


@pytest.mark.parametrize("command", FLAGS)
def test_wrong_flags_write_nothing(command, run, tmp_path, monkeypatch, capsys):
    needs_file = command in ("recertify", "attack")
    header = json.loads(run.read_text().partition("\n")[0])
    if needs_file and header["smoothing"]["sampler"] == "serial":
        pytest.skip("only independent certificates are attacked and recertified")
    monkeypatch.chdir(tmp_path)
    first = [str(run)] if needs_file else []
    for flags in FLAGS[command]:
        status, text = call(monkeypatch, capsys, command, *first, *flags.split())
        assert status == 2 and "Traceback" not in text and text.strip(), flags
        assert list(tmp_path.rglob("*.jsonl")) == [], flags


@pytest.mark.parametrize("command", ["recertify", "attack"])
@pytest.mark.parametrize("name", FILES)
def test_wrong_files_write_nothing(command, name, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    header, *lines = run.read_text().splitlines(keepends=True)
    (tmp_path / "folder").mkdir()
    contents = {
        "empty.jsonl": "",
        "text.jsonl": "a page\nof text\n",
        "page.json": "[1, 2]\n",
        "headless.jsonl": "".join(lines),
        "edited.jsonl": header + "".join(lines).replace('"count": ', '"count": 1', 1),
    }
    if name in contents:
        (tmp_path / name).write_text(contents[name])
    before = sorted(tmp_path.rglob("*"))
    flag = "--budget" if command == "recertify" else "--radii"
    status, text = call(monkeypatch, capsys, command, name, flag, "1")
    assert status == 2 and text.startswith("error: ") and text.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
