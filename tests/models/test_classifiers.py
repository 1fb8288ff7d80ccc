"""Classifiers: one constructor for functions, modules and models; what it refuses; saving and loading."""

import functools
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest
import toy
from flax import nnx

from deqsmooth import config, data, models, types
from deqsmooth.config import architecture
from deqsmooth.models import checkpoints, classifiers
from deqsmooth.smoothing import certification, replay

IMAGES = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))


class LinenNet(nn.Module):
    classes: int = 4

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(nn.Conv(6, (3, 3))(images))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.classes)(x.mean((1, 2)))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, images):
        x = self.drop(self.norm(nnx.relu(self.conv(images))))
        return self.head(x.mean((1, 2)))


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables["w"]


def weights(key):
    return {"w": jax.random.normal(jax.random.key(key), (64, 3))}


def linen(classes=4, key=0):
    module = LinenNet(classes)
    return module, module.init(jax.random.key(key), IMAGES)


def every_kind():
    """Kind, classifier, and the logits that it should give."""
    module, variables = linen()
    partial, net = jax.tree_util.Partial(linear, weights(0)), NnxNet(nnx.Rngs(0))
    evaluated = nnx.view(net, deterministic=True, use_running_average=True)
    return [
        ("function", classifiers.classifier(linear, weights(0)), partial(IMAGES)),
        ("partial", classifiers.classifier(partial), partial(IMAGES)),
        ("closure", classifiers.classifier(lambda images: partial(images)), partial(IMAGES)),
        ("linen", classifiers.classifier(module, variables), module.apply(variables, IMAGES, False)),
        ("nnx", classifiers.classifier(net), evaluated(IMAGES)),
    ]


@pytest.mark.parametrize(("made", "expected"), [pytest.param(*case, id=kind) for kind, *case in every_kind()])
def test_logits_are_those_of_evaluation(made, expected):
    np.testing.assert_allclose(made.apply(made.variables, IMAGES), expected, rtol=1e-6)
    assert len(made.sha256) == 64 and not made.solves and made.image_shape is None


def test_digest_follows_name_and_variables():
    one = classifiers.classifier(linear, weights(0))
    assert one.sha256 == classifiers.classifier(linear, weights(0)).sha256
    assert one.name == f"{__name__}.linear"
    for other in (
        classifiers.classifier(linear, weights(1)),
        classifiers.classifier(linear, weights(0), name="another"),
        classifiers.classifier(linear, {"w": np.asarray(weights(0)["w"], np.float64)}),
    ):
        assert other.sha256 != one.sha256
    assert classifiers.classifier(*linen(4)).sha256 != classifiers.classifier(*linen(5)).sha256
    assert (
        classifiers.classifier(one, name="another").sha256
        == classifiers.classifier(linear, weights(0), name="another").sha256
    )


def test_digest_covers_captured_arrays():
    def capturing(key):
        captured = weights(key)
        return classifiers.classifier(lambda images: linear(captured, images))

    first, second = (classifiers.identity(capturing(key), (8, 8, 1)).sha256 for key in (0, 1))
    assert first != second and first == classifiers.identity(capturing(0), (8, 8, 1)).sha256
    given = classifiers.classifier(linear, weights(0))
    assert classifiers.identity(given, (8, 8, 1)).sha256 == given.sha256


def test_sizes_and_models_are_taken():
    size = architecture.ConvModel(channels=8, num_groups=4)
    variables = toy.build().init(jax.random.key(0))
    own = classifiers.classifier(toy.build(), variables)
    assert own.solves and own.size is None and own.image_shape == (8, 8, 1)
    made = classifiers.classifier(size, models.build(size).init(jax.random.key(0)))
    assert made.solves and made.size == size
    assert made.sha256 == classifiers.of_size(size, made.variables).sha256


