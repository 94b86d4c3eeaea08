"""The explorer's numbers: what a page stores equals the model's attention to the rounding that is said."""

import io
import json

import numpy as np
import pytest
import torch
import zoo
from PIL import Image
from unpacked import ReadPage, pooled_slowly, unpacked

import induction_kernel as ik
from induction_kernel.attention_explorer import _model_prompts, _packing, _shown
from induction_kernel.errors import Refused
from induction_kernel.loading._build import has_hooked_transformer

KINDS = ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"]
hooked = pytest.mark.skipif(not has_hooked_transformer(), reason="no HookedTransformer in TransformerLens 4")


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


def read(explorer, tmp_path):
    return ReadPage(explorer.save(tmp_path / "page.html").read_text())


def tokens_of(n=2, length=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, zoo.BASE["d_vocab"], (n, length), generator=generator)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "GPT-J", "MQA"])
def test_a_stored_pattern_is_the_models_to_the_rounding_that_is_said(name, kind, tmp_path):
    model, tokens = zoo.model_of(name, kind), tokens_of()
    page = read(ik.explore(model, tokens), tmp_path)
    seen = ik.patterns(model, tokens)
    assert len(page.heads) == seen.sizes["prompt"] * seen.sizes["choice"]
    for prompt, index in page.heads:
        expected = seen["pattern"].values[prompt, index].astype(float)
        pattern, mass, norms = page.head(prompt, index)
        assert np.abs(pattern - expected).max() <= 1 / 510 + 1e-6
        away = np.where(np.rint(expected * 255) == 0, expected, 0).sum(1)
        np.testing.assert_allclose(mass, away, atol=1 / 510 + 1e-5)
        np.testing.assert_allclose(norms, seen["value_norm"].values[prompt, index], rtol=2e-3, atol=1e-3)
        assert (page.pictures[prompt][index] == pooled_slowly(expected)).all()


