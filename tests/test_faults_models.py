"""Faults of models that attend to later tokens, or whose outputs are no tokens, or that have one head."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from encoders import BIDIRECTIONAL, CLASSIFIERS, bidirectional, classifier
from naive import composition
from zoo import around_hugging_face, fresh, hooked_with

import induction_kernel as ik
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.metrics import as_metric
from induction_kernel.prompts import Demonstrations, FewShotPrompts

B_LENGTHS = [7, 4, 5]


def unequal(model):
    """Three prompts as tokens `[3, 7]`, padded by words, and as `Prompts`."""
    tokens = torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    return tokens, ik.as_prompts(model, tokens, lengths=torch.tensor(B_LENGTHS))


def each_alone(model, tokens, hooks=()):
    """Logits `[1, position, output]` of every prompt run by itself, by the model alone."""
    with torch.no_grad(), model.hooks(fwd_hooks=list(hooks)):
        return [model(row[None, :length]) for row, length in zip(tokens, B_LENGTHS, strict=True)]


def last_and_first(logits, prompts):
    """Reads at the first position too, which a bidirectional model lets depend on all that follow."""
    rows = torch.arange(len(logits))
    return logits[rows, prompts.lengths - 1, 3] - logits[:, 0, 2]


def numbers_alone(model, tokens, hooks=()):
    return np.array([float(each[0, -1, 3] - each[0, 0, 2]) for each in each_alone(model, tokens, hooks)])


def attention_alone(model, tokens, layer):
    """The pattern `[1, head, query, key]` of every prompt run by itself."""
    seen = []
    each_alone(model, tokens, [(f"blocks.{layer}.attn.hook_pattern", lambda rows, hook: seen.append(rows))])
    return seen


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_bidirectional_model_does_not_see_padding(kind):
    """Every reading verb gives each prompt what it has alone."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    alone = [attention_alone(model, tokens, layer) for layer in (0, 1)]
    shown = ik.patterns(model, prompts, ["L0H1", "L1H2"])["pattern"].values
    measured = as_metric(last_and_first)(model, prompts)["value"].values
    np.testing.assert_allclose(measured, numbers_alone(model, tokens), atol=1e-10)
    scores = ik.previous_token(model, prompts)
    for i, length in enumerate(B_LENGTHS):
        for choice, (layer, head) in enumerate([(0, 1), (1, 2)]):
            rows = alone[layer][i][0, head].numpy()
            np.testing.assert_allclose(shown[i, choice, :length, :length], rows, atol=1e-6)
            expected = np.diagonal(rows, -1).mean()
            np.testing.assert_allclose(scores["score"].values[i, layer, head], expected, atol=1e-6)
        assert np.isclose(float(scores["chance"][i]), 1 / length)  # uniform over all of the prompt


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_padding_is_hidden_under_hooks_of_the_users_own(kind):
    """Also at the first use of a model, before anything could be seen of it."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: 0.5 * z)]):
        measured = as_metric(last_and_first)(model, prompts)["value"].values
        expected = numbers_alone(model, tokens)
    np.testing.assert_allclose(measured, expected, atol=1e-10)


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_effects_in_a_bidirectional_model_are_those_of_each_prompt_alone(kind):
    """Effects of sweeps, ablation, estimates and knock-out, from whole runs of the model with plain hooks."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    add = torch.linspace(-1, 1, 4, dtype=torch.float64)

    def moved(z, hook):
        z = z.clone()
        z[:, :, 1] += add
        return z

    def moved_at_two(z, hook):
        return torch.cat([z[:, :2], z[:, 2:3] + add * torch.tensor([0, 1, 0, 0])[:, None], z[:, 3:]], 1)

    options = {"edit": ik.Add(add), "metric": last_and_first, "progress": False}
    whole = numbers_alone(model, tokens, [("blocks.0.attn.hook_z", moved)])
    at_two = numbers_alone(model, tokens, [("blocks.0.attn.hook_z", moved_at_two)])
    np.testing.assert_allclose(ik.sweep(model, prompts, **options)["value"].values[:, 0, 1], whole, atol=1e-9)
    by = ("layer", "head", "position")
    np.testing.assert_allclose(
        ik.sweep(model, prompts, by=by, **options)["value"].values[:, 0, 1, 2], at_two, atol=1e-9
    )
    np.testing.assert_allclose(ik.ablate(model, prompts, "L0H1", **options)["value"].values, whole, atol=1e-9)
    tiny_add = {**options, "edit": ik.Add(1e-6 * add)}
    estimate = ik.attribution(model, prompts, **tiny_add)["estimate"].values
    exact = ik.sweep(model, prompts, **tiny_add)["effect"].values
    np.testing.assert_allclose(estimate, exact, rtol=1e-3, atol=1e-11)


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_knock_out_of_later_keys_acts_in_a_bidirectional_model(kind):
    """The last key is taken from the first query, alone or padded: pattern rows by hand, put into z."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    mask = torch.zeros(3, 7, 7, dtype=torch.bool)
    for i, length in enumerate(B_LENGTHS):
        mask[i, 0, length - 1] = True
    found = ik.knock_out(model, prompts, mask, by=("layer",), metric=last_and_first, progress=False)
    expected = []
    for i, length in enumerate(B_LENGTHS):
        row = tokens[i : i + 1, :length]
        kept = {}

        def keep(site, kept=kept):
            return f"blocks.1.attn.hook_{site}", lambda values, hook: kept.update({site: values})

        def put(z, hook, kept=kept):
            rows = kept["pattern"].clone()
            rows[:, :, 0, -1] = 0
            return torch.einsum("phqk,pkhd->pqhd", rows / rows.sum(-1, keepdim=True), kept["v"])

        with torch.no_grad(), model.hooks(fwd_hooks=[keep("pattern"), keep("v")]):
            model(row)
        with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.1.attn.hook_z", put)]):
            logits = model(row)
        expected.append(float(logits[0, -1, 3] - logits[0, 0, 2]))
    np.testing.assert_allclose(found["value"].values[:, 1], expected, atol=1e-9)


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_query_of_a_bidirectional_model_may_lose_its_past(kind):
    """It is not left with nothing, as it would be in a causal model."""
    model = bidirectional(kind)
    _, prompts = unequal(model)
    no_past = torch.ones(7, 7, dtype=torch.bool).tril()
    no_past[:, -4:] = False
    with pytest.raises(ValueError, match="left with nothing to attend to"):
        ik.knock_out(model, prompts, torch.ones(7, 7, dtype=torch.bool), metric=last_and_first)
    first = torch.zeros(7, 7, dtype=torch.bool)
    first[0, 0] = True
    assert np.isfinite(ik.knock_out(model, prompts, first, metric=last_and_first)["value"]).all()


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_mask_of_later_keys_is_read_in_a_bidirectional_model(kind):
    model = bidirectional(kind)
    tokens, prompts = unequal(model)

    def next_key(tokens, lengths):
        mask = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool)
        mask[:, torch.arange(6), torch.arange(1, 7)] = True
        return mask

    found = ik.AttentionScorer("next key", next_key)(model, prompts)["score"].values
    for i, rows in enumerate(attention_alone(model, tokens, 1)):
        np.testing.assert_allclose(found[i, 1], rows[0].diagonal(1, 1, 2).mean(-1), atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in BIDIRECTIONAL if kind in ("hooked", "native")])
def test_direct_effects_of_answers_in_a_bidirectional_model(kind):
    """Through the frozen final norm, from each prompt's own run: z W_O along a difference of unembeddings."""
    model = bidirectional(kind)
    tokens, prompts = unequal(model)
    answers = [(3, 4), (5, 6), (7, 8)]
    found = ik.direct_effect(model, ik.prompts.with_answers(model, prompts, answers))["score"].values
    moved = []
    for head in (0, 1):
        z_of, end_of = [], []
        hooks = [
            ("blocks.1.attn.hook_z", lambda z, hook, z_of=z_of: z_of.append(z)),
            ("blocks.1.hook_resid_post", lambda x, hook, end_of=end_of: end_of.append(x)),
        ]
        each_alone(model, tokens, hooks)
        for z, end, (right, wrong) in zip(z_of, end_of, answers, strict=True):
            from_head = (z[0, -1, head] - value_bias(model, 1, head)) @ model.blocks[1].attn.W_O[head]
            scale = (end[0, -1].var(unbiased=False) + model.cfg.eps).sqrt()
            weight = next(p for n, p in model.ln_final.named_parameters() if n.endswith(("w", "weight")))
            normed = (from_head - from_head.mean()) / scale * weight
            moved.append(float(normed.detach() @ (model.W_U[:, right] - model.W_U[:, wrong]).detach()))
    np.testing.assert_allclose(found[:, 1, :2], np.reshape(moved, (2, 3)).T, atol=1e-9)


