"""Exact noise: certificates of one more implementation, a smallest case by enumeration, and what is refused."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import threefry
from scipy import stats
from support import header_of

import deqsmooth as ds
from deqsmooth.certificates import headers
from deqsmooth.smoothing import attacks, certification, contract, inputs, noise
from deqsmooth.statistics import robustness, rounded_normal

SETTINGS = ds.Smoothing(
    sampler="independent",
    sigma=0.25,
    noise="exact",
    num_selection=20,
    num_estimation=300,
    lanes=25,
    block=50,
    seed=3,
)
IMAGES = np.random.default_rng(1).integers(60, 200, (2, 4, 4, 1)).astype(np.uint8)


def tints(images):
    """Three classes by sums of pixels that are exact in float32: multiples of 1/255 times 255."""
    whole = jnp.round(images * 255)
    upper, lower = whole[:, :2].sum((1, 2, 3)), whole[:, 2:].sum((1, 2, 3))
    return jnp.stack([upper - lower, lower - upper, 0.1 * (upper - 1000)], -1)


def tint(image):
    """The class that `tints` gives an image of integers."""
    upper, lower = int(image[:2].sum()), int(image[2:].sum())
    return int(np.argmax([upper - lower, lower - upper, 0.1 * (upper - 1000)]))


def test_votes_are_those_of_numpy_integers():
    for certificate in ds.certify(tints, IMAGES, SETTINGS):
        for phase, counts in (
            (noise.SELECTION, certificate.counts_selection),
            (noise.ESTIMATION, certificate.counts),
        ):
            drawn = [
                threefry.rounded(3, certificate.index, phase, sample, (4, 4, 1), 0.25, 255)
                for sample in range(sum(counts))
            ]
            votes = [tint(IMAGES[certificate.index].astype(int) + one) for one in drawn]
            assert np.bincount(votes, minlength=4).tolist() == list(counts)
        assert certificate.noise_error == rounded_normal.total_variation(0.25, 255, 16)
        assert min(certificate.counts[:2]) > 0


def smoothed(classes, at, sigma):
    """P(class 1) at a real pixel: F(x) = classes[round(x)], with the ends going on for ever."""
    ends = np.array([-np.inf, *np.arange(0.5, len(classes) - 1), np.inf])
    return float(np.diff(stats.norm.cdf((ends - at) / sigma)) @ classes)


def test_eight_levels_by_exhaustive_enumeration():
    """Every classifier of a pixel of 8 levels: within the radius of a level no real pixel has another class."""
    sigma = 1.3
    for classes in itertools.product((0, 1), repeat=8):
        for level in range(8):
            p = smoothed(classes, level, sigma)
            radius = robustness.radius(p, sigma) if p > 0.5 and p < 1 else 0.0
            for at in np.linspace(level - radius, level + radius, 9):
                assert radius == 0 or smoothed(classes, at, sigma) >= 0.5 - 1e-9


def test_levels_get_votes_of_their_probabilities():
    """One pixel of 8 levels: the counts of a classifier follow the probabilities of real noise that is rounded."""
    classes = np.array([0, 1, 1, 0, 0, 1, 0, 1])

    def classify(images):
        level = jnp.clip(jnp.round(images[:, 0, 0, 0] * 7).astype(jnp.int32), 0, 7)
        return jnp.stack([1.0 - jnp.asarray(classes)[level], jnp.asarray(classes)[level]], -1)

    settings = dataclasses.replace(SETTINGS, grid=7, sigma=0.2, num_estimation=4000)
    levels = (np.arange(8) / 7).reshape(8, 1, 1, 1)
    for one in ds.certify(classify, levels, settings):
        p = smoothed(classes, one.index, 0.2 * 7)
        assert stats.binomtest(one.counts[1], 4000, p).pvalue > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": 0}, "grid is 0"),
        ({"grid": 10_000}, "at most 8192: 65,536, and 2048 / sigma"),
        ({"grid": 10**9, "sigma": 1e-6}, "at most 65536"),
        ({"noise": "gaussian", "grid": 255}, "left out with 'gaussian' noise"),
        ({"noise": "real"}, "unknown noise 'real'"),
    ],
)
def test_settings_that_contradict_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


def test_images_off_the_grid_are_refused():
    sixteenths = np.full((1, 4, 4, 1), 3 / 16)
    with pytest.raises(ValueError, match=r"pixel 0.1875; .* set grid to 256"):
        list(ds.certify(tints, sixteenths, SETTINGS))
    with pytest.raises(ValueError, match=r"pixel 0.30000001; .* or noise 'gaussian'"):
        list(ds.certify(tints, np.full((1, 4, 4, 1), 0.3), dataclasses.replace(SETTINGS, grid=256)))
    with pytest.raises(ValueError, match=r"pixel 0\.1875"):
        list(ds.predict(tints, sixteenths, SETTINGS))


def test_attacks_on_exact_noise_are_refused():
    found = list(ds.certify(tints, IMAGES, SETTINGS, labels=[0, 0]))
    with pytest.raises(ValueError, match="noise is 'exact'"):
        next(attacks.attack(tints, found, SETTINGS, ds.arrays(IMAGES, [0, 0]), [0.1], ds.Attack(steps=1)))


def test_logits_that_know_their_lane_are_refused():
    """By one part in ten million, which the check of ordinary noise lets pass."""

    def lanes(images):
        return tints(images) * (1 + 1e-7 * jnp.arange(len(images))[:, None])

    next(ds.certify(lanes, IMAGES, dataclasses.replace(SETTINGS, noise="gaussian", grid=None)))
    with pytest.raises(ValueError, match="depends on its lane by rounding"):
        next(ds.certify(lanes, IMAGES, SETTINGS))
    contract.check_bits(lambda _, images: tints(images), (), IMAGES[0] / np.float32(255), 50)


@pytest.mark.usefixtures("optimised")
def test_votes_that_know_their_place_are_refused():
    """Of a DEQ, whose residuals are compared in the compiled program."""
    model = ds.load_checkpoint("digits", 0.5)
    images, _ = ds.load_dataset("digits").take(range(1))
    settings = ds.Smoothing(sampler="independent", budget=2, noise="exact", grid=256, lanes=20, block=20)
    programs = certification.prepare(model, settings, images.shape[1:], 1)
    programs.check_bits(images[0])
    key, program = next(iter(programs.compiled.items()))

    def uneven(*arguments):
        info, warm_up = program(*arguments)
        nudge = 1 + 1e-7 * np.arange(len(info.residual))[:, None]
        return info._replace(residual=np.float32(info.residual * nudge)), warm_up

    with pytest.raises(ValueError, match="depends on its lane by rounding"):
        dataclasses.replace(programs, compiled={key: uneven}).check_bits(images[0])


def test_other_noise_is_not_recertified():
    exact = dataclasses.replace(SETTINGS, num_estimation=100)
    with pytest.raises(ValueError, match="noise is 'exact'"):
        ds.paired(exact, budget=3)
    found = list(ds.certify(tints, IMAGES, exact))
    gaussian = dataclasses.replace(exact, noise="gaussian", grid=None)
    with pytest.raises(ValueError, match="noise_error of the certificate of image 0"):
        inputs.certificates(found, gaussian)


def test_file_states_noise_and_verifies(tmp_path):
    found = list(ds.certify(tints, IMAGES, SETTINGS, out=tmp_path / "run.jsonl"))
    checked = ds.verify(tmp_path / "run.jsonl", tints, ds.arrays(IMAGES), num=2)
    assert checked.differences == [] and checked.found == found
    error = rounded_normal.total_variation(0.25, 255, 16)
    assert checked.header["noise"] == {"kind": "exact", "generator": "threefry2x32", "error": error}


@pytest.mark.parametrize("change", [{"kind": "exact"}, {"generator": "rbg"}, {"error": 0.0}])
def test_header_with_other_noise_is_refused(change):
    header = header_of()
    headers.terms("run", header)
    with pytest.raises(ValueError, match=r"noise is .* by the settings"):
        headers.terms("run", {**header, "noise": {**header["noise"], **change}})


@pytest.mark.slow
def test_settled_votes_take_exact_noise():
    """The proof includes rounding, so that every bit of the statement is covered."""
    images, _ = ds.load_dataset("digits").take(range(2))
    model = ds.load_checkpoint("digits", 0.5, "proof")
    settings = ds.Smoothing(
        sampler="independent", settle="proof", start="learned", noise="exact", grid=256, num_estimation=200
    )
    for one in ds.certify(model, images, settings):
        assert one.noise_error > 0 and sum(one.counts) == 200


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("order", [slice(None, None, -1), np.roll(np.arange(100), 37)])
def test_digits_logits_ignore_lanes_bitwise(order):
    model = ds.load_checkpoint("digits", 0.5)
    images, _ = ds.load_dataset("digits").take(range(1))
    settings = ds.Smoothing(
        sampler="independent", start="learned", budget=2, noise="exact", grid=256, lanes=100, block=100
    )
    programs = certification.prepare(model, settings, images.shape[1:], 1)
    samples = np.arange(100)
    found, other = (
        programs(images, np.zeros(1, int), np.ones(1, int), chosen[None]) for chosen in (samples, samples[order])
    )
    np.testing.assert_array_equal(found.residual[0][order], other.residual[0])
    np.testing.assert_array_equal(found.votes[0][order], other.votes[0])
