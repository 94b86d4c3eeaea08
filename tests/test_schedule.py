"""Does the page about a model plan what fits its minutes, and say what it leaves out?"""

import re

import pytest
import torch
import zoo

from induction_kernel.loading import load
from induction_kernel.pages import _costs as costs
from induction_kernel.pages import _schedule as scheduling
from induction_kernel.pages._costs import Amounts, Speed, Work
from induction_kernel.prompts import repeated_tokens

FULL = Amounts(32, 16, 20, True, 16, 16, True, 128)
WORK = Work(cells=72, shown=8, length=100, episode=30, writes=True, circuits=60.0)
PARTS = set(scheduling.NAMES)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it, and a model that takes a millisecond a token."""
    at = [0.0]
    monkeypatch.setattr(costs, "clock", lambda: at[0])
    monkeypatch.setattr(costs, "work_of", lambda model, prompts, shown: WORK)
    give(monkeypatch, 0.001)
    return at


def give(monkeypatch, token):
    """Speeds as of a model with half of its time in the layers, edited runs first taken for whole ones."""
    found = [(Speed(token / 2, token, token, token), 0.0), (Speed(token / 2, token, token / 2, token), 99.0)]
    monkeypatch.setattr(costs, "speeds", lambda model, prompts: iter(found))


def planned(minutes, n_prompts=None, advance=lambda share: None):
    return scheduling.planned(
        load("tiny"), n_prompts=n_prompts, shown=8, seed=0, minutes=minutes, advance=advance
    )


def total(amounts, token=0.001):
    return sum(WORK.seconds(amounts, Speed(token / 2, token, token / 2, token)).values())


def test_all_of_the_page_where_it_fits(clock):
    for minutes in (60, None):
        schedule = planned(minutes)
        assert schedule.amounts == FULL
        assert schedule.left_out == []
    assert planned(60, n_prompts=100).amounts.every == 50


def test_a_first_estimate_that_fits_is_enough(clock, monkeypatch):
    """It takes every edited run for a whole one; a better one is made only where that is too much."""
    made = []

    def speeds(model, prompts):
        for pair in [(Speed(0.0005, 0.001, 0.001, 0.001), 0.0), (Speed(0.0005, 0.001, 0.0005, 0.001), 0.1)]:
            made.append(pair)
            yield pair

    monkeypatch.setattr(costs, "speeds", speeds)
    planned(60)
    assert len(made) == 1
    planned(1)
    assert len(made) == 3


@pytest.mark.parametrize("minutes", [0.5, 1, 2, 3, 5, 8])
def test_what_is_planned_fits_with_room_to_spare(clock, minutes):
    schedule = planned(minutes)
    assert total(FULL) > 48 * minutes or schedule.amounts == FULL
    assert total(schedule.amounts) <= 48 * minutes
    assert bool(schedule.left_out) == (schedule.amounts != FULL)


def test_more_minutes_never_bring_less(clock):
    worth = [scheduling._worth(planned(minutes).amounts) for minutes in (0.1, 0.5, 1, 2, 3, 5, 8, 20)]
    assert worth == sorted(worth)
    assert worth[0] < worth[-1]


def test_sizes_are_cut_before_parts_are_left_out(clock):
    amounts = planned(3).amounts
    assert all(scheduling.has(amounts, part) for part in PARTS)
    assert amounts.every < 16


def test_ablations_come_before_three_other_parts(clock, monkeypatch):
    """What the heads shown do, rather than direct effects, weights and few-shot prompts."""
    give(monkeypatch, 0.02)
    room = 0.8 * 60 * 3.2
    amounts = planned(3.2, n_prompts=12).amounts
    assert total(Amounts(12, 0, 0, False, 0, 6, True, 32), 0.02) < room
    assert total(Amounts(12, 4, 5, False, 0, 0, False, 0), 0.02) < room
    assert total(Amounts(12, 4, 5, False, 0, 0, False, 32), 0.02) > room
    assert amounts.some > 0
    assert amounts.direct == amounts.episodes == amounts.weights == 0


def test_what_is_left_out_is_said_with_what_it_takes_and_what_to_ask_for(clock, monkeypatch):
    give(monkeypatch, 0.02)
    schedule = planned(5)
    said = " | ".join(schedule.left_out)
    assert not scheduling.has(schedule.amounts, "map")
    least, most = (round(size * 100 * 0.02 * (1.5 + 72 / 2) / 60) for size in (4, 16))
    assert (
        f"the map of every head removed in turn: left out (about {least} minutes at least, about {most} min"
        in said
    )
    found = re.search(r"every part on the fewest prompts takes about \d+ minutes: give minutes=(\d+)", said)
    of_all = planned(int(found[1])).amounts
    assert all(scheduling.has(of_all, part) for part in (*PARTS, "curve"))
    assert not all(scheduling.has(planned(int(found[1]) - 2).amounts, part) for part in (*PARTS, "curve"))
    whole = int(re.search(r"all of it takes about \d+ minutes: give minutes=(\d+) \(--minutes \1\)", said)[1])
    assert planned(whole).left_out == []
    assert planned(whole - 2).left_out != []


def test_what_is_cut_is_said_by_its_numbers(clock):
    schedule = planned(2)
    for part, size, of in (
        ("the map of every", schedule.amounts.every, 16),
        ("scores", schedule.amounts.prompts, 32),
    ):
        said = [each for each in schedule.left_out if each.startswith(part)]
        assert bool(said) == (size < of)
        assert not said or f"{size} prompts instead of {of} (" in said[0]
    assert schedule.amounts.every < 16


def test_prompts_asked_for_are_kept_whatever_they_take(clock):
    schedule = planned(1, n_prompts=2000)
    assert schedule.amounts.prompts == 2000
    assert any(
        "what is left takes about 3 minutes, as scores of the 2000 prompts asked for are not cut" in each
        for each in schedule.left_out
    )
    assert not scheduling.has(schedule.amounts, "map")


def test_a_part_is_left_out_if_the_time_is_used_up(clock):
    shares = []
    schedule = planned(60, advance=shares.append)
    assert schedule.run("direct", lambda: "measured") == "measured"
    clock[0] = 3599.0
    assert schedule.run("weights", pytest.fail) is None
    assert schedule.left_out == [
        "copying and OV eigenvalues: left out (about 60 seconds), as what came before took longer than estimated"
    ]
    schedule.passed("scores")
    for part in ("ablations", "few-shot", "map"):
        schedule.run(part, lambda: "measured")
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("minutes", [6, 60])
def test_the_map_is_left_out_with_the_ablations_of_the_table(clock, minutes):
    """Whether it is part of their run (60) or one of its own."""
    schedule = planned(minutes)
    assert schedule.amounts.every > 0
    assert (schedule.amounts.every == schedule.amounts.some) == (minutes == 60)
    clock[0] = 60.0 * minutes - 1
    assert schedule.run("ablations", pytest.fail) is None
    clock[0] = 0.0
    assert schedule.run("map", pytest.fail) is None
    said = [each for each in schedule.left_out if "left out" in each]
    assert [each.split(":")[0] for each in said] == [scheduling.NAMES[part] for part in ("ablations", "map")]
    assert said[1].endswith("left out with the ablations of the heads in the table")


def test_a_part_that_was_cut_and_then_left_out_is_named_once_and_in_its_place(clock):
    schedule = planned(2)
    *first, every_part, all_of_it = schedule.left_out
    names = list(scheduling.NAMES.values())[1:]
    assert [each.split(":")[0] for each in first] == [names[0], names[1], names[3]]
    clock[0] = 119.0
    for part in ("ablations", "direct", "weights", "few-shot", "map"):
        schedule.run(part, pytest.fail)
    *said, last_but_one, last = schedule.left_out
    assert [each.split(":")[0] for each in said] == names
    assert (last_but_one, last) == (every_part, all_of_it)


def test_a_map_on_the_prompts_of_the_table_is_no_run_of_its_own(clock):
    schedule = planned(60)
    clock[0] = 3600.0
    assert schedule.run("map", lambda: "made with the table") == "made with the table"


@pytest.mark.parametrize("shape", ["GPT-2", "Gemma 2", "attention-only"])
def test_costs_are_of_what_a_model_has(shape):
    model = zoo.fresh_of(shape, "bridge", dtype=torch.float32) if shape == "Gemma 2" else zoo.fresh(shape)
    prompts = repeated_tokens(model, prompts=4, bos=False)
    state = torch.random.get_rng_state()
    work = costs.work_of(model, prompts, 8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert work.cells == model.cfg.n_layers * model.cfg.n_heads
    assert work.writes == (shape != "Gemma 2") == (work.circuits > 0)
    assert work.episode == 0  # no tokenizer
    seconds = work.seconds(FULL, Speed(1.0, 2.0, 1.0, 2.0))
    assert set(seconds) == PARTS
    assert seconds["few-shot"] == 0
    assert (seconds["weights"] > 0) == work.writes
    assert seconds["scores"] == 64 * work.length


def test_speeds_are_timed_on_more_and_more_prompts(monkeypatch):
    """With a clock that ticks once a call, so that all passes take one second."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(costs, "clock", lambda: float(next(ticks)))
    prompts = repeated_tokens(load("tiny"), prompts=4)
    (first, _), *others = costs.speeds(load("tiny"), prompts)
    one = prompts[:1].tokens.numel()
    assert first == Speed(1 / one, 1 / one, 1 / one, 1 / one)
    assert len(others) == 3  # 1, 2 and 4 prompts
    for n, (speed, taken) in zip((1, 2, 4), others, strict=True):
        tokens = prompts[:n].narrowed().tokens.numel()
        assert speed.layers == speed.losses == 1 / tokens
        assert speed.head == pytest.approx(1 / tokens / 3 / costs.PROBED)
        assert speed.heads == pytest.approx(2 * speed.head)
        assert taken == 1


def test_lengths_of_time_are_worded():
    assert [scheduling.duration(each) for each in (0.2, 89, 120, 640)] == [
        "about a second",
        "about 89 seconds",
        "about 2 minutes",
        "about 11 minutes",
    ]