def value_bias(model, layer, head):
    """What the head adds whatever the prompt: its bias, and the first norm's bias through W_V."""
    block = model.blocks[layer]
    shift = next(p for n, p in block.ln1.named_parameters() if n.endswith(("b", "bias")))
    return block.attn.b_V[head] + shift @ block.attn.W_V[head]


NEXT_TOKENS = {
    "loss": lambda model, tokens: ik.loss(model, tokens),
    "repeat_loss": lambda model, tokens: ik.repeat_loss(model),
    "sweep": lambda model, tokens: ik.sweep(model, tokens, metric=ik.loss),
    "ablate": lambda model, tokens: ik.ablate(model, None, "L0H0"),
    "attribution": lambda model, tokens: ik.attribution(model, None, edit=ik.Scale(0.5)),
    "loss_by_position": lambda model, tokens: ik.loss_by_position(model, tokens),
    "icl_score": lambda model, tokens: ik.icl_score(model, tokens, early=1, late=4),
    "direct_effect": lambda model, tokens: ik.direct_effect(model, tokens),
}


@pytest.mark.parametrize("verb", NEXT_TOKENS)
def test_next_tokens_that_a_model_sees_are_not_predicted(verb):
    model = bidirectional("native")
    with pytest.raises(ValueError, match="a model that attends to them"):
        NEXT_TOKENS[verb](model, torch.arange(12).view(2, 6))


