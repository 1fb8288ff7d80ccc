"""Certification: counts that depend on nothing but the key path, audits of the same noise, true radii."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from support import labels_of

from deqsmooth import config, data, devices
from deqsmooth.models import checkpoints, classifiers
from deqsmooth.smoothing import certification, cost, kernels, layout, noise
from deqsmooth.statistics import bounds, robustness

INDEPENDENT = config.Smoothing(
    sampler="independent", budget=4, num_selection=20, num_estimation=90, block=16, lanes=16
)
SERIAL = config.Smoothing(
    budget=1, warmup_budget=2, reference_budget=4, num_selection=20, num_estimation=90, num_audit=30,
    block=16, lanes=16,
)  # fmt: skip


@pytest.fixture
def images():
    return np.asarray(jax.random.uniform(jax.random.key(4), (5, 8, 8, 1)))


def certify(classifier, images, settings, **change):
    settings = dataclasses.replace(settings, **change)
    return list(certification.certify(classifier, images, settings))


def essence(certificates, *but):
    """Fields apart from times and from what is said to differ."""
    return [{name: x for name, x in vars(c).items() if name not in ("seconds", *but)} for c in certificates]


def test_only_what_is_asked_for_is_classified():
    """A call that is not full leaves out blocks: every block is counted as it is classified."""
    calls = []

    def classify(images):
        jax.debug.callback(lambda: calls.append(len(images)))
        return images.mean((1, 2)) @ jnp.array([[1.0, -1.0]])

    made = classifiers.classifier(classify)
    settings = dataclasses.replace(INDEPENDENT, budget=None, images_per_batch=32)
    programs = certification.prepare(made, settings, (4, 4, 1), 1)
    image = np.full((1, 4, 4, 1), 0.5, np.float32)
    (found,) = certification.certify(made, image, settings, programs=programs, skip_soundness_check=True)
    jax.effects_barrier()
    # 20 samples of the selection and 90 of the estimation.
    assert calls == [16] * (2 + 6) and sum(found.counts) == 90


def test_independent_counts_equal_single_solves(small, images):
    for index, c in enumerate(certify(small, images[:2], INDEPENDENT)):
        votes = labels_of(small, images[index], index, noise.ESTIMATION, range(90))
        assert c.counts == tuple(np.bincount(votes, minlength=11))
        votes = labels_of(small, images[index], index, noise.SELECTION, range(20))
        assert c.counts_selection == tuple(np.bincount(votes, minlength=11))
        assert c.selected == np.argmax(c.counts_selection)
        assert c.count == c.counts[c.selected]
        assert c.p_lower == bounds.clopper_pearson_lower(c.count, 90, 0.001)
        assert len(set(c.counts)) > 2


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    ("num_devices", "lanes", "images_per_batch"),
    [
        (1, 7, 2), (3, 25, None), (8, 120, 5), (8, None, None),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, None, None), (3, None, 4), (8, 7, 2))),
    ],
)  # fmt: skip
def test_independent_counts_ignore_lanes_and_devices(
    small, images, use_devices, num_devices, lanes, images_per_batch
):
    settings = dataclasses.replace(INDEPENDENT, solver="plain")
    expected = essence(certify(small, images, settings), "lanes")
    use_devices(num_devices)
    found = certify(small, images, settings, lanes=lanes, images_per_batch=images_per_batch)
    assert essence(found, "lanes") == expected


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("num_devices", "lanes", "images_per_batch"), [(1, 7, 3), (3, 25, 1), (8, None, None)])
def test_continuous_counts_ignore_lanes_and_devices(
    small, images, use_devices, num_devices, lanes, images_per_batch
):
    tolerance = {"solver": "plain", "budget": 20, "tolerance": 1e-2, "block": 6}
    expected = certify(small, images, INDEPENDENT, **tolerance)
    assert all(90 + 20 < c.evaluations < 19 * (90 + 20) for c in expected)
    use_devices(num_devices)
    found = certify(small, images, INDEPENDENT, lanes=lanes, images_per_batch=images_per_batch, **tolerance)
    assert essence(found, "lanes") == essence(expected, "lanes")


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "start", ["previous", *(pytest.param(start, marks=pytest.mark.slow) for start in ("first", "clean"))]
)
def test_serial_certificates_ignore_batches_and_devices(small, images, use_devices, start):
    # One program serves both phases where they have as many samples. Neither 3 nor 8 divides 13.
    phases = {"num_selection": SERIAL.num_estimation, "lanes": 13, "solver": "plain"}
    settings = dataclasses.replace(SERIAL, start=start, **phases)
    expected = essence(certify(small, images, settings))
    use_devices(3)
    assert essence(certify(small, images, settings, images_per_batch=2)) == expected
    alone = list(certification.certify(small, images[3:4], settings, indices=[3]))
    assert essence(alone) == expected[3:4]


def test_full_audit_counts_all_mismatches(small, images):
    for index, c in enumerate(certify(small, images[:2], SERIAL, num_audit=90)):
        assert c.num_audit == c.count
        kept = labels_of(small, images[index], index, noise.ESTIMATION, range(90)) == c.selected
        # Every serial vote for the class was audited, so confirmed votes are a subset of the reference's own.
        assert c.count - c.mismatches <= kept.sum()
        assert c.mismatches > 0
        assert c.p_lower == bounds.clopper_pearson_lower(c.count - c.mismatches, 90, 0.0005)


def test_audit_gives_the_exact_bound(small, images):
    settings = dataclasses.replace(SERIAL, num_audit=10, alpha=0.1, alpha_audit=0.05)
    (c,) = certification.certify(small, images[:1], settings)
    assert c.num_audit == 10 < c.count
    expected = bounds.lower_bound(c.count, 90, 0.05, audit=bounds.Audit(10, c.mismatches, 0.05))
    assert c.p_lower == expected
    assert c.radius == robustness.radius(expected, 0.5)
    assert (c.prediction is None) == (expected <= 0.5)
    assert c.warning is None
    (c,) = certification.certify(small, images[:1], dataclasses.replace(SERIAL, bound="reference-code"))
    assert c.warning == "not a valid bound"


def test_dataset_is_read_batch_by_batch(small):
    read = []

    class Reads(data.Dataset):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    dataset, indices = data.load("digits", "test"), [5, 3, 40, 17, 2]
    images, labels = dataset.take(indices)
    settings = dataclasses.replace(SERIAL, images_per_batch=2)
    found = certification.certify_dataset(small, Reads(**vars(dataset)), indices, settings)
    first = next(found)
    assert read == [5, 5, 3]
    expected = certification.certify(small, images, settings, labels=labels, indices=indices)
    assert essence([first, *found]) == essence(expected)
    assert read == [5, *indices]


@pytest.mark.parametrize("settings", [INDEPENDENT, SERIAL], ids=["independent", "serial"])
def test_unreadable_images_change_no_other(small, settings):
    whole = data.load("digits", "test")

    class Damaged(data.Dataset):
        def __getitem__(self, index):
            if index == 3:
                raise ValueError("cannot be read: torn")
            image, label = super().__getitem__(index)
            return (np.full_like(image, np.nan) if index == 17 else image), label

    dataset, indices, left_out = Damaged(**vars(whole)), [5, 3, 40, 17, 2], []
    settings = dataclasses.replace(settings, images_per_batch=2)
    found = list(certification.certify_dataset(small, dataset, indices, settings, on_unreadable=left_out.append))
    expected = certification.certify_dataset(small, whole, [5, 40, 2], settings)
    assert essence(found) == essence(expected)
    assert [entry.index for entry in left_out] == [3, 17]
    assert left_out[0].error == "cannot be read: torn" and "finite" in left_out[1].error
    with pytest.raises(ValueError, match="image 3: cannot be read: torn"):
        list(certification.certify_dataset(small, dataset, indices, settings))


def test_evaluations_are_counted_exactly(small, images):
    independent = certify(small, images, INDEPENDENT)
    assert {c.evaluations for c in independent} == {4 * (20 + 90)} == {layout.resolve(INDEPENDENT).evaluations}
    serial = certify(small, images, SERIAL)
    # Both phases warm up 16 lanes; the audit is padded to its size where there are fewer votes.
    assert (
        {c.evaluations for c in serial}
        == {2 * 16 * 2 + (20 + 90) + 30 * 4}
        == {layout.resolve(SERIAL).evaluations}
    )


def test_chains_of_one_sample_vote_independently(small, images):
    """Plain iteration goes on where its warm-up stopped, so that 2 and 2 evaluations are 4."""
    serial = certify(small, images, SERIAL, budget=2, warmup_budget=2, solver="plain", lanes=90)
    independent = certify(small, images, INDEPENDENT, solver="plain")
    for name in ("counts", "counts_selection", "selected"):
        assert [getattr(c, name) for c in serial] == [getattr(c, name) for c in independent]
    assert {c.mismatches for c in serial} == {0}


def test_ten_images_are_traced_once(small, monkeypatch):
    traces = []
    run = kernels.run
    monkeypatch.setattr(kernels, "run", lambda *arguments: traces.append(1) or run(*arguments))
    images = np.asarray(jax.random.uniform(jax.random.key(4), (10, 8, 8, 1)))
    assert len(certify(small, images, SERIAL, images_per_batch=4)) == 10
    # Selection, estimation, audit.
    assert len(traces) == 3


def test_logits_that_are_not_finite_never_vote(images):
    def fragile(images):
        score = images.mean((1, 2, 3))[:, None] * jnp.array([1.0, 2.0])
        # Noise makes some pixel negative, as in no clean image.
        return jnp.where(jnp.min(images, (1, 2, 3))[:, None] < 0, jnp.nan, score)

    for c in certify(fragile, images[:2] + 1e-3, INDEPENDENT):
        assert c.prediction is None and c.radius == 0 and c.invalid == 90 and c.counts == (0, 0, 90)


def test_model_of_nan_is_refused(small, images):
    broken = small._replace(variables=jax.tree.map(lambda x: np.full_like(x, np.nan), small.variables))
    for settings in (INDEPENDENT, SERIAL):
        with pytest.raises(ValueError, match="on a clean image; logits must be finite"):
            certify(broken, images[:2], settings)


def test_ties_go_to_the_lowest_class(images):
    def tied(images):
        score = images.mean((1, 2, 3))
        return jnp.stack([score - 10, score, score], -1)

    for c in certify(tied, images[:2], INDEPENDENT):
        assert c.prediction == 1 and c.counts == (0, 90, 0, 0)


# Two classes divided by a plane with unit normal: the smoothed radius is the distance to it, in closed form.
NORMAL = np.random.default_rng(7).normal(size=(8, 8, 1)).astype(np.float32)
NORMAL /= np.linalg.norm(NORMAL)


def classify_linearly(images, normal=NORMAL):
    score = jnp.sum((images - 0.5) * normal, (1, 2, 3))
    return jnp.stack([score, -score], -1)


def test_radius_is_below_distance_to_boundary(images):
    settings = config.Smoothing(sampler="independent", sigma=0.25, num_estimation=2000, alpha=0.01)
    found = certify(classify_linearly, images, settings)
    for image, c in zip(images, found, strict=True):
        distance = np.sum((image - 0.5) * NORMAL)
        if c.prediction is not None:
            assert c.prediction == int(distance < 0)
            assert c.radius <= abs(distance)
            # With 2,000 samples the bound is at most 0.1 below the truth in standard scores, up to the cap.
            assert c.radius >= min(abs(distance), settings.cap) - 0.1 * 0.25 * 3
        assert c.solver is None and c.residuals is None
        assert c.evaluations == 2100
    assert any(c.prediction is not None for c in found)


def test_coverage_over_many_images_is_nominal(images):
    """500 certificates at alpha 0.2: at most a fifth exceed the truth, and not far fewer."""
    alpha, count = 0.2, 500
    settings = config.Smoothing(
        sampler="independent", sigma=0.25, num_estimation=100, num_selection=10, alpha=alpha
    )
    image = np.clip(0.5 + 0.3 * 0.25 * NORMAL, 0, 1)
    found = list(certification.certify(classify_linearly, np.stack([image] * count), settings))
    truth = {0: stats.norm.cdf(0.3), 1: stats.norm.cdf(-0.3)}
    missed = sum(c.p_lower > truth[c.selected] for c in found)
    assert stats.binomtest(missed, count, alpha, alternative="greater").pvalue > 1e-3
    assert missed > 0.5 * alpha * count


def test_partial_parameters_are_program_arguments(images):
    partial = jax.tree_util.Partial(lambda normal, images: classify_linearly(images, normal), jnp.asarray(NORMAL))
    assert essence(certify(partial, images, INDEPENDENT)) == essence(
        certify(classify_linearly, images, INDEPENDENT)
    )


BAD_IMAGES = [
    (lambda x: x * 255, "looks like 0 to 255"),
    (lambda x: x - 0.5, "before any standardisation"),
    (lambda x: np.where(x > 0.5, np.nan, x), "nan"),
    (lambda x: x[0], "that of a single image"),
    (lambda x: x[:0], "there must be at least one image"),
    (lambda x: (x * 255).astype(np.int32), "they must be uint8"),
    (lambda x: x[:, :4], r"\(4, 8, 1\); the model takes \(8, 8, 1\)"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_IMAGES)
def test_bad_images_are_refused(small, images, spoil, message):
    with pytest.raises(ValueError, match=message):
        certify(small, spoil(images), INDEPENDENT)


def test_bad_arguments_are_refused(small, images):
    with pytest.raises(ValueError, match="only 'independent'"):
        certify(classify_linearly, images, SERIAL)
    with pytest.raises(ValueError, match="labels has 4 entries; there must be one for each of the 5 images"):
        list(certification.certify(small, images, INDEPENDENT, labels=[0, 1, 2, 3]))
    with pytest.raises(ValueError, match="must give logits"):
        certify(lambda images: jnp.sum(images), images, INDEPENDENT)


@pytest.mark.parametrize(
    "settings",
    [INDEPENDENT, dataclasses.replace(INDEPENDENT, tolerance=1e-3), SERIAL],
    ids=["independent", "refilled", "serial"],
)
def test_devices_exchange_nothing(small, settings):
    """So that none waits for another, and several processes need no way to each other."""
    programs = certification.prepare(small, settings, small.model.image_shape, 5)
    for program in programs.compiled.values():
        text = program.as_text()
        assert "fusion" in text
        assert not re.search(r"all-(gather|reduce|to-all)|reduce-scatter|collective-(permute|broadcast)", text)


@pytest.mark.slow
def test_largest_fitting_block_is_found(small, images, monkeypatch, capsys):
    settings = dataclasses.replace(INDEPENDENT, block="auto")
    shape = images.shape[1:]

    def needed(block):
        one = certification.prepare(small, dataclasses.replace(settings, block=block), shape, 1)
        return max(cost.memory(one).values())

    assert needed(25) > needed(12)
    monkeypatch.setattr(devices, "memory", lambda: needed(25) - 1)
    assert certification.fit(small, settings, shape, 5).block == 12
    assert essence(certify(small, images, settings)) == essence(certify(small, images, INDEPENDENT, block=12))
    monkeypatch.setattr(devices, "memory", lambda: 1000)
    with pytest.raises(
        ValueError, match=r"block is 'auto'; even 1 needs [0-9,]+ bytes of a device that has 1,000"
    ):
        next(certification.certify(small, images, settings))
    monkeypatch.undo()
    assert certification.fit(small, settings, shape, 5).block == layout.default_block() == 25
    assert 2**20 < devices.memory() < 2**50


def test_models_trained_with_their_start_are_certified_with_the_budget_of_that_training():
    classifier = checkpoints.load_shipped("digits", 0.5)
    assert certification.recommended(classifier, config.Smoothing()).budget == 2
    short = dataclasses.replace(classifier.start_training, fine_tune=1.0, budget=1)
    classifier = classifier._replace(start_training=short)
    found = certification.recommended(classifier, config.Smoothing())
    assert (found.start, found.budget) == ("learned", 1)
    assert certification.recommended(classifier, config.Smoothing(budget=3)).budget == 3
    assert certification.recommended(classifier, config.Smoothing(start="zero")).budget == 30
    assert certification.recommended(classifier, config.Smoothing(settle="proof")).budget == 60
