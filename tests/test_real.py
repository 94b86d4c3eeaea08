"""SmolLM2-135M, a real language model: the heads and losses known of it are found."""

import numpy as np
import pytest

import induction_kernel as ik
from induction_kernel.heads import as_head


@pytest.fixture(scope="module")
def model(smollm2):
    return ik.load(smollm2, n_ctx=512)


@pytest.mark.real
def test_the_known_induction_heads_come_first(model):
    scores = ik.induction(model, ik.repeated_tokens(model, period=50, prompts=8))
    assert {"L18H6", "L17H3", "L17H4"} <= {str(head) for head in ik.top_heads(scores, 5)}
    assert {"L18H6", "L17H3", "L17H4"} <= {str(head) for head in ik.top_heads(scores, None, passing=True)}


@pytest.mark.real
def test_the_loss_of_the_repeat_falls(model):
    found = ik.repeat_loss(model, ik.repeated_tokens(model, period=50, prompts=6))
    assert float((found["without"] - found["value"]).mean()) > 8


@pytest.mark.real
def test_few_shot_prompts_are_read_as_words(model):
    prompts = ik.word_episodes(model, prompts=4)
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
