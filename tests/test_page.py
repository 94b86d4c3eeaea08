"""Does the report say what was measured, in one file that fetches nothing, for models of every kind?"""

import base64
import html as markup
import io
import json
import re
import subprocess
from collections import Counter

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
import xarray as xr
import zoo
from hand_model import ARCHITECTURE, hand_weights
from hostile import dom
from passes import counted
from quick import one_in
from unpacked import ReadPage

import induction_kernel as ik
from induction_kernel.fewshot._predictions import predict
from induction_kernel.heads import Head, summarise, top_heads
from induction_kernel.interventions import _ablation as ablation
from induction_kernel.interventions._ablation import ablate, ablation_curve
from induction_kernel.interventions._engine import sweep
from induction_kernel.kernel import _held_out as splits
from induction_kernel.loading import build, load
from induction_kernel.metrics import loss_by_position
from induction_kernel.pages import _attention as attention
from induction_kernel.pages import _heads as page
from induction_kernel.pages import _removed as removing
from induction_kernel.pages import _rendering as rendering
from induction_kernel.pages._choice import compared
from induction_kernel.pages._costs import Amounts
from induction_kernel.pages._filters import percent
from induction_kernel.pages._frames import of_figure
from induction_kernel.pages._heads import SCORERS
from induction_kernel.pages._rendering import macro
from induction_kernel.pages._schedule import NAMES, Schedule
from induction_kernel.prompts import repeated_tokens, word_episodes
from induction_kernel.scorers._attention import prefix_matching
from induction_kernel.scorers._direct_effect import direct_effect

HAND = build(ARCHITECTURE, hand_weights(), name="hand <b>made</b>")


def amounts(some, every=None, **changes):
    """Of the parts of a page, with the map on as many prompts as the table."""
    most = {"prompts": 2 * some, "draws": 20, "curve": True, "direct": some, "weights": True, "episodes": 128}
    return Amounts(**most | {"some": some, "every": some if every is None else every} | changes)


def text_of(path):
    return path.read_text(encoding="utf-8")


def without_scripts(html):
    """The text and its tags, without links, in lines that break anywhere."""
    text = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"</?a\b[^>]*>", "", text).split())


