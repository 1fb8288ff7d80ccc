"""Speed of a cell evaluation against the peak of the machine, and the parts of a sample.

Measures in one run: a large matrix product and a large copy; one evaluation of the cell, and the same in PyTorch
if it is installed; and the parts of a sample of 30 evaluations. Writes a line a measurement, and tables.

    python benchmarks/evaluation.py --models mdeq-small mdeq-large
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import timing
import tyro
from jax import lax
from jax.extend.core import jaxprs_in_params

import deqsmooth as ds
from deqsmooth import devices, models, solvers
from deqsmooth.config import presets
from deqsmooth.models import base_classifier, classifiers, starts
from deqsmooth.smoothing import layout, noise

_SIGMA = 0.5
_SHORT, _LONG = 10, 30
_NUM_SELECTION = 100


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare cell evaluations with the peak of the machine.

    Attributes:
      models: names of models; they are not trained.
      dtypes: floating point types of the cell.
      lanes: numbers of samples that a device evaluates at a time.
      rounds: number of such blocks that a device evaluates in one program.
      block: number of rows in one compiled evaluation of the certification, see `config.Smoothing`.
      solvers: solvers of a sample, by their names for `--solver` of `certify.py`.
      samples: number of noise samples of the certification whose parts are measured; 0 to skip it.
      repeats: number of timings of each program; the least counts.
      matrix: number of rows and columns of the multiplied matrices.
      copy_mib: size of the copied array, in MiB.
      pytorch: whether to time PyTorch, too.
      out: folder of the results.
    """

    models: tuple[str, ...] = ("mdeq-small",)
    dtypes: tuple[str, ...] = ("float32",)
    lanes: tuple[int, ...] = (100,)
    rounds: int = 1
    block: int | None = None
    solvers: tuple[str, ...] = ("anderson",)
    samples: int = 2000
    repeats: int = 5
    matrix: int = 4096
    copy_mib: int = 512
    pytorch: bool = True
    out: pathlib.Path = pathlib.Path("runs/evaluation")


def main() -> None:
    """Makes all measurements, and writes lines and tables."""
    arguments = tyro.cli(Benchmark)
    devices.start()
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = jax.local_devices()[0].device_kind.replace(" ", "-").lower()
    console = rich.console.Console(record=True, width=130)
    with (arguments.out / f"{name}.jsonl").open("a") as file:

        def note(**row):
            file.write(json.dumps({**row, "devices": jax.local_device_count(), "jax": jax.__version__}) + "\n")
            file.flush()
            return row

        peaks = [note(kind="peak", **row) for row in machine(arguments)]
        console.print(table("the machine", peaks))
        cells, samples = [], []
        for model in arguments.models:
            for dtype in arguments.dtypes:
                for lanes in arguments.lanes:
                    cells.append(note(kind="cell", **cell(model, dtype, lanes, arguments)))
                if arguments.samples:
                    samples += [note(kind="sample", **row) for row in sample(model, dtype, arguments)]
            if arguments.pytorch:
                for lanes in arguments.lanes:
                    cells += [note(kind="cell", **row) for row in pytorch(model, lanes, arguments)]
        console.print(table("one cell evaluation", cells))
        if samples:
            console.print(table(f"one sample of {_LONG} evaluations", samples))
    (arguments.out / f"{name}.txt").write_text(console.export_text())


