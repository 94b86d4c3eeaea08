"""SmolLM2-135M, a real language model: the heads, losses and effects known of it are found."""

import csv
import random

import numpy as np
import pytest
import torch

import induction_kernel as ik
from induction_kernel.evidence._pattern_task import pattern_lines, repeated_passages
from induction_kernel.heads import as_head

STRONGEST = ["L18H6", "L17H3", "L17H4"]  # as Hugging Face's own attention weights say: .88, .77, .76


def mean_of(scores, name):
    head = as_head(name)
    return float(scores["score"].sel(layer=head.layer, head=head.head).mean())


@pytest.fixture(scope="module")
def model(smollm2):
    return ik.load(smollm2, n_ctx=512)


@pytest.mark.real
def test_the_known_induction_heads_come_first(model):
    scores = ik.induction(model, ik.repeated_tokens(model, period=50, prompts=8))
    assert [str(head) for head in ik.top_heads(scores, 3)] == STRONGEST
    assert set(STRONGEST) <= {str(head) for head in ik.top_heads(scores, None, passing=True)}
    assert [mean_of(scores, name) for name in STRONGEST] == pytest.approx([0.88, 0.77, 0.76], abs=0.03)


@pytest.mark.real
def test_prefix_matching_over_four_copies_finds_the_same_heads(model):
    scores = ik.prefix_matching(model, ik.repeated_tokens(model, period=25, repeats=4, prompts=6, seed=1))
    assert set(STRONGEST) <= {str(head) for head in ik.top_heads(scores, 4)}
    assert min(mean_of(scores, name) for name in STRONGEST) > 0.7


@pytest.mark.real
def test_attending_well_is_not_copying_well(model):
    scores = ik.copying(model, layers=[17, 18])
    assert float(scores["chance"].mean()) == pytest.approx(-0.85, abs=0.01)
    assert [mean_of(scores, name) for name in STRONGEST] == pytest.approx([-0.68, -0.84, -0.84], abs=0.03)


@pytest.mark.real
def test_copying_by_weights_is_what_hugging_face_s_own_matrices_give(model):
    """Layer 17, with ln1 and ln_final folded in and W_U centred. Unfolded and uncentred, head 5 would have .48."""
    found = ik.ov_eigenvalues(model, layers=[17], draws=1)["score"].values[0]
    np.testing.assert_allclose(
        found, [0.893, 0.493, -0.902, 0.477, 0.314, -0.020, -0.757, 0.798, 0.560], atol=2e-3
    )


@pytest.mark.real
def test_the_loss_of_the_repeat_falls(model):
    found = ik.repeat_loss(model, ik.repeated_tokens(model, period=50, prompts=6))
    assert float((found["without"] - found["value"]).mean()) > 8


@pytest.mark.real
def test_few_shot_prompts_are_read_as_words(model):
    prompts = ik.prompts.word_episodes(model, prompts=4)
    strings, found = prompts.strings(model), prompts.demonstrations
    for row, positions, classes in zip(
        strings, found.label_positions.tolist(), found.classes.tolist(), strict=True
    ):
        assert [row[at].strip() for at in positions] == [found.labels[y] for y in classes]


@pytest.fixture(scope="module")
def matching(model):
    """Scores for prefix matching; heads are ablated on other prompts."""
    return ik.prefix_matching(model, ik.repeated_tokens(model, period=25, prompts=6, seed=1), progress=False)


@pytest.fixture(scope="module")
def held(model):
    return ik.repeated_tokens(model, period=25, prompts=4, seed=2)


@pytest.mark.real
def test_ten_heads_carry_the_repeat_and_ten_random_ones_do_not(model, matching, held):
    """One loses little (others stand in), ten most of the benefit; random heads of the same layers hardly any."""
    found = ik.ablation_curve(model, held, matching, ks=(1, 10), progress=False)
    assert found.attrs["edit"] == "Mean"
    assert found.attrs["lane"] == "decoder"  # not one whole run a cell
    assert float(found["share"].sel(k=1)) < 0.4
    assert float(found["share"].sel(k=10)) > 0.7
    assert found["control_share"].sizes == {"k": 2, "draw": 20}
    assert float(found["control_share"].max()) < 0.2


