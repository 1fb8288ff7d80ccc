"""The contract of a base classifier: what breaks it is refused with its cause, what keeps it is not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from deqsmooth import config
from deqsmooth.models import classifiers
from deqsmooth.smoothing import attacks, certification, prediction, recertification

SETTINGS = config.Smoothing(
    sampler="independent", num_selection=10, num_estimation=60, alpha=0.1, lanes=10, block=20, budget=2
)
CALLS = itertools.count()


def darkness(images):
    return 0.5 - images.mean((1, 2, 3))


def two(score):
    return jnp.stack([score, -score], -1)


def centred(images):
    return two(darkness(images - images.mean(0)))


def normalised(images):
    score = darkness(images)
    return two((score - score.mean()) / (score.std() + 1e-3))


def ranked(images):
    return two(jnp.argsort(jnp.argsort(darkness(images))).astype(jnp.float32) - 2.5)


def shifted(images):
    return two(jnp.roll(darkness(images), 1))


def until_all_converged(images):
    def step(state):
        z, _ = state
        after = 0.6 * jnp.cos(z) + darkness(images)
        return after, jnp.max(jnp.abs(after - z))

    return two(jax.lax.while_loop(lambda state: state[1] > 0.05, step, (jnp.zeros(len(images)), jnp.inf))[0] - 0.3)


def by_number_of_images(images):
    return two(darkness(images) / len(images))


def traced_key(images):
    return two(darkness(images) + jax.random.normal(jax.random.key(next(CALLS)), images.shape[:1]))


def called_back(images):
    shape = jax.ShapeDtypeStruct(images.shape[:1], jnp.float32)
    draw = jax.experimental.io_callback(lambda: np.float32(np.full(shape.shape, next(CALLS))), shape)
    return two(darkness(images) + draw)


def random_layer(images, classes=10):
    return images.reshape(len(images), -1) @ jax.random.normal(jax.random.key(0), (64, classes))


def masked(logits):
    return jnp.where(jnp.arange(10) < 5, logits, -1e9)


def of_experts_with_capacity(images):
    place = jnp.arange(len(images)) + 1
    return jnp.where((place <= 8)[:, None], random_layer(images), 0.0)


def normalised_in_large_batches(images):
    return random_layer(images - images.mean(0) if len(images) >= 16 else images)


def quantised_by_the_batch(images):
    step = jnp.nanmax(jnp.abs(images)) / 127
    return random_layer(jnp.round(images / step) * step)


def clipped_by_the_batch(images):
    return random_layer(jnp.minimum(images, jnp.nanpercentile(images, 99)))


def with_one_mask_a_lane(images):
    return random_layer(jnp.where(jax.random.bernoulli(jax.random.key(0), 0.9, images.shape), images, 0.0))


BROKEN = [
    (of_experts_with_capacity, "among 6 and among 64 images: it depends on the size of its batch"),
    (normalised_in_large_batches, "among 6 and among 64 images"),
    (quantised_by_the_batch, "beside black images"),
    (clipped_by_the_batch, "beside noisy copies and beside"),
    (lambda images: masked(with_one_mask_a_lane(images)), "in two lanes"),
    (lambda images: random_layer(jnp.nan_to_num(images - images.mean(0))) - 1e4, "mixes its images"),
    (lambda images: masked(random_layer(images)).at[:, 5:].set(-jnp.inf), "takes a large negative logit"),
    (centred, "in evaluation mode"),
    (normalised, "uses statistics of its batch"),
    (ranked, "mixes its images"),
    (shifted, "in two lanes|mixes its images"),
    (until_all_converged, "mixes its images"),
    (by_number_of_images, "alone: it depends on the size of its batch"),
    (traced_key, "it is random"),
    (called_back, "it is random"),
    (lambda images: two(darkness(images) * jnp.nan), "on a clean image; logits must be finite"),
    (lambda images: two(0 * darkness(images) + 1), "a constant classifier"),
    (lambda images: 0 * two(darkness(images)), "a constant classifier"),
    (lambda images: darkness(images)[:, None], "1 logit an image; .* at least 2 classes"),
    (darkness, r"shape \(6,\) for 6 images; it must give logits \[6, classes\]"),
    (lambda images: two(darkness(images)) > 0, "gives bool; it must give logits, floating point"),
    (lambda images: jnp.argmax(two(darkness(images)), -1), r"it must give logits \[6, classes\]"),
    (lambda images: (two(darkness(images)), None), "gives tuple for 6 images"),
    (lambda images: two(darkness(images.reshape(4, -1, 8, 2))), r"shape \(4, 2\) for 6 images"),
    (lambda images: two(darkness(images.reshape(7, -1))), "fails on 6 images of shape"),
    (lambda images: two(darkness(images))[:3], r"shape \(3, 2\) for 6 images"),
    (lambda images: two(images[0].mean() + 0 * darkness(images)), "mixes its images"),
    (lambda images: two(float(images.mean())), "fails on 6 images .* ConcretizationTypeError"),
]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 1)).astype(np.float32)


@pytest.mark.parametrize(("fn", "message"), BROKEN)
def test_broken_contract_is_refused(images, fn, message):
    for run in (certification.certify, prediction.predict):
        with pytest.raises(ValueError, match=message):
            next(iter(run(fn, images, SETTINGS)))


def test_nothing_is_written_of_refused(images, tmp_path):
    with pytest.raises(ValueError, match="uses statistics of its batch"):
        list(certification.certify(normalised, images, SETTINGS, out=tmp_path / "run.jsonl"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fn",
    [
        lambda images: two(darkness(images)),
        lambda images: 1e30 * two(darkness(images)),
        lambda images: jax.vmap(lambda image: jnp.stack([image.mean(), 0.5 - image.max() / 3]))(images),
        lambda images: jnp.stack([k * darkness(images) - k * k for k in range(7)], -1),
        lambda images: two(jnp.where(darkness(images) > 0.1, jnp.nan, darkness(images))),
        lambda images: masked(random_layer(images)),
        lambda images: random_layer(images) - 1e5,
        lambda images: random_layer(images).astype(jnp.bfloat16),
        lambda images: jax.nn.softmax(1000 * random_layer(images)),
        lambda images: jnp.sign(random_layer(images)),
        lambda images: jax.nn.one_hot((darkness(images) > 0).astype(int), 2),
    ],
)
def test_functions_of_one_image_pass(images, fn):
    assert len(list(certification.certify(fn, images, SETTINGS))) == 2


def test_equal_logits_of_black_pass():
    assert len(list(certification.certify(random_layer, np.zeros((2, 8, 8, 1)), SETTINGS))) == 2


@pytest.mark.parametrize("sampler", ["independent", pytest.param("serial", marks=pytest.mark.slow)])
def test_model_that_mixes_lanes_is_refused(images, sampler):
    whole = toy.build()
    mixing = whole._replace(
        cell=lambda params, z, u: jax.tree.map(lambda x: x - x.mean(0), whole.cell(params, z, u))
    )
    settings = config.Smoothing(
        sampler=sampler, num_selection=10, num_estimation=60, alpha=0.1, lanes=10, budget=2
    )
    variables = whole.init(jax.random.key(0))
    with pytest.raises(ValueError, match="mixes its images"):
        list(certification.certify(classifiers.classifier(mixing, variables), images, settings))
    found = certification.certify(classifiers.classifier(whole, variables), images, settings)
    assert [certificate.index for certificate in found] == [0, 1]


def test_every_way_in_checks_the_contract(images, tmp_path):
    from deqsmooth import data

    dataset = data.of_arrays(images, [0, 1])
    good, bad = classifiers.classifier(lambda images: two(darkness(images))), classifiers.classifier(normalised)
    found = list(certification.certify_dataset(good, dataset, range(2), SETTINGS))
    pairs = recertification.settings_after(SETTINGS, num_pairs=20)
    for run in (
        lambda: certification.certify_dataset(bad, dataset, range(2), SETTINGS),
        lambda: recertification.recertify(found, (good, SETTINGS), (bad, pairs), dataset),
        lambda: recertification.recertify(found, (bad, SETTINGS), (good, pairs), dataset),
        lambda: attacks.attack(bad, found, SETTINGS, dataset, [0.1], config.Attack(steps=1, num_estimation=50)),
    ):
        with pytest.raises(ValueError, match="uses statistics of its batch"):
            list(run())


def test_skipped_check_is_on_record(images, tmp_path):
    from deqsmooth.certificates import outcome, verification

    path = tmp_path / "run.jsonl"
    list(certification.certify(normalised, images, SETTINGS, out=path, skip_soundness_check=True))
    checked = verification.verify(path)
    assert checked.header["soundness_check"] == "skipped"
    assert "a function of one image was not checked" in outcome.summary(checked)
    with pytest.raises(ValueError, match="soundness_check is"):
        list(certification.certify(lambda x: two(darkness(x)), images, SETTINGS, out=path))
