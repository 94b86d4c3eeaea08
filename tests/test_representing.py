"""Representations for kernels: known answers on a head that is a kernel by hand, loops, and the model given back."""

import numpy as np
import pytest
import torch
import xarray as xr
import zoo
from kernel_model import (
    GAIN,
    LABEL_BANDWIDTH,
    LABELS,
    WORD_BANDWIDTH,
    WORDS,
    kernel_model,
    kernel_prompts,
    vectors_of,
)
from labelled_prompts import labelled

import induction_kernel as ik
from induction_kernel.kernel import _next_token as nexttoken
from induction_kernel.kernel._representations import distinct
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.model import foreign_hooks

KERNEL_HEADS = {"L1H0": ("max", WORD_BANDWIDTH), "L1H1": ("label", LABEL_BANDWIDTH)}


@pytest.fixture(scope="module")
def by_hand():
    model, prompts = kernel_model(), kernel_prompts()
    return model, prompts, *vectors_of(prompts)


def head_weights(model, prompts, name):
    pooling, bandwidth = KERNEL_HEADS[name]
    found = ik.scorers.demonstration_weights(model, prompts, pooling=pooling)
    return found.isel(layer=1, head=int(name[-1])), bandwidth


def classes_of(prompts):
    found = prompts.demonstrations
    return torch.where(found.mask, found.classes, -1).numpy()


@pytest.mark.parametrize("name", KERNEL_HEADS)
def test_the_weights_of_a_head_that_is_a_kernel_are_those_of_the_kernel(by_hand, name):
    model, prompts, q, k = by_hand
    weights, bandwidth = head_weights(model, prompts, name)
    explicit = ik.kernel.kernel_regression(q, k, classes_of(prompts), bandwidth=bandwidth)
    np.testing.assert_allclose(weights["weight"], explicit["weight"], atol=1e-6)
    assert float(explicit["weight"].max() - explicit["weight"].min()) > 0.5  # far from equal ones


def test_its_vote_is_kernel_regressions_and_the_models(by_hand):
    model, prompts, q, k = by_hand
    weights, bandwidth = head_weights(model, prompts, "L1H1")
    explicit = ik.kernel.kernel_regression(q, k, classes_of(prompts), bandwidth=bandwidth)
    logits = model(prompts.tokens)[torch.arange(len(prompts)), prompts.lengths - 1, WORDS:].detach().numpy()
    predicted = logits.argmax(-1)
    by_head, by_kernel = (ik.kernel.vote(each, prompts, predicted) for each in (weights, explicit))
    np.testing.assert_allclose(by_head["vote"], by_kernel["vote"], atol=1e-6)
    np.testing.assert_allclose(logits, GAIN * by_kernel["vote"], atol=1e-6)
    for found in (by_head, by_kernel):
        assert float(found["agreement"].mean()) == 1.0
    assert len(set(predicted.tolist())) == LABELS


@pytest.mark.parametrize("name", KERNEL_HEADS)
def test_it_aligns_with_its_kernel_to_1_and_no_other_does(by_hand, name):
    model, prompts, q, k = by_hand
    weights, bandwidth = head_weights(model, prompts, name)
    own = ik.kernel.explicit_similarity(q, k, classes_of(prompts), bandwidth=bandwidth)
    found = ik.kernel.kernel_alignment(weights, own, draws=200)
    np.testing.assert_allclose(found["alignment"], 1, atol=1e-6)
    assert bool(found["passes"])
    others = ik.kernel.explicit_similarity(
        q, k, classes_of(prompts), kernel=("exponential", "gaussian", "cosine"), bandwidth=3 * bandwidth
    )
    assert float(ik.kernel.kernel_alignment(weights, others, draws=200)["mean"].max()) < 0.99


@pytest.mark.parametrize("name", KERNEL_HEADS)
def test_its_bandwidth_comes_out(by_hand, name):
    model, prompts, q, k = by_hand
    weights, bandwidth = head_weights(model, prompts, name)
    found = ik.kernel.fitted_bandwidth(
        weights.assign_coords(label_class=(("prompt", "demonstration"), classes_of(prompts))), q, k, draws=100
    )
    np.testing.assert_allclose(found["bandwidth"], bandwidth, atol=1e-6)
    np.testing.assert_allclose(found["fit"], 1, atol=1e-6)