def test_renaming_keeps_settings():
    size, settings = architecture.ConvModel(channels=8, num_groups=4), config.Training(sigma=0.25)
    of_package = classifiers.of_size(size, models.build(size).init(jax.random.key(0)), settings)
    own = classifiers.classifier(linear, weights(0))._replace(training=settings)
    for made in (of_package, own):
        renamed = classifiers.classifier(made, name="another")
        assert (renamed.name, renamed.training, renamed.size) == ("another", settings, made.size)
        assert (renamed.sha256 == made.sha256) == (made is of_package)


def test_module_is_copied():
    net = NnxNet(nnx.Rngs(0))
    made = classifiers.classifier(net)
    before = np.asarray(made.apply(made.variables, IMAGES))
    net.head.kernel[...] = 0 * net.head.kernel[...]
    assert made.sha256 != classifiers.classifier(net).sha256
    np.testing.assert_array_equal(made.apply(made.variables, IMAGES), before)


def test_repr_is_one_short_line():
    equilibrium = classifiers.classifier(toy.build(), toy.build().init(jax.random.key(0)), name="toy")
    assert repr(equilibrium) == (
        f"Classifier(toy, 64 parameters, images 8x8x1, 10 classes, start zero, sha256 {equilibrium.sha256[:8]})"
    )
    assert "start learned" in repr(equilibrium._replace(start_training=config.StartTraining()))
    function = classifiers.classifier(linear, weights(0))
    assert repr(function) == f"Classifier({__name__}.linear, 192 parameters, sha256 {function.sha256[:8]})"


class NeedsMore(nn.Module):
    @nn.compact
    def __call__(self, images, temperature):
        return nn.Dense(3)(images.reshape(len(images), -1)) / temperature


START = {"start": {"network": {}, "mean": np.zeros((1, 8, 8, 4))}}
REFUSED = {
    "path": (("runs/model",), "is a path; ds.load"),
    "pathlike": ((pathlib.Path("runs"),), "is a path; ds.load"),
    "pair": (((linear, {"w": 1.0}),), r"give its parts: ds.classifier\(model, variables\)"),
    "number": ((3,), "int is no classifier; ds.classifier takes"),
    "nothing": ((None,), "NoneType is no classifier"),
    "dictionary": (({"w": 1.0},), "dict is no classifier"),
    "class": ((LinenNet,), "LinenNet is a class; give an instance"),
    "linen without variables": ((LinenNet(),), "a Linen module needs its variables"),
    "model without variables": ((toy.build(),), "a Model needs its variables"),
    "size without variables": ((architecture.ConvModel(),), "a size needs its variables"),
    "nnx with variables": ((NnxNet(nnx.Rngs(0)), {"w": 1.0}), "holds its variables; leave them out"),
    "classifier with variables": ((classifiers.classifier(linear, {"w": 1.0}), {"w": 1.0}), "has its variables"),
    "other arguments": ((NeedsMore(), {"w": 1.0}), "NeedsMore also takes temperature; give a function that sets"),
    "text": ((linear, {"w": "weights.npz"}), r"variables\['w'\] is str; variables must be arrays of numbers"),
    "not finite": ((linear, {"w": np.array([1.0, np.nan])}), r"variables\['w'\] has numbers that are not finite"),
    "start": ((toy.build(), {"params": {}, **START}), "give the classifier that ds.train_start or ds.load"),
    "start of size": ((architecture.ConvModel(), {"params": {}, **START}), "give the classifier that ds.train"),
    "other variables": ((architecture.ConvModel(), {"w": np.ones(3)}), "by the size of the model it must have"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_says_what_to_call(case):
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        classifiers.classifier(*given)


def test_torch_module_is_told_to_convert():
    kind = type("Net", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: x})
    with pytest.raises(ValueError, match="Net is a PyTorch module; deqsmooth-convert"):
        classifiers.classifier(kind())


@pytest.mark.parametrize("kind", ["function", "linen", "nnx", "model", "tuple"])
def test_saved_classifier_is_loaded_again(tmp_path, kind):
    module, variables = linen()
    net = NnxNet(nnx.Rngs(0))
    model, pair = toy.build(), functools.partial(lambda variables, images: linear({"w": variables[0]}, images))
    made, given = {
        "function": (classifiers.classifier(linear, weights(0)), linear),
        "linen": (classifiers.classifier(module, variables), module),
        "nnx": (classifiers.classifier(net), NnxNet(nnx.Rngs(1))),
        "model": (classifiers.classifier(model, model.init(jax.random.key(3))), model),
        "tuple": (
            classifiers.classifier(pair, (weights(0)["w"], np.ones(2, np.float32)), name="pair"),
            classifiers.classifier(pair, (weights(1)["w"], np.ones(2, np.float32)), name="pair"),
        ),
    }[kind]
    checkpoints.save(tmp_path / "own", made)
    with pytest.raises(ValueError, match="a model of your own, whose code must be given"):
        checkpoints.load(tmp_path / "own")
    loaded = checkpoints.load(tmp_path / "own", given)
    assert (loaded.sha256, loaded.name) == (made.sha256, made.name)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, made.variables)


