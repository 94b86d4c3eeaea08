"""Tasks that ship as text, episodes of them, and zero-shot prompts of their queries."""

import numpy as np
import pytest
import torch

import induction_kernel as ik
from induction_kernel.data._word_pairs import TASKS


@pytest.fixture(scope="module")
def tiny():
    return ik.load("tiny")


def topics(model, n=8, **options):
    texts = ik.data.word_pairs("topics", model)
    queries, pool = texts.split(n)
    return ik.data.draw_episodes(pool, queries, separator=" ", **options)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_different_words_each_with_one_answer(name):
    found = ik.data.word_pairs(name)
    assert len(found) >= (48 if name == "topics" else 60)
    assert len(set(found.texts)) == len(found)
    assert len(found.labels) == (4 if name == "topics" else len(found))
    assert all(word == word.strip() and word for word in (*found.texts, *found.labels))
    assert found.name == name


def test_the_answers_are_those_of_the_task():
    answers = {
        name: dict(zip(found.texts, [found.labels[y] for y in found.classes], strict=True))
        for name in TASKS
        for found in [ik.data.word_pairs(name)]
    }
    assert answers["antonyms"]["big"] == "small"
    assert answers["capitals"]["France"] == "Paris"
    assert answers["plurals"]["mouse"] == "mice"
    assert answers["past_tense"]["go"] == "went"
    assert answers["topics"]["fox"] == "dax"
    assert answers["topics"]["apple"] == "wug"


def test_words_that_the_tokenizer_does_not_know_are_left_out(tiny):
    assert len(ik.data.word_pairs("topics", tiny)) == 48
    with pytest.raises(ik.errors.NotDefined, match="cannot be written for this model"):
        ik.data.word_pairs("capitals", tiny)


def test_of_answers_that_begin_alike_the_first_is_kept(tiny, monkeypatch):
    """A tokenizer that reads the first letter of an answer alone."""
    from induction_kernel.data import _word_pairs

    monkeypatch.setattr(_word_pairs, "knows", lambda model, text: True)
    monkeypatch.setattr(_word_pairs, "_first_token", lambda model, form, word, answer: ord(answer[0]))
    found = ik.data.word_pairs("antonyms", tiny)
    firsts = [label[0] for label in found.labels]
    assert len(firsts) == len(set(firsts)) > 8
    every = ik.data.word_pairs("antonyms").labels
    assert found.labels == tuple(
        word for at, word in enumerate(every) if word[0] not in {each[0] for each in every[:at]}
    )


def test_labels_that_no_demonstration_shows_are_labels_all_the_same(tiny):
    """Answers of word pairs; the prompts are those of the demonstrations alone."""
    words = "fox wolf bear horse sheep goat".split()
    pairs = ik.data.LabelledTexts(
        tuple(words), np.arange(6), ("dax", "wug", "blick", "fep", "toma", "zup"), template="{x} {y} ;"
    )
    episodes = ik.data.draw_episodes(pairs[2:], pairs[:2], shots=3, separator=" ")
    found = episodes.prompts(tiny)
    assert len(found) == 2
    assert found.demonstrations.labels == pairs.labels
    assert found.demonstrations.target.tolist() == [0, 1]
    assert not {0, 1} & set(found.demonstrations.classes.flatten().tolist())
    assert len(set(found.demonstrations.label_ids.tolist())) == 6
    for p, text in enumerate(found.text()):
        shown = [episodes.pool.texts[i] for i in episodes.shown[p]]
        answers = [pairs.labels[i] for i in episodes.classes[p]]
        wanted = " ; ".join(f"{x} {y}" for x, y in zip(shown, answers, strict=True)) + f" ; {words[p]}"
        assert text.replace("<bos>", "").strip() == wanted


def test_zero_shot_prompts_are_the_ends_of_the_few_shot_prompts(tiny):
    episodes = topics(tiny)
    few, zero = episodes.prompts(tiny), ik.data.zero_shot(tiny, episodes)
    assert len(few) == len(zero) == 8
    for p in range(8):
        row = zero.tokens[p, : zero.lengths[p]]
        start = int(zero.bos)
        assert torch.equal(row[start:], few.tokens[p, few.lengths[p] - len(row) + start : few.lengths[p]])
        assert torch.equal(row[:start], few.tokens[p, :start])
    ids, target = few.demonstrations.label_ids, few.demonstrations.target
    assert torch.equal(zero.answers, torch.stack([ids[target], ids[(target + 1) % 4]], 1))
    assert torch.equal(zero.scored, torch.arange(zero.tokens.shape[1]) == zero.lengths[:, None] - 1)


def test_zero_shot_of_texts_alone(tiny):
    texts = ik.data.word_pairs("topics", tiny)
    zero = ik.data.zero_shot(tiny, texts, separator=" ")
    assert len(zero) == 48
    few = topics(tiny).prompts(tiny)
    np.testing.assert_array_equal(zero.answers[:, 0], few.demonstrations.label_ids[texts.classes])


@pytest.mark.real
def test_a_pretrained_tokenizer_tells_most_pairs_apart(smollm2):
    model = ik.load(smollm2)
    for name in TASKS:
        found = ik.data.word_pairs(name, model)
        assert len(found) >= (48 if name == "topics" else 45), name
        ik.data.zero_shot(model, found)
