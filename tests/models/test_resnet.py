"""Residual networks against an independent implementation in numpy, and their certification."""

import dataclasses

import jax
import numpy as np
import published
import pytest

from deqsmooth import config, data, models
from deqsmooth.config import architecture, presets
from deqsmooth.models import checkpoints, classifiers, parity, pytorch
from deqsmooth.smoothing import certification, inputs, provenance

SIZES = {
    "basic": architecture.ResnetModel(image_shape=(16, 16, 3), blocks=(2, 1, 2), channels=(4, 6, 8)),
    "bottleneck": architecture.ResnetModel(
        image_shape=(32, 32, 3), num_classes=7, blocks=(1, 2), channels=(4, 6), bottleneck=True, stem=7
    ),
}
INDEPENDENT = config.Smoothing(sampler="independent", sigma=0.25, num_estimation=300, num_selection=20)


@pytest.fixture(params=SIZES)
def size(request):
    return SIZES[request.param]


def vectors(size, state):
    height, width, channels = size.image_shape
    images = np.random.default_rng(1).uniform(size=(3, channels, height, width)).astype(np.float32)
    return {"x": images, "logits": published.Resnet(state, size).logits(images)}


# A bare network, one in DataParallel, and one behind a normalisation layer on CIFAR-10 and on ImageNet.
@pytest.mark.parametrize("prefix", ["", "module.", "1.", "1.module."])
def test_converted_network_equals_numpy_implementation(size, prefix):
    state = published.state_dict(size)
    prefixed = {f"{prefix}{name}": x for name, x in state.items()}
    prefixed[f"{prefix}bn1.num_batches_tracked"] = np.array(3)
    found = parity.compare(pytorch.convert(prefixed, size)[0], size, vectors(size, state))
    assert [c.quantity for c in found] == ["logits", "logits: labels"]
    assert all(c.passed for c in found)


def test_wrong_mapping_fails_comparison():
    size = SIZES["basic"]
    state = published.state_dict(size)
    a, b = "layer1.0.bn1.bias", "layer1.0.bn2.bias"
    swapped = pytorch.convert({**state, a: state[b], b: state[a]}, size)[0]
    assert not all(c.passed for c in parity.compare(swapped, size, vectors(size, state)))


def test_every_variable_has_one_name(size):
    template = jax.eval_shape(models.build(size).init, jax.random.key(0))
    paths = [tuple(k.key for k in key) for key, _ in jax.tree_util.tree_leaves_with_path(template)]
    assert sorted(pytorch.names(size).values()) == sorted(paths)


@pytest.mark.parametrize(("name", "count"), [("resnet110", 1_730_714), ("resnet50", 25_557_032)])
def test_parameter_counts_equal_published_counts(name, count):
    template = jax.eval_shape(models.build(presets.MODELS[name]).init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(template["params"])) == count


def test_training_updates_only_batch_statistics():
    size = SIZES["basic"]
    model = models.build(size)
    variables = model.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, *size.image_shape))
    _, updated = model.apply(variables, images, True)
    jax.tree.map(np.testing.assert_array_equal, updated["params"], variables["params"])
    # With PyTorch's momentum of 0.1, the running mean moves from 0 to a tenth of the batch mean.
    first = (images - np.array(size.mean)) / np.array(size.std)
    kernel = variables["params"]["conv"]["kernel"]
    features = jax.lax.conv_general_dilated(
        first, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(
        updated["batch_stats"]["norm"]["mean"], 0.1 * features.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
    )
    assert model.apply(variables, images, False)[1] is variables


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """A checkpoint after saving and loading."""
    size = SIZES["basic"]
    folder = tmp_path_factory.mktemp("models") / "resnet"
    variables, _ = pytorch.convert(published.state_dict(size), size)
    checkpoints.save(folder, classifiers.of_size(size, variables))
    return checkpoints.load(folder)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).uniform(size=(2, 16, 16, 3)).astype(np.float32)


def test_checkpoint_and_function_certify_identically(baseline, images):
    function = jax.tree_util.Partial(
        lambda variables, x: baseline.model.apply(variables, x, False)[0], baseline.variables
    )
    found, expected = (
        [dataclasses.replace(c, seconds=0.0) for c in certification.certify(classifier, images, INDEPENDENT)]
        for classifier in (baseline, function)
    )
    assert found == expected
    assert [c.evaluations for c in found] == [320, 320]
    assert {(c.solver, c.budget, c.start, c.reference_budget, c.residuals) for c in found} == {(None,) * 5}


def test_serial_sampling_of_explicit_model_raises(baseline, images):
    with pytest.raises(ValueError, match="sampler is 'serial'; a classifier without an equilibrium has only"):
        inputs.images(baseline, images, config.Smoothing(sampler="serial"))
    with pytest.raises(ValueError, match="the model takes"):
        inputs.images(baseline, images[:, 1:], INDEPENDENT)


def test_header_of_explicit_model_omits_solve(baseline):
    selection, dataset = config.Selection(dataset="arrays"), data.of_arrays(np.zeros((1, 32, 32, 3)))
    settings = (dataclasses.replace(INDEPENDENT, budget=budget) for budget in (30, 5))
    header, other = (provenance.header(baseline, selection, one, dataset, (32, 32, 3)) for one in settings)
    assert header == other
    assert header["reference"] == {
        "checkpoint": baseline.sha256, "program": None,
        "solver": None, "budget": None, "tolerance": None, "start": None,
        "dtype": "float32",
    }  # fmt: skip
    assert header["model"]["name"] == "resnet" and header["smoothing"]["solver"] is None