def said(name, *values):
    return " ".join(macro("heads_verdict.html.j2", name, *values).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of the embedded model, and the batches run for it."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    with counted(load("tiny")) as seen:
        return ik.report(load("tiny"), path, n_prompts=16, progress=False), seen


@pytest.fixture(scope="module")
def report(written):
    """The page of the embedded model."""
    return written[0]


def test_prompts_that_no_head_was_chosen_on_run_at_most_twice(written):
    """Once for every ablation together, once for direct effects and the loss; no other batch more often than that."""
    held = held_out()[0]
    held = held[held.lengths.argsort(stable=True)]
    times = Counter(batch for batch in written[1] if len(batch) >= len(held))
    assert times[tuple(map(tuple, held.tokens.tolist()))] == 2
    assert max(times.values()) == 2
    assert sum(times.values()) <= 9


def test_page_has_each_script_once_and_every_figure(report):
    html = text_of(report)
    assert "CircuitsVis" not in html
    assert len(re.findall(r"Plotly\.newPlot\(", without_library(html))) == 11
    assert html.count('class="ik-explorer"') == html.count('<script type="module">') == 1
    assert html.count("\n.ik-explorer {") == 1
    assert 5e6 < report.stat().st_size < 5.5e6
    assert list(report.parent.iterdir()) == [report]
    assert report.left_out == ()
    assert "To stay within" not in html


def without_library(html):
    """The page's own text, without plotly before it and the explorer's module after it."""
    return html[html.index("<h1>") : html.index('<script type="module">')]


def test_heads_that_were_not_tested_are_not_said_to_be_absent():
    """12 prompts with skewed excesses: six are too few to choose heads by."""
    why = "excesses are <skewed>, and 6 prompts are too few"
    found = {
        "passing": [],
        "given": False,
        "removed": True,
        "shown": ["L1H0"],
        "total": 8,
        "untested": 8,
        "why": why,
    }
    text = said("verdict", found)
    assert "8 of 8 could not be tested: excesses are &lt;skewed&gt;, and 6 prompts are too few." in text
    assert "no induction head" not in text
    assert "no induction head" in said("verdict", found | {"untested": 0})


def test_page_fetches_nothing(report):
    html = text_of(report)
    assert "default-src 'none'" in html
    assert not re.search(r"<(script|img|link|iframe)[^>]*\s(src|href)=", without_library(html))
    assert "http" not in without_library(html).replace("http-equiv", "")
    module = html[html.index('<script type="module">') :]
    assert re.findall(r"https?:[^\"'`\s]*", module) == [
        "http://www.w3.org/2000/svg"
    ]  # a name, not an address
    assert not re.search(r"\bfetch\(|\bimport\b|XMLHttpRequest|WebSocket", module)
    links = re.findall(r'href="(.{5})', without_library(html))
    assert {link[0] if link[0] == "#" else link for link in links} == {"#", "data:"}


def test_page_reports_heads_chosen_on_one_half_and_measured_on_the_other(report):
    prompts = repeated_tokens(load("tiny"), prompts=16)
    scores = prefix_matching(load("tiny"), prompts, progress=False)
    choice = summarise(scores.isel(prompt=slice(0, None, 2)))
    (best,) = top_heads(choice, 1)
    html = without_scripts(text_of(report))
    assert f"the strongest is {best}" in html
    assert f"<b>{int(choice['passes'].sum())} of {choice['passes'].size} heads</b>" in html
    held = scores["score"].isel(prompt=slice(1, None, 2)).sel(layer=best.layer, head=best.head)
    assert f"<td>{best}</td><td>{float(held.mean()):.2f} (" in html


def test_every_head_is_in_the_explorer_on_two_prompts_that_no_head_was_chosen_on(report):
    found, (held, choice) = ReadPage(text_of(report)), held_out()
    held = held[held.lengths.argsort(stable=True)][:2]
    tokens = [[token.strip() for token in each["tokens"]] for each in found.contents["prompts"]]
    assert tokens == held.strings(load("tiny"))
    assert set(found.heads) == {(prompt, head) for prompt in range(2) for head in range(16)}
    seen = ik.patterns(load("tiny"), held)
    for prompt, length in enumerate(held.lengths.tolist()):
        for at in (3, 15):  # of L0H3 and L1H7
            whole = seen["pattern"].values[prompt, at, :length, :length]
            np.testing.assert_allclose(found.head(prompt, at)[0], whole, atol=1 / 510 + 1e-5)
    (best,) = top_heads(choice, 1)
    assert found.contents["start"] == {"prompt": 0, "head": 8 * best.layer + best.head}


def test_heads_are_coloured_by_the_numbers_of_the_page(report):
    names = ["prefix matching", "induction", "previous token", "duplicate token"]
    names += ["copying", "OV eigenvalues", "direct effect", "effect of ablation"]
    scores = {each["name"]: each["mean"] for each in ReadPage(text_of(report)).contents["scores"]}
    assert list(scores) == names
    files = dict(re.findall(r'download="(\w+)\.csv" href="data:[^,]*,([^"]*)"', text_of(report)))
    for name, file in (("prefix matching", "prefix_matching"), ("OV eigenvalues", "ov_eigenvalues")):
        table = pd.read_csv(io.BytesIO(base64.b64decode(files[file]))).sort_values(["layer", "head"])
        np.testing.assert_allclose(scores[name], table["mean"], rtol=1e-4)
    table = pd.read_csv(io.BytesIO(base64.b64decode(files["ablation_of_each_head"])))
    effects = table.sort_values(["layer", "head"])["effect"]
    np.testing.assert_allclose(scores["effect of ablation"], effects, rtol=1e-4, atol=1e-8)


def test_patterns_that_take_too_much_are_left_to_the_heads_shown(monkeypatch):
    explored = ik.explore(load("tiny"), "fox dax ; apple wug ; fox", progress=False).explored
    of_all = attention.section_of(explored, [Head(1, 1), Head(0, 2)])
    assert (of_all.whole, of_all.heads) == (16, 16)
    monkeypatch.setattr(attention, "MOST", len(of_all.html) - 1)
    cut = attention.section_of(explored, [Head(1, 1), Head(0, 2)])
    assert (cut.whole, cut.heads) == (2, 16)
    said_of = macro("macros.html.j2", "not_whole", cut, "the heads in the table")
    assert f"Patterns of all 16 heads take more than {cut.most:g} MB" in said_of
    assert macro("macros.html.j2", "not_whole", of_all, "the heads in the table") == ""
    assert set(re.findall(r'data-head="(.*?)"', cut.html)) == {"0:2", "0:9"}
    assert '"start":{"prompt":0,"head":9}' in cut.html


def held_out(prompts=16):
    """What the page ablates on: the prompts no head was chosen on, shortest first; and the choice."""
    repeats = repeated_tokens(load("tiny"), prompts=prompts)
    choice = prefix_matching(load("tiny"), repeats[::2], progress=False)
    return repeats[1::2], choice


def test_verdict_and_table_are_the_numbers_of_the_verbs(report):
    held, choice = held_out()
    html = without_scripts(text_of(report))
    heads = top_heads(choice, 8, passing=True)
    held = held[held.lengths.argsort(stable=True)]
    curve = ablation_curve(load("tiny"), held, choice, ks=sorted({1, 2, 4, len(heads)}), progress=False)
    joint = curve.sel(k=len(heads))
    which = f"all {len(heads)} of them" if len(heads) > 1 else str(heads[0])
    assert f"Removing {which} costs the model <b>{percent(float(joint['share']))}</b>" in html
    assert said("comparison", compared(joint)) in html
    assert "no reliable benefit" not in html
    share, low, high = (percent(float(joint[key])) for key in ("share", "share_low", "share_high"))
    assert f'<tr class="joint"><td>together</td>{"<td></td>" * 6}<td>{share} ({low} to {high})</td>' in html
    rows = re.findall(r"<tr><td>(L\dH\d)</td>(.*?)</tr>", html)
    assert [name for name, _ in rows] == [str(head) for head in heads]
    effects = summarise(direct_effect(load("tiny"), held, progress=False))
    for head, (_, row) in zip(heads, rows, strict=True):
        lost = ablate(load("tiny"), held, head, progress=False)
        share, low, high = (percent(float(lost[key])) for key in ("share", "share_low", "share_high"))
        assert row.endswith(f"<td>{share} ({low} to {high})</td>")
        assert f"<td>{float(effects['excess'].sel(layer=head.layer, head=head.head)):.2f} (" in row


@pytest.mark.parametrize("model", ["tiny", "hand"])
def test_map_has_every_head_and_the_curve_its_controls(model):
    model = load("tiny") if model == "tiny" else HAND
    repeats = repeated_tokens(model, prompts=12, bos=model is not HAND)
    order = top_heads(prefix_matching(model, repeats[::2], progress=False), None)
    removed = removing.removed_from(model, repeats[1::2], order, 1, amounts(6), 0, False)
    (heat,) = page.effect_map(removed.every).data
    assert np.array(heat.z).shape == (model.cfg.n_layers, model.cfg.n_heads)
    assert np.isfinite(np.array(heat.z, float)).all()
    expected = sweep(model, repeats[1::2], progress=False)["effect"].mean("prompt")
    np.testing.assert_allclose(np.array(heat.z, float), expected.values, atol=1e-5)
    names = [trace.name for trace in page.curve_plot(removed.curve).data]
    assert any(name.startswith("strongest") for name in names)
    assert any(name.startswith("random") for name in names)
    n_heads, layer = model.cfg.n_heads, order[0].layer
    beyond = sum(head.layer == layer for head in order[: int(removed.curve["k"][-1])])
    assert int(removed.curve["n_controls"][0]) == min(20, n_heads - beyond)  # as many as differ
    drawn = removed.curve["control_heads"].values.ravel()
    assert len(set(drawn[drawn != ""])) == int(removed.curve["n_controls"].sum())
    assert removed.curve["heads"].values[0] == str(order[0])
    assert float(removed.joint["share"]) == float(removed.curve["share"][0])
    assert float(removed.single[order[0]]["share"]) == pytest.approx(float(removed.joint["share"]), abs=1e-5)
    assert float(np.abs(removed.curve["control_share"]).max()) < 0.05 < float(removed.joint["share"])


def test_hand_made_heads_cost_what_they_do():
    """Only the previous-token head and the induction head carry the repeat; the page's map says so."""
    repeats = repeated_tokens(HAND, prompts=12, bos=False)
    removed = removing.removed_from(HAND, repeats[1::2], [Head(1, 0), Head(0, 1)], 2, amounts(6), 0, False)
    effect = removed.every["effect"].mean("prompt")
    carrying = effect > 1
    assert [str(Head(*map(int, at))) for at in np.argwhere(carrying.values)] == ["L0H0", "L1H0"]
    assert float(np.abs(effect.where(~carrying)).max()) < 1e-4
    assert removed.joint["share"] == pytest.approx(float(removed.single[Head(1, 0)]["share"]), abs=1e-4)


def test_the_map_may_be_on_fewer_prompts_than_the_table(monkeypatch):
    """The shortest of those that no head was chosen on; sets of heads that are there twice are run once."""
    cells = []
    run_cells = ablation.run_cells

    def counting(model, prompts, asked, *args, **options):
        cells.append([len(prompts), len(asked), len({str(sorted(cell.touched.items())) for cell in asked})])
        return run_cells(model, prompts, asked, *args, **options)

    monkeypatch.setattr(ablation, "run_cells", counting)
    held, choice = held_out()
    held, order = held[held.lengths.argsort(stable=True)], top_heads(choice, None)
    assert removing._shortest(held, 4).tokens.shape[1] == int(held.lengths[:4].max()) < held.tokens.shape[1]
    apart = removing.removed_from(load("tiny"), held, order, 2, amounts(8, every=4), 0, False)
    assert apart.every is None
    assert apart.some == cells[0][0] == 8
    with_map = removing.with_map(load("tiny"), held, apart, 4, False)
    assert with_map.every.sizes["prompt"] == 4
    together = removing.removed_from(load("tiny"), held, order, 2, amounts(8), 0, False)
    assert removing.with_map(load("tiny"), held, together, 8, False) is together
    for _, asked, different in cells:
        assert asked == different
    single = {name for name in apart.curve["control_heads"].values[0] if name} | {
        str(order[0]),
        str(order[1]),
    }
    of_curve = len(apart.curve["k"]) + int(apart.curve["n_controls"].sum())
    assert cells[0][1] == of_curve + len(single) - 1 - int(apart.curve["n_controls"][0])
    for head, lost in together.single.items():
        np.testing.assert_allclose(lost["share"], apart.single[head]["share"], atol=1e-5)
    xr.testing.assert_allclose(together.curve["control_share"], apart.curve["control_share"], atol=1e-5)
    few = removing.removed_from(load("tiny"), held, order, 2, amounts(8, curve=False, draws=5), 0, False)
    assert few.curve is None
    assert int(few.joint["n_controls"]) == 5
    assert float(few.joint["share"]) == pytest.approx(float(apart.joint["share"]), abs=1e-5)


def with_amounts(monkeypatch, path, **changes):
    """The page of the embedded model with these amounts, the code on it, and what it says of itself."""

    def planned(model, *, advance, **_):
        return Schedule(
            amounts(**{"some": 6} | changes),
            dict.fromkeys(NAMES, 0.0),
            {},
            ["the map: left out"],
            0.0,
            advance,
        )

    monkeypatch.setattr(page, "planned", planned)
    written = ik.report(load("tiny"), path, progress=False)
    assert written.left_out == ("the map: left out",)
    assert written.parent.exists()
    html = without_scripts(text_of(written))
    assert "To stay within 5 minutes, this page has less than it could:" in html
    assert "<li>the map: left out</li>" in html
    (code,) = re.findall(r'<pre class="python">(.*?)</pre>', text_of(written), flags=re.DOTALL)
    return html, markup.unescape(code)


def test_a_page_of_scores_alone_says_nothing_of_what_is_left_out(tmp_path, monkeypatch):
    html, code = with_amounts(
        monkeypatch, tmp_path / "r.html", some=0, direct=0, prompts=12, weights=False, episodes=0
    )
    assert "Copying, OV eigenvalues and direct effects are left out: they do not fit the time" in html
    assert "Left out: they do not fit the time that this page may take." in html
    assert re.search(r"<b>\d+ of 16 heads</b>", html)
    (header,) = re.findall(r"<thead>(.*?)</thead>", html)
    assert re.findall(r">([^<>]+)</button>", header) == ["head", "prefix matching", "control", "excess"]
    for absent in (
        *(
            "Removing",
            "removing",
            "<td>together",
            "What is lost",
            "repetition is worth",
            "Looking and copying",
        ),
        *("Benefit lost", "Attention is not effect", "For comparison", "reliable benefit"),
    ):
        assert absent not in html
    for call in ("direct_effect(", "copying(", "ov_eigenvalues(", "sweep(", "ablation_curve(", "loss_plot("):
        assert call not in code
    assert "minutes=5)" in code


def test_a_page_without_the_map_and_the_curve_still_removes_the_heads_of_its_table(tmp_path, monkeypatch):
    html, code = with_amounts(monkeypatch, tmp_path / "r.html", every=0, curve=False, draws=5, weights=False)
    assert re.search("Removing .* costs the model <b>", html)
    assert "removing the 4 other heads of the same layers costs" in html
    assert "benefit lost" in html
    assert "direct effect" in html
    assert "What is lost without them" not in html
    assert "too few" not in html
    assert "Copying and OV eigenvalues are left out" in html
    assert "sweep(" not in code
    assert "ablation_curve(" not in code


@pytest.mark.parametrize(
    ("heads", "most"), [("L0H0 L0H1 L1H0", 3), ("L0H0 L0H1 L0H2 L1H0", 2), ("L1H3 L0H3 L1H2 L0H1", 4)]
)
def test_the_curve_ends_where_a_layer_has_no_more_to_compare_with(heads, most):
    order = [Head(int(name[1]), int(name[3])) for name in heads.split()]
    assert removing.comparable(order, 4) == most
    assert removing.comparable(order, 1) == 0


def test_heads_without_others_are_removed_without_comparison(tmp_path):
    model = zoo.fresh("attention-only", dtype=torch.float32, n_heads=1, d_head=16)
    html = without_scripts(
        text_of(ik.report(model, tmp_path / "r.html", heads="L0H0,L1H0", n_prompts=12, progress=False))
    )
    assert "too few other heads to compare with" in html
    assert "These layers have too few heads" in html


def test_a_model_without_direct_effects_says_why(tmp_path):
    model = zoo.fresh_of("Gemma 2", "bridge", dtype=torch.float32)
    prompts = repeated_tokens(model, prompts=4, bos=False)
    direct, losses = page._direct(model, prompts, False)
    assert "use ablate instead" in direct
    np.testing.assert_allclose(losses["loss"], loss_by_position(model, prompts)["loss"])


def test_the_page_of_a_model_without_direct_effects_speaks_of_what_it_has(tmp_path):
    """Gemma 2 norms what attention writes: no copying, no OV eigenvalues, no direct effects."""
    model = zoo.fresh_of("Gemma 2", "bridge", dtype=torch.float32)
    html = without_scripts(text_of(ik.report(model, tmp_path / "r.html", n_prompts=12, progress=False)))
    assert "Copying, OV eigenvalues and direct effects are left out: " in html
    assert "the last column what is lost without it" in html
    (header,) = re.findall(r"<thead>(.*?)</thead>", html)
    assert re.findall(r">([^<>]+)</button>", header) == [
        "head",
        "prefix matching",
        "control",
        "excess",
        "benefit lost",
    ]
    for absent in ("<b>Direct effect</b>", "<b>Copying</b>", "Looking and copying", "the last two"):
        assert absent not in html
    for call in ("direct_effect(", "copying(", "ov_eigenvalues("):
        assert call not in html


def test_the_code_on_the_page_runs(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r'<pre class="python">(.*?)</pre>', text_of(report), flags=re.DOTALL)
    code = "\n".join(line for line in markup.unescape(code).splitlines() if "ik.report" not in line)
    names = {}
    exec(compile(code, "the page's code", "exec"), names)
    assert len(names["held"]) == 8


def test_the_vote_of_a_head_is_that_of_the_verbs(report):
    model = load("tiny")
    prompts = word_episodes(model, prompts=128, classes=4, noise=0.3)
    answers = predict(model, prompts, pooling="max", progress=False)
    best = splits.held_out(answers, answers).sel(row="best head")
    html = without_scripts(text_of(report))
    assert f"<b>{percent(float(answers['accuracy']))}</b> of {len(prompts)} queries" in html
    assert f"agrees with the model on <b>{percent(float(best['agreement']))}</b>" in html
    assert "30% of the words are replaced" in html
    assert html.count("<details") == 4  # one is the contents list


@pytest.mark.parametrize(
    "part",
    [
        "strongest heads",
        "lost without them",
        "Direct effect",
        "repetition is worth",
        "Looking and copying",
        "In-context learning as kernel regression",
        "made",
    ],
)
def test_page_has_every_part(report, part):
    assert part in without_scripts(text_of(report))


def test_page_names_scorers_and_settings(report):
    html = text_of(report)
    for scorer in SCORERS:
        assert scorer.name.replace("_", " ") in html
    assert "n_prompts=16, seed=0" in html
    assert "2209.11895" in html


def test_hand_made_model_shows_its_induction_head(tmp_path):
    html = without_scripts(text_of(ik.report(HAND, tmp_path / "r.html", n_prompts=12, progress=False)))
    assert "<b>1 of 6 heads</b>" in html
    # without BOS, position 0 counts as its own predecessor and takes half the attention of one query of each prompt
    assert "<td>L1H0</td><td>0.98 (0.98 to 0.98)</td>" in html
    assert "hand &lt;b&gt;made" in html
    assert "Left out: few-shot prompts need a tokenizer" in html


@pytest.mark.parametrize("shape", one_in(2, ["GPT-2", "Llama"]))
def test_model_without_induction_heads_says_so(tmp_path, shape):
    model = zoo.fresh(shape, dtype=torch.float32)
    html = without_scripts(text_of(ik.report(model, tmp_path / "r.html", n_prompts=16, progress=False)))
    assert "None of 8 heads passes the threshold" in html
    assert "<td>together</td>" in html
    assert "Removing" not in html
    assert "The repetition brings this model no reliable benefit" in html
    measured = html[html.index("The strongest heads") : html.index("What the repetition")]
    measured = re.sub(r"<[^>]*>", "", measured)
    assert not set(re.findall(r"\d+%", measured)) - {"95%", "100%"}, "a share of no benefit"


def test_heads_asked_for_are_those_shown(tmp_path):
    path = ik.report(load("tiny"), tmp_path / "r.html", heads="L0H0", n_prompts=12, progress=False)
    html = without_scripts(text_of(path))
    assert "Removing the 1 heads asked for" not in html
    assert "<td>L0H0</td>" in html
    assert "<td>L1H0</td>" not in html


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "nowhere/r.html"}, ValueError, "existing folder"),
        ({"n_prompts": 11}, ValueError, "at least 12 prompts"),
        ({"heads": "L9H0"}, ValueError, "L9H0 does not exist"),
        ({"minutes": 0}, ValueError, "minutes above 0"),
        ({"minutes": float("nan")}, ValueError, "minutes above 0"),
        ({"minutes": True}, TypeError, "minutes as a number, or None for no bound, got bool"),
        ({"minutes": "five"}, TypeError, "minutes as a number, or None for no bound, got str"),
        ({"heads": 3.5}, TypeError, "wanted heads"),
    ],
)
def test_report_says_what_it_wanted_and_leaves_nothing(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        ik.report(load("tiny"), **arguments, progress=False)
    assert not list(tmp_path.iterdir())


def drawn(*shares, sets=None):
    """A joint ablation beside as many random sets."""
    names = ("draw", sets or [f"L0H{draw}" for draw in range(len(shares))])
    counted = {"control_share": ("draw", list(shares)), "n_controls": len(shares)}
    return xr.Dataset(counted, {"control_heads": names})


def test_comparison_is_worded_by_what_there_is():
    def words(joint):
        return said("comparison", compared(joint))

    assert "too few other heads" in words(xr.Dataset())
    assert "the 2 other heads of the same layers costs 2%" in words(drawn(0.02, sets=["L0H1 L0H2"]))
    sets = "1 random other head of the same layers costs −10% to 2% (2 different sets)"
    assert sets in words(drawn(0.02, -0.1, sets=["L0H1", "L0H2"]))
    assert "2 random other heads" in words(drawn(0.02, 0.3, sets=["L0H1 L0H2", "L0H1 L0H3"]))
    assert "no reliable benefit" in words(drawn(float("nan")))


def test_cells_are_escaped():
    assert "<td>&lt;bos&gt;</td>" in macro("macros.html.j2", "table", [], [["<bos>"]])


def test_every_figure_has_its_numbers_as_a_file_without_formulas(report):
    files = re.findall(
        r'download="(\w+\.csv)" href="data:text/csv;charset=utf-8;base64,([^"]*)"', text_of(report)
    )
    tables = {name: pd.read_csv(io.BytesIO(base64.b64decode(data))) for name, data in files}
    assert len(files) == len(tables) == 11
    held = held_out()[0]
    expected = sweep(load("tiny"), held[held.lengths.argsort(stable=True)], progress=False)["effect"].mean(
        "prompt"
    )
    of_heads = tables["ablation_of_each_head.csv"].set_index(["layer", "head"])["effect"].sort_index()
    np.testing.assert_allclose(of_heads.values, expected.values.ravel(), atol=1e-5)
    assert len(tables["prefix_matching.csv"]) == expected.size
    frame = pd.DataFrame({"token": ["=1+1", "fox"]})
    (guarded,) = re.findall("base64,(.*)", rendering._file(frame, "a").uri)
    assert base64.b64decode(guarded).decode() == "token\n'=1+1\nfox\n"


def test_the_numbers_of_any_figure_can_be_read_off_it():
    """Of figures that an argument draws: points by trace, cells of heat maps; no bands, which nobody reads."""
    figure = go.Figure([
        go.Heatmap(z=[[1, 2, 3], [4, 5, 6]], y=["a", "b"], name="map"),
        go.Scatter(x=[1, 2], y=[3, 4], name="line"),
        go.Scatter(x=[0], y=[9], hoverinfo="skip", name="band"),
    ])  # fmt: skip
    table = of_figure(figure)
    cells = table[table["trace"] == "map"]
    assert cells[["x", "y", "z"]].values.tolist()[2:4] == [[2, "a", 3], [0, "b", 4]]
    assert table[table["trace"] == "line"][["x", "y"]].values.tolist() == [[1, 3], [2, 4]]
    assert set(table["trace"]) == {"map", "line"}
    plain = rendering.drawn(
        go.Figure(go.Scatter(x=[1], y=[2])), table, "own"
    )  # without a size or title of its own
    assert (plain.caption, plain.file.name) == ("", "own.csv")


def test_contents_lead_to_every_section(report):
    html = text_of(report)
    listed = re.findall(r'<li><a href="#([a-z-]+)">([^<]*)</a></li>', html)
    assert listed == re.findall(r'<h2 id="([a-z-]+)">([^<]*)</h2>', html)
    assert len(dict(listed)) == 10


@pytest.mark.browser
def test_tables_sort_and_heads_lead_to_their_attention(report, browser, tmp_path):
    """Headings are buttons, so that the keyboard presses them too; text that is no number sorts last."""
    acts = """<script>
      const at = document.querySelector("table.sortable"), press = i => at.querySelectorAll("th button")[i].click();
      const column = () => [...at.tBodies[0].rows].map(row => row.cells[0].textContent).join();
      const seen = [column()]; press(1); seen.push(column()); press(1); seen.push(column());
      const ends = at.tFoot.rows[0].cells[0].textContent;
      const sorted = at.querySelector("th[aria-sort=ascending]").textContent;
      setTimeout(() => {
        at.querySelectorAll("a[data-head]")[0].click();
        setTimeout(() => {
          const { head, theme } = document.querySelector(".ik-explorer").dataset;
          const asked = at.querySelector("a[data-head]").textContent;
          document.title = JSON.stringify([seen, ends, sorted, asked, head, theme]);
        }, 500);
      }, 3000);
    </script></body>"""
    page = tmp_path / "acting.html"
    page.write_text(text_of(report).replace("</body>", acts), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", dom(browser, page, tmp_path / "profile")).group(1)
    (before, falling, rising), last, column, head, chosen, theme = json.loads(markup.unescape(title))
    assert falling.split(",") == rising.split(",")[::-1]
    assert sorted(before) == sorted(falling)
    assert (last, column) == ("together", "prefix matching")
    assert (chosen, theme) == (head, "light")
    assert head != before.split(",")[0]  # which is shown at first


@pytest.mark.browser
def test_page_opens_without_network_and_without_errors(report, browser, tmp_path):
    """Anything the page tried to fetch would be a console error: its own policy refuses it."""
    quiet = ["background-networking", "component-update", "sync", "gpu", "quic", "dev-shm-usage"]
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        *(f"--disable-{each}" for each in quiet),
    ]
    command += [
        f"--user-data-dir={tmp_path}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
    ]
    command += ["--virtual-time-budget=10000", "--window-size=1200,2000", "--dump-dom", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("modebar-container") >= 11
    assert 'data-ready="head"' in done.stdout