OWN_TOKENS = {
    **NEXT_TOKENS,
    "copying": lambda model, tokens: ik.copying(model, tokens),
    "ov_eigenvalues": lambda model, tokens: ik.ov_eigenvalues(model),
    "label_accuracy": lambda model, tokens: ik.label_accuracy(model, few_shots()),
    "probability": lambda model, tokens: ik.probability(model, few_shots()),
    "predict": lambda model, tokens: ik.fewshot.predict(model, few_shots()),
    "label_logits": lambda model, tokens: ik.kernel.label_logits(model, few_shots()),
    "label_flow": lambda model, tokens: ik.fewshot.label_flow(model, few_shots()),
    "label_knock_out": lambda model, tokens: ik.fewshot.label_knock_out(model, few_shots(), "L0H0"),
    "fit_label_weights": lambda model, tokens: ik.fewshot.fit_label_weights(model, few_shots()),
    "function_vector_effect": lambda model, tokens: ik.fewshot.function_vector_effect(model, few_shots()),
}


def few_shots():
    """Two prompts of two demonstrations, whose labels are tokens 1 and 2: also numbers of classes."""
    tokens = torch.tensor([[10, 1, 11, 2, 12], [13, 2, 14, 1, 15]])
    spans = torch.tensor([[[0, 2], [2, 4]]] * 2)
    found = Demonstrations(
        spans, torch.tensor([[1, 3]] * 2), torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 2, dtype=torch.bool),
        torch.tensor([1, 2]), torch.tensor([0, 1]), ("one", "two"),
    )  # fmt: skip
    scored = torch.ones(2, 5, dtype=torch.bool)
    return FewShotPrompts(tokens, torch.tensor([5, 5]), scored, demonstrations=found)


