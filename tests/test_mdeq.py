"""The multiscale DEQ against a second implementation: numpy, channels first, on PyTorch's names, by rule."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deqsmooth import architecture, checkpoints, conversion, models, parity, presets

ROOT = pathlib.Path(__file__).parent.parent
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


def state_dict(size, seed=0):
    """A random PyTorch state dict of a size: shapes from our table, in PyTorch's layout."""
    rng = np.random.default_rng(seed)
    template = jax.eval_shape(models.build(size).init, jax.random.key(0))
    state = {}
    for name, path in conversion.names(size).items():
        leaf = template
        for key in path:
            leaf = leaf[key]
        shape = leaf.shape
        if name.endswith("weight_g"):
            shape = (shape[0], 1, 1, 1)
        elif len(shape) == 4:
            shape = (shape[3], shape[2], shape[0], shape[1])
        elif len(shape) == 2:
            shape = shape[::-1]
        x = rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        state[name] = (np.abs(x) + 0.5 if name.endswith("running_var") else x).astype(np.float32)
    return state


class Numpy:
    """The published MDEQ in float64, from its description: NCHW, loops over the window."""

    def __init__(self, state, size):
        self.state, self.size = {name: x.astype(np.float64) for name, x in state.items()}, size

    def weight(self, name):
        if f"{name}.weight" in self.state:
            return self.state[f"{name}.weight"]
        v, g = self.state[f"{name}.weight_v"], self.state[f"{name}.weight_g"]
        return v * g / np.sqrt((v**2).sum((1, 2, 3), keepdims=True))

    def conv(self, name, x, stride=1):
        w = self.weight(name)
        k = w.shape[-1]
        pad = k // 2
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        high, wide = (x.shape[2] - k) // stride + 1, (x.shape[3] - k) // stride + 1
        y = 0.0
        for i in range(k):
            for j in range(k):
                part = x[:, :, i : i + stride * high : stride, j : j + stride * wide : stride]
                y = y + np.einsum("bchw,oc->bohw", part, w[:, :, i, j])
        bias = self.state.get(f"{name}.bias")
        return y if bias is None else y + bias[:, None, None]

    def affine(self, name, x):
        if f"{name}.weight" not in self.state:
            return x
        return x * self.state[f"{name}.weight"][:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def bn(self, name, x):
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        return self.affine(name, (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None])

    def gn(self, name, x, groups=8):
        b, c, h, w = x.shape
        grouped = x.reshape(b, groups, -1)
        mean, var = grouped.mean(-1, keepdims=True), grouped.var(-1, keepdims=True)
        return self.affine(name, ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(b, c, h, w))

    def inject(self, x):
        strided = self.size.num_strided
        x = (x - np.array(self.size.mean)[:, None, None]) / np.array(self.size.std)[:, None, None]
        x = relu(self.bn("downsample.1", self.conv("downsample.0", x, 2 if strided > 0 else 1)))
        x = relu(self.bn("downsample.4", self.conv("downsample.3", x, 2 if strided > 1 else 1)))
        return relu(self.bn("stage0.1", self.conv("stage0.0", x)))

    def cell(self, z, injected):
        blocks = []
        for i, x in enumerate(z):
            name = f"fullstage.branches.{i}.blocks.0"
            y = relu(self.gn(f"{name}.gn1", self.conv(f"{name}.conv1", x)))
            y = self.conv(f"{name}.conv2", y) + (injected if i == 0 else 0)
            blocks.append(self.gn(f"{name}.gn3", relu(self.gn(f"{name}.gn2", y) + x)))
        after = []
        for i in range(len(z)):
            fused = blocks[i]
            for j, x in enumerate(blocks):
                name = f"fullstage.fuse_layers.{i}.{j}.net"
                if j > i:
                    x = self.gn(f"{name}.gnorm", self.conv(f"{name}.conv", x))
                    fused = fused + x.repeat(2 ** (j - i), 2).repeat(2 ** (j - i), 3)
                for k in range(i - j):
                    x = self.gn(f"{name}.{k}.gnorm", self.conv(f"{name}.{k}.conv", x, 2))
                    x = relu(x) if k < i - j - 1 else x
                fused = fused + x if j < i else fused
            mixed = self.conv(f"fullstage.post_fuse_layers.{i}.conv", relu(fused))
            after.append(self.gn("none", mixed, 4))
        return after

    def head(self, z):
        y = None
        for i, x in enumerate(z):
            name = f"incre_modules.{i}.0"
            b = relu(self.bn(f"{name}.bn1", self.conv(f"{name}.conv1", x)))
            b = relu(self.bn(f"{name}.bn2", self.conv(f"{name}.conv2", b)))
            b = self.bn(f"{name}.bn3", self.conv(f"{name}.conv3", b))
            b = relu(b + self.bn(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x)))
            if i:
                down = f"downsamp_modules.{i - 1}"
                b = b + relu(self.bn(f"{down}.1", self.conv(f"{down}.0", y, 2)))
            y = b
        y = relu(self.bn("final_layer.1", self.conv("final_layer.0", y)))
        return y.mean((2, 3)) @ self.state["classifier.weight"].T + self.state["classifier.bias"]


