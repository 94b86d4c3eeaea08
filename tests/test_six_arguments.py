"""Do the six arguments of one model come from their functions, and do page and commands say what was found?"""

import json
import re
import subprocess
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
import xarray as xr
import zoo
from hand_model import ARCHITECTURE, hand_weights
from made_curves import family
from markupsafe import escape
from typer.testing import CliRunner

import induction_kernel as ik
from induction_kernel.cli import _results as results_of_commands
from induction_kernel.cli import app
from induction_kernel.errors import NotDefined, Refused
from induction_kernel.evidence import _six_arguments as gathering
from induction_kernel.evidence._argument import NO_TEXTS, Argument, Table
from induction_kernel.evidence._mechanism import MECHANISM
from induction_kernel.evidence._six_arguments import ARGUMENTS
from induction_kernel.evidence._verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE, NOT_DEFINED, Check, judge
from induction_kernel.evidence._wording import counted, first_check, in_words, window_rows
from induction_kernel.interventions import _lanes as trust
from induction_kernel.loading import build

STEPS = [800, 1500, 1700, 3200]
N = 16
NAMES = tuple(argument.name for argument in ARGUMENTS)
FAMILIES = family(one=[None] * 2, one_smeared=[1100, 1200], two=[1400, 1500])
FAMILIES = FAMILIES.drop_vars("name")  # in a file, names that are not there are empty, not NaN


def verdicts(found):
    return {name: each.attrs["verdict"] for name, each in found.results.items()}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def found_and_runs():
    """What is found, and each run of a model on the way, by its weights and the tokens; no lane is trusted yet."""
    runs = []

    def note(module, args):
        if {"HookedTransformer", "TransformerBridge"} & {base.__name__ for base in type(module).__mro__}:
            runs.append((float(module.W_U.double().abs().sum()), str(args[0].tolist())))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "_REASONS", WeakKeyDictionary())
        patch.setattr(trust, "_PASSED", set())
        noting = torch.nn.modules.module.register_module_forward_pre_hook(note)
        try:
            found = ik.evidence.six_arguments(
                "tiny", families=FAMILIES, checkpoints=STEPS, n=N, progress=False
            )
        finally:
            noting.remove()
    return found, runs


@pytest.fixture(scope="module")
def found(found_and_runs):
    return found_and_runs[0]


@pytest.fixture(scope="module")
def shipped():
    """A model of the synthetic language, put through what is said of its families alone."""
    of_families = [each for each in ARGUMENTS if each.name in ("co_perturbation", "continuity")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "ARGUMENTS", of_families)
        return ik.evidence.six_arguments(ik.load("tiny"), progress=False)


@pytest.fixture(scope="module")
def hand_model():
    return build(ARCHITECTURE, hand_weights(), name="by <b>hand</b>")


def state_of(model):
    """What a measurement must leave as it is: weights, hooks, the global random state."""
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_dict.values()]
    return [*weights.values(), torch.tensor(hooks), torch.random.get_rng_state()]


@pytest.fixture(scope="module")
def by_hand(hand_model):
    """A model without checkpoints and of no family, on texts that are a repeat: the late band is in the second copy."""
    texts = ik.repeated_tokens(hand_model, bos=0, period=31, prompts=N).tokens
    before = state_of(hand_model)
    found = ik.evidence.six_arguments(
        hand_model, prompts=texts, n=N, early=(5, 25), late=(35, 55), progress=False
    )
    assert all(map(torch.equal, before, state_of(hand_model))), "the model is not as it was given"
    return found


@pytest.fixture(scope="module")
def html(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "evidence.html"
    assert ik.report(found, path) == path
    assert list(path.parent.iterdir()) == [path]
    return path.read_text(encoding="utf-8")


def body_of(html):
    return html[html.index("<h1>") :]


def html_of(text):
    return str(escape(text))


def text_of(html):
    return re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)


# what is found


def test_every_argument_is_what_its_function_returns(found):
    assert tuple(found.results) == NAMES
    assert found.arguments == ARGUMENTS
    model = ik.load("tiny")
    xr.testing.assert_identical(found.results["co_occurrence"], ik.evidence.co_occurrence(found.curves))
    xr.testing.assert_identical(found.results["co_perturbation"], ik.evidence.co_perturbation(FAMILIES))
    xr.testing.assert_identical(found.results["generality"], ik.evidence.generality(model, progress=False))
    xr.testing.assert_identical(found.results["mechanism"], ik.evidence.mechanism(model, progress=False))


