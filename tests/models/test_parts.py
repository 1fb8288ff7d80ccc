"""Functions of a model that do not fit together are refused by name, before anything is computed."""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import deqsmooth as ds
from deqsmooth import devices, models
from deqsmooth.config import architecture
from deqsmooth.models import parts


def init(key):
    return {"params": {"w": jax.random.normal(key, (8, 8)), "u": jnp.ones((16, 8)), "out": jnp.ones((8, 3))}}


def inject(variables, images, keys):
    return images.reshape(len(images), -1) @ variables["params"]["u"], variables


def cell(w, z, u):
    return 0.1 * z[0] + u, jnp.tanh(z[1] @ w + u)


def readout(variables, z, train):
    return z[1] @ variables["params"]["out"], variables


MODEL = ds.Model((4, 4, 1), 3, init, lambda v: v["params"]["w"], inject, lambda u: (0 * u, 0 * u), cell, readout)
IN_BOTH = {
    "inject alone": (
        {"inject": lambda v, x, keys: inject(v, x, keys)[0]},
        "inject of the model gives an array; it must give a pair, (injection, variables)",
    ),
    "readout alone": (
        {"readout": lambda v, z, train: readout(v, z, train)[0]},
        "readout of the model gives an array; it must give a pair, (logits, variables)",
    ),
    "three values": (
        {"inject": lambda v, x, keys: (*inject(v, x, keys), 0)},
        "inject of the model gives a tuple; it must give a pair",
    ),
    "two arrays": (
        {"inject": lambda v, x, keys: (inject(v, x, keys)[0], inject(v, x, keys)[0][:, :4])},
        "inject of the model gives float32[2, 4] in the place of the variables; it must give a pair, (injection, "
        "variables), where several arrays are one value, ((fine, coarse), variables)",
    ),
    "two logits": (
        {"readout": lambda v, z, train: (readout(v, z, train)[0], z)},
        "readout of the model gives (float32[2, 8], float32[2, 8]) in the place of the variables",
    ),
    "arguments": ({"readout": lambda v, z: readout(v, z, False)}, "readout of the model fails: TypeError: "),
    "bind": ({"bind": lambda v: v["weights"]}, "bind of the model fails: KeyError: 'weights'"),
    "list": (
        {"cell": lambda w, z, u: list(z)},
        "cell of the model gives [float32[2, 8], float32[2, 8]] for 2 images; it must give what initial_state "
        "does, (float32[2, 8], float32[2, 8])",
    ),
    "type": (
        {"cell": lambda w, z, u: (z[0].astype(jnp.bfloat16), z[1])},
        "cell of the model gives (bfloat16[2, 8], float32[2, 8])",
    ),
    "one state": ({"initial_state": lambda u: (0 * u[0], 0 * u[0])}, "(float32[8], float32[8])"),
    "one row": (
        {"readout": lambda v, z, train: (readout(v, z, train)[0][0], v)},
        "what readout gives for 2 images is float32[3]; it must be [2, num_classes]",
    ),
    "keys": (
        {"inject": lambda v, x, keys: (inject(v, x, keys)[0] + jax.random.normal(keys[0], (8,)), v)},
        "inject of the model fails: TypeError",
    ),
}
IN_TRAINING = {
    "no params": ({"init": lambda key: init(key)["params"]}, "what init gives is ['out', 'u', 'w']; it must be"),
    "no dictionary": ({"init": lambda key: (init(key),)}, "what init gives is tuple; it must be a dictionary"),
    "other variables": (
        {"readout": lambda v, z, train: (readout(v, z, train)[0], v["params"])},
        "readout of the model gives variables of another structure than init does",
    ),
}


def test_right_models_are_taken():
    for size in (ds.ConvModel(), ds.MdeqModel()):
        parts.check_trainable(ds.build(size))
    parts.check_trainable(MODEL)
    parts.check(MODEL, init(jax.random.key(0)))


def test_trained_start_is_no_variable_of_functions():
    def rebuilt(variables, images, keys):
        u, _ = inject(variables, images, keys)
        return u, {"params": variables["params"]}

    parts.check(MODEL._replace(inject=rebuilt), {**init(jax.random.key(0)), "start": {"mean": jnp.zeros((1, 8))}})


def test_statistics_over_devices_are_taken():
    norm = nn.BatchNorm(use_running_average=False, axis_name=devices.AXIS)

    def normalised(variables, images, keys):
        x = images.reshape(len(images), -1) @ variables["params"]["u"]
        if keys is not None:
            x, _ = norm.apply(norm.init(jax.random.key(0), x), x, mutable="batch_stats")
        return x, variables

    parts.check_trainable(MODEL._replace(inject=normalised))


@pytest.mark.parametrize("case", IN_BOTH)
def test_wrong_functions_are_named(case):
    changes, message = IN_BOTH[case]
    wrong = MODEL._replace(**changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.check(wrong, init(jax.random.key(0)))
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.check_trainable(wrong)


@pytest.mark.parametrize("case", IN_TRAINING)
def test_untrainable_variables_are_named(case):
    changes, message = IN_TRAINING[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.check_trainable(MODEL._replace(**changes))


@pytest.mark.parametrize(
    ("shapes", "is_right"),
    [
        ([(8, 8), (4, 4), (2, 2)], True),
        ([(8, 8), (8, 8)], True),
        ([(4, 4)], True),
        ([(4, 4), (8, 8)], False),
        ([(8, 4)], False),
        ([(16, 16)], False),
        ([(3, 3)], False),
    ],
)
def test_resolutions_of_states_are_checked(shapes, is_right):
    model = MODEL._replace(
        image_shape=(8, 8, 1),
        init=lambda key: {"params": {}},
        inject=lambda v, x, keys: (x, v),
        initial_state=lambda u: [jnp.zeros((len(u), *shape, 3)) for shape in shapes],
    )
    if is_right:
        network = models.build_start(architecture.StartModel(width=8), model)
        found = network.apply(network.init(jax.random.key(0)), jnp.zeros((2, 8, 8, 1)))
        assert [x.shape[1:3] for x in found] == shapes
        return
    with pytest.raises(
        ValueError, match=r"the first array of the injection has \(8, 8, 1\).* divided by powers"
    ) as e:
        models.build_start(architecture.StartModel(width=8), model)
    assert all(str((*shape, 3)) in str(e.value) for shape in shapes)


def test_flat_states_have_no_learned_start():
    images = jnp.zeros((20, 4, 4, 1))
    made = ds.classifier(MODEL, init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"is \(1, 8\); it must be \[lanes, height, width, channels\]"):
        ds.train_start(made, ds.arrays(images, [0, 1] * 10), ds.StartTraining(sigma=0.25, batch_size=4))
