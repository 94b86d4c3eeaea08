"""Named spans of prompts, texts in which parts are marked, and needles hidden in a haystack."""

import pickle
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from english import english_model
from labelled_prompts import labelled
from worded import worded_model
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel.prompts import Prompts, concat, mark, needles
from induction_kernel.prompts._fingerprints import fingerprint
from induction_kernel.prompts._needle_words import KEYS, WORDS
from induction_kernel.prompts._prose import shipped

NONE = [-1, -1]


def spanned(n=3, **spans):
    tokens = torch.arange(n * 6).reshape(n, 6)
    lengths = torch.tensor([6, 4, 5][:n])
    scored = torch.ones(n, 6, dtype=torch.bool)
    return Prompts(tokens, lengths, scored, spans={key: torch.tensor(at) for key, at in spans.items()})


@pytest.fixture
def prompts():
    return spanned(a=[[0, 2], [1, 4], NONE], b=[[5, 6], NONE, [0, 5]])


@pytest.fixture(scope="module")
def english():
    return english_model(merges=1000, n_ctx=300)


def test_spans_are_kept_by_choosing_narrowing_and_pickling(prompts):
    assert prompts[[2, 0]].spans["a"].tolist() == [NONE, [0, 2]]
    assert prompts[1].spans["b"].tolist() == [NONE]
    assert [one.spans["a"][0].tolist() for one in prompts] == [[0, 2], [1, 4], NONE]
    short = prompts[1:].narrowed()
    assert short.tokens.shape[1] == 5
    assert short.spans["a"].tolist() == [[1, 4], NONE]
    again = pickle.loads(pickle.dumps(prompts))
    assert {key: at.tolist() for key, at in again.spans.items()} == {
        key: at.tolist() for key, at in prompts.spans.items()
    }
    assert ik.as_prompts(tiny("attention-only"), prompts).spans["b"].tolist() == prompts.spans["b"].tolist()
    assert "spans" in repr(prompts)
    assert labelled(prompts)[1].spans["a"].tolist() == [[1, 4]]  # of few-shot prompts too
    assert spanned().spans is None  # none given


def test_joined_prompts_have_the_spans_of_all(prompts):
    both = concat([prompts[:2], replace(prompts[2], spans=None), spanned(1, b=[[1, 2]], c=[[0, 6]])])
    assert both.spans["a"].tolist() == [[0, 2], [1, 4], NONE, NONE]
    assert both.spans["b"].tolist() == [[5, 6], NONE, NONE, [1, 2]]
    assert both.spans["c"].tolist() == [NONE, NONE, NONE, [0, 6]]
    assert concat([spanned(), spanned()]).spans is None


def test_a_users_mapping_is_copied():
    given = {"a": torch.tensor([[0, 1]])}
    made = replace(spanned(1), spans=given)
    given["b"] = given["a"]
    assert set(made.spans) == {"a"}


def test_fingerprints_tell_spans_apart(prompts):
    other = replace(prompts, spans=prompts.spans | {"a": prompts.spans["b"]})
    assert len({fingerprint(each) for each in (prompts, other, replace(prompts, spans=None))}) == 3


@pytest.mark.parametrize(
    ("spans", "error", "said"),
    [
        ([1], TypeError, "mapping"),
        ({"a": [[0, 1]] * 3}, TypeError, "int64 tensor"),
        ({"a": torch.zeros(3, 2)}, TypeError, "float32"),
        ({3: torch.zeros(3, 2).long()}, TypeError, "a name"),
        ({"a": torch.tensor([[0, 1]])}, ValueError, r"as \[3, 2\], got \[1, 2\]"),
        ({"a": torch.tensor([[0, 1], [3, 5], [0, 1]])}, ValueError, "prompt 1 within its 4 tokens"),
        ({"a": torch.tensor([[0, 1], [2, 2], [0, 1]])}, ValueError, r"got \(2, 2\)"),
        ({"a": torch.tensor([[0, 1], [-1, 2], [0, 1]])}, ValueError, "prompt 1"),
    ],
)
def test_wrong_spans_are_refused(spans, error, said):
    with pytest.raises(error, match=said):
        replace(spanned(), spans=spans)


def test_marks_by_words_and_by_characters(english):
    texts = ["Bees find their way home by the sun.", "The first train left at six."]
    found = mark(
        english, texts, spans={"place": ["home", "train"], "all": [(0, 4), None], "the": " "[:0] or "."}
    )
    plain = ik.as_prompts(english, texts)
    assert torch.equal(found.tokens, plain.tokens)
    for p, words in enumerate(["home", "train"]):
        a, b = found.spans["place"][p].tolist()
        assert "".join(found.strings()[p][a:b]).strip() == words
    assert found.spans["all"][1].tolist() == NONE
    assert found.spans["all"][0, 0] == 1  # after the beginning-of-sequence token
    assert found.spans["the"][:, 1].tolist() == found.lengths.tolist()