def test_heads_are_removed_along_the_checkpoints_in_the_window_of_the_curves(found):
    lost = found.results["direct_ablation"]
    assert lost["checkpoint"].values.tolist() == found.curves["checkpoint"].values.tolist() == STEPS
    assert bool(found.window["exists"])
    assert [lost.attrs["window_start"], lost.attrs["window_end"]] == [
        found.window["start"],
        found.window["end"],
    ]
    assert {"before", "in", "after"} == set(lost["phase"].values.tolist())


def test_continuity_leaves_out_plain_models_of_one_layer(found):
    assert found.results["continuity"]["model"].values.tolist() == ["one-smeared", "two"]


def test_the_same_seed_gives_the_same_stories_to_curves_and_ablation(found):
    icl = found.results["direct_ablation"]["icl"].transpose("checkpoint", "prompt").values
    np.testing.assert_allclose(found.curves["icl_score"].values[:, :N], icl[:, :N], atol=1e-5)


def test_a_model_at_hand_is_asked_what_needs_no_training(by_hand):
    said = verdicts(by_hand)
    assert said["direct_ablation"] == HOLDS  # worked out on paper: the whole score is one head's
    for name in ("co_occurrence", "co_perturbation", "continuity"):
        assert said[name] == INCONCLUSIVE  # what is missing may be given
    assert said["generality"] == NOT_DEFINED
    assert "name or its folder" in by_hand.results["co_occurrence"].attrs["reason"]
    assert "train_families" in by_hand.results["continuity"].attrs["reason"]
    assert "tokenizer" in by_hand.results["generality"].attrs["reason"]
    assert by_hand.curves is None


def test_without_texts_what_needs_none_is_asked():
    found = ik.evidence.six_arguments(zoo.tiny("attention-only"), progress=False)
    said = {name: each.attrs["reason"] for name, each in found.results.items()}
    assert said["direct_ablation"] == NO_TEXTS
    assert said["mechanism"] == "no head's prefix matching exceeds its control by 0.3"


