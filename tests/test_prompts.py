"""Prompts: what repeated tokens, few-shot prompts and pairs promise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from zoo import tiny

import induction_kernel as ik
from induction_kernel.prompts import (
    FewShotPrompts,
    Prompts,
    as_few_shot,
    concat,
    random_tokens,
    word_episodes,
)
from induction_kernel.prompts._word_task import TOPICS


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


def test_repeated_tokens(model):
    prompts = ik.repeated_tokens(model)
    assert len(prompts) == 32
    assert prompts.bos
    periods = prompts.starts() - 1
    assert len(set(periods.tolist())) >= 16
    special = set(model.tokenizer.all_special_ids)
    for row, control, length, period in zip(
        prompts.tokens, prompts.control, prompts.lengths, periods, strict=True
    ):
        assert length == 1 + 2 * period
        r = row[1 : 1 + period].tolist()
        assert row[0] == model.tokenizer.bos_token_id == control[0]
        assert row[1 + period : length].tolist() == r
        assert len(set(r)) == period
        assert not special & set(r)
        fresh = control[1 + period : length].tolist()
        assert control[: 1 + period].tolist() == row[: 1 + period].tolist()  # the first copy is the same
        assert len(set(fresh)) == period  # and nothing in it repeats
        assert not set(fresh) & set(r)
    assert torch.equal(prompts.scored.sum(1), periods)


@pytest.mark.parametrize("repeats", [3, 4])
def test_more_copies(model, repeats):
    prompts = ik.repeated_tokens(model, repeats=repeats, period=7, prompts=3)
    assert (prompts.lengths == 1 + 7 * repeats).all()
    assert (prompts.scored.sum(1) == 7 * (repeats - 1)).all()


def test_seeds_are_local(model):
    state = torch.get_rng_state()
    first, again, other = (ik.repeated_tokens(model, seed=seed).tokens for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_seeds_are_those_that_torch_takes(model):
    largest = 2**64 - 1
    assert ik.repeated_tokens(model, seed=largest, prompts=2).tokens.shape[0] == 2
    for seed in (largest + 1, -1):
        with pytest.raises(ValueError, match=f"{seed}"):
            ik.repeated_tokens(model, seed=seed)


def test_bos_is_a_flag_or_an_id(model):
    assert not ik.repeated_tokens(model, bos=False).bos
    assert ik.induction(model).attrs["bos"] == "<bos>"
    assert ik.induction(model, ik.repeated_tokens(model, bos=False)).attrs["bos"] == "none"
    by_id = ik.repeated_tokens(model, bos=7)
    assert (by_id.tokens[:, 0] == 7).all()
    assert not (by_id.tokens[:, 1:][by_id.scored[:, 1:]] == 7).any()


def test_the_ends_of_a_ranked_vocabulary_are_left_out():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from induction_kernel.prompts._repeated import allowed_tokens

    vocab = {chr(97 + i): i for i in range(26)} | {"<s>": 26}
    bpe = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab, [])), bos_token="<s>")
    plain = tiny("attention-only")
    with_tokenizer = type(
        "M", (), {"cfg": plain.cfg, "tokenizer": bpe, "hooks": plain.hooks, "__call__": plain.forward}
    )()
    ids = allowed_tokens(with_tokenizer, exclude=0.1, bos=torch.tensor([26]))
    assert ids.tolist() == list(range(2, 24))  # 10% of 26 at each end
    assert len(allowed_tokens(plain, exclude=0.1, bos=torch.tensor([0]))) == 49  # no ranks: used whole


def test_what_users_have_becomes_prompts(model):
    text = ik.as_prompts(model, "the fox saw the bear .")
    assert text.strings(model) == [["<bos>", "the", "fox", "saw", "the", "bear", "."]]
    assert text.bos
    several = ik.as_prompts(model, ["the fox", "the fox saw"])
    assert several.lengths.tolist() == [3, 4]
    assert several.scored.sum(1).tolist() == [3, 4]
    tokens = torch.tensor([5, 6, 7])
    assert ik.as_prompts(model, tokens).tokens.tolist() == [[5, 6, 7]]
    assert ik.as_prompts(model, torch.tensor([[5, 6, 0]]), lengths=[2]).lengths.tolist() == [2]
    same = ik.repeated_tokens(model, prompts=2)
    assert ik.as_prompts(model, same) is same


def test_slicing_and_concatenating(model):
    prompts = word_episodes(model, prompts=6, shots=4)
    assert len(prompts[2:5]) == 3
    assert len(prompts[-1]) == 1
    assert [len(each) for each in prompts] == [1] * 6
    back = concat([prompts[:2], prompts[2:]])
    assert torch.equal(back.tokens, prompts.tokens)
    assert torch.equal(back.demonstrations.spans, prompts.demonstrations.spans)
    mixed = concat([ik.repeated_tokens(model, prompts=2), ik.as_prompts(model, "the fox")])
    assert mixed.control is None
    assert len(mixed) == 3
    assert "Prompts(3 of 3 to" in repr(mixed)


def test_a_tokenizers_output_may_be_of_one_text_or_of_several(model):
    one = ik.as_prompts(model, {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0]})
    assert (one.tokens[0, :3].tolist(), one.lengths.tolist()) == ([5, 6, 7], [3])
    several = ik.as_prompts(model, {"input_ids": [[5, 6, 7], [8]], "attention_mask": [[1, 1, 1], [1]]})
    assert several.lengths.tolist() == [3, 1]


MAKERS = {
    "repeated_tokens": lambda model: ik.repeated_tokens(model, prompts=2),
    "random_tokens": lambda model: random_tokens(model, prompts=2),
    "word_episodes": lambda model: word_episodes(model, prompts=2),
    "few_shot_prompts": lambda model: ik.few_shot_prompts(
        model,
        [("fox", "dax"), ("fig", "wug")],
        ["lion"],
        template="{x} {y} ;",
        labels=["dax", "wug"],
        separator=" ",
    ),
    "as_prompts": lambda model: ik.as_prompts(model, "fox wolf"),
    "as_prompts of tokens": lambda model: ik.as_prompts(model, torch.tensor([[5, 6]])),
    "pairs": lambda model: (
        ik.pairs(model, clean=["fox"], corrupted=["bear"], answers=[("fox", "bear")]).clean
    ),
    "part": lambda model: ik.repeated_tokens(model, prompts=3)[1:],
    "concat": lambda model: concat([ik.repeated_tokens(model, prompts=2), ik.as_prompts(model, "fox")]),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_all_prompts_show_their_tokens_as_text(model, maker):
    prompts = MAKERS[maker](model)
    assert prompts.tokenizer is model.tokenizer
    assert prompts.strings() == prompts.strings(model)


FORMS = {
    "Prompts": lambda model: ik.repeated_tokens(model),
    "text": lambda model: "fox wolf",
    "a list of token ids of different": lambda model: [[5, 6], [7]],
    "a tokenizer's output with": lambda model: {"input_ids": [[5, 6]], "attention_mask": [[1, 1]]},
    "token ids": lambda model: torch.tensor([[5, 6]]),
}


@pytest.mark.parametrize("option", [{"lengths": [1, 1]}, {"bos": False}], ids=["lengths", "bos"])
@pytest.mark.parametrize("form", FORMS)
def test_lengths_and_bos_are_refused_where_they_do_not_apply(model, form, option):
    (name,) = option
    if (name, form) in [("lengths", "token ids"), ("bos", "text")]:  # there they do
        return
    with pytest.raises(ValueError, match=f"{name}= is for .*, got {form}"):
        ik.as_prompts(model, FORMS[form](model), **option)


def test_few_shot_prompts_stay_few_shot_prompts(model):
    prompts = word_episodes(model, prompts=3, shots=4)
    wide = replace(prompts, tokens=prompts.tokens.repeat(1, 2), scored=prompts.scored.repeat(1, 2))
    answers = [(" dax", " wug")] * 3
    for same in (prompts[:2], prompts[[True, False, True]], prompts[-1], next(iter(prompts)), wide.narrowed(),
                 ik.prompts.with_answers(model, prompts, answers), ik.as_prompts(model, prompts),
                 ik.pairs(model, clean=prompts, corrupted=prompts).clean, concat([prompts, prompts[:1]])):  # fmt: skip
        assert type(same) is FewShotPrompts
        assert len(same.demonstrations.mask) == len(same)
    np.testing.assert_array_equal(prompts[1:].demonstrations.target, prompts.demonstrations.target[1:])
    with_others = concat([prompts, ik.as_prompts(model, "the fox")])
    assert type(with_others) is Prompts


def test_prompts_without_demonstrations_are_no_few_shot_prompts(model):
    prompts = word_episodes(model, prompts=3, shots=4)
    bare = Prompts(prompts.tokens, prompts.lengths, prompts.scored)
    with pytest.raises(TypeError, match=r"wanted demonstrations as Demonstrations, got NoneType"):
        FewShotPrompts(**vars(bare), demonstrations=None)
    with pytest.raises(ValueError, match="wanted demonstrations of 3 prompts, got those of 2"):
        FewShotPrompts(**vars(bare), demonstrations=prompts[:2].demonstrations)
    with pytest.raises(ValueError, match=r"FewShotPrompts\), got Prompts: make them with few_shot"):
        as_few_shot(model, bare)
    found = as_few_shot(model, prompts)
    assert found is prompts


@pytest.mark.parametrize("key", ["spans", "label_positions", "classes", "target", "label_ids", "inputs"])
def test_demonstrations_of_another_shape_are_refused(model, key):
    found = word_episodes(model, prompts=3, shots=4).demonstrations
    with pytest.raises(ValueError, match=rf"wanted {key} \["):
        replace(found, **{key: getattr(found, key)[:1]})


def test_few_shot_spans_and_labels(model):
    shots = [("fox bear", "dax"), ("apple", "wug"), ("lemon fig", 1)]
    prompts = ik.few_shot_prompts(
        model, shots, ["wolf", ("pear", "wug")], template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )
    found, strings = prompts.demonstrations, prompts.strings(model)
    assert strings[0] == "<bos> fox bear dax ; apple wug ; lemon fig wug ; wolf".split()
    for p in range(2):
        assert [strings[p][at] for at in found.label_positions[p].tolist()] == ["dax", "wug", "wug"]
        assert [strings[p][a:b] for a, b in found.spans[p].tolist()] == [
            ["fox", "bear", "dax"],
            ["apple", "wug"],
            ["lemon", "fig", "wug"],
        ]
    assert found.target.tolist() == [-1, 1]
    assert found.classes.tolist() == [[0, 1, 1]] * 2
    assert [model.tokenizer.decode([i]) for i in found.label_ids.tolist()] == ["dax", "wug"]
    assert prompts.scored.sum(1).tolist() == [1, 1]


def test_few_shot_with_demonstrations_of_its_own_for_each_query(model):
    own = [[("fox", 0), ("apple", 1)], [("apple", 1), ("fox", 0), ("pear", 1)]]
    prompts = ik.few_shot_prompts(
        model, own, ["wolf", "fig"], template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )
    assert prompts.demonstrations.mask.tolist() == [[True, True, False], [True, True, True]]
    assert prompts.lengths.tolist() == [8, 11]


def byte_level_model():
    """A model whose tokenizer puts the blank into the following word, as GPT-2's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from zoo import fresh

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    text = ["Review: a good film\nSentiment: positive", "Review: bad\nSentiment: negative", "Output: po"] * 9
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"]
    )
    backend.train_from_iterator(text, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    return fresh("attention-only", tokenizer=tokenizer, d_vocab=len(tokenizer), n_ctx=200)


def test_the_leading_blank_belongs_to_the_label():
    model = byte_level_model()
    prompts = ik.few_shot_prompts(
        model, [("a good film", "positive"), ("bad", "negative")], ["a film"],
        template="Review: {x}\nSentiment: {y}", labels=["negative", "positive"], separator="\n\n",
    )  # fmt: skip
    strings, found = prompts.strings(model)[0], prompts.demonstrations
    assert "".join(strings).endswith("Review: a film\nSentiment:")
    assert [strings[at] for at in found.label_positions[0].tolist()] == [" positive", " negative"]
    spans = ["".join(strings[a:b]) for a, b in found.spans[0].tolist()]
    assert spans == ["Review: a good film\nSentiment: positive", "Review: bad\nSentiment: negative"]
    assert model.tokenizer.decode(found.label_ids.tolist()) == " negative positive"


def test_word_episodes(model):
    prompts = word_episodes(model, shots=8, prompts=20)
    found = prompts.demonstrations
    assert (found.classes.sum(1) == 4).all()
    assert set(found.target.tolist()) == {0, 1}
    strings = prompts.strings(model)
    for row in strings:
        assert row.count(row[-1]) == 1  # the query's word is not among the demonstrations
    noisy = word_episodes(model, shots=8, prompts=20, noise=1.0)
    assert noisy.strings(model) != strings
    odd = word_episodes(model, shots=7, prompts=20).demonstrations.classes
    assert (odd.sum(1) == 3).all()  # of two labels the first is shown once more


@pytest.mark.parametrize(("classes", "each"), [(2, 1), (4, 1), (2, 11)])
def test_word_episodes_of_the_fewest_and_the_most_shots(model, classes, each):
    shots = classes * each
    assert word_episodes(model, shots=shots, prompts=1, classes=classes).demonstrations.mask.shape == (
        1,
        shots,
    )
    for beyond in (classes - 1, 11 * classes + 1):
        with pytest.raises(ValueError, match=f"wanted shots {classes} to {11 * classes}"):
            word_episodes(model, shots=beyond, classes=classes)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_word_episodes_of_several_classes(model, classes):
    prompts = word_episodes(model, shots=8, prompts=60, classes=classes)
    found = prompts.demonstrations
    counts = torch.stack([(found.classes == y).sum(1) for y in range(classes)], 1)
    assert (counts.max(1).values - counts.min(1).values == (8 % classes > 0)).all()
    assert set(found.target.tolist()) == set(range(classes)) == set(range(len(found.labels)))
    fewest = set(counts.argmin(1).tolist())
    assert fewest == (
        set(range(3)) if classes == 3 else {0}
    )  # with 3, the class that is short by one changes
    meant = set()  # (label, topic)
    for strings, labels in zip(prompts.strings(model), found.classes, strict=True):
        words = [strings[3 * i + 1] for i in range(8)]
        assert len(set(words)) == 8
        assert strings[-1] not in words
        of_class = [
            {word for word, y in zip(words, labels.tolist(), strict=True) if y == each}
            for each in range(classes)
        ]
        topics = [{topic for topic, known in enumerate(TOPICS) if words <= set(known)} for words in of_class]
        assert sorted(topics, key=min) == [{y} for y in range(classes)]
        meant |= {(label, *topic) for label, topic in enumerate(topics)}
    assert len(meant) == classes**2  # every prompt draws which label means which topic


def test_pairs(model):
    clean, corrupted = ik.pairs(
        model, clean=["the fox saw"], corrupted=["the bear saw"], answers=[("fox", "bear")]
    )
    assert clean.answers.tolist() == corrupted.answers.tolist()
    assert [model.tokenizer.decode([i]) for i in clean.answers[0].tolist()] == ["fox", "bear"]
    there, back = (float(ik.logit_difference(model, side)["value"][0]) for side in (clean, corrupted))
    with torch.no_grad():
        logits = model(clean.tokens, return_type="logits")[0, -1]
    assert there == pytest.approx(float(logits[clean.answers[0, 0]] - logits[clean.answers[0, 1]]), abs=1e-5)
    assert there != back


def test_random_tokens(model):
    prompts = random_tokens(model, length=30)
    assert all(len(set(row)) == 31 for row in prompts.tokens.tolist())
    assert prompts.control is None


def test_the_context_bounds_the_default_periods():
    small = tiny("attention-only")  # 40 tokens
    prompts = ik.repeated_tokens(small, bos=0)
    periods = (prompts.starts() - 1).tolist()
    assert max(periods) == 19
    assert len(set(periods)) == 16
    four = ik.repeated_tokens(small, bos=0, repeats=4)
    assert int(four.lengths.max()) <= 40


def test_each_length_is_from_one_to_the_width(model):
    tokens = torch.tensor([[5, 6], [7, 8]])
    for lengths in ([0, 2], [2, 0], [1, 3], [3, 3]):
        with pytest.raises(ValueError, match="wanted 2 lengths as whole numbers between 1 and 2"):
            ik.as_prompts(model, tokens, lengths=lengths)


@pytest.mark.parametrize("off", [False, np.bool_(False), np.array(False), torch.tensor(False)], ids=repr)
def test_bos_is_a_switch_or_an_id_of_any_kind(model, off):
    plain = ik.as_prompts(model, "fox wolf", bos=False).tokens[0].tolist()
    assert ik.as_prompts(model, "fox wolf", bos=off).tokens[0].tolist() == plain
    for token in (5, np.int64(5), torch.tensor(5)):
        assert ik.as_prompts(model, "fox wolf", bos=token).tokens[0].tolist() == [5, *plain]


@pytest.mark.parametrize("shape", [(), (4,), (1, 2, 2)])
def test_tokens_have_prompts_and_positions(shape):
    tokens = torch.ones(shape, dtype=torch.long)
    with pytest.raises(ValueError, match=r"wanted tokens \[prompt, position\], got shape"):
        ik.Prompts(tokens, torch.ones(1, dtype=torch.long), torch.ones(shape, dtype=torch.bool))
