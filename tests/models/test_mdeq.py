"""The multiscale DEQ against an independent implementation in numpy, and the conversion from PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

from deqsmooth import models
from deqsmooth.config import architecture, presets
from deqsmooth.models import parity, pytorch

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
    with pytest.raises(ValueError, match="no array 'x1'; their arrays: x"):
        parity.compare(pytorch.convert(state, size)[0], size, {"x": recorded["x"]})


def test_recorded_outputs_of_wrong_form_raise():
    size = SIZES[0]
    state = published.state_dict(size)
    variables, _ = pytorch.convert(state, size)
    recorded = vectors(size, state)
    bad = {
        r"recorded images 'x' have shape \(2, 3, 16, 16\); the model takes \[num, 3, 8, 8\]; "
        "--model.image-shape 16,16,3 changes it": {"x": np.zeros((2, 3, 16, 16))},
        r"'x1' have shape \(2, 8, 8, 3\); the model takes \[num, 3, 8, 8\]$": {"x1": np.zeros((2, 8, 8, 3))},
        r"'x' have shape \(0, 3, 8, 8\)": {"x": recorded["x"][:0]},
        r"x1 has shape \(1, 3, 8, 8\) and x2 \(2, 3, 8, 8\)": {"x1": recorded["x1"][:1]},
        r"'x2' is <U.*; it must be floating point": {"x2": recorded["x2"].astype(str)},
        r"zrand_1 has shape \(2, 16, 8, 8\); it must have shape \(2, 16, 4, 4\)": {
            "zrand_1": np.zeros((2, 16, 8, 8))
        },
        r"f_0 has shape \(8,\); it must have shape \(2, 8, 8, 8\)": {"f_0": np.zeros(8)},
        r"head_logits_zrand has shape \(2, 7\)": {"head_logits_zrand": np.zeros((2, 7))},
    }
    for message, change in bad.items():
        with pytest.raises(ValueError, match=message):
            parity.compare(variables, size, {**recorded, **change})


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