@hooked
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "GPT-J"])
def test_long_prompts_are_read_a_few_heads_at_a_time_with_the_same_result(name, monkeypatch):
    length = _model_prompts.LONG + 13
    monkeypatch.setitem(zoo.BASE, "n_ctx", length)
    model, tokens = zoo.fresh_of(name, "hooked"), tokens_of(1, length)
    with monkeypatch.context() as patch:
        patch.setattr(_model_prompts, "LONG", length + 1)
        (dense,) = ik.explore(model, tokens).explored.shown
    (by_heads,) = ik.explore(model, tokens).explored.shown
    assert by_heads.n_bytes
    assert np.abs(by_heads.thumbnails.astype(int) - dense.thumbnails).max() <= 1
    seen = ik.patterns(model, tokens)["pattern"].values[0]
    for index, pattern, _ in by_heads.patterns(range(len(seen))):
        np.testing.assert_allclose(pattern, seen[index], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_computed_again_is_the_models(kind):
    model, tokens = zoo.fresh_of("Llama", kind), tokens_of(1)
    (one,) = ik.explore(model, tokens).explored.shown
    seen = ik.patterns(model, tokens)["pattern"].values[0]
    assert bool(one.n_bytes) == (kind == "hooked")
    for index in (5, 0, 7):
        ((found, pattern, _),) = one.patterns([index])
        assert found == index
        np.testing.assert_allclose(pattern, seen[index], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_whose_way_of_computing_it_again_is_wrong_is_read_off_a_whole_run(kind, monkeypatch):
    model, tokens = zoo.fresh_of("GPT-2", kind), tokens_of(1)
    (one,) = ik.explore(model, tokens).explored.shown
    way = _model_prompts.PatternsAgain.__call__
    monkeypatch.setattr(_model_prompts.PatternsAgain, "__call__", lambda *asked: way(*asked) * 0.5)
    ((_, pattern, _),) = one.patterns([6])
    np.testing.assert_allclose(pattern, ik.patterns(model, tokens)["pattern"].values[0, 6], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_changed_since_is_refused(kind, tmp_path):
    model = zoo.fresh_of("GPT-2", kind)
    explorer = ik.explore(model, tokens_of(1))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    with pytest.raises(Refused, match="the model has changed since, call explore again"):
        explorer.save(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_streams_beyond_the_memory_are_not_kept(model, monkeypatch):
    prompts = ik.repeated_tokens(model, prompts=2)
    expected = next(ik.explore(model, prompts).explored.shown[1].patterns([3]))[1]
    monkeypatch.setattr(_model_prompts, "KEPT", 1000)
    one = ik.explore(model, prompts).explored.shown[1]
    assert one.n_bytes == 0
    np.testing.assert_allclose(next(one.patterns([3]))[1], expected, atol=1e-6)


def test_prompts_of_different_lengths_are_read_without_their_padding(model, tmp_path):
    texts = ["fox dax ; apple wug ; fox", "apple wug"]
    page = read(ik.explore(model, texts), tmp_path)
    alone = read(ik.explore(model, texts[1]), tmp_path)
    assert [len(page.tokens(i)) for i in range(2)] == [8, 3]
    assert page.tokens(1) == alone.tokens() == ["<bos>", " apple", " wug"]
    for index in range(16):
        assert page.heads[1, index] == alone.heads[0, index]


@pytest.mark.parametrize("precision", ["plain", "fine"])
def test_precisions(precision):
    generator = np.random.default_rng(0)
    pattern = np.tril(generator.dirichlet([0.1] * 200, 200))
    norms = generator.uniform(0, 9, 200)
    data = _packing.flat_pattern(pattern, norms, precision, ahead=False)
    found, mass, of_norms = unpacked(data, 200, precision, ahead=False, norms=True)
    bound = 1 / 510 if precision == "plain" else (np.sqrt(pattern) + 1 / 510) / 255
    assert (np.abs(found - pattern) <= bound + 1e-12).all()
    np.testing.assert_allclose(mass, _packing.rounded_away(pattern, precision), atol=1 / 510 + 1e-9)
    assert (found[pattern >= (1 / 509) ** (1 if precision == "plain" else 2)] > 0).all()
    np.testing.assert_allclose(of_norms, norms, rtol=1e-3)
    if precision == "plain":
        assert mass.max() > 0.01


def test_half_precision_keeps_small_weights():
    pattern = np.tril(np.full((30, 30), 1e-6))
    data = _packing.flat_pattern(pattern, None, "half", ahead=False)
    found, mass, norms = unpacked(data, 30, "half", ahead=False, norms=False)
    np.testing.assert_allclose(found, pattern, rtol=0.05)
    assert mass is None
    assert norms is None


def test_fine_pages_are_larger_and_say_so_before_they_are_written(model, tmp_path):
    prompts = ik.repeated_tokens(model, prompts=1)
    plain, fine = (ik.explore(model, prompts, precision=kind) for kind in ("plain", "fine"))
    assert fine.n_bytes > plain.n_bytes
    for each in (plain, fine):
        assert each.save(tmp_path / "page.html").stat().st_size == each.n_bytes
    assert "below .000004" in read(fine, tmp_path).contents["notes"][0]


def test_stripes_one_token_wide_are_in_every_picture():
    pattern = np.zeros((1, 1000, 1000))
    pattern[0, :, 501] = 1
    pattern[0, np.arange(7, 1000), np.arange(993)] = 1
    (small,) = _packing.thumbnails(pattern)
    assert (small[:, 501 * 64 // 1000] == 255).all()
    assert (small[np.arange(1, 64), np.arange(1, 64)] == 255).all()
    picture = ik.explore(patterns=np.tril(pattern)).picture()
    assert np.asarray(Image.open(io.BytesIO(picture)).convert("L")).min() < 100


def test_the_picture_shows_every_head(model):
    explorer = ik.explore(model, "fox dax ; apple wug ; fox")
    image = Image.open(io.BytesIO(explorer.picture()))
    assert image.format == "PNG"
    assert image.width <= 1100
    assert image.width > image.height  # two layers of eight heads


@pytest.mark.parametrize("grid", [(30, 9), (12, 12), (48, 25), (1, 1), (2, 64)])
def test_pictures_of_large_models_are_no_wall(grid):
    explorer = ik.explore(patterns=np.full((*grid, 3, 3), 0.3))
    image = Image.open(io.BytesIO(explorer.picture()))
    assert image.width <= 2000
    assert image.height <= image.width + 20


def test_strongest_pairs_are_the_largest_products(model):
    prompts = ik.repeated_tokens(model, prompts=3)
    contents = contents_of(ik.explore(model, prompts))
    seen = ik.patterns(model, prompts)
    products = (seen["pattern"] * seen["value_norm"]).values[:, :, 1:, 1:]
    for index in range(16):
        found = contents["strongest"][index]
        prompt, query, key, weight = found[0]
        assert products[prompt, index, query - 1, key - 1] == pytest.approx(
            products[:, index].max(), rel=1e-3
        )
        assert weight == pytest.approx(seen["pattern"].values[prompt, index, query, key], abs=1e-4)
        strings = [
            (contents["prompts"][i]["tokens"][q], contents["prompts"][i]["tokens"][k]) for i, q, k, _ in found
        ]
        assert len(set(strings)) == len(strings) <= 8


def test_strongest_pairs_by_loops():
    generator = np.random.default_rng(1)
    pattern, norms = np.tril(generator.uniform(size=(300, 300))), generator.uniform(size=300)
    tokens = tuple(map(str, range(300)))
    flat = sorted(
        ((pattern[q, k] * norms[k], q, k) for q in range(1, 300) for k in range(1, q + 1)), reverse=True
    )
    found = _shown.strongest_of(pattern, norms, tokens)
    assert [(q, k) for _, q, k, _ in found] == [(q, k) for _, q, k in flat[:8]]
    assert _shown.strongest_of(np.zeros((5, 5)), None, tokens[:5]) == []
    assert _shown.strongest_of(np.ones((1, 1)), None, ("a",)) == []


def contents_of(explorer):
    return ReadPage(explorer._page).contents


def test_scores_are_those_of_the_summary(model):
    prompts = ik.repeated_tokens(model, prompts=8)
    both = ik.observe(model, prompts, [ik.induction, ik.previous_token], progress=False)
    menu = contents_of(ik.explore(model, prompts[0], scores=both))["scores"]
    assert [each["name"] for each in menu] == ["induction", "previous_token"]
    for each in menu:
        summary = ik.summarise(both.sel(scorer=each["name"]))
        for key in ("mean", "low", "high", "excess", "threshold"):
            np.testing.assert_allclose(each[key], summary[key].values.ravel(), rtol=1e-4)
        assert each["passes"] == [
            None if np.isnan(value) else int(value) for value in summary["passes"].values.ravel()
        ]
    assert menu[0]["control"] is not None
    assert menu[0]["about"].startswith(
        "Attention to the token after the latest earlier copy of this one. Mean over 8 prompts with its 95% interval. "
        "The excess is over the control"
    )
    assert menu[1]["about"].startswith("Attention to the previous token. ")
    assert "The excess is over chance. " in menu[1]["about"]
    assert "at the 5% level for all heads together." in menu[1]["about"]
    assert any(menu[0]["passes"])
    assert menu[0]["first"] == "largest"


def largest_logit(logits, prompts):
    return logits[:, -1].max(-1).values


@pytest.mark.parametrize("metric", [ik.metrics.repeat_loss, largest_logit], ids=["largest", "size"])
def test_the_first_head_by_an_effect_is_that_of_top_heads(model, metric, request):
    prompts = ik.repeated_tokens(model, prompts=6, period=6)
    effects = ik.sweep(model, prompts, metric=metric, progress=False)
    found = contents_of(ik.explore(model, prompts[0], scores=effects))
    best = ik.top_heads(effects, 1)[0]
    assert found["scores"][0]["first"] == request.node.callspec.id
    assert found["start"]["head"] == 8 * best.layer + best.head


@pytest.mark.parametrize("form", ["dict", "list", "summary", "array"])
def test_forms_of_scores(model, form):
    prompts = ik.repeated_tokens(model, prompts=8)
    scores = ik.induction(model, prompts, progress=False)
    given = {
        "dict": {"mine": scores},
        "list": [scores],
        "summary": ik.summarise(scores),
        "array": {"mine": scores["score"].mean("prompt").values},
    }[form]
    (entry,) = contents_of(ik.explore(model, prompts[0], scores=given))["scores"]
    assert entry["name"] == ("mine" if form in ("dict", "array") else "induction")
    np.testing.assert_allclose(entry["mean"], ik.summarise(scores)["mean"].values.ravel(), rtol=1e-4)
    assert (entry["passes"] == [None] * 16) == (form == "array")
    assert json.dumps(entry, allow_nan=False)


def test_effects_of_ablation_are_a_score_too(model):
    prompts = ik.repeated_tokens(model, prompts=8)
    effects = ik.sweep(model, prompts, progress=False)
    (entry,) = contents_of(ik.explore(model, prompts[0], scores=effects))["scores"]
    np.testing.assert_allclose(entry["mean"], ik.summarise(effects)["mean"].values.ravel(), rtol=1e-4)


def test_few_shot_prompts_bring_demonstrations_and_exact_weights(model):
    prompts = ik.prompts.word_episodes(model, prompts=3, classes=4)
    contents = contents_of(ik.explore(model, prompts))
    weights = ik.scorers.demonstration_weights(model, prompts, pooling="max")["weight"].values
    for i, each in enumerate(contents["prompts"]):
        np.testing.assert_allclose(each["weights"], weights[i].reshape(16, -1), atol=6e-5)
        assert each["target"] == int(prompts.demonstrations.target[i])
        assert each["labels"] == list(prompts.demonstrations.labels)
        for (begin, end, label, of_class), span in zip(
            each["demonstrations"], prompts.demonstrations.spans[i].tolist(), strict=True
        ):
            assert [begin, end] == span
            assert begin < label < end
            assert each["tokens"][label].strip() == each["labels"][of_class]


def test_only_some_heads_are_stored_whole(model, tmp_path):
    page = read(ik.explore(model, "fox dax ; apple wug ; fox", heads=["L1H7", (0, 3)]), tmp_path)
    assert set(page.heads) == {(0, 3), (0, 15)}
    assert page.pictures[0].any((1, 2)).all()
    assert "2 of 16 heads" in page.contents["notes"][1]


def test_another_model_beside(model, tmp_path):
    early = ik.load("tiny", checkpoint=1000)
    page = read(ik.explore(model, "fox dax ; apple wug ; fox", beside=early), tmp_path)
    assert [each["name"] for each in page.contents["prompts"]] == ["prompt 1", "beside, prompt 1"]
    seen = ik.patterns(early, "fox dax ; apple wug ; fox")["pattern"].values[0]
    assert np.abs(page.head(1, 9)[0] - seen[9]).max() <= 1 / 510 + 1e-6


def test_tokens_join_to_the_text(model):
    text = "fox dax ; apple wug ; fox"
    tokens = contents_of(ik.explore(model, text))["prompts"][0]["tokens"]
    assert "".join(tokens[1:]).strip() == text
    assert contents_of(ik.explore(model, text))["prompts"][0]["special"] == [0]