@pytest.mark.parametrize("name", KERNEL_HEADS)
def test_its_own_queries_and_keys_are_the_vectors_at_bandwidth_1(by_hand, name):
    model, prompts, q, k = by_hand
    pooling, bandwidth = KERNEL_HEADS[name]
    found = ik.kernel.representations(model, prompts, "head", pooling=pooling)
    assert found["queries"].dims == ("prompt", "layer", "head", "feature")
    assert found["demonstrations"].dims == ("prompt", "layer", "head", "demonstration", "feature")
    assert found["name"].values.tolist() == [["L0H0", "L0H1"], ["L1H0", "L1H1"]]
    here = found.isel(layer=1, head=int(name[-1]))
    scores = np.einsum("pd,pnd->pn", here["queries"], here["demonstrations"])
    np.testing.assert_allclose(scores, np.einsum("pd,pnd->pn", q, k) / bandwidth, atol=1e-9)
    weights, _ = head_weights(model, prompts, name)
    np.testing.assert_allclose(
        ik.kernel.kernel_regression(here, bandwidth=1.0)["weight"], weights["weight"], atol=1e-9
    )
    fitted = ik.kernel.fitted_bandwidth(weights, here, draws=100)
    np.testing.assert_allclose(fitted["bandwidth"], 1, atol=1e-9)


# every family whose scores are <q, k>, as each class of model there is
FAMILIES = [(name, kind) for name, kind in zoo.PAIRS if name != "attention-only"]


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
@pytest.mark.parametrize("pooling", ["max", "label"])
def test_a_heads_kernel_at_bandwidth_1_gives_its_weights(name, kind, pooling):
    model = zoo.model_of(name, kind)
    prompts = labelled(ik.repeated_tokens(model, bos=0, prompts=3, period=(5, 9)))
    weights = ik.scorers.demonstration_weights(model, prompts, pooling=pooling)["weight"]
    found = ik.kernel.representations(model, prompts, "head", pooling=pooling, batch_size=2)
    explicit = ik.kernel.kernel_regression(found, bandwidth=1.0)["weight"]
    np.testing.assert_allclose(
        explicit, weights / weights.sum("demonstration"), atol=2e-6
    )  # Hugging Face: float32


CLASSES = ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", ["BLOOM", "Gemma 2", "Mistral", "GPT-Neo"])
def test_scores_that_are_not_the_product_of_queries_and_keys_are_refused(kind, name):
    """Position biases, soft caps, and windows (of `zoo.WINDOW` tokens)."""
    made = zoo.converted if kind == "hooked" else zoo.around_hugging_face
    model = made(name, torch.float64)
    prompts = labelled(ik.repeated_tokens(model, bos=0, prompts=2, period=(5, 9)))
    with pytest.raises(ValueError, match="is not exp<q, k>"):
        ik.kernel.representations(model, prompts, "head")
    assert not foreign_hooks(model)


@pytest.fixture(scope="module")
def worded():
    return ik.load("tiny", dtype=torch.float64)


@pytest.fixture(scope="module")
def episodes():
    """Texts of one to three words; some stand before several queries, and some are queries too."""
    animals, fruits = "fox wolf bear horse sheep goat".split(), "apple pear plum grape mango lemon".split()
    texts = [" ".join(each[i : i + 1 + i % 3]) for each in (animals, fruits) for i in range(6)]
    texts += ["fox apple", "pear wolf"]
    classes = [0] * 6 + [1] * 6 + [0, 1]
    pool = ik.data.LabelledTexts(texts, np.array(classes), ("dax", "wug"), template="{x} {y} ;")
    rng = np.random.default_rng(0)
    shown = np.stack([rng.permutation(len(pool))[:4] for _ in range(7)])
    queries = ik.data.LabelledTexts(
        ["fox", "tiger lion", "peach", "fox", "cherry melon", "bear horse sheep", "lime"],
        np.array([0, 0, 1, 0, 1, 0, 1]), ("dax", "wug"), template="{x} {y} ;",
    )  # fmt: skip
    return ik.data.Episodes(queries, pool, shown, pool.classes[shown], "{x} {y} ;", " ")


def texts_of(episodes):
    """Texts of the queries and of the demonstrations."""
    return list(episodes.queries.texts), [[episodes.pool.texts[i] for i in row] for row in episodes.shown]


