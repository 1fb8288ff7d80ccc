"""State dicts in the layouts of common training code, and files that hold none."""

import dataclasses
import pickle
import sys
import types

import jax
import numpy as np
import published
import pytest

from deqsmooth.config import architecture
from deqsmooth.models import parity, pytorch, state_dicts

SIZE = architecture.ResnetModel(image_shape=(16, 16, 3), blocks=(2, 1, 2), channels=(4, 6, 8))
STATE = published.state_dict(SIZE)
MDEQ = architecture.MdeqModel(channels=(8, 16), head_channels=(2, 3), final_channels=6, image_shape=(8, 8, 3))
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def prefixed(prefix, state=STATE):
    return {f"{prefix}{name}": x for name, x in state.items()}


def normaliser(mean, std, shape=(3, 1, 1)):
    return {
        mean: np.asarray(MEAN, np.float32).reshape(shape),
        std: np.asarray(STD, np.float32).reshape(shape),
    }


def cifar_names(state=STATE):
    """The names that residual networks for CIFAR-10 often have."""
    return {name.replace("downsample.", "shortcut.").replace("fc.", "linear."): x for name, x in state.items()}


LAYOUTS = {
    "normalize first": {**prefixed("1."), **normaliser("0.mean", "0.std")},
    "normalize inside": {**STATE, **normaliser("normalize.mean", "normalize.std", (1, 3, 1, 1))},
    "one level": {**prefixed("model."), **normaliser("normalizer.mean", "normalizer.std", (3,))},
    "parallel": {**prefixed("module.model."), **normaliser("module.normalize.means", "module.normalize.sds")},
    "bare arrays": {**prefixed("net."), **normaliser("mean", "std")},
    "robustness": {
        **prefixed("module.model.", cifar_names()),
        **prefixed("module.attacker.model.", cifar_names()),
        **normaliser("module.normalizer.new_mean", "module.normalizer.new_std"),
        **normaliser("module.attacker.normalize.new_mean", "module.attacker.normalize.new_std"),
        "module.model.bn1.num_batches_tracked": np.array(3),
    },
    "copy inside": {**STATE, **prefixed("attacker.model."), **normaliser("normalize.mean", "normalize.std")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_normaliser_becomes_that_of_model(layout):
    variables, size = pytorch.convert(LAYOUTS[layout], SIZE)
    assert size == dataclasses.replace(SIZE, mean=MEAN, std=STD)
    images = np.random.default_rng(1).uniform(size=(3, 3, 16, 16)).astype(np.float32)
    # The independent implementation standardises with the normaliser, too.
    logits = published.Resnet(STATE, size).logits(images)
    assert all(c.passed for c in parity.compare(variables, size, {"x": images, "logits": logits}))
    plain, _ = pytorch.convert(STATE, SIZE)
    jax.tree.map(np.testing.assert_array_equal, variables, plain)


@pytest.mark.parametrize("prefix", ["module.", "model.", "0.1.", "a.b.c.", "layer1.0."])
@pytest.mark.parametrize("size", [SIZE, MDEQ], ids=["resnet", "mdeq"])
def test_any_prefix_is_taken_off(prefix, size):
    state = published.state_dict(size)
    found, same = pytorch.convert(prefixed(prefix, state), size)
    jax.tree.map(np.testing.assert_array_equal, found, pytorch.convert(state, size)[0])
    assert same == size


def without_bias(state):
    return {name: x for name, x in state.items() if "fc.bias" not in name}


def pair(mean, std, parent="n"):
    return {**STATE, f"{parent}.mean": np.asarray(mean), f"{parent}.std": np.asarray(std)}


OTHER = {name: x + 1 for name, x in STATE.items()}
BAD = {
    "two networks": ({**prefixed("a."), **prefixed("b.", OTHER)}, "two networks that differ, under 'a.' and 'b.'"),
    "two normalisers": (
        {**pair([0, 0, 0], [1, 1, 1]), **normaliser("a.mean", "a.std")},
        r"normalisers that differ: 'n.mean' \(0.0, 0.0, 0.0\) and .*, 'a.mean' \(0.49, 0.48, 0.45\)",
    ),
    "two channels": (pair([0, 0], [1, 1]), "size of 'n.mean' is 2; it must be 1 or the number of channels"),
    "zero std": (pair([0, 0, 0], [0, 0, 0]), "standard deviation 'n.std' is .*; it must be positive"),
    "nan mean": (pair([np.nan, 0, 0], [1, 1, 1]), "'n.mean' is .*; it must be finite"),
    "mean alone": ({**STATE, "n.mean": np.zeros(3)}, "1 unexpected: n.mean"),
    "missing": (without_bias(prefixed("module.")), r"1 missing: fc\.bias; its names begin with 'module\.'"),
    "extra": ({**prefixed("module."), "module.fc2.bias": np.zeros(3)}, r"1 unexpected: fc2\.bias"),
    "shape": (
        {**STATE, "layer1.0.conv1.weight": np.zeros((4, 3, 3, 3))},
        r"layer1\.0\.conv1\.weight has shape \(4, 3, 3, 3\), for \(4, 4, 3, 3\)$",
    ),
    "rank": ({**STATE, "fc.weight": np.zeros(8)}, r"fc\.weight has shape \(8,\), for \(10, 8\)"),
    "nan": ({**STATE, "fc.bias": np.full(10, np.nan)}, r"fc\.bias has entries that are no finite numbers"),
    "text": ({**STATE, "fc.bias": np.full(10, "a")}, r"no finite numbers \(type <U1\)"),
    "images": ({"images": np.zeros(3), "labels": np.zeros(3)}, "its names: images, labels; a prefix P is taken"),
    "nothing": ({}, "none of the model's names"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_state_dict_is_refused(case):
    state, message = BAD[case]
    with pytest.raises(ValueError, match=message) as raised:
        pytorch.convert(state, SIZE)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800


def test_another_network_is_recognised():
    """A residual network of another size, and one that is given as a DEQ: the message has the flags to give."""
    bottleneck = dataclasses.replace(SIZE, bottleneck=True, stem=7, num_classes=7)
    for state, wanted, flags in (
        (
            LAYOUTS["robustness"],
            MDEQ,
            "--model.blocks 2,1,2 --model.channels 4,6,8 --model.stem 3 --model.num-classes 10",
        ),
        (STATE, dataclasses.replace(SIZE, blocks=(3, 3, 3)), "--model.blocks 2,1,2"),
        (published.state_dict(bottleneck), SIZE, "--model.stem 7 --model.num-classes 7 --model.bottleneck"),
    ):
        with pytest.raises(
            ValueError, match=r"residual network, such as --preset resnet110 --model\.blocks"
        ) as raised:
            pytorch.convert(state, wanted)
        assert flags in str(raised.value)
        if "module.model.bn1.bias" in state:
            assert "begin with 'module.model.' and with 'module.attacker.model.'" in str(raised.value)


class Refusal:
    """A stand-in for PyTorch that loads nothing, with the texts of its exceptions."""

    def __init__(self, error):
        self.error = error

    def load(self, path, map_location, weights_only):
        assert weights_only and map_location == "cpu"
        raise self.error


ADVICE = (
    "Weights only load failed. In PyTorch 2.6, we changed the default value of the `weights_only` argument ... "
    "Re-running `torch.load` with `weights_only` set to `False` will likely succeed, but it can result in "
    "arbitrary code execution.\n\t(2) \x1b[1mAlternatively ... WeightsUnpickler error: "
)
REFUSALS = [
    (
        pickle.UnpicklingError(f"{ADVICE}Unsupported global: GLOBAL torch.nn.modules.container.Sequential was"),
        r"holds Python objects \(torch\.nn\.modules\.container\.Sequential\).*model\.state_dict\(\)",
    ),
    (
        pickle.UnpicklingError(f"{ADVICE}Unsupported class numpy._core.multiarray.scalar"),
        r"holds Python objects \(numpy\._core\.multiarray\.scalar\)",
    ),
    (RuntimeError("Cannot use ``weights_only=True`` with TorchScript archives"), "is a TorchScript program"),
    (RuntimeError("PytorchStreamReader failed reading zip archive"), "is damaged, or no PyTorch file"),
    (EOFError(), "is damaged, or no PyTorch file"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message"), REFUSALS, ids=range(len(REFUSALS)))
def test_refusal_is_in_own_words(error, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", Refusal(error))
    path = tmp_path / "whole.pt"
    path.write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match=message) as raised:
        state_dicts.read(path)
    assert not {"\x1b", "weights_only", "`", "\n"} & set(str(raised.value)) and "weights_only" not in str(
        raised.value
    )


def test_bad_paths_are_refused(tmp_path, monkeypatch):
    (tmp_path / "text.pt").write_text("this is no checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", a=np.array([None]))
    np.savez(tmp_path / "cut.npz", a=np.zeros(100))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-50])
    for name, message in {
        "none.pt": "does not exist; it must be",
        ".": "is a folder; it must be",
        "text.pt": "is no PyTorch file; it must be",
        "empty.pt": "is no PyTorch file; it must be",
        "objects.npz": "is no .npz file: an array holds Python objects",
        "cut.npz": "is no .npz file: File is not a zip file",
    }.items():
        with pytest.raises(ValueError, match=message) as raised:
            state_dicts.read(tmp_path / name)
        assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pt").write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match=r"a\.pt needs PyTorch: pip install torch"):
        state_dicts.read(tmp_path / "a.pt")


def test_pytorch_files_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    layouts = {
        "bare": state,
        "record": {"epoch": 3, "state_dict": state, "optimizer": {}, "schedule": None},
        "robust": {"model": state, "amp": None},
        "net": {"net": state, "best": torch.tensor(3.0)},
        "long": {"model_state_dict": state},
        "parameter": {"a.weight": torch.nn.Parameter(state["a.weight"])},
        "half": {"a.weight": state["a.weight"].to(torch.bfloat16)},
    }
    for name, content in layouts.items():
        for new in (True, False):
            torch.save(content, tmp_path / f"{name}.pt", _use_new_zipfile_serialization=new)
            found = state_dicts.read(tmp_path / f"{name}.pt")
            assert list(found) == ["a.weight"]
            np.testing.assert_array_equal(found["a.weight"], np.arange(6.0).reshape(2, 3))


def test_pytorch_files_without_weights_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    whole = (tmp_path / "ok.pt", tmp_path / "old.pt")
    for path, new in zip(whole, (True, False), strict=True):
        torch.save({"a": torch.zeros(100)}, path, _use_new_zipfile_serialization=new)
    contents = {
        "code": ({"harm": print}, r"holds Python objects \("),
        "model": (torch.nn.Sequential(torch.nn.Linear(2, 2)), "Sequential"),
        "unknown": (
            {"weights": {"a": torch.zeros(1)}},
            r"holds the entries 'weights' \(dict\), and no state dict",
        ),
        "number": (3, "holds an object of type int"),
        "nothing": ({}, "holds an empty dict"),
        "tensor": (torch.zeros(3), "holds an object of type Tensor"),
    }
    for name, (content, message) in contents.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(ValueError, match=message) as raised:
            state_dicts.read(tmp_path / f"{name}.pt")
        assert "\x1b" not in str(raised.value) and "weights_only" not in str(raised.value)
    for path in whole:
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match="is damaged, or no PyTorch file"):
            state_dicts.read(path)


def test_read_limits_the_size(tmp_path, monkeypatch):
    """A small archive can declare a very large size."""
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**6))
    monkeypatch.setattr(state_dicts, "checkpoints", types.SimpleNamespace(LARGEST=10**6))
    with pytest.raises(ValueError, match=r"8,000,.* bytes, unpacked; it must be at most 1,000,000"):
        state_dicts.read(tmp_path / "bomb.npz")