def relu(x):
    return np.maximum(x, 0)


def vectors(size, state, seed=5):
    """Recorded outputs in the layout that `parity.compare` reads, made by the second implementation."""
    rng, other = np.random.default_rng(seed), Numpy(state, size)
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


@pytest.mark.parametrize("size", SIZES, ids=range(len(SIZES)))
def test_a_converted_model_computes_what_the_second_implementation_computes(size):
    state = state_dict(size)
    prefixed = {f"module.{name}": x for name, x in state.items()}
    prefixed["module.stage0.1.num_batches_tracked"] = np.array(3)
    comparisons = parity.compare(conversion.convert(prefixed, size), size, vectors(size, state))
    assert len(comparisons) == 1 + len(size.channels) + 2 * 4
    failed = [c for c in comparisons if not c.passed]
    assert not failed


def test_a_wrong_mapping_is_noticed():
    size = SIZES[0]
    state = state_dict(size)
    recorded = vectors(size, state)
    a, b = "fullstage.branches.0.blocks.0.gn2.bias", "fullstage.branches.0.blocks.0.gn3.bias"
    swapped = {**state, a: state[b], b: state[a]}
    assert not all(c.passed for c in parity.compare(conversion.convert(swapped, size), size, recorded))
    with pytest.raises(ValueError, match="no array 'x1'"):
        parity.compare(conversion.convert(state, size), size, {"x": recorded["x"]})


@pytest.mark.parametrize("size", SIZES, ids=range(len(SIZES)))
def test_every_variable_has_one_name(size):
    template = jax.eval_shape(models.build(size).init, jax.random.key(0))
    paths = [tuple(k.key for k in key) for key, _ in jax.tree_util.tree_leaves_with_path(template)]
    assert sorted(conversion.names(size).values()) == sorted(paths)


def test_foreign_state_dicts_are_refused_by_name():
    size = SIZES[0]
    state = state_dict(size)
    with pytest.raises(ValueError, match=r"1 missing: classifier\.bias"):
        conversion.convert({name: x for name, x in state.items() if name != "classifier.bias"}, size)
    with pytest.raises(ValueError, match="1 unexpected: extra"):
        conversion.convert({**state, "extra": np.zeros(1)}, size)
    with pytest.raises(ValueError, match=r"1 wrongly shaped: classifier\.bias: \(3,\) for \(10,\)"):
        conversion.convert({**state, "classifier.bias": np.zeros(3)}, size)
    with pytest.raises(ValueError, match="ConvModel has no PyTorch counterpart"):
        conversion.convert(state, architecture.ConvModel())


@pytest.mark.parametrize(
    ("name", "count"), [("mdeq-small", 249_883), ("mdeq-large", 11_097_438), ("mdeq-small-imagenet", 18_613_496)]
)
def test_the_published_sizes_have_the_published_parameter_counts(name, count):
    template = jax.eval_shape(models.build(presets.MDEQ[name]).init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(template["params"])) == count


def test_one_dropout_mask_serves_a_whole_solve_and_depends_on_its_lane_alone():
    model = models.build(SIZES[0])
    variables = model.init(jax.random.key(0))
    keys, images = jax.random.split(jax.random.key(1), 64), jnp.zeros((64, 8, 8, 3))
    u, _ = model.inject(variables, images, keys)
    keep = 1 - SIZES[0].dropout
    for mask, channels in zip(u.masks, SIZES[0].channels, strict=True):
        assert mask.shape == (64, 1, 1, channels)
        assert set(np.unique(mask)) == {0.0, np.float32(1 / keep)}
        # 512 or more draws: four standard deviations.
        assert abs(float((mask > 0).mean()) - keep) < 4 * np.sqrt(keep * (1 - keep) / mask.size)
    alone, _ = model.inject(variables, images[5:6], keys[5:6])
    np.testing.assert_array_equal(u.masks[0][5:6], alone.masks[0])
    assert model.inject(variables, images, None)[0].masks == ()


def run_convert(*arguments):
    """The command in a process of its own."""
    code = "import sys; from deqsmooth import cli; sys.exit(cli.convert())"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_the_command_converts_checks_and_writes_a_model(tmp_path):
    size = SIZES[0]
    state = state_dict(size)
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
    jax.tree.map(np.testing.assert_array_equal, found.variables, conversion.convert(state, size))

    recorded["logits_naive_2"] = recorded["logits_naive_2"] + 1e-3
    np.savez(tmp_path / "vectors.npz", **recorded)
    status, output, errors = run_convert(*files, "--out", tmp_path / "other", *sizes)
    assert status == 1 and "logits_naive_2" in errors and "FAILED" in output
    assert not (tmp_path / "other").exists()
    status, _, errors = run_convert(*files, "--out", tmp_path / "other")
    assert status == 2 and "missing" in errors and errors.count("\n") == 1


def test_pytorch_files_are_read_with_weights_only(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "record.pth.tar")
    for name in ("bare.pth", "record.pth.tar"):
        np.testing.assert_array_equal(conversion.read(tmp_path / name)["a.weight"], np.arange(6.0).reshape(2, 3))
    torch.save({"harm": print}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="no PyTorch file of weights"):
        conversion.read(tmp_path / "code.pth")
