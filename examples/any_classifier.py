"""Trains a Linen network that is no DEQ under noise, with optax; certifies, verifies and reports it."""

import deqsmooth as ds
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIGMA = 0.25


class Network(nn.Module):
    """Two convolutions with batch normalisation."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images - 0.3
        for channels in (16, 32):
            x = nn.Conv(channels, (3, 3), strides=2)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


def fit(images, labels, steps=300, batch_size=128):
    """Variables of the network, trained on noisy images."""
    variables = Network().init(jax.random.key(0), images[:1])
    optimiser = optax.adam(3e-3)
    state = optimiser.init(variables["params"])

    @jax.jit
    def update(variables, state, key):
        rows, noise = jax.random.split(key)
        chosen = jax.random.randint(rows, (batch_size,), 0, len(images))
        noisy = images[chosen] + SIGMA * jax.random.normal(noise, images[chosen].shape)

        def loss(params):
            logits, new = Network().apply({**variables, "params": params}, noisy, True, mutable="batch_stats")
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean(), new

        gradient, new = jax.grad(loss, has_aux=True)(variables["params"])
        step, state = optimiser.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], step), **new}, state

    for key in jax.random.split(jax.random.key(1), steps):
        variables, state = update(variables, state, key)
    return variables


digits = load_digits()
train_images, test_images, train_labels, test_labels = train_test_split(
    (digits.images[..., None] / 16).astype(np.float32), digits.target, test_size=360, random_state=0
)
classifier = ds.classifier(Network(), fit(jnp.asarray(train_images), jnp.asarray(train_labels)))

test = ds.arrays(test_images, test_labels)
settings = ds.Smoothing(sigma=SIGMA, num_estimation=1000)
certificates = list(ds.certify_dataset(classifier, test, range(40), settings, out="network.jsonl"))
print("average certified radius:", ds.summary(certificates).acr)
print("differences:", ds.verify("network.jsonl", classifier, test, num=3).differences)
ds.report("network.jsonl").save("network-report")
