"""Does the few-shot study put together what the verbs measure, and does its page say it?"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from passes import counted, times_run
from unpacked import ReadPage

import induction_kernel as ik
from induction_kernel.attention_explorer import _in_passes as in_passes
from induction_kernel.attention_explorer._in_passes import PromptsInPasses
from induction_kernel.fewshot._study import label_peak
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.pages._fewshot import outcome, rows_of
from induction_kernel.pages._rendering import macro
from induction_kernel.prompts._word_task import TOPICS

QUERIES = 60


def read(path):
    return path.read_text(encoding="utf-8")


def without_scripts(html):
    return " ".join(re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL).split())


@pytest.fixture(scope="module")
def studied():
    """A study, and the batches run for it."""
    with counted(ik.load("tiny")) as seen:
        return ik.fewshot.few_shot_study(
            ik.load("tiny"), queries=QUERIES, splits=20, seed=1, progress=False
        ), seen


@pytest.fixture(scope="module")
def study(studied):
    return studied[0]


def test_every_prompt_of_a_study_runs_once(studied):
    study, seen = studied
    assert times_run(seen, study.prompts) == (1, 1)


def test_prompts_of_several_batches_are_read_once_with_the_same_numbers(study):
    """Attention and what heads write are of the first 64 prompts, which end within a batch of these."""
    prompts = ik.prompts.word_episodes(ik.load("tiny"), prompts=80, classes=4, noise=0.3, seed=1)
    with counted(ik.load("tiny")) as seen:
        found = ik.fewshot.few_shot_study(ik.load("tiny"), prompts, splits=5, batch_size=24, progress=False)
    assert times_run(seen, prompts) == (1, 1)
    along = ik.kernel.demonstration_attention(ik.load("tiny"), prompts[:64], progress=False)
    np.testing.assert_allclose(found.along["attention"], along["attention"], atol=1e-6)
    assert found.along.attrs["n_prompts"] == 64
    writes = ik.kernel.label_logits(ik.load("tiny"), prompts[:64], progress=False)
    table = ik.kernel.held_out(found.answers.sel(pooling="max"), found.answers, writes=writes, splits=5)
    row = {"row": "layer sum by writing"}
    np.testing.assert_allclose(found.table["agreement"].sel(row), table["agreement"].sel(row))


@pytest.fixture(scope="module")
def html(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "fewshot.html"
    assert ik.report(study, path) == path
    assert list(path.parent.iterdir()) == [path]
    return read(path)


def words():
    """Animals and fruits as a data set with names of its own."""
    animals, fruits = TOPICS[:2]
    classes = np.repeat([0, 1], [len(animals), len(fruits)])
    return ik.data.LabelledTexts(
        (*animals, *fruits), classes, ("dax", "wug"), name="kinds", template="{x} {y} ;"
    )


def test_a_study_is_what_its_verbs_measure(study):
    model = ik.load("tiny")
    prompts = ik.prompts.word_episodes(model, prompts=QUERIES, classes=4, noise=0.3, seed=1)
    assert torch.equal(study.prompts.tokens, prompts.tokens)
    answers = ik.fewshot.predict(model, prompts, pooling="max", progress=False)
    np.testing.assert_allclose(study.answers["weight"].sel(pooling="max"), answers["weight"])
    xr.testing.assert_allclose(
        study.heads["agreement"].drop_vars("pooling"), ik.kernel.vote(answers, prompts, answers)["agreement"]
    )
    writes = ik.kernel.label_logits(model, prompts, progress=False)
    table = ik.kernel.held_out(answers, answers, writes=writes, splits=20, seed=1)
    for method in ("model", "best head", "layer sum", "layer sum by writing", "majority label"):
        row = {"row": method}
        np.testing.assert_allclose(study.table["accuracy"].sel(row), table["accuracy"].sel(row))
        np.testing.assert_allclose(study.table["agreement"].sel(row), table["agreement"].sel(row))
    along = ik.kernel.demonstration_attention(model, prompts, progress=False)
    xr.testing.assert_allclose(study.along["attention"], along["attention"])


def test_on_the_embedded_task_a_head_votes_as_the_model_predicts(study):
    agreement = study.table["agreement"].to_series()
    assert agreement["best head"] > 0.85
    assert agreement["layer sum by writing"] > 0.90
    assert agreement[["majority label", "last label", "position only", "constant"]].max() < 0.45
    assert float(study.alignment["mean"].max()) > 0.7


def test_labels_are_looked_at_in_the_layer_it_says(study):
    layer, of_layer, head, of_head = label_peak(study.answers)
    mass = ik.label_attention(ik.load("tiny"), study.prompts, progress=False)["score"].mean("prompt")
    assert of_layer == pytest.approx(float(mass.mean("head").max()), abs=1e-6)
    assert layer == int(mass.mean("head").values.argmax())
    assert of_head == pytest.approx(float(mass.max()), abs=1e-6)
    assert float(mass.sel(layer=head.layer, head=head.head)) == pytest.approx(of_head, abs=1e-6)


def test_all_numbers_go_into_a_file_and_come_back(study, tmp_path):
    found = study.datasets()
    assert set(found) == {"answers", "heads", "sums", "table", "alignment", "along"}
    xr.DataTree.from_dict(found).to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "all.nc", engine="h5netcdf") as tree:
        for name, each in found.items():
            xr.testing.assert_equal(tree[name].to_dataset().load(), each)
    assert repr(study).startswith(f"FewShotStudy(tiny, {QUERIES} prompts: accuracy 0.")


def test_a_data_set_is_asked_with_the_rest_of_it_as_demonstrations():
    study = ik.fewshot.few_shot_study(ik.load("tiny"), words(), queries=10, shots=4, splits=5, progress=False)
    text = study.prompts.text()[0]
    assert len(study.prompts) == 10
    assert len(re.findall("dax|wug", text)) == 4
    queries = study.answers["text"].values.tolist()
    shown = {word for prompt in study.prompts.text() for word in prompt.replace(";", "").split()[1:-1]}
    assert not shown & set(queries)
    assert {"TF-IDF kernel", "embedding kernel"} <= set(study.table["row"].values)
    pool = words()
    both = ik.fewshot.few_shot_study(
        ik.load("tiny"), pool[:8], pool=pool[8:], queries=100, shots=4, splits=5, progress=False
    )
    assert len(both.prompts) == 8


def test_prompts_of_unequal_shape_are_studied_without_their_texts(tmp_path):
    model = ik.load("tiny")
    shots = [[("fox", "dax"), ("fig", "wug"), ("bear", "dax")][: 2 + i % 2] for i in range(8)]
    prompts = ik.few_shot_prompts(
        model, shots, [("lion", "dax"), ("plum", "wug")] * 4, template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )  # fmt: skip
    study = ik.fewshot.few_shot_study(model, prompts, splits=5, progress=False)
    assert study.alignment is None
    assert "alignment" not in study.datasets()
    assert "TF-IDF kernel" not in study.table["row"].values
    html = read(ik.report(study, tmp_path / "a.html"))
    assert "Weights and similarity" not in html
    shown = ReadPage(html).contents["prompts"]
    assert [len(each["demonstrations"]) for each in shown] == [2, 3, 2, 3]
    tokens = [[token.strip() for token in each["tokens"]] for each in shown]
    assert tokens == study.prompts[:4].strings()


def test_the_page_has_every_figure_and_fetches_nothing(html):
    body = html[html.index("<h1>") : html.index('<script type="module">')]
    assert len(re.findall(r"Plotly\.newPlot\(", body)) == 6
    assert "default-src 'none'" in html
    assert "http" not in body.replace("http-equiv", "")
    assert not re.search(r"\ssrc=", body)
    assert not re.search(r'\shref="(?!data:text/csv|#)', body)
    for part in (
        "beside its controls",
        "at a glance",
        "By depth",
        "last token looks",
        "similarity",
        "prompt by prompt",
    ):
        assert part in body


def test_the_first_prompts_are_in_the_explorer_as_they_were_read(study, html):
    """With the weights that the votes are made of, what the model answers, and the names of the list below."""
    found, prompts = ReadPage(html), study.prompts[:4]
    seen = ik.patterns(ik.load("tiny"), prompts)["pattern"].values
    weights = study.answers["weight"].sel(pooling="max").values
    assert len(found.contents["prompts"]) == 4
    assert len(found.heads) == 4 * 16
    for i, shown in enumerate(found.contents["prompts"]):
        length = int(prompts.lengths[i])
        assert [token.strip() for token in shown["tokens"]] == prompts.strings()[i]
        assert shown["special"] == [0]
        assert shown["answer"] == int(study.answers["prediction"][i])
        assert shown["target"] == int(study.answers["target"][i])
        assert [each[3] for each in shown["demonstrations"]] == study.answers["label_class"].values[
            i
        ].tolist()
        np.testing.assert_allclose(np.array(shown["weights"]), weights[i].reshape(16, -1), atol=5.1e-5)
        assert f"<summary>{shown['name']} <span>" in html
        for at in (0, 15):
            whole = seen[i, at, :length, :length]
            np.testing.assert_allclose(found.head(i, at)[0], whole, atol=1 / 510 + 3e-4)
    names = study.table["choice"].sel(row="best head").values.tolist()
    often = max(set(names), key=names.count)
    assert found.contents["start"] == {"prompt": 0, "head": 8 * int(often[1]) + int(often[3])}
    agreement, aligned = found.contents["scores"]
    np.testing.assert_allclose(
        agreement["mean"], study.heads["agreement"].mean("prompt").values.ravel(), rtol=1e-4
    )
    assert agreement["unit"] == "share of queries"
    assert [agreement["name"], aligned["name"]] == ["agreement of the vote", "alignment with similarity"]
    np.testing.assert_allclose(aligned["mean"], study.alignment["mean"].values.ravel(), rtol=1e-4)


@pytest.mark.skipif(not has_hooked_transformer(), reason="a Bridge runs demonstrations with each prompt")
def test_prompts_whose_demonstrations_are_run_once_are_shown_whole():
    """Of a few such prompts of unequal lengths, in the order in which they are given."""
    model, shots = ik.load("tiny"), [("fox", "dax"), ("fig", "wug"), ("bear", "dax")]
    queries = [
        (x, "dax" if at % 2 else "wug") for at, x in enumerate(["plum lion", "wolf", "pear", "goat"] * 3)
    ]
    prompts = ik.few_shot_prompts(
        model, shots, queries, template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )
    assert len(set(prompts.lengths.tolist())) == 2
    study = ik.fewshot.few_shot_study(model, prompts, splits=5, progress=False)
    assert study.answers.attrs["lane"] == "prefix"
    seen = ik.patterns(model, prompts[:4])
    for i, one in enumerate(study.shown):
        length = int(prompts.lengths[i])
        for index, pattern, norms in one.patterns(range(16)):
            whole = seen["pattern"].values[i, index, :length, :length]
            np.testing.assert_allclose(pattern, whole, atol=5e-4)
            np.testing.assert_allclose(norms, seen["value_norm"].values[i, index, :length], rtol=1e-4)


def test_heads_that_the_text_names_lead_to_the_explorer(study, html):
    named = re.findall(r'<a href="#attention" data-head="(L\dH\d)">\1</a>', html)
    aligned = study.alignment.isel(study.alignment["mean"].argmax(("layer", "head")))["name"].item()
    assert named == [str(label_peak(study.answers)[2]), aligned]


def test_as_many_prompts_are_kept_as_fit(study, monkeypatch, tmp_path):
    """Two bytes for each pair of tokens of 16 heads; without any, the page says why."""
    one = 16 * int(study.prompts.lengths[0]) * (int(study.prompts.lengths[0]) + 1)
    for most, n in ((one - 1, 0), (one, 1), (2**40, 4)):
        monkeypatch.setattr(in_passes, "KEPT", most)
        assert PromptsInPasses(ik.load("tiny"), study.prompts).n_prompts == n
    page = read(ik.report(replace(study, shown=()), tmp_path / "a.html"))
    assert 'class="ik-explorer"' not in page
    assert '<script type="module">' not in page
    assert 'data-head="' not in page
    assert "take more than 256 MB, so they are not on this page" in without_scripts(page)


def test_the_page_says_the_numbers_of_the_study(study, html):
    text = without_scripts(html)
    best = study.table.sel({"row": "best head"})
    assert f"<b>{float(study.answers['accuracy']):.0%}</b> of {QUERIES} queries" in text
    assert f"<b>{float(best['agreement']):.0%}</b>" in text
    for method in study.table["row"].values:
        one = study.table.sel(row=method)
        cell = f"{float(one['accuracy']):.2f} ({float(one['accuracy_low']):.2f} to {float(one['accuracy_high']):.2f})"
        assert re.search(rf"<tr><td>{re.escape(method)}</td>.*?<td>{re.escape(cell)}</td>", text)
    assert html.count("<details") == 13  # one is the contents list
    aligned = study.alignment.isel(study.alignment["mean"].argmax(("layer", "head")))
    assert f"same head's correlation is {float(aligned['pooled']):.2f} (" in text
    assert "not clearly better" not in text


def test_it_says_when_the_model_cannot_do_the_task():
    untrained = ik.load("tiny")
    with torch.no_grad():
        for parameter in untrained.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    study = ik.fewshot.few_shot_study(untrained, queries=40, splits=10, progress=False)
    said = " ".join(macro("fewshot_verdict.html.j2", "outcome", outcome(study.answers, study.table)).split())
    assert "not clearly better at this task than a constant answer" in said
    assert "not clearly more than without a chosen head" in said


def test_what_is_not_there_is_blank_in_the_table(study):
    rows = {method: cells for method, *cells in rows_of(study.table)}
    assert rows["model"][0] == rows["best head"][-1] == ""
    assert rows["model"][1].startswith("0.")
    assert "–" not in str(rows)
