"""Probes find what was put into keys and values by hand, and nothing where nothing is."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, hand_weights
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import RidgeClassifier
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel.kernel._probe_examples import examples, rows_of
from induction_kernel.kernel._ridge import chance, cross_validated, folds_of
from induction_kernel.loading import build
from induction_kernel.prompts import Demonstrations, FewShotPrompts
from induction_kernel.prompts._prompts import pad

OFFSETS = (-1, 0, 1)
SEPARATOR, LABELS = 9, (7, 8)


def episodes(*, n=40, shots=4, seed=0, vocab=50, longest=3):
    """Prompts `BOS x x label ; x x x label ; ... x`: words x at random and labels that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    rows, spans, places = [], [], []
    classes = rng.permuted(np.tile(np.arange(shots) % 2, (n, 1)), axis=1)
    for row in range(n):
        ids, spans_of, places_of = [0], [], []
        for y in classes[row]:
            begin = len(ids)
            ids += rng.integers(10, vocab, size=rng.integers(2, longest + 1)).tolist()
            places_of.append(len(ids))
            ids += [LABELS[y], SEPARATOR]
            spans_of.append((begin, len(ids) - 1))
        rows.append([*ids, int(rng.integers(10, vocab))])
        spans.append(spans_of)
        places.append(places_of)
    tokens, lengths = pad(rows)
    found = Demonstrations(
        spans=torch.tensor(spans), label_positions=torch.tensor(places), classes=torch.tensor(classes),
        mask=torch.ones(n, shots, dtype=torch.bool), label_ids=torch.tensor(LABELS),
        target=torch.full((n,), -1), labels=("a", "b"),
    )  # fmt: skip
    scored = torch.arange(tokens.shape[1]) == lengths[:, None] - 1
    return FewShotPrompts(tokens, lengths, scored, demonstrations=found, bos=True)


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


def cell(found, vector, layer, head, offset):
    return found.sel(target="label", vector=vector, layer=layer, head=head, offset=offset)


def test_labels_planted_by_hand_are_found_where_they_are_and_nowhere_else(by_hand):
    """Values of L0H0 and L1H0 are their own token, keys of L1H2 too; keys of L1H0 are the token before.

    Keys of L0H0 and L0H1 are the position, all other keys and values are zero.
    """
    found = ik.kernel.probe(by_hand, episodes(n=60), targets=["label"], offsets=OFFSETS)
    certain = {("value", 0, 0, 0), ("value", 1, 0, 0), ("key", 1, 2, 0), ("key", 1, 0, 1)}
    for vector, layer, head, offset in np.ndindex(2, 2, 3, 3):
        at = (("key", "value")[vector], layer, head, OFFSETS[offset])
        one = cell(found, *at)
        if at in certain:
            assert float(one["accuracy"]) == 1
            assert float(one["selectivity_low"]) > 0.3
        else:
            assert float(one["accuracy_low"]) <= 0.5 + 1e-12, at  # a resampled mean may round
        assert float(one["control_accuracy"]) == pytest.approx(
            0.5, abs=0.12
        )  # three standard errors of 240 rows


@pytest.mark.parametrize("seed", range(3))
def test_before_the_label_an_untrained_model_is_at_chance(seed):
    model = fresh("Llama", seed=seed)
    found = ik.kernel.probe(model, episodes(n=60, seed=seed), targets=["label"], offsets=(-1, 0), seed=seed)
    before = found.sel(offset=-1)
    inside = (before["accuracy_low"] <= 0.5) & (before["accuracy_high"] >= 0.5)
    assert float(inside.mean()) > 0.6  # 8 cells of 95% intervals, which share their examples
    assert float(before["accuracy"].mean()) == pytest.approx(0.5, abs=0.06)
    assert float(found["accuracy"].sel(offset=0, layer=0).min()) == 1  # there, the label is the token itself


@pytest.mark.parametrize("name", ["attention-only", "Llama"])
@pytest.mark.parametrize("target", ["label", "next token"])
def test_probes_are_those_of_scikit_learn_on_a_cache(name, target):
    model, prompts = tiny(name), episodes(n=20)
    found = ik.kernel.probe(model, prompts, targets=[target], offsets=OFFSETS, folds=4, min_count=3, seed=5)
    rows = rows_of(prompts, OFFSETS)
    known = examples(
        model, prompts, rows, target, folds=4, min_count=3, seed=5, batch_size=None, progress=False
    )
    prompt, slot = rows.prompt[known.rows], rows.slot[known.rows]
    if target == "label":
        np.testing.assert_array_equal(known.labels, prompts.demonstrations.classes[prompt, slot])
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    for vector, layer, head, offset in np.ndindex(2, 2, found.sizes["head"], len(OFFSETS)):
        at = prompts.demonstrations.label_positions[prompt, slot] + OFFSETS[offset]
        vectors = cache[("k", "v")[vector], layer][prompt, at, head].float().double().numpy()
        for labels, variable in ((known.labels, "score"), (known.control, "control")):
            right = np.zeros(len(prompt))
            for fold in range(4):
                train, test = known.folds != fold, known.folds == fold
                fit = RidgeClassifier(alpha=0.01).fit(vectors[train], labels[train])
                right[test] = fit.predict(vectors[test]) == labels[test]
            means = [right[prompt.numpy() == p].mean() for p in np.unique(prompt)]
            seen = found[variable].isel(target=0, vector=vector, layer=layer, head=head, offset=offset).values
            np.testing.assert_allclose(seen[np.isfinite(seen)], means)
    assert float(found["examples"][0]) == len(known.rows)
    assert float(found["coverage"][0]) == len(known.rows) / 80


