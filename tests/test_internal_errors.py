"""Bugs stay errors with their traceback in pages, studies, verdicts, sweeps and commands; NotDefined is a result."""

import traceback

import numpy as np
import pytest
import xarray as xr
import zoo
from made_curves import family
from typer.testing import CliRunner

import induction_kernel as ik
from induction_kernel.cli import _results as results_of_commands
from induction_kernel.cli import app
from induction_kernel.errors import NotDefined, Refused
from induction_kernel.evidence import _ablation_runs as losing
from induction_kernel.evidence import _circuit_scores as circuit_scores
from induction_kernel.evidence import _co_occurrence as cooccurring
from induction_kernel.evidence import _co_perturbation as smearing
from induction_kernel.evidence import _continuity as across
from induction_kernel.evidence import _copy_losses as copy_losses
from induction_kernel.evidence import _direct_ablation as ablating
from induction_kernel.evidence import _generality as behaviours
from induction_kernel.evidence import _pattern_task as patterned
from induction_kernel.evidence import _six_arguments as gathering
from induction_kernel.evidence._verdicts import NOT_DEFINED
from induction_kernel.fewshot import _study as studying
from induction_kernel.interventions import _compared_sets as compared_sets
from induction_kernel.loading import _sources as sources
from induction_kernel.pages import _evidence as evidence_page
from induction_kernel.pages import _fewshot as fewshot_page
from induction_kernel.pages import _heads as page
from induction_kernel.training import _families as families
from induction_kernel.training import _tasks as tasks
from induction_kernel.training import _trainer as trainer

pytestmark = pytest.mark.slow

WHY = "planted: it has no meaning here"
SLOW = pytest.mark.slow
FAMILIES = family(one=[None] * 2, one_smeared=[1100, 1200], two=[1400, 1500])


def planted(*args, **kwargs):
    """NumPy's own ValueError, as a bug raises it."""
    return np.zeros(2) + np.zeros(3)


def undefined(*args, **kwargs):
    raise NotDefined(WHY)


def refused(*args, **kwargs):
    raise Refused("planted: an option is wrong")


def plant(monkeypatch, module, name, what=planted):
    monkeypatch.setattr(module, name, what)