def test_marks_stand_behind_what_the_tokenizer_puts_first():
    for family, bos, first in (
        ("BERT", None, 1),
        ("Llama", None, 1),
        ("Llama", False, 0),
        ("Qwen", False, 0),
    ):
        model = worded_model(family)
        found = mark(model, "fox bear ; plum", spans={"word": "bear"}, bos=bos)
        assert found.strings()[0][int(found.spans["word"][0, 0])] == "bear"
        assert int(found.spans["word"][0, 0]) == first + 1


@pytest.mark.parametrize(
    ("spans", "error", "said"),
    [
        ({"a": "left"}, ValueError, "stands 0 times"),
        ({"a": "e"}, ValueError, r"stands \d times: give its characters"),
        ({"a": ""}, ValueError, "stands 0 times"),
        ({"a": [(0, 99), None]}, ValueError, "within the 36 characters of text 0"),
        ({"a": [(3, 3), None]}, ValueError, "within the 36 characters"),
        ({"a": ["Bees"]}, TypeError, "one item for each of 2 texts"),
        ({"a": [3, 4]}, TypeError, "two characters' numbers or None"),
        ({"a": 3}, TypeError, "a string or a list"),
        ("home", TypeError, "mapping from names"),
    ],
)
def test_wrong_marks_are_refused(english, spans, error, said):
    texts = ["Bees find their way home by the sun.", "They fly."]
    with pytest.raises(error, match=said):
        mark(english, texts, spans=spans)
    with pytest.raises(TypeError, match="list of texts"):
        mark(english, [1, 2], spans={})


def parts(prompts, p, name, tokens=None):
    a, b = prompts.spans[name][p].tolist()
    row = (prompts.tokens if tokens is None else tokens)[p, a:b].tolist()
    return prompts.tokenizer.decode(row, clean_up_tokenization_spaces=False)


def test_needles_in_english(english):
    found = needles(english, prompts=20)
    assert found.bos
    prose = " ".join(" ".join(shipped("prose.txt")).split())
    keys, values = set(), set()
    for p in range(20):
        length, text = int(found.lengths[p]), found.text()[p]
        needle, answer, decoy = (parts(found, p, name).strip() for name in ("needle", "answer", "decoy"))
        assert needle.startswith("Visitors to ")
        assert needle.endswith(f"always {answer}.")
        key = needle.split()[2]
        assert f"do visitors to {key} do" in parts(found, p, "question")
        assert text.endswith(parts(found, p, "question"))
        assert decoy.split()[2] in set(KEYS) - {key}
        assert decoy.removesuffix(".").split()[-4:] != answer.split()
        assert [word in words for word, words in zip(answer.split(), WORDS, strict=True)] == [True] * 4
        assert int(found.spans["question"][p, 1]) == length
        assert parts(found, p, "query").strip() == f"What do visitors to {key} do?"
        assert text.count(answer) == 1
        hay = text.removeprefix("<|endoftext|>").removesuffix(parts(found, p, "question"))
        assert not re.search(r"Mrs?\.$", hay[: hay.index(needle)].rstrip())
        for piece in re.split(rf" ?{re.escape(needle)} ?| ?{re.escape(decoy)} ?", hay):
            assert piece.strip() in f"{prose} {prose}"
        other = parts(found, p, "answer", found.control)
        a, b = found.spans["answer"][p].tolist()
        same = found.tokens[p] == found.control[p]
        assert not same[a:b].any()  # the value alone differs, at each of its tokens
        assert same[:a].all()
        assert same[b:length].all()
        assert other.strip() != answer
        keys.add(key)
        values.add(answer)
    assert len(keys) > 5
    assert len(values) > 15
    begin, stop = found.spans["question"].unbind(1)
    assert torch.equal(found.scored.sum(1), stop - begin)


def test_lengths_and_depths_vary_and_are_those_asked_for(english):
    found = needles(english, prompts=20)
    assert len(set(found.lengths.tolist())) > 10
    assert int(found.lengths.min()) > 90  # the next sentence may not fit
    assert int(found.lengths.max()) <= 258
    for depth in (0.0, 1.0):
        at = needles(english, prompts=6, depths=[depth], length=150)
        for p in range(6):
            before = at.tokens[p, 1 : int(at.spans["needle"][p, 0])].tolist()
            after = at.tokens[p, int(at.spans["needle"][p, 1]) : int(at.spans["question"][p, 0])].tolist()
            assert not (before if depth == 0 else after)