def test_windows_of_a_text_do_not_overlap():
    model = ik.load("tiny")
    words = [word for word in model.tokenizer.get_vocab() if not word.startswith("<")]
    text = " ".join(np.random.default_rng(0).choice(words, 1000))
    windows = gathering._windows(model, text, 7)
    inside = model.cfg.n_ctx - 1
    assert windows.tokens.shape == (7, inside + 1)
    ids = torch.tensor(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    starts = [i * (len(ids) // 7) for i in range(7)]
    assert torch.equal(windows.tokens[:, 1:], torch.stack([ids[at : at + inside] for at in starts]))
    assert set(windows.tokens[:, 0].tolist()) == {model.tokenizer.bos_token_id}


def test_everything_goes_into_a_file_and_comes_back(found, tmp_path):
    given = found.datasets()
    assert set(given) == {*NAMES, "curves", "window", "families", "family_windows"}
    given = found.results  # the others are in the tests of what makes them
    xr.DataTree.from_dict(given).to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "all.nc", engine="h5netcdf") as tree:
        for name, each in given.items():
            xr.testing.assert_equal(tree[name].to_dataset().load(), each)
            assert tree[name].attrs.get("verdict") == each.attrs.get("verdict")


# what it costs


def test_no_measurement_is_made_twice(found_and_runs):
    """Nineteen runs for each checkpoint, whatever else there is, and what is run once for all of them.

    For each checkpoint, which is loaded twice (the window of the phase change is known when all curves are): a look at
    its hooks, the losses of the texts, both sorts of repeats and their losses, random tokens, and those of copying; a
    look again, both sorts of repeats to choose heads on, three ways of removing them from texts and from repeats, one
    along the change, and the mean of either.
    """
    _, runs = found_and_runs
    assert len(runs) <= 19 * len(STEPS) + 34


def test_lanes_are_checked_on_one_checkpoint(found_and_runs):
    """Prompts of seven random tokens, which the checks run on, are run on the first checkpoint of the sweep alone."""
    _, runs = found_and_runs
    checks = [weights for weights, tokens in runs if len(json.loads(tokens)[0]) == 7]
    assert checks
    assert len({*checks}) == 1


# a line of evidence of one's own


def drawn(found, result):
    yield f"Of {found.model}, drawn by <hand>."
    yield Table(["a column"], [["a cell"]])
    yield [go.Figure(layout={"title": "a figure of one's own"})]


OWN = Argument(
    name="parity",
    title="7 Parity",
    claim="the model has an even number of layers",
    paper="No paper says so.",
    limits="Nothing follows from it.",
    primary="layers",
    run=lambda inputs: judge(OWN, [Check("layers", len(inputs.model.blocks), 1.5, 2.5, 1)]),
    draw=drawn,
)


def test_a_line_of_evidence_is_one_object_in_one_list(monkeypatch, tmp_path, llama):
    """Its verdict, its figure, its part of the page and of what the command prints come from nothing else."""
    folder, _ = llama
    monkeypatch.setattr(gathering, "ARGUMENTS", (OWN,))
    page = tmp_path / "own.html"
    printed = run("evidence", folder, "--out", page)
    assert printed.exit_code == 0, printed.output
    assert "7 Parity: holds\n  holds         layers is 2 (1.5 to 2.5), wanted above 1" in printed.output
    text = text_of(page.read_text(encoding="utf-8"))
    for part in (
        '<h2 id="parity">7 Parity: holds</h2>', "No paper says so.", "Nothing follows from it.",
        "drawn by &lt;hand&gt;.", "<td>a cell</td>",
        "First:\nlayers is 2",
        "1 argument that induction heads are the mechanism\nbehind most in-context learning. On this model, <b>1 holds",
        "<td>7 Parity</td><td>holds</td>",
    ):  # fmt: skip
        assert part in text, part
    assert html_of("a figure of one's own") in text
    results = ik.evidence.six_arguments(folder, progress=False).results
    assert {name: each.attrs["verdict"] for name, each in results.items()} == {"parity": HOLDS}
    said = [each.text for each in ik.plots.evidence_plot(results["parity"]).layout.annotations]
    assert any("7 Parity" in each for each in said)


def test_arguments_of_ones_own_are_run_after_the_six(llama, tmp_path):
    found = ik.evidence.six_arguments(llama[0], arguments=(each for each in (MECHANISM, OWN)), progress=False)
    assert {name: each.attrs.get("paper") for name, each in found.results.items()} == {
        "mechanism": "Olsson et al. 2022", "parity": None,
    }  # fmt: skip
    text = text_of(ik.report(found, tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "2 arguments that" in text
    assert "in-context learning (Olsson et al. 2022). On this model, <b>" in text


def test_only_what_is_not_defined_makes_that_verdict(monkeypatch, llama):
    def refuses(inputs):
        raise Refused("an option is wrong")

    def undefined(inputs):
        raise NotDefined("it has no meaning here")

    monkeypatch.setattr(gathering, "ARGUMENTS", (replace(OWN, run=undefined),))
    (result,) = ik.evidence.six_arguments(llama[0], progress=False).results.values()
    assert (result.attrs["verdict"], result.attrs["reason"]) == (NOT_DEFINED, "it has no meaning here")
    assert result.attrs["claim"] == OWN.claim
    monkeypatch.setattr(gathering, "ARGUMENTS", (replace(OWN, run=refuses),))
    with pytest.raises(Refused, match="an option is wrong"):
        ik.evidence.six_arguments(llama[0], progress=False)


@pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda each: each.name)
def test_arguments_bear_the_names_of_their_functions(argument):
    assert getattr(ik.evidence, argument.name).__module__.startswith("induction_kernel.evidence.")
    for text in (argument.claim, argument.paper, argument.limits):
        assert len(text) > 50


def test_the_check_spoken_of_first_is_one_of_those_there_are(found):
    for argument in ARGUMENTS:
        names = found.results[argument.name]["check"].values
        assert any(argument.primary in name for name in names), argument.name


# the page


def test_the_page_has_every_figure_and_fetches_nothing(html):
    body = body_of(html)
    checked = len(ARGUMENTS)  # a figure of checks for each
    assert len(re.findall(r"Plotly\.newPlot\(", body)) == checked + 3 + 1 + 3 + 4 + 3
    assert "default-src 'none'" in html
    assert "http" not in body.replace("http-equiv", "")
    assert not re.search(r'\ssrc=|\shref="(?!data:text/csv|#)', body)


def test_the_page_says_each_verdict_its_failing_checks_and_its_limits(found, html):
    text = text_of(html)
    for argument in ARGUMENTS:
        each = found.results[argument.name]
        assert f'<h2 id="{argument.name}">{argument.title}: {each.attrs["verdict"]}</h2>' in text
        assert html_of(argument.paper) in text
        assert html_of(argument.limits) in text
        assert text.count(f"{html_of(first_check(argument, each))}.") == 1
        for at in np.flatnonzero(each["verdict"].values != HOLDS):
            assert html_of(in_words(each.isel(check=at))) in text
        holding = int((each["verdict"] == HOLDS).sum())
        assert f"<b>Here</b> {holding} of {each.sizes['check']} checks hold." in text
    assert counted(found.results) in text


def test_the_page_says_which_runs_have_a_window(html):
    text = text_of(html)
    assert len(re.findall(r"<td>one</td><td>\d</td><td>no window</td>", text)) == 2
    assert len(re.findall(r"<td>two</td><td>\d</td><td>\d\.\d\dM \(", text)) == 2


def test_the_page_of_a_model_at_hand_says_what_cannot_be_tested(by_hand, tmp_path):
    html = ik.report(by_hand, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<b>hand</b>" not in html
    assert text_of(html).count(f"{NOT_DEFINED.capitalize()}: ") == 1
    assert text_of(html).count("Inconclusive: wanted") == 3


@pytest.mark.slow
def test_families_that_come_with_the_package_are_not_said_to_be_the_model(found, html, shipped, tmp_path):
    assert "come with the package" not in text_of(html)
    text = text_of(ik.report(shipped, tmp_path / "a.html").read_text(encoding="utf-8"))
    assert text.count("This is about the families of models that come with the package") == 2
    assert [name for name, each in shipped.results.items() if "about" in each.attrs] == [
        "co_perturbation",
        "continuity",
    ]


@pytest.mark.slow
@pytest.mark.browser
def test_every_figure_is_drawn_in_a_browser(found, html, browser, tmp_path):
    page = tmp_path / "evidence.html"
    page.write_text(html, encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    drawn = done.stdout.count('class="main-svg"')
    assert drawn >= html.count("Plotly.newPlot(") - 1  # one stands in the library


# the commands


def test_evidence_prints_every_check_and_writes_the_page(found, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        results_of_commands,
        "six_arguments",
        lambda source, **options: asked.update(options, of=source) or found,
    )
    monkeypatch.setattr(results_of_commands, "report", lambda found, path: asked.update(page=(found, path)))
    text = tmp_path / "book.txt"
    text.write_text("call me", encoding="utf-8")
    result = run("evidence", "tiny", "--text", text, "--seed", 3, "--out", tmp_path / "a.html")
    assert result.exit_code == 0, result.output
    assert asked == {"of": "tiny", "prompts": "call me", "seed": 3, "page": (found, tmp_path / "a.html")}
    for each in found.results.values():
        for at in range(each.sizes["check"]):
            assert in_words(each.isel(check=at)) in result.output
    for verdict in (HOLDS, CONTRADICTED, INCONCLUSIVE):
        lines = [line for line in result.output.splitlines() if line.startswith(f"  {verdict} ")]
        assert len(lines) == sum(int((each["verdict"] == verdict).sum()) for each in found.results.values())


def test_families_prints_a_row_for_each_run(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        results_of_commands, "train_families", lambda folder, **options: asked.update(options) or FAMILIES
    )
    result = run("families", "--out", tmp_path, "--seeds", 2, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert asked == {"seeds": range(2), "workers": 1}
    rows = window_rows(ik.training.phase_window(FAMILIES))
    assert len(rows) == 6
    assert result.output.count("no window") == 2
    for row in rows:
        assert all(cell in result.output for cell in row)


def test_help_has_examples():
    for command in ("evidence", "families"):
        assert "Example" in run(command, "--help").output