def run_alone(model, text):
    """The cache and logits of one text, after BOS."""
    tokens = torch.tensor(
        [[model.tokenizer.bos_token_id, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]]
    )
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    return logits[0, -1], cache


def looped(episodes, of_text):
    """Queries and demonstrations, each text by itself."""
    asked, shown = texts_of(episodes)
    return np.stack([of_text(x) for x in asked]), np.stack([[of_text(x) for x in row] for row in shown])


def test_token_embeddings_are_averaged_over_the_text(worded, episodes):
    def of_text(x):
        ids = worded.tokenizer(x, add_special_tokens=False)["input_ids"]
        return np.mean([worded.W_E[i].detach().numpy() for i in ids], axis=0)

    found = ik.kernel.representations(worded, episodes, "embedding")
    for each, wanted in zip(
        (found["queries"], found["demonstrations"]), looped(episodes, of_text), strict=True
    ):
        np.testing.assert_allclose(each, wanted, atol=1e-12)
    np.testing.assert_array_equal(found["label_class"], episodes.classes)
    np.testing.assert_array_equal(found["target"], episodes.queries.classes)
    assert found["label"].values.tolist() == ["dax", "wug"]


@pytest.mark.parametrize("batch_size", [None, 2])
def test_the_stream_is_read_at_the_last_token_of_each_text_alone(worded, episodes, batch_size):
    def of_text(x):
        _, cache = run_alone(worded, x)
        return np.stack([cache[f"blocks.{layer}.hook_resid_pre"][0, -1].numpy() for layer in (0, 1)])

    found = ik.kernel.representations(worded, episodes, "residual", batch_size=batch_size)
    assert found["demonstrations"].dims == ("prompt", "layer", "demonstration", "feature")
    q, k = looped(episodes, of_text)
    np.testing.assert_allclose(found["queries"], q, atol=1e-9)
    np.testing.assert_allclose(found["demonstrations"], np.moveaxis(k, 2, 1), atol=1e-9)
    one = ik.kernel.representations(worded, episodes, "residual", layers=[1])
    np.testing.assert_allclose(one["queries"], q[:, 1:], atol=1e-9)
    assert one["layer"].values.tolist() == [1]


@pytest.mark.parametrize("batch_size", [None, 3])
def test_the_stream_in_the_prompt_is_read_at_the_last_token_and_the_labels(worded, episodes, batch_size):
    prompts = episodes.prompts(worded)
    found = ik.kernel.representations(worded, prompts, "residual", batch_size=batch_size)
    with torch.no_grad():
        _, cache = worded.run_with_cache(prompts.tokens)
    for p, layer in np.ndindex(len(prompts), 2):
        resid = cache[f"blocks.{layer}.hook_resid_pre"][p].numpy()
        np.testing.assert_allclose(found["queries"][p, layer], resid[prompts.lengths[p] - 1], atol=1e-9)
        wanted = resid[prompts.demonstrations.label_positions[p]]
        np.testing.assert_allclose(found["demonstrations"][p, layer], wanted, atol=1e-9)


def test_tfidf_is_that_of_scikit_learn_fitted_on_the_pool(episodes):
    from sklearn.feature_extraction.text import TfidfVectorizer

    fitted = TfidfVectorizer().fit(episodes.pool.texts)
    found = ik.kernel.representations(None, episodes, "tfidf")
    asked, shown = texts_of(episodes)
    q = fitted.transform(asked)
    for p in range(len(episodes)):
        wanted = (fitted.transform(shown[p]) @ q[p].T).toarray()[:, 0]
        ours = ik.kernel.explicit_similarity(found, kernel="linear")["similarity"].values[p]
        np.testing.assert_allclose(ours, wanted, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found["queries"][0]), 1)
    assert float(abs(found["queries"][1]).sum()) == 0  # "tiger lion", which the pool does not have


