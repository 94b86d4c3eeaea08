"""`over_checkpoints`: the numbers of an obvious loop, nothing computed twice, nothing lost when something fails."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
import weakref
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from folders import ARCHITECTURE, random_weights, write_tokenizer
from processes import in_python
from safetensors.torch import save
from xarray.testing import assert_identical

import induction_kernel as ik
from induction_kernel.loading import training_history
from induction_kernel.prompts._fingerprints import fingerprint

STEPS = (0, 10, 20, 40)


def write_run(folder, changes=None, *, architecture=ARCHITECTURE, **recipe):
    """A run's folder with random weights; `changes`: step -> its weights, or bytes, or None where there are none."""
    layers = architecture["n_layers"]
    weights = {step: random_weights(seed, n_layers=layers) for seed, step in enumerate(STEPS)} | (
        changes or {}
    )
    (folder / "checkpoints").mkdir(parents=True)
    write_tokenizer(folder)
    for step, one in weights.items():
        if one is not None:
            data = one if isinstance(one, bytes) else save(one)
            (folder / "checkpoints" / f"{step:06d}.safetensors").write_bytes(data)
    log = [{"step": step, "tokens": 384 * step} for step in weights]
    said = {"format": 1, "architecture": architecture, "seed": 0, "recipe": recipe, "checkpoints": log}
    (folder / "recipe.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def prefix(model, prompts=3):
    given = ik.repeated_tokens(model, prompts=prompts, period=5, bos=0)
    return ik.prefix_matching(model, given, progress=False)


def repeats(model):
    return ik.repeat_loss(model, ik.repeated_tokens(model, prompts=4, period=5, bos=0))


def norm(model):
    return float(model.W_E.detach().double().norm())


MEASURES = {
    "prefix": prefix,
    "more": functools.partial(prefix, prompts=5),
    "repeat": repeats,
    "norm": norm,
    "eigen": functools.partial(ik.ov_eigenvalues, draws=3),
}


@pytest.fixture(scope="module")
def swept(run):
    return ik.training.over_checkpoints(run, MEASURES)


def test_a_sweep_is_the_obvious_loop(run, swept):
    assert swept["checkpoint"].values.tolist() == list(STEPS)
    assert swept["tokens"].values.tolist() == [384.0 * step for step in STEPS]
    for at, step in enumerate(STEPS):
        model, found = ik.load(run, checkpoint=step), swept.isel(checkpoint=at)
        for name, variables in {
            "prefix": ("score", "control", "chance"),
            "repeat": ("value", "without"),
        }.items():
            plain = MEASURES[name](model)
            for key in variables:
                values = found[name if key in ("score", "value") else f"{name}_{key}"].values
                np.testing.assert_array_equal(values[: plain.sizes["prompt"]], plain[key].values)
        assert float(found["norm"]) == norm(model)
        np.testing.assert_array_equal(found["eigen"].values, MEASURES["eigen"](model)["score"].values)


def test_a_measure_with_fewer_prompts_is_nan_beyond_them(swept):
    assert swept.sizes["prompt"] == 5
    assert swept["prefix"].isnull().sum("prompt").values.tolist() == [[[2] * 4] * 2] * 4
    assert not swept["more"].isnull().any()


def test_names_and_attributes_are_what_netcdf_and_figures_want(swept, tmp_path):
    assert swept["name"].sel(layer=1, head=3) == "L1H3"
    assert all(isinstance(value, str | int | float) for value in swept.attrs.values())
    assert swept["prefix"].attrs["method"] == "prefix_matching"
    assert "model" not in swept["prefix"].attrs, "what differs from step to step is no attribute"
    swept.to_netcdf(tmp_path / "swept.nc", engine="h5netcdf")
    assert_identical(xr.load_dataset(tmp_path / "swept.nc", engine="h5netcdf"), swept)


def test_some_checkpoints_in_any_order(run, swept):
    assert_identical(
        ik.training.over_checkpoints(run, MEASURES, checkpoints=[40, 10, 10]), swept.sel(checkpoint=[10, 40])
    )


def test_several_sources_are_a_dimension_and_what_one_lacks_is_nan(run, swept, tmp_path):
    short = write_run(tmp_path / "short", architecture={**ARCHITECTURE, "n_layers": 1})
    recipe = json.loads((short / "recipe.json").read_text())
    (short / "recipe.json").write_text(json.dumps(recipe | {"checkpoints": recipe["checkpoints"][:2]}))
    found = ik.training.over_checkpoints({"two layers": run, "one layer": short}, MEASURES)
    assert list(found["prefix"].dims) == ["model", "checkpoint", "prompt", "layer", "head"]
    assert found["tokens"].dims == ("checkpoint",)
    xr.testing.assert_equal(found.sel(model="two layers", drop=True), swept)
    other = found.sel(model="one layer")
    assert other["repeat"].isnull().all(("prompt",)).values.tolist() == [False, False, True, True]
    assert other["more"].sel(checkpoint=10).isnull().all(("prompt", "head")).values.tolist() == [False, True]


def test_tokens_seen_have_a_dimension_where_sources_disagree(run, tmp_path):
    other = write_run(tmp_path / "other")
    text = (other / "recipe.json").read_text()
    (other / "recipe.json").write_text(text.replace('"tokens": 3840', '"tokens": 5'))
    found = ik.training.over_checkpoints({"a": run, "b": other}, {"norm": norm})
    assert found["tokens"].sel(checkpoint=10).values.tolist() == [3840.0, 5.0]


def test_one_model_is_in_memory_at_a_time(run):
    seen = []

    def alive(model):
        repeats(model)
        seen.append(weakref.ref(model))
        return sum(one() is not None for one in seen)

    options = [{}, {"bridge": True}]
    for each in options:
        seen.clear()
        assert ik.training.over_checkpoints(run, {"alive": alive}, **each)["alive"].values.tolist() == [
            1,
            1,
            1,
            1,
        ]


def test_random_state_and_threads_are_left_alone(run):
    before = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    with ThreadPoolExecutor(3) as pool:
        ik.training.over_checkpoints(run, {"norm": norm}, executor=pool)
    assert (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        torch.get_num_threads(),
    ) == before


# What is kept, and goes on


class Counted:
    """A measure that counts its calls, and fails at the calls told."""

    def __init__(self, *fails):
        self.steps, self.fails = [], fails

    def __call__(self, model):
        self.steps.append(model.cfg.checkpoint_value)
        if len(self.steps) in self.fails:
            raise ZeroDivisionError("in the measure")
        return repeats(model)


def counting(counted):
    """As a function, whose fingerprint does not depend on the count."""

    @functools.wraps(repeats)
    def measure(model):
        return counted(model)

    return {"repeat": measure}


def test_a_kept_sweep_is_the_same_and_computes_nothing_twice(run, tmp_path, swept):
    assert_identical(ik.training.over_checkpoints(run, MEASURES, path=tmp_path / "kept"), swept)
    counted = Counted()
    first = ik.training.over_checkpoints(run, counting(counted), checkpoints=[0, 20], path=tmp_path / "count")
    ik.training.over_checkpoints(run, counting(counted), path=tmp_path / "count")
    again = ik.training.over_checkpoints(run, counting(counted), path=tmp_path / "count")
    assert counted.steps == [0, 20, 10, 40]
    assert_identical(again.sel(checkpoint=[0, 20]), first)


def test_it_goes_on_where_an_exception_stopped_it(run, tmp_path, swept):
    counted = Counted(3)
    with pytest.raises(ZeroDivisionError, match="in the measure") as caught:
        ik.training.over_checkpoints(run, counting(counted), path=tmp_path / "s")
    notes = caught.value.__notes__
    assert notes[0] == "This was measure 'repeat' of run at 20."
    assert notes[1].startswith("The sweep stopped after 2 of 4 checkpoints; what was done is kept in")
    found = ik.training.over_checkpoints(run, counting(counted), path=tmp_path / "s")
    assert counted.steps == [0, 10, 20, 20, 40]
    xr.testing.assert_equal(found["repeat"], swept["repeat"].isel(prompt=slice(4)))


def test_a_folder_that_moved_is_the_same_source(run, tmp_path):
    counted = Counted()
    ik.training.over_checkpoints({"a": run}, counting(counted), path=tmp_path / "s")
    shutil.copytree(run, tmp_path / "moved")
    ik.training.over_checkpoints({"a": tmp_path / "moved"}, counting(counted), path=tmp_path / "s")
    assert len(counted.steps) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [("measures", "holds another sweep"), ("load", "holds another sweep"), ("source", "of another source")],
)
def test_the_folder_of_another_sweep_is_refused(run, tmp_path, changed, message):
    ik.training.over_checkpoints({"a": run}, {"more": MEASURES["more"]}, path=tmp_path / "s")
    other = write_run(tmp_path / "other", recipe="another") if changed == "source" else run
    measures = {"more": functools.partial(prefix, prompts=6 if changed == "measures" else 5)}
    options = {"dtype": "float64"} if changed == "load" else {}
    with pytest.raises(ValueError, match=message):
        ik.training.over_checkpoints({"a": other}, measures, path=tmp_path / "s", **options)


