"""SmolLM2-135M as HookedTransformer and Bridge, raw and processed, and in bfloat16: are the numbers the same?

Processing folds norms and centres weights, so z and W_OV differ, but not what the model computes (METHODS A.5); a
score or an effect that moved with it would say nothing about the model.
"""

import json

import numpy as np
import pytest
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import induction_kernel as ik

pytestmark = pytest.mark.real

PROCESSED = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
FORMS = ("hooked, processed", "bridge", "bridge, processed")
SCORES = ("induction", "prefix_matching", "previous_token", "control", "copying", "ov_eigenvalues")
SCORES += ("label_attention", "direct_effect")
ABLATED = [(heads, kind) for heads in ("L18H6", "L2H0 L17H3 L17H4") for kind in ("Mean", "Zero")]


@pytest.fixture(scope="module")
def folder(smollm2, tmp_path_factory):
    """The same weights and tokenizer as a Hugging Face folder, which is read in seconds."""
    to, where = tmp_path_factory.mktemp("smollm2"), {"gguf_file": smollm2.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(smollm2.parent, **where)
    AutoTokenizer.from_pretrained(smollm2.parent, **where).save_pretrained(to)
    config = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    (to / "config.json").write_text(json.dumps(config))
    weights = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}  # tied
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def in_form(folder, form):
    if form == "hooked, processed":
        return ik.load(folder, **dict.fromkeys(PROCESSED, True))
    model = ik.load(folder, bridge=form.startswith("bridge"))
    if form == "bridge, processed":
        model.enable_compatibility_mode()
    return model


def measured(model):
    """Every score and effect, by name."""
    repeats = ik.repeated_tokens(model, period=20, repeats=3, prompts=2, seed=1)
    looks = ik.observe(model, repeats, [ik.induction, ik.prefix_matching, ik.previous_token], progress=False)
    found = {name: looks["score"].sel(scorer=name) for name in looks["scorer"].values}
    found["control"] = looks["control"]
    found["copying"] = ik.copying(model, repeats)["score"]
    found["ov_eigenvalues"] = ik.ov_eigenvalues(model, draws=1, progress=False)["score"]
    found["label_attention"] = ik.label_attention(model, ik.prompts.word_episodes(model, prompts=2))["score"]
    found["direct_effect"] = ik.direct_effect(model, repeats, progress=False)["score"]
    for heads, kind in ABLATED:
        edit = getattr(ik, kind)()
        found[heads, kind] = ik.ablate(model, repeats, heads.split(), edit=edit, progress=False)["effect"]
    size_of_w_v = model.blocks[17].attn.W_V.detach().norm(dim=(1, 2)).mean()
    return {name: each.values for name, each in found.items()} | {"W_V": size_of_w_v}


@pytest.fixture(scope="module")
def raw(folder):
    return measured(in_form(folder, "hooked"))


@pytest.fixture(scope="module", params=FORMS)
def form(request, folder, smollm2):
    source = smollm2 if request.param == "bridge" else folder  # once as its users load it
    return measured(in_form(source, request.param)) | {"form": request.param}


def test_weights_are_others_where_they_are_processed(raw, form):
    assert np.allclose(form["W_V"], raw["W_V"], rtol=1e-3) == ("processed" not in form["form"])


@pytest.mark.parametrize("name", SCORES)
def test_every_head_scores_the_same_in_every_form(raw, form, name):
    np.testing.assert_allclose(form[name], raw[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("heads", "kind"), ABLATED)
def test_removing_heads_costs_the_same_in_every_form(raw, form, heads, kind):
    assert abs(raw[heads, kind]).max() > 0.1  # nats: there is something to compare
    np.testing.assert_allclose(form[heads, kind], raw[heads, kind], rtol=0, atol=1e-3)


@pytest.mark.parametrize("bridge", [False, True], ids=["hooked", "bridge"])
def test_bfloat16_gives_every_head_s_induction_score_to_two_hundredths(folder, bridge):
    found = []
    for dtype in ("float32", "bfloat16"):
        model = ik.load(folder, dtype=dtype, bridge=bridge)
        prompts = ik.repeated_tokens(model, period=25, prompts=4)
        found.append(ik.induction(model, prompts, progress=False)["score"].mean("prompt").values)
    assert found[0].shape == (30, 9)
    np.testing.assert_allclose(*found, rtol=0, atol=0.02)