def test_an_embedding_function_gets_each_distinct_text_once(episodes):
    asked = []

    def embed(texts):
        asked.append(list(texts))
        return torch.tensor([[len(x), x.count("a"), 1] for x in texts])

    found = ik.kernel.representations(None, episodes, embed)
    (texts,) = asked
    assert len(set(texts)) == len(texts)
    assert set(texts) == {*texts_of(episodes)[0], *(x for row in texts_of(episodes)[1] for x in row)}
    q, k = looped(episodes, lambda x: np.array([len(x), x.count("a"), 1]))
    np.testing.assert_array_equal(found["queries"], q)
    np.testing.assert_array_equal(found["demonstrations"], k)
    assert found.attrs["representation"] == "embed"


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_next_token_similarity_is_that_of_one_text_at_a_time(worded, episodes, batch_size):
    q, k = looped(episodes, lambda x: run_alone(worded, x)[0].softmax(-1).numpy())
    found = ik.kernel.next_token_similarity(worded, episodes, batch_size=batch_size)
    np.testing.assert_allclose(found["similarity"], np.einsum("pv,pnv->pn", q, k), atol=1e-12)
    assert found["similarity"].dims == ("prompt", "demonstration")
    np.testing.assert_array_equal(found["label_class"], episodes.classes)


@pytest.mark.parametrize("swap", [False, True])
def test_similarity_in_rounds_is_the_same(worded, episodes, monkeypatch, swap):
    if swap:  # fewer demonstrations than queries
        shown = episodes.shown % 3
        episodes = ik.data.Episodes(
            episodes.queries, episodes.pool, shown, episodes.pool.classes[shown], "{x} {y} ;", " "
        )
    at_once = ik.kernel.next_token_similarity(worded, episodes)
    monkeypatch.setattr(nexttoken, "AT_ONCE", 2 * worded.cfg.d_vocab)
    np.testing.assert_allclose(
        ik.kernel.next_token_similarity(worded, episodes)["similarity"], at_once["similarity"], atol=1e-15
    )


def test_every_distinct_text_is_run_once(worded, episodes, monkeypatch):
    rows = []
    plain = nexttoken.stream

    def counted(model, tokens, *rest, **options):
        rows.extend(tokens.tolist())
        return plain(model, tokens, *rest, **options)

    monkeypatch.setattr(nexttoken, "stream", counted)
    ik.kernel.next_token_similarity(worded, episodes)
    assert len(rows) == len(distinct(episodes)[0])


def test_similarities_and_representations_align_with_weights_of_the_same_episodes(worded, episodes):
    weights = ik.scorers.demonstration_weights(worded, episodes.prompts(worded))
    by_layer = ik.kernel.explicit_similarity(
        ik.kernel.representations(worded, episodes, "residual"), kernel=("cosine", "linear")
    )
    found = ik.kernel.kernel_alignment(weights, by_layer, draws=100)
    assert found["alignment"].dims == ("prompt", "layer", "head", "kernel")
    assert found["name"].dims == ("layer", "head")
    found = ik.kernel.kernel_alignment(weights, ik.kernel.next_token_similarity(worded, episodes), draws=100)
    assert found["alignment"].dims == ("prompt", "layer", "head")
    both = ik.kernel.representations(worded, episodes, "head")
    own = ik.kernel.explicit_similarity(both, bandwidth=1.0)
    np.testing.assert_allclose(ik.kernel.kernel_alignment(weights, own, draws=100)["alignment"], 1, atol=1e-6)


@pytest.mark.parametrize("what", ["embedding", "residual", "head"])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_given_back_as_it_was(what, training, episodes):
    model = ik.load("tiny")
    ik.kernel.representations(model, episodes, what)  # a Bridge's first run leaves hooks of its own
    model.train(training)
    before = [value.clone() for value in model.parameters()]
    flags = [value.requires_grad for value in model.parameters()]
    state = torch.get_rng_state()
    ik.kernel.representations(model, episodes, what)
    ik.kernel.next_token_similarity(model, episodes)
    assert model.training is training
    assert not foreign_hooks(model)
    assert all(map(torch.equal, before, model.parameters()))
    assert flags == [value.requires_grad for value in model.parameters()]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("what", ["tfidf", "residual", "head"])
def test_representations_survive_netcdf(worded, episodes, what, tmp_path):
    found = ik.kernel.representations(worded, episodes, what)
    found.to_netcdf(tmp_path / "r.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "r.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), found)
        xr.testing.assert_identical(
            ik.kernel.kernel_regression(back, bandwidth=1.0),
            ik.kernel.kernel_regression(found, bandwidth=1.0),
        )


def test_leave_one_out_of_a_heads_queries_and_keys_is_refused(worded, episodes):
    found = ik.kernel.representations(worded, episodes, "head")
    with pytest.raises(ValueError, match="the head's own"):
        ik.kernel.kernel_regression(found)