def test_next_tokens_are_those_of_each_text_alone():
    model, prompts = tiny("GPT-2"), episodes(n=20)
    rows = rows_of(prompts, (0,))
    known = examples(
        model, prompts, rows, "next token", folds=4, min_count=4, seed=0, batch_size=3, progress=False
    )
    alone = []
    for p, i in zip(rows.prompt.tolist(), rows.slot.tolist(), strict=True):
        begin, label = (
            int(prompts.demonstrations.spans[p, i, 0]),
            int(prompts.demonstrations.label_positions[p, i]),
        )
        text = torch.cat([prompts.tokens[p, :1], prompts.tokens[p, begin:label]])
        with torch.no_grad():
            alone.append(int(model(text[None], return_type="logits")[0, -1].argmax()))
    frequent = [token for token in sorted(set(alone)) if alone.count(token) >= 4]
    assert len(frequent) > 1
    kept = [i for i, token in enumerate(alone) if token in frequent]
    np.testing.assert_array_equal(known.rows, kept)
    np.testing.assert_array_equal(known.labels, [frequent.index(alone[i]) for i in kept])


def test_ridge_is_that_of_scikit_learn_where_folds_lack_classes():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(3, 60, 8)), rng.integers(0, 4, size=60)
    vectors[1, :, 0] += labels
    folds = rng.integers(0, 3, size=60)
    labels[labels == 3] = np.where(folds[labels == 3] == 1, 3, 0)  # class 3 is in one fold alone
    binary = (labels > 1).astype(int)
    found = cross_validated(vectors, [labels, binary], folds, 0.5)
    for each, guess in zip((labels, binary), found, strict=True):
        for i, fold in np.ndindex(3, 3):
            fit = RidgeClassifier(alpha=0.5).fit(vectors[i, folds != fold], each[folds != fold])
            np.testing.assert_array_equal(guess[i, folds == fold], fit.predict(vectors[i, folds == fold]))
    for fold in range(3):
        dummy = DummyClassifier(strategy="most_frequent").fit(
            vectors[0, folds != fold], labels[folds != fold]
        )
        there = folds == fold
        assert chance(labels, folds)[there].mean() == dummy.score(vectors[0, there], labels[there])


def test_a_prompt_is_never_parted_between_folds():
    prompts = episodes(n=23)
    rows = rows_of(prompts, OFFSETS)
    folds = folds_of(rows.prompt.numpy(), 5, np.random.default_rng(0))
    assert all(len(set(folds[rows.prompt.numpy() == p])) == 1 for p in range(23))
    counts = np.bincount([folds[rows.prompt.numpy() == p][0] for p in range(23)])
    assert sorted(counts) == [4, 4, 5, 5, 5]


def test_a_probe_that_only_knows_its_texts_again_has_no_selectivity(by_hand):
    """Twelve words with a class each: their own token tells it, and tells the control's classes as well."""
    rng, words = np.random.default_rng(0), np.arange(10, 22)
    prompts = episodes(n=60, longest=2)
    tokens, found = prompts.tokens.clone(), prompts.demonstrations
    drawn = torch.from_numpy(rng.choice(words, size=tuple(found.classes.shape)))
    each = torch.arange(60)[:, None]
    for back in (1, 2):
        tokens[each, found.label_positions - back] = drawn
    classes = drawn % 2
    tokens[each, found.label_positions] = torch.tensor(LABELS)[classes]
    prompts = replace(prompts, tokens=tokens, demonstrations=replace(found, classes=classes))
    probed = ik.kernel.probe(by_hand, prompts, targets=["label"], offsets=OFFSETS)
    before = cell(probed, "value", 0, 0, -1)
    assert float(before["accuracy"]) == 1
    assert float(before["selectivity"]) == 0
    assert probed["dealt_to"].values.tolist() == ["text"]
    assert float(cell(probed, "value", 0, 0, 0)["selectivity_low"]) > 0.2  # the label itself
    mixed = ik.kernel.probe(by_hand, episodes(), targets=["label"], offsets=(0,))
    assert mixed["dealt_to"].values.tolist() == ["text"]  # every text is another one
    words = ik.kernel.probe(
        ik.load("tiny"),
        ik.prompts.word_episodes(ik.load("tiny")),
        targets=["label"],
        offsets=(0,),
        layers=[0],
    )
    assert words["dealt_to"].values.tolist() == ["demonstration"]  # each prompt names the classes anew


