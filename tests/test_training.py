"""Is the language what its documentation says, and does the recipe give the model that the package ships?"""

import json
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import induction_kernel
from induction_kernel.loading import checkpoint_steps
from induction_kernel.training import _language as language
from induction_kernel.training import _vocabulary as vocabulary
from induction_kernel.training._language import Mix
from induction_kernel.training._logging import scores
from induction_kernel.training._network import initial_weights
from induction_kernel.training._recipe import Recipe
from induction_kernel.training._trainer import fit
from induction_kernel.training._vocabulary import TOPICS, VOCABULARY

TINY = Path(induction_kernel.__file__).parent / "assets" / "tiny"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def recipe():
    return json.loads((TINY / "recipe.json").read_text(encoding="utf-8"))


def global_state():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()


def words(row) -> list[str]:
    return [VOCABULARY[token] for token in row]


# The language


def test_no_word_stands_twice():
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_the_documented_sample_lines_are_of_the_language():
    lines = [line.split() for line in re.findall("`(<bos>[^`]+)`", language.__doc__) if " " in line]
    assert len(lines) == 3
    assert {word for line in lines for word in line} <= set(VOCABULARY)
    assert lines[2][7:] == lines[2][1:-6]


@pytest.mark.parametrize("kind", ["stories", "repeats", "batch"])
def test_rows_begin_with_bos_and_have_the_length_asked_for(rng, kind):
    rows = getattr(language, kind)(rng, 7, 50)
    assert rows.shape == (7, 50)
    assert rows.dtype == np.int64
    assert (rows[:, 0] == VOCABULARY.index("<bos>")).all()
    assert (rows[:, 1:] > 2).all()  # neither <bos> nor <unk> nor <pad> inside


@pytest.mark.parametrize("kind", ["stories", "repeats", "batch"])
def test_the_same_generator_gives_the_same_rows(kind):
    draw = getattr(language, kind)
    before = global_state()
    first, second = (draw(np.random.default_rng(3), 5, 40) for _ in range(2))
    assert (first == second).all()
    assert global_state() == before


def test_a_person_has_one_last_name_and_a_thing_one_adjective_within_a_story(rng):
    for row in map(words, language.stories(rng, 30, 96)):
        last = {}
        for first, second in pairwise(row):
            if first in vocabulary.FIRST_NAMES:
                assert last.setdefault(first, second) == second
    assert len(last) > 1


def test_a_verb_agrees_with_the_word_before_the_last_in_every_story(rng):
    verb = {}
    for row in map(words, language.stories(rng, 200, 96)):
        for subject, _, word in zip(row, row[1:], row[2:], strict=False):
            if word in vocabulary.DEEDS + vocabulary.STATES:
                assert verb.setdefault(subject, word) == word
    assert set(verb) == set(vocabulary.FIRST_NAMES + vocabulary.ADJECTIVES)


def test_labels_stand_where_the_classes_say_and_words_come_from_the_topic(rng):
    episodes = language.episodes(rng, 40, 80, noise=0.0)
    assert episodes.tokens.shape == episodes.classes.shape == (40, 80)
    is_label = np.isin(episodes.tokens, [VOCABULARY.index(word) for word in vocabulary.LABELS])
    assert (is_label == (episodes.classes >= 0)).all()
    names = tuple(TOPICS)
    for row in range(40):
        topic_words = []
        for position in range(1, 80):
            word, number = VOCABULARY[episodes.tokens[row, position]], episodes.classes[row, position]
            if number >= 0:
                assert episodes.tokens[row, position] == episodes.labels[row, number]
                assert set(topic_words) <= set(TOPICS[names[episodes.topics[row, number]]])
                topic_words = []
            elif word != ";":
                topic_words.append(word)


def test_held_out_topics_are_in_no_training_episode(rng):
    tokens = language.episodes(rng, 300, 96, noise=0.0).tokens
    held_out = {word for topic in vocabulary.HELD_OUT_TOPICS for word in TOPICS[topic]}
    assert not held_out & {VOCABULARY[token] for token in np.unique(tokens)}
    asked = language.episodes(rng, 5, 96, noise=0.0, classes=2, topics=vocabulary.HELD_OUT_TOPICS).tokens
    assert {VOCABULARY[token] for token in np.unique(asked)} <= held_out | {"<bos>", ";", *vocabulary.LABELS}


def test_the_noise_share_is_the_one_asked_for(rng):
    episodes = language.episodes(rng, 400, 96, noise=0.3, classes=2, words=(1.0,))
    row, position = np.nonzero(episodes.classes >= 0)
    topic = episodes.topics[row, episodes.classes[row, position]]
    topic_words = [{VOCABULARY.index(word) for word in ws} for ws in TOPICS.values()]
    pairs = zip(episodes.tokens[row, position - 1], topic, strict=True)
    of_topic = np.mean([token in topic_words[number] for token, number in pairs])
    assert of_topic == pytest.approx(0.7 + 0.3 * 12 / len(vocabulary.CONTENT), abs=0.01)


def test_repeats_repeat_with_their_period(rng):
    rows = language.repeats(rng, 20, 60, periods=(9, 9))
    assert (rows[:, 10:] == rows[:, 1:-9]).all()