def is_the_bug(error):
    """Whether this is the planted error itself, with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error) is ValueError and "broadcast" in str(error) and frames[-1].name == "planted"


def arguments_of(model):
    return ik.evidence.six_arguments(model, families=FAMILIES, progress=False)


def places(quick, slow):
    """Names as parameters, of which some are slow."""
    return [
        *quick,
        *(pytest.param(*([each] if isinstance(each, str) else each), marks=SLOW) for each in slow),
    ]


@pytest.fixture(scope="module")
def tiny():
    return ik.load("tiny")


@pytest.fixture
def alone(monkeypatch):
    """Of the six arguments only the one that is planted into is made."""

    def leave(argument):
        kept = [each for each in gathering.ARGUMENTS if each.name == argument]
        plant(monkeypatch, gathering, "ARGUMENTS", kept)

    return leave


# verdicts

MEASURED = places(
    [(circuit_scores, "copying"), (behaviours, "copying"), (patterned, "pattern_lines")],
    [(behaviours, "prefix_matching"), (behaviours, "label_attention"), (copy_losses, "ablation_curve")],
)
WEIGHTS = places([], [(circuit_scores, name) for name in ("ov_eigenvalues", "qk_trace", "composition")])
ON_THE_WAY = places(
    [(gathering, "training_history"), (gathering, "load")],
    [
        *((gathering, "phase_window"), (ablating, "direct_ablation")),
        *((losing, "prefix_matching"), (cooccurring, "onset_coupling")),
        *((smearing, "windows_of"), (across, "judge")),
    ],
)


def named(each):
    return getattr(each, "__name__", str(each)).rpartition(".")[2]


@pytest.mark.parametrize(("module", "name"), [*MEASURED, *WEIGHTS], ids=named)
def test_a_bug_in_a_measurement_is_no_verdict(module, name, tiny, alone, monkeypatch):
    alone("mechanism" if module is circuit_scores else "generality")
    plant(monkeypatch, module, name)
    with pytest.raises(ValueError, match="broadcast") as caught:
        arguments_of(tiny)
    assert is_the_bug(caught.value)


@pytest.mark.parametrize(("module", "name"), MEASURED, ids=named)
def test_what_is_not_defined_is_a_verdict(module, name, tiny, alone, monkeypatch):
    argument = "mechanism" if module is circuit_scores else "generality"
    alone(argument)
    plant(monkeypatch, module, name, undefined)
    found = arguments_of(tiny).results[argument]
    assert (found.attrs["verdict"], found.attrs["reason"]) == (NOT_DEFINED, WHY)


@SLOW
def test_weights_that_say_nothing_are_left_out(tiny, monkeypatch):
    plant(monkeypatch, circuit_scores, "qk_trace", undefined)
    assert WHY in ik.evidence.mechanism(tiny, progress=False).attrs["left_out"]


@pytest.mark.parametrize(("module", "name"), ON_THE_WAY, ids=named)
def test_a_bug_on_the_way_to_the_verdicts_is_an_error(module, name, monkeypatch):
    plant(monkeypatch, module, name)
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.evidence.six_arguments(
            "tiny", families=FAMILIES, checkpoints=[800, 1500, 1700, 3200], n=16, progress=False
        )
    assert is_the_bug(caught.value)


def test_too_few_other_heads_are_told_from_a_bug(tiny, monkeypatch):
    plant(monkeypatch, losing, "random_heads")
    with pytest.raises(ValueError, match="broadcast"):
        losing.other_heads(tiny, [ik.Head(1, 1)])
    plant(monkeypatch, compared_sets, "random_sets")
    with pytest.raises(ValueError, match="broadcast"):
        ik.ablation_curve(tiny, ik.repeated_tokens(tiny, prompts=2), ["L1H1", "L1H2"])


# pages


@pytest.mark.parametrize(
    "name",
    places(
        ["observe", "copying", "ov_eigenvalues"],
        [
            *("removed_from", "direct_effect_and_loss", "loss_plot", "explore", "section_of"),
            *("word_episodes", "predict", "held_out", "vote", "voted", "head_map"),
        ],
    ),
)
def test_a_bug_is_no_note_on_the_page_of_heads(name, tiny, tmp_path, monkeypatch):
    plant(monkeypatch, page, name)
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.report(tiny, tmp_path / "a.html", n_prompts=12, progress=False)
    assert is_the_bug(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_is_not_defined_is_a_note_on_the_page_of_heads(tiny, tmp_path, monkeypatch):
    for name in ("direct_effect_and_loss", "predict"):
        plant(monkeypatch, page, name, undefined)
    written = ik.report(tiny, tmp_path / "a.html", n_prompts=12, progress=False).read_text(encoding="utf-8")
    assert written.count(WHY) == 2
    plant(monkeypatch, page, "direct_effect_and_loss", refused)
    with pytest.raises(Refused, match="an option is wrong"):
        ik.report(tiny, tmp_path / "b.html", n_prompts=12, progress=False)


@pytest.mark.parametrize(
    "name", ["answered", "LabelWriting", "kernel_regression", "kernel_alignment", "held_out"]
)
def test_a_bug_in_a_few_shot_study_is_an_error(name, tiny, monkeypatch):
    plant(monkeypatch, studying, name)
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.fewshot.few_shot_study(tiny, queries=8, splits=2, progress=False)
    assert is_the_bug(caught.value)


def test_a_model_whose_heads_write_nothing_readable_has_a_study_without_it(tiny, monkeypatch):
    plant(monkeypatch, studying, "LabelWriting", undefined)
    study = ik.fewshot.few_shot_study(tiny, queries=8, splits=2, progress=False)
    assert "layer sum by writing" not in study.table["row"].values


@pytest.mark.parametrize(
    "name", ["view_of_votes", "quoted_votes", "head_map", "demonstration_map", "interval_plot"]
)
def test_a_bug_in_drawing_the_few_shot_page_is_an_error(name, tiny, tmp_path, monkeypatch):
    study = ik.fewshot.few_shot_study(tiny, queries=8, splits=2, progress=False)
    plant(monkeypatch, fewshot_page, name)
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.report(study, tmp_path / "a.html")
    assert is_the_bug(caught.value)


@pytest.mark.parametrize(
    ("module", "name"),
    places([(evidence_page, "check_rows")], [(evidence_page, "evidence_plot"), (smearing, "phase_plot")]),
)
def test_a_bug_in_drawing_the_page_of_evidence_is_an_error(module, name, tmp_path, monkeypatch):
    found = arguments_of(zoo.tiny("attention-only"))
    plant(monkeypatch, module, name)
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.report(found, tmp_path / "a.html")
    assert is_the_bug(caught.value)


# sweeps over checkpoints


def test_a_bug_in_a_measure_is_an_error_that_says_where(monkeypatch):
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.training.over_checkpoints(
            "tiny", {"mine": planted}, checkpoints=[0], skip_failed=True, progress=False
        )
    assert is_the_bug(caught.value)
    assert "This was measure 'mine' of tiny at 0." in caught.value.__notes__


def test_a_bug_in_a_loader_is_no_damaged_checkpoint(monkeypatch):
    plant(monkeypatch, tasks, "load")
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.training.over_checkpoints(
            "tiny", {"loss": ik.metrics.loss}, checkpoints=[0, 100], skip_failed=True, progress=False
        )
    assert is_the_bug(caught.value)


# the command line


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


COMMANDS = [
    (["report", "--out", "a.html"], page, "copying"),
    (["score", "--scorer", "copying"], ik, "copying"),
    (["score"], sources, "load_embedded"),
    (["ablate", "--prompts", "4"], results_of_commands, "sweep"),
    (["ablate", "--prompts", "4", "--heads", "L1H1"], results_of_commands, "ablation_curve"),
    (["patch", "fox dax", "apple dax", "--answers", " dax, wug"], results_of_commands, "patch"),
    (["fewshot", "--queries", "8"], studying, "LabelWriting"),
    (["train", "--out", "run", "--steps", "2"], trainer, "initial_weights"),
    (["evidence", "--out", "a.html"], results_of_commands, "six_arguments"),
    (["families", "--out", "runs", "--seeds", "1"], results_of_commands, "phase_window"),
]


@pytest.mark.parametrize(("arguments", "module", "name"), COMMANDS, ids=lambda each: str(each)[:40])
@pytest.mark.parametrize("error", [planted, undefined])
def test_a_command_says_what_is_refused_and_fails_on_bugs(
    arguments, module, name, error, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    plant(monkeypatch, results_of_commands, "train_families", lambda *of, **options: xr.Dataset())
    if arguments[0] == "report" and error is undefined:
        name = "observe"  # copying would be left out
    if name == "LabelWriting" and error is undefined:
        name = "answered"
    plant(monkeypatch, module, name, error)
    result = run(*arguments)
    if error is undefined:
        assert result.exit_code == 2
        assert result.output.strip().endswith(f"induction-kernel: {WHY}")
        return
    assert result.exit_code == 1
    assert is_the_bug(result.exception)


@pytest.mark.parametrize("error", [TypeError("bug"), KeyError("bug"), MemoryError(), RuntimeError("bug")])
def test_other_bugs_are_errors_of_the_command_line(error, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    plant(monkeypatch, ik, "copying", fails)
    result = run("score", "--scorer", "copying")
    assert (result.exit_code, result.exception) == (1, error)


def test_a_model_beyond_the_memory_is_a_sentence(monkeypatch):
    def too_much(*args, **kwargs):
        raise MemoryError("the memory does not hold batches of 5 tokens: give a smaller max_tokens")

    plant(monkeypatch, ik, "copying", too_much)
    result = run("score", "--scorer", "copying")
    assert result.exit_code == 2
    assert "smaller max_tokens" in result.output


def test_shipped_curves_that_a_bug_cannot_read_are_not_called_damaged(monkeypatch):
    plant(monkeypatch, families, "read_netcdf")
    with pytest.raises(ValueError, match="broadcast") as caught:
        ik.training.family_curves()
    assert is_the_bug(caught.value)