@pytest.mark.real
def test_what_matters_most_are_heads_known_by_their_scores(model, matching, held):
    """Head by head, in the layers around the induction heads (17 and 18)."""
    found = ik.sweep(model, held[:2], layers=range(16, 20), progress=False)
    assert found.attrs["lane"] == "decoder"
    effect = found["effect"].mean("prompt")
    order = np.argsort(-effect.values, axis=None)[:5]
    first = [str(found["name"].values.flat[i]) for i in order]
    known = {str(head) for head in ik.top_heads(matching, 10)}
    assert len(known & set(first)) >= 3  # nats: L18H6, L17H3, L18H7
    previous = ik.previous_token(model, held, progress=False)["score"].mean("prompt")
    rest = [as_head(name) for name in first if name not in known]
    assert all(float(previous.sel(layer=head.layer, head=head.head)) > 0.5 for head in rest)


def sst2(shared, file):
    with (shared / "data" / file).open(encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"].strip(), int(row["label"])) for row in rows]


@pytest.mark.real("smollm2", "shared")
def test_three_heads_read_the_labels_of_reviews(model, shared):
    """Eight demonstrations and a query each: nearly all of the last token's attention is on the eight labels."""
    train, asked, draw = (
        sst2(shared, "sst2.train2000.tsv"),
        sst2(shared, "sst2.validation.tsv")[:12],
        random.Random(0),
    )
    by_label = [[row for row in train if row[1] == label] for label in (0, 1)]
    shots = [draw.sample(draw.sample(by_label[0], 4) + draw.sample(by_label[1], 4), 8) for _ in asked]
    prompts = ik.few_shot_prompts(
        model, shots, asked, template="Review: {x}\nSentiment: {y}", labels=["negative", "positive"]
    )
    scores = ik.label_attention(model, prompts, progress=False)
    assert {str(head) for head in ik.top_heads(scores, 3)} == {"L20H6", "L20H5", "L18H6"}
    assert min(mean_of(scores, head) for head in ("L20H6", "L20H5", "L18H6")) > 0.9


@pytest.mark.real("smollm2", "shared")
def test_every_heads_weights_are_an_exponential_kernel_of_its_own_queries_and_keys(model, shared):
    """At bandwidth 1, in float32, with rotated queries and grouped keys; and kernels of texts are not those."""
    pool, asked = (
        ik.data.load_classification(shared / "data" / f"sst2.{part}.tsv")
        for part in ("train2000", "validation")
    )
    episodes = ik.data.draw_episodes(pool, asked[:6], shots=6)
    weights = ik.scorers.demonstration_weights(
        model, episodes.prompts(model), layers=[0, 18, 29], progress=False
    )
    own = ik.kernel.representations(model, episodes, "head", layers=[0, 18, 29], progress=False)
    explicit = ik.kernel.kernel_regression(own, bandwidth=1.0)["weight"]
    given = weights["weight"] / weights["weight"].sum("demonstration")
    np.testing.assert_allclose(explicit, given, atol=1e-5)
    np.testing.assert_allclose(ik.kernel.fitted_bandwidth(weights, own, draws=100)["bandwidth"], 1, atol=1e-4)
    likeness = ik.kernel.next_token_similarity(model, episodes, progress=False)
    assert 0 < float(likeness["similarity"].min()) < float(likeness["similarity"].max()) < 1
    assert float(ik.kernel.kernel_alignment(weights, likeness, draws=100)["mean"].max()) < 0.9


@pytest.fixture(scope="module")
def pair(model):
    return ik.pairs(
        model,
        clean="When Mary and John went to the store, John gave a drink to",
        corrupted="When Mary and John went to the store, Mary gave a drink to",
        answers=[(" Mary", " John")],
    )


@pytest.mark.real
def test_patching_the_stream_shows_where_the_answer_travels(model, pair):
    """From the changed name to the last token, in layers 19 to 23; to all of it in the end, exactly."""
    found = ik.patch(model, source=pair.clean, into=pair.corrupted, site="resid_post", progress=False)
    assert found.attrs["lane"] == "decoder"
    assert (
        float((found["source_value"] - found["baseline"]).mean()) > 1
    )  # logits: Mary after John, John after Mary
    effect = found["normalised"].values
    (changed,) = (pair.clean.tokens != pair.corrupted.tokens)[0].nonzero()[0].tolist()
    np.testing.assert_allclose(effect[:, :changed], 0, atol=1e-4)
    np.testing.assert_allclose(effect[-1], np.eye(effect.shape[1])[-1], atol=1e-4)
    assert effect[:19, changed].min() > 0.9
    assert effect[:19, -1].max() < 0.1
    assert effect[23:, changed].max() < 0.1
    assert effect[23:, -1].min() > 0.8
    half_way = found["value"].sel(layer=20, position=effect.shape[1] - 1)
    assert float(half_way.mean()) == pytest.approx(patched_by_hand(model, pair, layer=20), abs=1e-3)


def patched_by_hand(model, pair, *, layer):
    """The logit difference with the stream after `layer` taken from the clean run, at the last token."""
    name, kept = f"blocks.{layer}.hook_resid_post", {}

    def keep(stream, hook):
        kept["last"] = stream[:, -1].clone()

    def put(stream, hook):
        stream = stream.clone()
        stream[:, -1] = kept["last"]
        return stream

    with torch.no_grad():
        model.run_with_hooks(pair.clean.tokens, fwd_hooks=[(name, keep)], return_type=None)
        logits = model.run_with_hooks(pair.corrupted.tokens, fwd_hooks=[(name, put)])[0, -1]
    right, wrong = pair.clean.answers[0].tolist()
    return float(logits[right] - logits[wrong])


@pytest.fixture(scope="module")
def book(shared):
    return (shared / "data" / "moby_dick.txt").read_text(encoding="utf-8")


@pytest.mark.real("smollm2", "shared")
def test_a_passage_of_a_book_is_copied_by_the_ten_heads(model, matching, book):
    """Chosen on random tokens said again; random heads of the same layers take little."""
    prompts = repeated_passages(model, book[30_000:], prompts=4, length=60)
    heads = ik.top_heads(matching, 10)
    first = float(ik.repeat_loss(model, prompts)["without"].mean())
    found = ik.ablation_curve(model, prompts, heads, ks=10, controls=4, progress=False).isel(k=0)
    assert float(found["baseline"].mean()) < first - 2
    assert float(found["effect"].mean()) > 4 * float(found["control_effect"].mean())


@pytest.mark.real
def test_few_of_the_ten_heads_follow_the_pattern(model, matching):
    """The labels of the right category get more of their attention than others', in the mean, but not by much."""
    heads = ik.top_heads(matching, 10)
    layers = sorted({head.layer for head in heads})
    scores = ik.label_attention(
        model, pattern_lines(model, prompts=24, seed=3), layers=layers, progress=False
    )
    gained = (scores["right"] - scores["right_control"]).mean("prompt")
    assert float(np.mean([gained.sel(layer=head.layer, head=head.head) for head in heads])) > 0


@pytest.mark.real("smollm2", "shared")
def test_the_in_context_learning_score_of_a_book_with_and_without_the_ten_heads(model, matching, book):
    """On so few windows the score is noise; what removing heads does to it is paired, and small."""
    ids = model.tokenizer(book[30_000:60_000], add_special_tokens=False)["input_ids"]
    start = torch.full((4, 1), model.tokenizer.bos_token_id)
    windows = torch.cat([start, torch.tensor(ids[: 5 * 511]).view(5, 511)[:4]], 1)
    reference = torch.tensor(ids[4 * 511 : 4 * 511 + 128])[None]
    whole = ik.loss_by_position(model, windows)["loss"].values
    score = ik.icl_score(model, windows, width=20)
    np.testing.assert_allclose(score["value"], whole[:, 490:510].mean(1) - whole[:, 40:60].mean(1), atol=1e-5)
    np.testing.assert_allclose(score["single"], whole[:, 500] - whole[:, 50], atol=1e-5)
    with ik.edited(model, ik.Mean(reference), ik.top_heads(matching, 10)):
        without = ik.loss_by_position(model, windows)["loss"].values
    assert np.nanmean(without[:, 200:]) > np.nanmean(whole[:, 200:])  # late losses suffer
    np.testing.assert_allclose(ik.loss_by_position(model, windows[:1])["loss"], whole[:1], atol=1e-5)