@pytest.mark.parametrize("verb", OWN_TOKENS)
def test_what_reads_tokens_is_not_read_off_classes(verb):
    with pytest.raises(
        ValueError, match=r"whose 5 outputs are not its tokens \(d_vocab_out\): give answers by number"
    ):
        OWN_TOKENS[verb](classifier("native"), torch.arange(12).view(2, 6) % 5)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classes_are_answers(kind):
    """Metrics and direct effects of classes, against the model's own logits."""
    model = classifier(kind)
    tokens = torch.arange(14).view(2, 7)
    prompts = ik.prompts.with_answers(model, tokens, [(4, 0), (1, 3)])
    with torch.no_grad():
        last = model(tokens)[:, -1]
    difference = last[[0, 1], [4, 1]] - last[[0, 1], [0, 3]]
    np.testing.assert_allclose(ik.logit_difference(model, prompts)["value"], difference, atol=1e-10)
    expected = last.softmax(-1)[[0, 1], [4, 1]]
    np.testing.assert_allclose(ik.probability(model, prompts)["value"], expected, atol=1e-10)
    np.testing.assert_allclose(ik.kl_to(last)(model, prompts)["value"], 0, atol=1e-10)
    swept = ik.sweep(model, prompts, edit=ik.Scale(1.0), metric=ik.probability, progress=False)
    np.testing.assert_allclose(swept["value"][:, 0, 0], expected, atol=1e-10)
    assert np.isfinite(ik.direct_effect(model, prompts)["score"]).all()


@pytest.mark.parametrize("verb", ["with_answers", "direct_effect", "logit_difference", "sweep"])
def test_a_class_that_is_none_is_refused(verb):
    model = classifier("native")
    tokens = torch.arange(7)[None]
    if verb == "with_answers":
        with pytest.raises(ValueError, match="wanted answers as numbers from 0 to 4"):
            ik.prompts.with_answers(model, tokens, [("good", "bad")])
        return
    prompts = replace(ik.as_prompts(model, tokens), answers=torch.tensor([[1, 30]]))
    if verb == "sweep":
        with pytest.raises(ValueError, match="from 0 to 4"):
            ik.sweep(model, prompts, edit=ik.Zero(), metric=ik.logit_difference)
        return
    with pytest.raises(ValueError, match="from 0 to 4"):
        getattr(ik, verb)(model, prompts)


@pytest.mark.parametrize("by", [("layer", "head"), ("layer",), ()], ids=str)
def test_one_cell_is_verified(by):
    """The one head of a model, by hand: z without its mean over the prompts, exactly."""
    model = fresh("attention-only", n_layers=1, n_heads=1)
    tokens = torch.arange(15).view(3, 5)
    found = ik.attribution(
        model, tokens, edit=ik.Add(torch.ones(4, dtype=torch.float64)), by=by, metric=ik.loss, verify=2
    )
    with torch.no_grad():
        before = model(tokens, return_type="loss")
        with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: z + 1)]):
            after = model(tokens, return_type="loss")
    np.testing.assert_allclose(found["exact"].values, [float(after - before)], atol=1e-10)
    np.testing.assert_allclose(found.attrs["worst_miss"], abs(found["exact"] - found["estimated"]).values[0])
    assert np.isnan(found.attrs["correlation"])


@pytest.mark.parametrize("control", ["same layer", "any layer"])
def test_no_advice_that_a_model_of_one_head_cannot_follow(control):
    model = fresh("attention-only", n_layers=1, n_heads=1)
    with pytest.raises(ValueError, match="this model has none to compare these with") as error:
        ik.random_heads(model, like=["L0H0"], control=control)
    assert "fewer" not in str(error.value)
    assert "any layer" not in str(error.value)


def test_attention_to_later_tokens_is_drawn():
    """The whole square travels to the page where there is anything above the diagonal."""
    model = bidirectional("native")
    tokens = torch.arange(5)[None]
    seen = []
    with (
        torch.no_grad(),
        model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda x, hook: seen.append(x))]),
    ):
        model(tokens)
    html = ik.attention_view(ik.patterns(model, tokens, "L0H2")).fragment()
    data = json.loads(re.search(r"const data = (.*);\n", html)[1])
    sent = np.frombuffer(base64.b64decode(data["heads"][0]), np.uint8) / 250
    np.testing.assert_allclose(sent.reshape(5, 5), seen[0][0, 2], atol=0.0021)


@pytest.mark.parametrize("kind", [kind for kind in BIDIRECTIONAL if kind in ("BERT", "encoder")])
@pytest.mark.parametrize("verb", ["path_patch", "direct_effect", "copying", "ov_eigenvalues"])
def test_no_direct_path_leads_through_the_norms_of_bert(kind, verb):
    model = bidirectional(kind)
    tokens = torch.arange(12).view(2, 6)
    call = {
        "path_patch": lambda: ik.path_patch(model, source=tokens.flip(1), into=tokens, metric=last_and_first),
        "direct_effect": lambda: ik.direct_effect(
            model, ik.prompts.with_answers(model, tokens, [(1, 2), (3, 4)])
        ),
        "copying": lambda: ik.copying(model, tokens),
        "ov_eigenvalues": lambda: ik.ov_eigenvalues(model),
    }[verb]
    with pytest.raises(ValueError, match="normalised before it is added"):
        call()


