"""The multiscale DEQ against an independent implementation in numpy, and the conversion from PyTorch."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
from support import ROOT

from deqsmooth import models
from deqsmooth.config import architecture, presets
from deqsmooth.models import checkpoints, parity, pytorch

SIZES = [
    architecture.MdeqModel(channels=(8, 16), head_channels=(2, 3), final_channels=6, image_shape=(8, 8, 3)),
    architecture.MdeqModel(
        channels=(8, 16, 8, 24), head_channels=(3, 2, 4, 2), final_channels=5, image_shape=(32, 32, 3),
        num_classes=7, num_strided=1,
    ),
    architecture.MdeqModel(
        channels=(8, 8, 16), head_channels=(2, 2, 2), final_channels=4, image_shape=(32, 32, 3), num_strided=2
    ),
]  # fmt: skip


def vectors(size, state, seed=5):
    """Outputs of the numpy implementation in the layout that `parity.compare` reads."""
    rng, other = np.random.default_rng(seed), published.Mdeq(state, size)
    height, width, channels = size.image_shape
    images = {name: rng.uniform(size=(2, channels, height, width)) for name in ("x", "x1", "x2")}
    injected = other.inject(images["x"])
    z = [
        rng.normal(size=(2, c, injected.shape[2] >> i, injected.shape[3] >> i))
        for i, c in enumerate(size.channels)
    ]
    found = {**images, "injection_0": injected, "head_logits_zrand": other.head(z)}
    for i, (before, after) in enumerate(zip(z, other.cell(z, injected), strict=True)):
        found |= {f"zrand_{i}": before, f"f_{i}": after}
    state_now = [np.zeros_like(x) for x in z]
    for k in range(1, 4):
        state_now = other.cell(state_now, injected)
        found[f"logits_naive_{k}"] = other.head(state_now)
    return {name: x.astype(np.float32) for name, x in found.items()}


@pytest.mark.parametrize("size", [*SIZES[:2], pytest.param(SIZES[2], marks=pytest.mark.slow)])
def test_converted_model_equals_numpy_implementation(size):
    state = published.state_dict(size)
    prefixed = {f"module.{name}": x for name, x in state.items()}
    prefixed["module.stage0.1.num_batches_tracked"] = np.array(3)
    comparisons = parity.compare(pytorch.convert(prefixed, size)[0], size, vectors(size, state))
    assert len(comparisons) == 1 + len(size.channels) + 2 * 4
    failed = [c for c in comparisons if not c.passed]
    assert not failed


def test_wrong_mapping_fails_comparison():
    size = SIZES[0]
    state = published.state_dict(size)
    recorded = vectors(size, state)
    a, b = "fullstage.branches.0.blocks.0.gn2.bias", "fullstage.branches.0.blocks.0.gn3.bias"
    swapped = {**state, a: state[b], b: state[a]}
    assert not all(c.passed for c in parity.compare(pytorch.convert(swapped, size)[0], size, recorded))
    with pytest.raises(ValueError, match="no array 'x1'"):
        parity.compare(pytorch.convert(state, size)[0], size, {"x": recorded["x"]})


@pytest.mark.parametrize("size", SIZES, ids=range(len(SIZES)))
def test_every_variable_has_one_name(size):
    template = jax.eval_shape(models.build(size).init, jax.random.key(0))
    paths = [tuple(k.key for k in key) for key, _ in jax.tree_util.tree_leaves_with_path(template)]
    assert sorted(pytorch.names(size).values()) == sorted(paths)


def test_invalid_state_dict_raises():
    size = SIZES[0]
    state = published.state_dict(size)
    with pytest.raises(ValueError, match=r"1 missing: classifier\.bias"):
        pytorch.convert({name: x for name, x in state.items() if name != "classifier.bias"}, size)
    with pytest.raises(ValueError, match="1 unexpected: extra"):
        pytorch.convert({**state, "extra": np.zeros(1)}, size)
    with pytest.raises(ValueError, match=r"1 wrongly shaped: classifier\.bias has shape \(3,\), for \(10,\)"):
        pytorch.convert({**state, "classifier.bias": np.zeros(3)}, size)


@pytest.mark.parametrize(
    ("name", "count"), [("mdeq-small", 249_883), ("mdeq-large", 11_097_438), ("mdeq-small-imagenet", 18_613_496)]
)
def test_parameter_counts_equal_published_counts(name, count):
    template = jax.eval_shape(models.build(presets.MODELS[name]).init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(template["params"])) == count


def test_dropout_mask_depends_on_lane_key():
    model = models.build(SIZES[0])
    template = jax.eval_shape(model.init, jax.random.key(0))
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), template)
    keys, images = jax.random.split(jax.random.key(1), 64), jnp.zeros((64, 8, 8, 3))

    @jax.jit
    def draw(images, keys):
        return model.inject(variables, images, keys)[0].masks

    masks = draw(images, keys)
    keep = 1 - SIZES[0].dropout
    for mask, channels in zip(masks, SIZES[0].channels, strict=True):
        assert mask.shape == (64, 1, 1, channels)
        assert set(np.unique(mask)) == {0.0, np.float32(1 / keep)}
        # Four standard deviations of 512 or more draws.
        assert abs(float((mask > 0).mean()) - keep) < 4 * np.sqrt(keep * (1 - keep) / mask.size)
    np.testing.assert_array_equal(masks[0][5:6], draw(images[5:6], keys[5:6])[0])
    assert draw(images, None) == ()


def run_convert(*arguments):
    """Runs the command in a new process."""
    code = "import sys; from deqsmooth.commands import convert; sys.exit(convert.main())"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_convert_command_checks_and_writes_model(tmp_path):
    size = SIZES[0]
    state = published.state_dict(size)
    recorded = vectors(size, state)
    np.savez(tmp_path / "weights.npz", **state)
    np.savez(tmp_path / "vectors.npz", **recorded)
    sizes = (
        "--model.channels", "8,16", "--model.head-channels", "2,3", "--model.final-channels", "6",
        "--model.image-shape", "8,8,3",
    )  # fmt: skip
    files = (tmp_path / "weights.npz", "--check", tmp_path / "vectors.npz", "--preset", "mdeq-small")
    status, output, errors = run_convert(*files, "--out", tmp_path / "model", *sizes)
    assert (status, errors) == (0, "") and "passed" in output
    found = checkpoints.load(tmp_path / "model")
    assert found.size == size and found.training is None
    jax.tree.map(np.testing.assert_array_equal, found.variables, pytorch.convert(state, size)[0])

    recorded["logits_naive_2"] = recorded["logits_naive_2"] + 1e-3
    np.savez(tmp_path / "vectors.npz", **recorded)
    status, output, errors = run_convert(*files, "--out", tmp_path / "other", *sizes)
    assert status == 1 and "logits_naive_2" in errors and "FAILED" in output
    assert not (tmp_path / "other").exists()
    status, _, errors = run_convert(*files, "--out", tmp_path / "other")
    assert status == 2 and "missing" in errors and errors.count("\n") == 1


def test_pytorch_files_are_read_without_code(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "record.pth.tar")
    for name in ("bare.pth", "record.pth.tar"):
        np.testing.assert_array_equal(pytorch.read(tmp_path / name)["a.weight"], np.arange(6.0).reshape(2, 3))
    torch.save({"harm": print}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="no PyTorch file of weights"):
        pytorch.read(tmp_path / "code.pth")