def test_every_depth_comes_equally_often():
    model = tiny("attention-only")
    found = needles(model, prompts=10, length=30, depths=[0, 0.5, 1])
    decoys = (found.spans["decoy"][:, 0] < found.spans["needle"][:, 0]).long() * 6
    hay = 30 - 14
    depths = ((found.spans["needle"][:, 0] - decoys) / hay).tolist()
    assert sorted(Counter(depths).values()) == [3, 3, 4]
    assert set(depths) == {0, 0.5, 1}


def test_a_users_own_needle(english):
    text = " ".join(f"Sentence number {i} is about nothing much." for i in range(200))
    found = needles(
        english, text, prompts=4, length=120, needle="{key} keeps {value} at home.", seed=3,
        question=" Now, {key} keeps", keys=["Ann", "Bob"], values=["seven bells", "nine spoons", "twelve drums"],
    )  # fmt: skip
    for p in range(4):
        assert parts(found, p, "answer").strip() in {"seven bells", "nine spoons", "twelve drums"}
        assert parts(found, p, "question").split()[1] in ("Ann", "Bob")
        assert parts(found, p, "query").strip() == parts(found, p, "question").strip()  # one line, no label


@pytest.mark.parametrize("kind", ["no tokenizer", "of other words"])
def test_needles_of_random_tokens(kind):
    model = tiny("attention-only") if kind == "no tokenizer" else ik.load("tiny")
    found = needles(model, prompts=12)
    for p in range(12):
        row = found.tokens[p, : int(found.lengths[p])].tolist()
        other = found.control[p, : int(found.lengths[p])].tolist()
        (a, b), (c, d), (e, f) = (found.spans[name][p].tolist() for name in ("needle", "answer", "question"))
        assert (d, b) == (b, c + 4)
        assert row[a:c] == row[e:f] == other[e:f]
        assert sorted(Counter(row).values())[-3:] == [1, 2, 2]  # only the key stands twice
        assert not set(other[c:d]) & set(row)
        assert row[:c] == other[:c]
        assert row[d:] == other[d:]
    assert len(set(found.lengths.tolist())) > 6
    lags = found.spans["question"][:, 0] - found.spans["needle"][:, 0]
    assert max(Counter(lags.tolist()).values()) <= 4  # no one lag leads to the needle


def test_seeds(english):
    for model in (english, tiny("attention-only")):
        state = torch.get_rng_state()
        one, same, other = (needles(model, prompts=3, seed=seed).tokens for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert one.shape != other.shape or not torch.equal(one, other)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"depths": [1.5]}, ValueError, "from 0 to 1"),
        ({"depths": "deep"}, TypeError, "list of numbers"),
        ({"length": 20}, ValueError, "a greater length"),
        ({"length": 299}, ValueError, "wanted a length from 1 to 268"),
        ({"length": "long"}, TypeError, "whole number or a range"),
        ({"prompts": 0}, ValueError, "prompts >= 1"),
        ({"text": "One. Two. Three."}, ValueError, "give a longer text"),
        ({"text": " "}, ValueError, "has no words"),
        ({"text": 3}, TypeError, "as a string"),
        ({"needle": "Nothing."}, ValueError, "with {key} and {value}"),
        ({"needle": "{key} {value} {value}"}, ValueError, "{value} once"),
        ({"question": "What?"}, ValueError, "with {key}"),
        ({"question": 3}, TypeError, "the question as a string"),
        ({"keys": ["a"]}, ValueError, "at least 2 different keys"),
        ({"values": ["a", "b", "b"]}, ValueError, "at least 3 different values"),
        ({"values": "abc"}, TypeError, "a list of strings"),
        (
            {"values": ["a", "a dog", "ten very old clocks"], "prompts": 9},
            ValueError,
            "of equal numbers of tokens",
        ),
        ({"seed": -1}, ValueError, "seed from 0"),
    ],
)
def test_wrong_needles_are_refused(english, options, error, said):
    with pytest.raises(error, match=said.replace("{", r"\{")):
        needles(english, options.pop("text", None), **options)


def test_where_there_is_no_room_or_no_tokenizer():
    with pytest.raises(ik.errors.NotDefined, match="too small"):
        needles(fresh("attention-only", n_ctx=20))
    with pytest.raises(ik.errors.NotDefined, match="no tokenizer"):
        needles(tiny("attention-only"), "Some text. More text.")
    with pytest.raises(ValueError, match="from 18 to 36"):
        needles(tiny("attention-only"), length=12)
    assert np.isfinite(needles(tiny("attention-only"), length=18, prompts=2).tokens.numpy()).all()


def test_needles_without_a_decoy(english):
    found = needles(english, prompts=3, decoy=False)
    assert set(found.spans) == {"needle", "answer", "question", "query"}
    assert [text.count("Visitors to") for text in found.text()] == [1] * 3
    assert "decoy" not in needles(tiny("attention-only"), prompts=3, decoy=False).spans