def test_a_model_that_heeds_no_mask_refuses_unequal_lengths(monkeypatch):
    """Rather than let padding in; prompts of one length run."""
    model = bidirectional("native")
    inner = model.original_model
    forward = inner.forward
    monkeypatch.setattr(
        inner, "forward", lambda *args, attention_mask=None, **kwargs: forward(*args, **kwargs)
    )
    tokens, prompts = unequal(model)
    with pytest.raises(ValueError, match="ignores masks"):
        ik.patterns(model, prompts, "L0H0")
    assert ik.patterns(model, tokens, "L0H0").sizes["query"] == 7


@pytest.mark.parametrize("family", ["GPT-2", "Llama"])
def test_the_epsilon_of_a_norm_may_be_large(family):
    """It moves a norm's scale, not what its weights say: such models were refused where norms are folded."""
    model = fresh(family, eps=0.02)
    found = ik.composition(model, by="v", progress=False)
    right = [[composition(model, 0, head, 1, to, "v") for to in range(4)] for head in range(4)]
    np.testing.assert_allclose(found["score"][0], right, rtol=1e-9)
    assert ik.direct_effect(model, torch.tensor([[3, 9, 3, 9]]))["score"].notnull().all()


@pytest.mark.skipif(not has_hooked_transformer(), reason="Bridges have a norm before every MLP")
def test_a_stream_is_edited_where_no_norm_reads_it():
    """One prompt, several cells, no norm: torch could not view the stream that the MLP was given."""
    model = hooked_with(
        normalization_type=None, positional_embedding_type="shortformer", parallel_attn_mlp=True
    )
    tokens, vector = torch.tensor([[3, 9, 4, 7]]), torch.linspace(-1, 1, 16, dtype=torch.float64)
    found = ik.sweep(
        model, tokens, edit=ik.Add(vector), site="resid_post", by=("layer", "position"), metric=ik.loss, progress=False
    )  # fmt: skip
    for layer, position in [(0, 1), (1, 2)]:

        def add(resid, hook, position=position):
            resid[:, position] += vector
            return resid

        hooks = [(f"blocks.{layer}.hook_resid_post", add)]
        with torch.no_grad():
            right = float(model.run_with_hooks(tokens, return_type="loss", fwd_hooks=hooks))
        assert float(found["value"][0, layer, position]) == pytest.approx(right, rel=1e-9)


def test_the_stream_after_attention_is_what_attention_is_added_to():
    """OPT-350m has its norms behind: a Bridge's hook on resid_mid shows what the second of them reads."""
    model = around_hugging_face("OPT-350m", torch.float64)
    own, other = torch.tensor([[3, 9, 4, 7]]), torch.tensor([[3, 1, 8, 7]])
    seen = {}

    found = ik.sweep(
        model, own, edit=ik.FromRun(other), site="resid_mid", by=("layer",), metric=ik.loss, progress=False
    )
    for layer in (0, 1):
        pre, out = (f"blocks.{layer}.hook_{site}" for site in ("resid_pre", "attn_out"))

        def stored(site, layer=layer):
            return lambda value, hook: seen.__setitem__((layer, site), value)

        with torch.no_grad():
            model.run_with_hooks(other, fwd_hooks=[(pre, stored("pre")), (out, stored("out"))])
            seen[layer, "other"] = seen[layer, "pre"] + seen[layer, "out"]
            replaced = (out, lambda value, hook, layer=layer: seen[layer, "other"] - seen[layer, "pre"])
            logits = model.run_with_hooks(own, fwd_hooks=[(pre, stored("pre")), replaced])
        logs = logits[0, :-1].log_softmax(-1)
        right = -float(logs.gather(1, own[0, 1:, None]).mean())
        assert float(found["value"][0, layer]) == pytest.approx(right, rel=1e-6)
