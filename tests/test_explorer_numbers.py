"""The numbers that the explorer's page says equal Python's: weights, products, averages, differences, scores, votes."""

import re

import numpy as np
import pytest
from explored import (
    N,
    all_equal,
    cell,
    choose,
    drawn,
    equals,
    opened,
    pin,
    point,
    readout,
    stored,
    tiny,
    tiny_attention,
    tiny_page,
    tiny_prompts,
    tiny_scores,
    together,
    weights,
)

import induction_kernel as ik

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def scores():
    return tiny_scores()


@pytest.fixture(scope="module")
def seen():
    return tiny_attention(2)


@pytest.fixture(scope="module")
def early():
    return ik.load("tiny", checkpoint=1000)


@pytest.fixture(scope="module")
def saved(early, scores, tmp_path_factory):
    """Two prompts as the trained model and an earlier checkpoint read them."""
    return tiny_page(tmp_path_factory, 2, scores=scores, beside=early)


def test_every_weight_is_the_models_to_1_over_510(page, saved, seen):
    opened(page, saved, "#L1H7")
    read = weights(page, N)
    assert len(read) == N * (N + 1) / 2
    all_equal(read, stored(seen["pattern"].values[0, 0]))


def test_what_rounding_took_of_a_querys_attention_is_said(page, tmp_path):
    pattern = np.tril(np.random.default_rng(0).dirichlet([0.05] * 60, 60))
    opened(page, ik.explore(patterns=pattern[None]).save(tmp_path / "page.html"))
    away = np.rint(255 * (pattern * (stored(pattern) == 0)).sum(1)) / 255
    read = weights(page, 60)
    all_equal(read, stored(pattern))
    for (query, _), (_, rest) in read.items():
        said = re.fullmatch(r" \(of this query's attention ([.\d]+) lies in weights below \.002\)", rest)
        assert equals(said[1], away[query]) if away[query] >= 0.005 else rest == ""
    assert 0 < (away >= 0.005).sum() < 60


def test_later_tokens_get_no_attention(page, saved):
    opened(page, saved)
    assert point(page, 3, 9, N).endswith(": no attention to later tokens")


@pytest.mark.parametrize("precision", ["plain", "fine"])
def test_precisions(page, tmp_path, precision):
    weights_of = np.array([[1, 0, 0], [0.997, 0.003, 0], [0.9985, 0.0015, 0]], dtype=np.float32)
    explorer = ik.explore(patterns=weights_of[None], tokens=["a", "b", "c"], precision=precision)
    opened(page, explorer.save(tmp_path / "page.html"))
    said = [weights(page, 3)[at][0] for at in ((1, 1), (2, 1), (2, 2))]
    expected = {
        "plain": [".0039", "below .002", "below .002"],
        "fine": [".0030", ".0015", "below .000004"],
    }
    assert said == expected[precision]


def test_value_weighted_attention_is_a_share_of_the_largest_product(page, saved, seen):
    opened(page, saved, "#L1H7")
    page.locator(".ik-value-weighted").check()
    drawn(page)
    norms = seen["value_norm"].values[0, 0].astype(np.float16).astype(float)
    products = stored(seen["pattern"].values[0, 0]) * norms
    read = weights(page, N)
    all_equal(read, products / products.max(), zero="attention below .002")
    assert {text for text, _ in read.values()} > {"attention below .002", "1.00"}
    assert (
        page.locator(".ik-pattern-legend")
        .inner_text()
        .startswith(
            "share of the largest product, A × |v W_O|: attention times the norm of what the key's value writes"
        )
    )
    assert (
        page.locator(".ik-text-area .ik-name").first.inner_text() == "Text, attention of L1H7, value-weighted"
    )
    pin(page, "L1H7", "L0H3")
    together(page, "Average")
    norms = seen["value_norm"].values[0, :2].astype(np.float16).astype(float)
    both = stored(seen["pattern"].values[0, :2]) * norms[:, None]
    shares = both / both.max((1, 2), keepdims=True)
    all_equal(weights(page, N), shares.mean(0), zero="attention below .002")
    legend = page.locator(".ik-pattern-legend")
    assert legend.inner_text().startswith("share of the largest product")
    together(page, "Difference")
    all_equal(weights(page, N), shares[1] - shares[0], zero="about 0")
    assert legend.inner_text().startswith("difference in share of the largest product")
    together(page, "Alone")
    choose(page, "L1H7")
    page.locator(".ik-value-weighted").uncheck()
    drawn(page)
    all_equal(weights(page, N), stored(seen["pattern"].values[0, 0]))


@pytest.mark.parametrize("name", ["prompt 2", "beside, prompt 1"])
def test_another_prompt_or_model_stands_beside_and_is_subtracted(page, saved, seen, early, name):
    opened(page, saved, "#L1H7")
    page.locator(".ik-beside").select_option(name)
    drawn(page)
    assert page.locator(".ik-panels figcaption").all_inner_texts() == ["L1H7, prompt 1", f"L1H7, {name}"]
    here = stored(seen["pattern"].values[0, 0])
    other = ik.patterns(early, tiny_prompts(2), "L1H7") if "beside" in name else seen
    there = stored(other["pattern"].values[0 if "beside" in name else 1, 0])
    all_equal(weights(page, N, panel=0), here)
    all_equal(weights(page, N, panel=1), there)
    said = point(page, 12, 6, N, panel=1)
    assert " · L1H7, prompt 1 " in said
    page.get_by_role("checkbox", name="difference").check()
    drawn(page)
    assert page.locator("figcaption").first.inner_text() == f"L1H7, prompt 1 minus {name}"
    all_equal(weights(page, N), here - there, zero="about 0")


