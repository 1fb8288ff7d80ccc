"""States on disk whose files were cut off, changed or removed."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deqsmooth import config
from deqsmooth.training import states, updates

SETTINGS = config.Training(epochs=8)
KEPT = (10, 20)


def state(update):
    key = jax.random.fold_in(jax.random.key(0), update)
    params = {name: jax.random.normal(key, shape) for name, shape in (("kernel", (40, 50)), ("bias", (50,)))}
    return updates.init({"params": params}, SETTINGS)._replace(update=jnp.int32(update))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with states.Run(folder, SETTINGS) as run:
        for update in KEPT:
            run.save(state(update))
    return folder


@pytest.fixture
def folder(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def latest(folder):
    with states.Run(folder, SETTINGS) as run:
        return run.latest(state(0))


def needed(folder):
    """Files of the newest state without which it cannot be read."""
    found = [
        folder / "config" / "metadata",
        *(folder / "state").glob("*manifest*"),
        folder / "state" / "_METADATA",
    ]
    arrays = (folder / "state" / "ocdbt.process_0" / "d").iterdir()
    return [*found, max(arrays, key=lambda file: file.stat().st_size)]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_state_falls_back(folder, caplog, capfd, which, share):
    newest = folder / "states" / "20"
    file = needed(newest)[which]
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    found = latest(folder)
    jax.tree.map(np.testing.assert_array_equal, found, state(10))
    assert "the state after update 20 was damaged and is removed" in caplog.text
    assert "the run continues after update 10" in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    # The same update can be saved again.
    assert not newest.exists()
    with states.Run(folder, SETTINGS) as run:
        run.save(state(20))
    jax.tree.map(np.testing.assert_array_equal, latest(folder), state(20))


@pytest.mark.parametrize("item", ["state", "config"])
def test_state_without_an_item_falls_back(folder, caplog, item):
    shutil.rmtree(folder / "states" / "20" / item)
    assert int(latest(folder).update) == 10
    assert f'Item "{item}" was not found' in caplog.text


def test_only_damaged_states_are_kept(folder):
    for update in KEPT:
        (folder / "states" / str(update) / "state" / "_METADATA").write_text("{")
    with pytest.raises(ValueError, match=r"no state that can be read .*after update 20.*after update 10"):
        latest(folder)
    assert {int(one.name) for one in (folder / "states").iterdir()} == set(KEPT)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ((config.Training(epochs=9),), "epochs was 8 and is 9"),
        ((config.StartTraining(),), "holds another run .*StartTraining has no settings"),
        ((SETTINGS, "0" * 64), "another checkpoint"),
    ],
)
def test_other_run_is_refused(folder, run, message):
    (folder / "states" / "20" / "state" / "_METADATA").write_text("{")
    with states.Run(folder, *run) as opened, pytest.raises(ValueError, match=message):
        opened.latest(state(0))
    assert (folder / "states" / "20").exists()


def test_data_directory_does_not_matter(folder):
    with states.Run(folder, config.Training(epochs=8, data_dir="elsewhere")) as run:
        assert int(run.latest(state(0)).update) == 20


def test_other_images_are_refused(tmp_path):
    for data, refused in ((("a", "b"), False), (("a", "b"), False), (("a", "c"), True)):
        with states.Run(tmp_path, SETTINGS, None, data) as run:
            if refused:
                with pytest.raises(ValueError, match="it had other images"):
                    run.latest(state(0))
            else:
                run.save(state(10))
                assert int(run.latest(state(0)).update) == 10


@pytest.mark.parametrize("place", ["file", "file/inside", "/proc/run"])
def test_unusable_folder_is_named(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"workdir is .*; cannot write .*states"):
        states.Run(tmp_path / place, SETTINGS)