@pytest.mark.parametrize("name", ["attention-only", "Llama"])
def test_laws(name, tmp_path):
    model, prompts = tiny(name), episodes(n=12)
    tokens, hooks = prompts.tokens.clone(), [len(module._forward_hooks) for module in model.modules()]
    found = ik.kernel.probe(model, prompts, min_count=2, offsets=OFFSETS, folds=3)
    assert torch.equal(tokens, prompts.tokens)
    assert hooks == [len(module._forward_hooks) for module in model.modules()]
    assert found["score"].dims == ("prompt", "target", "vector", "layer", "head", "offset")
    xr.testing.assert_allclose(
        found, ik.kernel.probe(model, prompts, min_count=2, offsets=OFFSETS, folds=3, batch_size=5)
    )
    part = ik.kernel.probe(
        model, prompts, min_count=2, offsets=(1, -1, 0), folds=3, layers=[1], vectors=["value"]
    )
    xr.testing.assert_allclose(
        part["score"], found["score"].sel(layer=[1], vector=["value"], offset=[1, -1, 0])
    )
    for variable in ("score", "control", "accuracy", "accuracy_low", "accuracy_high", "chance", "coverage"):
        values = found[variable].values[np.isfinite(found[variable].values)]
        assert values.min() >= 0
        assert values.max() <= 1 + 1e-12  # a resampled mean may round
    grouped = name == "Llama"
    assert found["name"].values[1, 0] == ("L1KV0" if grouped else "L1H0")
    assert found["query_heads"].values.tolist() == (["0 1", "2 3"] if grouped else ["0", "1", "2", "3"])
    found.to_netcdf(tmp_path / "probes.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "probes.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), found)


def test_demonstrations_without_a_token_at_an_offset_are_left_out_at_all():
    found = ik.kernel.probe(
        tiny("attention-only"), episodes(n=12), targets=["label"], offsets=(0, 3), folds=3
    )
    assert int(found["examples"][0]) == 36  # the last of four ends two tokens before the prompt's last
    assert float(found["coverage"][0]) == 0.75


def test_a_failing_run_leaves_nothing_behind():
    model, prompts = fresh("attention-only"), episodes(n=12)
    ik.kernel.probe(model, prompts, targets=["label"], offsets=(0,), folds=3)
    before = [(len(module._forward_hooks), module.training) for module in model.modules()]
    with torch.no_grad():
        next(value for key, value in model.named_parameters() if {"W_V", "v"} & set(key.split(".")))[...] = (
            np.nan
        )
    with pytest.raises(ValueError, match="layer 0 are not finite"):
        ik.kernel.probe(model, prompts, targets=["label"], offsets=(0,), folds=3)
    assert before == [(len(module._forward_hooks), module.training) for module in model.modules()]


@pytest.mark.slow
@pytest.mark.real("smollm2", "shared")
def test_smollm2_knows_a_review_before_its_label_late_and_not_early(smollm2, shared):
    """SST-2, 8 demonstrations: layer 0 reads tokens alone, and all reviews end alike; from layer 15 the values tell."""
    with (shared / "data" / "sst2.train2000.tsv").open() as file:
        rows = [(row["sentence"].strip(), int(row["label"])) for row in csv.DictReader(file, delimiter="\t")]
    drawn = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[: 9 * 60]]
    model = ik.load(smollm2, n_ctx=512)
    prompts = ik.few_shot_prompts(
        model, [drawn[i : i + 8] for i in range(0, len(drawn), 9)], drawn[8::9],
        template="Review: {x}\nSentiment: {y}", labels=["negative", "positive"],
    )  # fmt: skip
    found = ik.kernel.probe(
        model, prompts, targets=["label"], vectors=["value"], layers=[0, 15], progress=False
    )
    one = found.isel(target=0, vector=0)
    assert bool((one["accuracy"].sel(offset=0) == 1).all())
    assert float(one["accuracy"].sel(offset=-1, layer=0).mean()) < float(one["chance"]) + 0.05
    assert bool((one["selectivity_low"].sel(offset=-1, layer=15) > 0).all())
    assert float(one["accuracy"].sel(offset=-1, layer=15).mean()) > float(one["chance"]) + 0.1
    assert one["query_heads"].values.tolist() == ["0 1 2", "3 4 5", "6 7 8"]