def test_the_cards_numbers_are_the_summarys(page, saved, scores):
    opened(page, saved, "#L1H1")
    assert page.locator(".ik-abouts").get_attribute("open") is None
    measured = "The prompts that scores were measured on need not be those shown here."
    assert page.locator(".ik-card").inner_text().count(measured) == 1
    page.locator(".ik-abouts summary").click()
    abouts = page.locator(".ik-abouts dt").all_inner_texts(), page.locator(".ik-abouts dd").all_inner_texts()
    assert abouts[0] == ["induction", "previous_token"]
    assert all("95% interval" in about and "A head passes if" in about for about in abouts[1])
    at = {"layer": 1, "head": 1}
    rows = page.locator(".ik-card tbody tr")
    for i, name in enumerate(("induction", "previous_token")):
        summary = ik.summarise(scores).sel(scorer=name, **at)
        said = rows.nth(i).inner_text().replace("\n", " ")
        number = r"(−?[\d.]+)"
        pattern = (
            rf"{name} probability\s+{number}\s+\[{number}, {number}\]\s+{number}(?: \(chance\))?\s+"
            rf"{number}\s+\[{number}, {number}\]\s+(yes|no)\s+[>≤] {number}"
        )
        *numbers, passes, threshold = re.fullmatch(pattern, said.strip()).groups()
        against = "control" if np.isfinite(summary["control"]) else "chance"
        keys = ["mean", "low", "high", against, "excess", "excess_low", "excess_high"]
        for key, text in zip(keys, numbers, strict=True):
            assert equals(text, float(f"{float(summary[key]):.5g}")), key
        assert equals(threshold, float(f"{float(summary['threshold']):.5g}"))
        assert passes == ("yes" if summary["passes"] == 1 else "no")


def test_a_strongest_pair_leads_to_its_place_on_its_prompt(page, saved, seen):
    opened(page, saved, "#L1H7")
    assert "ranked by weight times the norm" in page.locator(".ik-card").inner_text()
    assert "Pairs with the first token are left out." in page.locator(".ik-card").inner_text()
    texts = page.locator(".ik-pair").all_inner_texts()
    at = next(i for i, text in enumerate(texts) if text.startswith("prompt 2: "))
    query, key, weight = re.match(r"prompt 2: (\d+) .* -> (\d+) .* ([.\d]+)$", texts[at]).groups()
    assert equals(weight, round(float(seen["pattern"].values[1, 0, int(query), int(key)]), 4))
    page.locator(".ik-pair").nth(at).click()
    drawn(page, "L1H7", prompt=1)
    page.wait_for_selector(f'.ik-explorer[data-kept="{query}"]')
    assert cell(readout(page)) == (int(query), int(key))
    assert page.locator(".ik-token.ik-current").get_attribute("data-at") == query
    assert page.locator(".ik-token.ik-at-key").get_attribute("data-at") == key


@pytest.fixture(scope="module")
def episodes(model):
    return ik.prompts.word_episodes(model, prompts=2, classes=4)


@pytest.fixture(scope="module")
def few_shot(model, episodes, tmp_path_factory):
    return ik.explore(model, episodes).save(tmp_path_factory.mktemp("pages") / "few.html")


def test_votes_are_the_labels_shares_of_the_demonstrations_weight(page, few_shot, model, episodes):
    opened(page, few_shot, "#L1H7")
    found = episodes.demonstrations
    weights_of = ik.scorers.demonstration_weights(model, episodes, pooling="max")["weight"]
    for prompt in (0, 1):
        of_head = weights_of.sel(layer=1, head=7).values[prompt]
        classes = found.classes[prompt].numpy()
        shares = np.array([of_head[classes == label].sum() for label in range(4)]) / of_head.sum()
        rows = [text.split("\n") for text in page.locator(".ik-shares li").all_inner_texts()]
        for label, row in enumerate(rows):
            said, _, right = row[-1].partition(" ")
            assert row[0] == found.labels[label]
            assert abs(float(said) - shares[label]) < 0.006
            assert (right == "(right answer)") == (label == int(found.target[prompt]))
        page.locator(".ik-head-votes summary").click()
        listed = page.locator(".ik-demonstrations li").all_inner_texts()
        assert len(listed) == found.mask[prompt].sum()
        for text, weight in zip(listed, of_head, strict=True):
            assert len(text.split()) == 3
            assert equals(text.split()[-1], round(float(weight), 4))
        page.locator(".ik-next").click()
        drawn(page, prompt=1 - prompt)


def test_demonstrations_and_labels_are_marked_in_the_text(page, few_shot, episodes):
    opened(page, few_shot)
    spans = episodes.demonstrations.spans[0].tolist()
    marked = page.locator(".ik-demonstration").evaluate_all("all => all.map(each => +each.dataset.at)")
    assert marked == [at for begin, end in spans for at in range(begin, end)]
    labels = page.locator(".ik-token.ik-label").all_inner_texts()
    classes = episodes.demonstrations.classes[0].tolist()
    assert [text.strip() for text in labels] == [episodes.demonstrations.labels[each] for each in classes]
    assert page.locator(".ik-token.ik-special").all_inner_texts() == ["<bos>"]


@pytest.mark.real
def test_a_real_model(page, smollm2, tmp_path):
    """SmolLM2 on a sentence: some weights of three layers, and no console line."""
    model, text = ik.load(smollm2), "The cat sat on the mat. The dog sat on the mat."
    names = ("L0H0", "L14H4", "L29H8")
    seen = ik.patterns(model, text, names)["pattern"].values[0]
    opened(page, ik.explore(model, text, heads=names, progress=False).save(tmp_path / "page.html"))
    for name, pattern in zip(names, seen, strict=True):
        choose(page, name)
        all_equal(weights(page, len(pattern)), stored(pattern))