@pytest.mark.parametrize("is_tuple", [False, True])
def test_trained_start_is_saved_and_loaded(tmp_path, is_tuple):
    """Variables with a tuple are saved as a list of leaves."""
    tuples = toy.build()
    arrays = tuples._replace(
        initial_state=lambda u: tuples.initial_state(u)[0],
        cell=lambda params, z, u: tuples.cell(params, (z, z[:, ::2, ::2]), u)[0],
        readout=lambda variables, z, train: tuples.readout(variables, (z, z), train),
    )
    model, start = tuples if is_tuple else arrays, config.StartTraining(network=architecture.StartModel(width=8))
    network = models.build_start(start.network, model)
    without = classifiers.classifier(model, model.init(jax.random.key(0)), name="own")
    mean = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), network.state)
    of_start = {"network": network.init(jax.random.key(1)), "mean": mean}
    made = classifiers.of_functions(model, {**without.variables, "start": of_start}, "own", None, start)
    checkpoints.save(tmp_path / "own", made)
    settings = config.Smoothing(
        sampler="independent", start="learned", solver="plain", budget=1, num_selection=10, num_estimation=50,
        alpha=0.1, lanes=10, block=10,
    )  # fmt: skip
    dataset = data.of_arrays(np.asarray(IMAGES), [0, 1, 2])
    path = tmp_path / "run.jsonl"
    expected = list(certification.certify_dataset(made, dataset, range(2), settings, out=path))
    for given in (model, without, made):
        loaded = checkpoints.load(tmp_path / "own", given)
        assert (loaded.sha256, loaded.start_training) == (made.sha256, start)
        assert jax.tree.structure(loaded.variables) == jax.tree.structure(made.variables)
    found = list(certification.certify_dataset(loaded, dataset, range(2), settings))
    assert [c.counts for c in found] == [c.counts for c in expected]
    assert replay.verify(path, loaded, dataset, num=2).differences == []
    with pytest.raises(ValueError, match=r'start_training is "given" in the file and null of the one given'):
        replay.verify(path, without, dataset)


def test_loading_with_another_model_raises(tmp_path):
    checkpoints.save(tmp_path / "own", classifiers.classifier(toy.build(), toy.build().init(jax.random.key(0))))
    wide = classifiers.classifier(linear, weights(0))
    with pytest.raises(ValueError, match="other shapes than those of the given model"):
        checkpoints.load(tmp_path / "own", wide)
    with pytest.raises(ValueError, match="has no variables, so that there is nothing to write"):
        checkpoints.save(tmp_path / "none", classifiers.classifier(lambda images: images.mean((1, 2))))
    assert isinstance(wide.model, types.Function) and config.Smoothing().sampler is None