def machine(arguments):
    """Yields the rates of a large matrix product, for every dtype, and of a large copy."""
    mesh = devices.mesh()
    n = arguments.matrix
    kinds = {
        "float32": ("float32", "highest"),
        "tensorfloat32": ("float32", "tensorfloat32"),
        "bfloat16": ("bfloat16", "highest"),
    }
    for name in arguments.dtypes:
        dtype, precision = kinds[name]
        # The rows of the left matrix are distributed over the devices, as lanes are.
        keys = jax.random.split(jax.random.key(0))
        left, right = (jax.random.normal(key, (n, n), jnp.float32).astype(dtype) for key in keys)
        with jax.default_matmul_precision(precision):
            multiply = jax.jit(
                lambda right, left: devices.map_blocks(lambda x, rows: rows @ x, right, left, n // mesh.size, mesh)
            )
            spent = timing.seconds(multiply, right, left, repeats=arguments.repeats)
        yield {"what": f"matrix product {n}, {name}", "seconds": spent, "tflops": 2 * n**3 / spent / 1e12}
    x = jnp.zeros((mesh.size, arguments.copy_mib * 2**18 // mesh.size))
    add = jax.jit(functools.partial(devices.map_blocks, lambda one, rows: rows + one, block=1, mesh=mesh))
    spent = timing.seconds(add, jnp.float32(1), x, repeats=arguments.repeats)
    yield {"what": f"copy of {arguments.copy_mib} MiB", "seconds": spent, "gbs": 2 * x.nbytes / spent / 1e9}


def cell(name, dtype, lanes, arguments):
    """Returns the time and rates of one evaluation of a cell, from the difference of a long and a short loop."""
    mesh = devices.mesh()
    model, variables, images = _model(name, dtype, lanes * mesh.size * arguments.rounds)

    def run(budget):
        def on_block(variables, images):
            u, _ = model.inject(variables, images, None)
            params = model.bind(variables)
            z = lax.fori_loop(0, budget, lambda _, z: model.cell(params, z, u), model.initial_state(u))
            return sum(jnp.sum(x, tuple(range(1, x.ndim))) for x in jax.tree.leaves(z))

        program = _highest(lambda v, x: devices.map_blocks(on_block, v, x, lanes, mesh))
        return timing.seconds(program, variables, images, repeats=arguments.repeats)

    spent = (run(_LONG) - run(_SHORT)) / (_LONG - _SHORT) / arguments.rounds
    return {"model": name, "how": f"ours, {dtype}", **rates(name, lanes, lanes * mesh.size, spent)}


def sample(name, dtype, arguments):
    """Yields the time of each part of a sample, from differences between programs with more and more parts."""
    mesh = devices.mesh()
    num = arguments.samples
    model, variables, images = _model(name, dtype, 1)
    settings = {
        solver: ds.Smoothing(
            sampler="independent",
            num_estimation=num - _NUM_SELECTION,
            num_selection=_NUM_SELECTION,
            solver=solver,
            budget=_LONG,
            sigma=_SIGMA,
            dtype=dtype,
            block=arguments.block,
        )
        for solver in arguments.solvers
    }
    block = layout.resolve(settings[arguments.solvers[0]]).block
    rows = np.arange(-(-num // (block * mesh.size)) * block * mesh.size, dtype=np.int32)

    def program(classify):
        def on_block(shared, rows):
            variables, images = shared
            keys = jnp.stack([noise.phase_key(0, 0, noise.ESTIMATION)] * block)
            return classify(variables, noise.noisy(images[jnp.zeros_like(rows)], keys, rows, _SIGMA))

        run = _highest(lambda v, x: devices.map_blocks(on_block, (v, x), rows, block, mesh))
        return lambda: run(variables, images)

    def around(variables, images):
        u, _ = model.inject(variables, images, None)
        # The readout must depend on the injection of every image: XLA drops unused work, and reads out only once a
        # state that all images share.
        level = jnp.mean(jax.tree.leaves(u)[0], (1, 2, 3), keepdims=True)
        z = jax.tree.map(lambda x: x + level, model.initial_state(u))
        return jnp.argmax(model.readout(variables, z, False)[0], -1)

    def solve(solver):
        def classify(variables, images):
            output = base_classifier.classify(
                model, variables, solvers.build(solver, _LONG), images, starts.zero(model)
            )
            return jnp.argmax(output.logits, -1)

        return classify

    def evaluate(budget):
        def classify(variables, images):
            u, _ = model.inject(variables, images, None)
            params = model.bind(variables)
            z = lax.fori_loop(0, budget, lambda _, z: model.cell(params, z, u), model.initial_state(u))
            return jnp.argmax(model.readout(variables, z, False)[0], -1)

        return classify

    checkpoint = classifiers.of_size(size_of(name), variables)
    clean = np.asarray(images)
    spent = timing.seconds_in_turn(
        {
            "noise": program(lambda variables, images: jnp.sum(images, (1, 2, 3))),
            "around": program(around),
            "short": program(evaluate(_SHORT)),
            "long": program(evaluate(_LONG)),
            **{f"solve, {solver}": program(solve(solver)) for solver in arguments.solvers},
            **{
                f"whole, {solver}": timing.certifying(checkpoint, clean, settings[solver])
                for solver in arguments.solvers
            },
        },
        arguments.repeats,
    )
    spent = {part: seconds / (num if part.startswith("whole") else len(rows)) for part, seconds in spent.items()}
    cells = (spent["long"] - spent["short"]) / (_LONG - _SHORT) * _LONG
    for solver in arguments.solvers:
        solved, certified = spent[f"solve, {solver}"], spent[f"whole, {solver}"]
        parts = {
            "noise": spent["noise"],
            "injection and readout": spent["around"] - spent["noise"],
            f"{_LONG} evaluations of the cell": cells,
            "mixing and residuals": solved - spent["around"] - cells,
            "counting, transfers and statistics": certified - solved,
            "the whole": certified,
        }
        for part, seconds in parts.items():
            yield {
                "model": name,
                "dtype": dtype,
                "solver": solver,
                "block": block,
                "part": part,
                "microseconds": 1e6 * seconds,
                "percent": 100 * seconds / certified,
            }


def pytorch(name, lanes, arguments):
    """Yields the times of the same cell in PyTorch, eager and compiled, with all lanes in one batch."""
    try:
        import pytorch_mdeq
        import torch
    except ImportError:
        return
    if not isinstance(size_of(name), ds.MdeqModel):
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    total = lanes * jax.local_device_count()
    model, variables, images = _model(name, "float32", total)
    u, _ = model.inject(variables, images, None)
    params = pytorch_mdeq.tensors(model.bind(variables), device)
    z, features = pytorch_mdeq.activations((model.initial_state(u), u.features), device)

    def loop(step, state, dtype):
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            for _ in range(_SHORT):
                state = step(params, state, features)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.no_grad():
        ours = model.cell(model.bind(variables), model.initial_state(u), u)
        for x, y in zip(ours, pytorch_mdeq.cell(params, z, features), strict=True):
            # With a mantissa of 10 bits (TF32) they may differ by a percent.
            np.testing.assert_allclose(x, y.permute(0, 2, 3, 1).cpu(), atol=2e-2)
        for dtype in arguments.dtypes:
            torch.backends.cudnn.allow_tf32 = dtype == "tensorfloat32"
            for how, step in (("eager", pytorch_mdeq.cell), ("compiled", torch.compile(pytorch_mdeq.cell))):
                spent = timing.seconds(loop, step, z, dtype, repeats=arguments.repeats) / _SHORT
                yield {"model": name, "how": f"PyTorch {how}, {dtype}", **rates(name, lanes, total, spent)}


def table(title, rows) -> rich.table.Table:
    """Returns a table of the rows with a column for each field."""
    shown = rich.table.Table(title=title)
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "kind"))
    for column in columns:
        shown.add_column(column, justify="left" if isinstance(rows[0].get(column), str) else "right")
    for row in rows:
        shown.add_row(*(_text(row.get(column, "")) for column in columns))
    return shown


def _text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def size_of(name):
    """Returns the size of a model by its name, or by that of a recipe that trains it."""
    return presets.MODELS[name] if name in presets.MODELS else presets.TRAINING[name].model


@functools.cache
def _model(name, dtype, num):
    size = size_of(name)
    model = models.build(size)
    variables = model.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (num, *size.image_shape))
    return models.with_cell_dtype(model, dtype), variables, images


def _highest(fn):
    return jax.jit(jax.default_matmul_precision("highest")(fn))


def rates(name, lanes, total, spent) -> dict[str, float]:
    """Returns the time and rates of an evaluation.

    The bytes of a convolution are those of its input and output.

    Args:
      name: of the model.
      lanes: number of samples that a device evaluates at a time.
      total: number of samples on all devices.
      spent: seconds of the evaluation.
    """
    model, variables, images = _model(name, "float32", 1)
    u, _ = model.inject(variables, images, None)
    jaxpr = jax.make_jaxpr(model.cell)(model.bind(variables), model.initial_state(u), u)
    flops, num_bytes = _convolutions(jaxpr.jaxpr)
    return {
        "lanes": lanes,
        "seconds": spent,
        "us_per_lane": 1e6 * spent / total,
        "mflop_per_lane": flops / 1e6,
        "tflops": total * flops / spent / 1e12,
        "conv_gbs": total * num_bytes / spent / 1e9,
    }


def flops(fn, *arguments) -> int:
    """Returns the floating point operations of all convolutions of a function of arrays, or of their shapes."""
    return _convolutions(jax.make_jaxpr(fn)(*arguments).jaxpr)[0]


def _convolutions(jaxpr) -> tuple[int, int]:
    """Returns floating point operations, and bytes of inputs and outputs, of all convolutions of a program."""
    flops = num_bytes = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            (x, kernel), y = (v.aval for v in equation.invars), equation.outvars[0].aval
            flops += 2 * y.size * kernel.size // kernel.shape[-1]
            num_bytes += 4 * (x.size + y.size)
        inners = list(jaxprs_in_params(equation.params))
        # The last branch is that of sums of products.
        for inner in inners[-1:] if equation.primitive.name == "cond" else inners:
            more = _convolutions(getattr(inner, "jaxpr", inner))
            flops, num_bytes = flops + more[0], num_bytes + more[1]
    return flops, num_bytes


if __name__ == "__main__":
    main()