def test_a_damaged_result_is_named(run, tmp_path):
    ik.training.over_checkpoints(run, {"norm": norm}, path=tmp_path / "s")
    (tmp_path / "s" / "run-00000010.nc").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"run-00000010\.nc' is damaged: delete it"):
        ik.training.over_checkpoints(run, {"norm": norm}, path=tmp_path / "s")


def scaled(model, by=1.0):
    return by


def enclosing(by):
    return lambda model: by


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functools.partial(scaled, by=1.0), functools.partial(scaled, by=1)),
        (functools.partial(scaled, by=torch.zeros(2)), functools.partial(scaled, by=torch.zeros(2, 1))),
        (functools.partial(scaled, by=np.arange(3)), functools.partial(scaled, by=np.arange(3.0))),
        (ik.induction, ik.prefix_matching),
        (lambda model: 1, lambda model: 2),
        (functools.partial(scaled, by={1, 2}), functools.partial(scaled, by={1, 3})),
        *[[(lambda model, by=by: by) for by in (1, 2)]],
        (enclosing(1), enclosing(2)),
        (torch.no_grad()(scaled), torch.no_grad()(norm)),
    ],
)
def test_measures_that_differ_have_other_fingerprints(one, other):
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.slow
def test_a_fingerprint_is_the_same_in_another_process():
    code = "from test_checkpoints import *; print(fingerprint(MEASURES, {'a', 'b'}, ik.induction))"
    done = in_python(code, PYTHONHASHSEED="7")
    assert done.stdout.strip() == fingerprint(MEASURES, {"a", "b"}, ik.induction), done.stderr


