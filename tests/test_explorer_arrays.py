"""The explorer without a model: plain arrays of attention, as circuitsvis, nnsight and Hugging Face give them."""

import numpy as np
import pytest
import torch
from unpacked import ReadPage

import induction_kernel as ik
from induction_kernel.errors import Refused

WORDS = ["one", " two", " three", " four", " five"]


def attention(*shape, ahead=False, seed=0):
    weights = np.random.default_rng(seed).dirichlet([0.3] * shape[-1], shape[:-1])
    weights = weights if ahead else np.tril(weights)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def read(**given):
    return ReadPage(ik.explore(**given)._page)


@pytest.mark.parametrize(
    ("shape", "grid", "prompts"),
    [((4, 5, 5), (1, 4), 1), ((2, 4, 5, 5), (2, 4), 1), ((3, 2, 4, 5, 5), (2, 4), 3)],
)
def test_shapes(shape, grid, prompts):
    array = attention(*shape)
    page = read(patterns=array, tokens=[WORDS] * prompts)
    assert (page.contents["layers"], page.contents["heads"]) == grid
    flat = array.reshape(prompts, -1, 5, 5)
    for prompt, index in page.heads:
        assert np.abs(page.head(prompt, index)[0] - flat[prompt, index]).max() <= 1 / 510 + 1e-7
    assert len(page.heads) == prompts * grid[0] * grid[1]
    assert not page.contents["norms"]
    assert page.contents["ranked"] == "weight"


def test_attentions_of_hugging_face():
    """A tuple with `[prompt, head, query, key]` for each layer, in bfloat16 and with gradients."""
    layers = attention(3, 2, 4, 5, 5)
    given = tuple(torch.tensor(each, dtype=torch.bfloat16, requires_grad=True) for each in layers)
    page = read(patterns=given, tokens=[WORDS, WORDS])
    assert (page.contents["layers"], page.contents["heads"], len(page.contents["prompts"])) == (3, 4, 2)
    for prompt in range(2):
        for index in range(12):
            expected = layers[index // 4, prompt, index % 4]
            assert np.abs(page.head(prompt, index)[0] - expected).max() <= 1 / 510 + 0.004


def test_attention_to_later_tokens_is_kept_whole():
    array = attention(4, 5, 5, ahead=True)
    page = read(patterns=array, tokens=WORDS)
    assert page.contents["ahead"]
    assert np.abs(page.head(0, 2)[0] - array[2]).max() <= 1 / 510 + 1e-7
    assert not read(patterns=attention(4, 5, 5), tokens=WORDS).contents["ahead"]


def test_what_patterns_returned_keeps_its_names_and_lengths():
    model = ik.load("tiny")
    texts = ["fox dax ; apple wug ; fox", "apple wug"]
    seen = ik.patterns(model, texts, ["L1H7", "L0H3"])
    page = read(patterns=seen)
    assert page.contents["present"] == [3, 15]
    assert repr(ik.explore(patterns=seen)).startswith("Explorer(2 heads, 2 prompts of up to 8 tokens;")
    assert [len(page.tokens(i)) for i in range(2)] == [8, 3]
    assert set(page.heads) == {(i, index) for i in range(2) for index in (3, 15)}
    for i, index, choice in [(0, 15, 0), (1, 3, 1)]:
        n = len(page.tokens(i))
        pattern, _, norms = page.head(i, index)
        assert np.abs(pattern - seen["pattern"].values[i, choice, :n, :n]).max() <= 1 / 510 + 1e-6
        np.testing.assert_allclose(norms, seen["value_norm"].values[i, choice, :n], rtol=2e-3)
    assert not page.pictures[0][0].any()
    every = ik.patterns(model, texts)
    assert every.sizes["choice"] == 16
    assert read(patterns=every).contents["present"] is None


def test_edges():
    one = read(patterns=np.ones((1, 1, 1)), tokens=["a"])
    assert one.head(0, 0)[0] == [[1]]
    assert one.contents["strongest"] == [[]]
    zeros = read(patterns=np.zeros((2, 5, 5)), tokens=WORDS)
    assert not zeros.head(0, 1)[0].any()
    assert not zeros.head(0, 1)[1].any()
    assert read(patterns=attention(2, 5, 5)).tokens() == ["0", "1", "2", "3", "4"]
    assert read(patterns=attention(2, 3, 5, 5)[:, :2], tokens=WORDS).contents["heads"] == 2


def test_the_users_array_is_not_changed():
    array = attention(2, 5, 5) * 1.001
    before = array.copy()
    ik.explore(patterns=array, tokens=WORDS)._page  # noqa: B018
    assert (array == before).all()


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--",
    "&lt;",
    "🙂",
    "שלום",
    "\u2028",
    "\n",
    "'\"`${x}",
    "\\u003c",
]


def test_tokens_and_names_cannot_leave_the_data():
    array = attention(2, len(HOSTILE), len(HOSTILE))
    explorer = ik.explore(patterns=array, tokens=HOSTILE, scores={"<b>&</script>": np.zeros((1, 2))})
    page = ReadPage(explorer._page)
    assert page.tokens() == HOSTILE
    assert page.contents["scores"][0]["name"] == "<b>&</script>"
    assert "<script>alert" not in explorer._page
    assert "<!--" not in explorer._page
    assert explorer._page.count("</script>") == explorer._page.count("<script")


def test_what_is_refused():
    array = attention(2, 5, 5)
    broken = array.copy()
    broken[1, 3, 2] = np.nan
    with pytest.raises(Refused, match="NaN or infinite ones in 1 of 2 heads of prompt 1"):
        ik.explore(patterns=broken, tokens=WORDS)
    with pytest.raises(Refused, match=r"in \[0, 1\], got 0 to 3"):
        ik.explore(patterns=np.tril(np.full((2, 5, 5), 3.0)), tokens=WORDS)
    with pytest.raises(Refused, match="as many queries as keys"):
        ik.explore(patterns=array[:, :3], tokens=WORDS)
    with pytest.raises(Refused, match=r"wanted 1 lists of \[5\] tokens, got \[4\]"):
        ik.explore(patterns=array, tokens=WORDS[:4])
    with pytest.raises(Refused, match="L0H5 does not exist"):
        ik.explore(patterns=array, tokens=WORDS, heads="L0H5")