def test_repeats_draw_labels_and_other_words_in_the_shares_asked_for(rng):
    rows = language.repeats(rng, 200, 60, labels=0.3, others=0.1, periods=(59, 59))[:, 1:]
    kinds = [
        vocabulary.LABELS,
        (";", ".", ",", *vocabulary.FUNCTION_WORDS, *vocabulary.DEEDS, *vocabulary.STATES),
    ]
    shares = [np.isin(rows, [VOCABULARY.index(word) for word in kind]).mean() for kind in kinds]
    assert shares == pytest.approx([0.3, 0.1], abs=0.02)


def test_the_mix_decides_what_a_batch_holds(rng):
    no_episodes = language.batch(rng, 6, 60, mix=Mix(stories=1, episodes=0, repeats=0))
    assert not np.isin(no_episodes, [VOCABULARY.index(word) for word in (";", *vocabulary.LABELS)]).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: language.stories(rng, 1, 1), "length >= 2"),
        (lambda rng: language.stories(rng, 1, 9, persons=1), "persons must be from 2 to 24, got 1"),
        (
            lambda rng: language.episodes(rng, 1, 9, noise=2.0),
            "noise must be a probability from 0 to 1, got 2",
        ),
        (lambda rng: language.episodes(rng, 1, 9, classes=5), "classes must be from 2 to 4, got 5"),
        (lambda rng: language.episodes(rng, 1, 9, topics=("fruit",)), "wanted at least 4 topics"),
        (lambda rng: language.episodes(rng, 1, 9, words=(0.5, 0.4)), "wanted words as probabilities"),
        (lambda rng: language.repeats(rng, 1, 9, periods=(5, 4)), "1 <= shortest <= longest"),
        (lambda rng: Mix(stories=0.9), "with sum 1"),
        (lambda rng: Recipe(context=64), "context must be a whole number, at least 96"),
        (lambda rng: Recipe(heads=0), "at least 1"),
    ],
)
def test_wrong_input_is_refused_with_a_reason(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(rng)


def test_the_tokenizer_reads_words_as_words():
    tokenizer = vocabulary.read_tokenizer()
    ids = tokenizer("fox dax; Wolf, quib.")["input_ids"]
    assert words(ids) == ["fox", "dax", ";", "<unk>", ",", "quib", "."]
    assert tokenizer.decode(tokenizer("fox dax ; wolf")["input_ids"]) == "fox dax ; wolf"
    assert len(tokenizer) == len(VOCABULARY)
    assert (tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token) == ("<bos>", "<pad>", "<unk>")


# The shipped model


def kept(step: int):
    return load_file(TINY / "checkpoints" / f"{step:06d}.safetensors")


def test_the_asset_agrees_with_its_recipe(recipe):
    weights = load_file(TINY / "model.safetensors")
    architecture = recipe["architecture"]
    heads, d_head, d_model = (architecture[key] for key in ("n_heads", "d_head", "d_model"))
    assert weights["embed.W_E"].shape == (architecture["d_vocab"], d_model) == (len(VOCABULARY), d_model)
    assert weights["blocks.1.attn.W_O"].shape == (heads, d_head, d_model)
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    steps = [entry["step"] for entry in recipe["checkpoints"]]
    assert 20 <= len(steps) <= 24
    assert steps == list(Recipe().kept)
    assert checkpoint_steps() == steps
    assert_close(kept(steps[-1]), {name: weight.half() for name, weight in weights.items()})
    assert sum(path.stat().st_size for path in TINY.rglob("*")) < 6e6


def test_the_asset_was_made_by_this_language_and_this_recipe(recipe, tmp_path):
    first = initial_weights(Recipe(), recipe["seed"])
    assert_close(kept(0), {name: weight.half() for name, weight in first.items()})
    assert recipe["recipe"] == json.loads(json.dumps(asdict(Recipe())))
    assert Recipe.read(recipe["recipe"]) == Recipe()
    assert recipe["architecture"] == Recipe().architecture
    vocabulary.write_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (TINY / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_shipped_model_still_scores_what_it_scored_when_it_was_trained(recipe):
    now = scores(load_file(TINY / "model.safetensors"), Recipe())
    for name, score in now.items():
        assert np.array(recipe["checkpoints"][-1][name]) == pytest.approx(np.array(score), abs=2e-3), name


def test_the_shipped_model_has_learned_both_and_leaves_controls(recipe):
    final = recipe["checkpoints"][-1]
    prefix = sorted(final["prefix_matching"][1])
    assert prefix[2] < 0.2
    assert prefix[-1] > 0.7
    assert max(final["previous_token"][0]) > 0.6
    assert final["few_shot_accuracy"] > 0.9
    assert final["loss_second_copy"] < 1 < 4 < final["loss_first_copy"]


@pytest.mark.slow
def test_the_recipe_gives_such_a_model_again(recipe):
    final = fit(Recipe(), seed=recipe["seed"], progress=False).log[-1]
    assert max(final["prefix_matching"][1]) > 0.6
    assert max(final["previous_token"][0]) > 0.5
    assert final["few_shot_accuracy"] > 0.9
    assert final["loss_second_copy"] < final["loss_first_copy"] - 3