# Checkpoints that cannot be used


def not_finite():
    weights = random_weights(1)
    weights["embed.W_E"][3] = float("nan")
    return weights


BAD = {
    "damaged": (lambda: save(random_weights(1))[:-40], "damaged or was not written completely"),
    "not finite": (not_finite, "NaN or infinite|not finite"),
    "missing": (lambda: None, "no checkpoint of step 20"),
    "of another architecture": (lambda: random_weights(1, d_model=8), "must have shape"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_checkpoint_that_cannot_be_used_is_named_and_the_others_are_kept(kind, tmp_path):
    make, reason = BAD[kind]
    run, counted = write_run(tmp_path / "run", {20: make()}), Counted()
    with pytest.raises(
        ValueError, match=rf"1 of 4 .*run at 20: .*({reason}).* others are kept in .*skip_failed"
    ):
        ik.training.over_checkpoints(run, counting(counted), path=tmp_path / "s")
    assert counted.steps == [0, 10, 40]
    with pytest.warns(UserWarning, match="1 of 4 checkpoints are left out: run at 20"):
        found = ik.training.over_checkpoints(run, counting(counted), path=tmp_path / "s", skip_failed=True)
    assert counted.steps == [0, 10, 40]
    assert found["checkpoint"].values.tolist() == [0, 10, 40]
    assert found.attrs["left_out"].startswith("run at 20")


def test_without_a_folder_the_first_bad_checkpoint_ends_the_sweep(tmp_path):
    run, counted = write_run(tmp_path / "run", {10: None}), Counted()
    with pytest.raises(ValueError, match=r"run at 10: .*nothing is kept without path"):
        ik.training.over_checkpoints(run, counting(counted))
    assert counted.steps == [0]


def test_a_sweep_of_bad_checkpoints_alone_is_an_error_all_the_same(tmp_path):
    run = write_run(tmp_path / "run", {10: None})
    with pytest.raises(ValueError, match="1 of 1 checkpoints cannot be used"):
        ik.training.over_checkpoints(run, {"norm": norm}, checkpoints=[10], skip_failed=True)


def test_a_checkpoint_unlike_the_others_of_its_source(run, tmp_path, monkeypatch):
    """As on the hub, where nothing says what the others are: here `load` gives a smaller model at one step."""
    small = write_run(tmp_path / "small", architecture={**ARCHITECTURE, "n_layers": 1})

    def load(where, *, checkpoint):
        return ik.load(small if checkpoint == 10 else where, checkpoint=checkpoint)

    monkeypatch.setattr("induction_kernel.training._tasks.load", load)
    for _ in range(2):  # the second time its result must not be taken for a good one
        with pytest.raises(ValueError, match=r"run at 10: another architecture, .*, than 3 others"):
            ik.training.over_checkpoints(run, {"norm": norm}, path=tmp_path / "s")
    monkeypatch.undo()
    assert_identical(
        ik.training.over_checkpoints(run, {"norm": norm}, path=tmp_path / "s"),
        ik.training.over_checkpoints(run, {"norm": norm}),
    )


# Executors


@pytest.mark.parametrize("kept", [False, True])
def test_threads_give_the_same(run, swept, tmp_path, kept):
    with ThreadPoolExecutor(2) as pool:
        found = ik.training.over_checkpoints(
            run, MEASURES, executor=pool, path=tmp_path / "s" if kept else None
        )
    assert_identical(found, swept)


class Sent(Executor):
    """What a task is to another process: pickled on its way there and back. May die after some."""

    def __init__(self, dies_after=99):
        self.left = dies_after

    def submit(self, function, /, *args, **options):
        future = Future()
        self.left -= 1
        if self.left < 0:
            future.set_exception(BrokenProcessPool("a process was terminated"))
        else:
            function, args = pickle.loads(pickle.dumps((function, args)))
            future.set_result(pickle.loads(pickle.dumps(function(*args))))
        return future


def test_tasks_can_be_sent_to_other_processes(run, swept):
    assert_identical(ik.training.over_checkpoints(run, MEASURES, executor=Sent()), swept)


def test_a_pool_that_dies_says_what_is_kept(run, tmp_path, swept):
    with pytest.raises(RuntimeError, match=r"died .* of 4 checkpoints; what was done is kept in .*to go on"):
        ik.training.over_checkpoints(run, MEASURES, executor=Sent(2), path=tmp_path / "s")
    assert len(list((tmp_path / "s").glob("*.nc"))) == 2
    assert_identical(ik.training.over_checkpoints(run, MEASURES, path=tmp_path / "s"), swept)
    with pytest.raises(RuntimeError, match=r"nothing is kept without path: .* and a path"):
        ik.training.over_checkpoints(run, MEASURES, executor=Sent(2))


# The same with real processes


@pytest.fixture
def families(tmp_path):
    """Four sources with the 24 checkpoints of the embedded model each, as four runs would lie."""
    folders = {name: tmp_path / name for name in ("one", "two", "three", "four")}
    for folder in folders.values():
        shutil.copytree(Path(ik.__file__).parent / "assets" / "tiny", folder)
    return folders


def light(model):
    return ik.repeat_loss(model, ik.repeated_tokens(model, prompts=4, period=20))


def deadly(model, marker):
    """Kills its process in the middle of the training run, once in a sweep."""
    if model.cfg.checkpoint_value == 1400 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return light(model)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # a process that has everything imported already
def test_a_sweep_killed_ten_times_ends_with_the_results_of_an_undisturbed_one(families, tmp_path):
    random, results, kept = np.random.default_rng(), (tmp_path / "swept").glob, [0]
    options = {"path": tmp_path / "swept", "progress": False}
    for _ in range(10):
        call = {"args": (families, {"repeat": light}), "kwargs": options}
        process = multiprocessing.get_context("fork").Process(target=ik.training.over_checkpoints, **call)
        process.start()
        more = kept[-1] + random.integers(0, 9)
        while len(list(results("[!.]*.nc"))) < more:
            assert process.is_alive(), "it ended before it was killed"
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kept.append(len(list(results("[!.]*.nc"))))
    assert kept == sorted(kept)
    assert 0 < kept[-1] < 96, f"the kills came too early or too late to show anything: {kept}"
    before = {file: file.stat().st_mtime_ns for file in results("[!.]*.nc")}
    found = ik.training.over_checkpoints(families, {"repeat": light}, path=tmp_path / "swept")
    assert {file: file.stat().st_mtime_ns for file in before} == before, "something was computed twice"
    assert_identical(found, ik.training.over_checkpoints(families, {"repeat": light}))


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_and_goes_on_after_one_has_died(families, tmp_path):
    spawned = multiprocessing.get_context("spawn")
    measures = {"repeat": functools.partial(deadly, marker=tmp_path / "died")}
    with (
        ProcessPoolExecutor(2, mp_context=spawned) as pool,
        pytest.raises(RuntimeError, match=r"died .* what was done is kept"),
    ):
        ik.training.over_checkpoints(families, measures, path=tmp_path / "s", executor=pool)
    assert list((tmp_path / "s").glob("*.nc"))
    with ProcessPoolExecutor(2, mp_context=spawned) as pool:
        found = ik.training.over_checkpoints(families, measures, path=tmp_path / "s", executor=pool)
    assert_identical(found, ik.training.over_checkpoints(families, {"repeat": light}))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_dask_gives_the_same_and_finishes_although_a_worker_is_killed(families, tmp_path, kept):
    from dask.distributed import Client, LocalCluster

    measures = {"repeat": functools.partial(deadly, marker=tmp_path / "died")}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        processes = set(client.run(os.getpid).values())
        path = tmp_path / "s" if kept else None
        found = ik.training.over_checkpoints(families, measures, path=path, executor=client.get_executor())
        assert len(processes & set(client.run(os.getpid).values())) == 1, "one worker of two was to be killed"
    assert (tmp_path / "died").exists()
    assert_identical(found, ik.training.over_checkpoints(families, {"repeat": light}))
    assert not multiprocessing.active_children()


def test_a_run_is_the_same_whatever_versions_it_was_trained_with(run, tmp_path):
    """What is kept of a sweep over its checkpoints then serves after an update."""
    moved = tmp_path / Path(run).name
    shutil.copytree(run, moved)
    recipe = json.loads((moved / "recipe.json").read_text())
    (moved / "recipe.json").write_text(json.dumps(recipe | {"versions": {"torch": "0"}}))
    assert recipe.get("versions") != {"torch": "0"}
    assert training_history(moved).said == training_history(run).said
