"""The census: its parts one by one, the names that heads earn, the null, the hand-made model, figure and page."""

import functools
import itertools
import re
from types import SimpleNamespace

import census_naive
import numpy as np
import passes
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, hand_weights
from zoo import fresh, hooked_only

import induction_kernel as ik
from induction_kernel.head_census import BEHAVIOURS, Behaviour, beside, passages, table
from induction_kernel.head_census._census import prompts_of
from induction_kernel.head_census._concept_prompts import entity_prompts
from induction_kernel.head_census._fingerprint import fingerprints, holm, names, strengths
from induction_kernel.head_census._tables import every_head
from induction_kernel.loading import build
from induction_kernel.loading._embedded import read_recipe
from induction_kernel.plots._census import COLOURS, _pale
from induction_kernel.scorers._copying import own_prompts
from induction_kernel.scorers._text_scores import beside_neighbours

SUMMARY = (
    "mean", "low", "high", "chance", "excess", "excess_low", "excess_high", "threshold", "tested", "passes", "rank",
    "n",
)  # fmt: skip

SETS = (
    "repeated tokens",
    "tokens repeated four times",
    "ordinary text",
    "few-shot prompts",
    "needles in text",
)


@functools.cache
def tiny():
    return ik.load("tiny")


@functools.cache
def counted():
    return ik.census(tiny(), n_prompts=16, progress=False)


@functools.cache
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


@functools.cache
def of_hand():
    return ik.census(by_hand(), n_prompts=16, progress=False)


def untrained(seed, scale=0.1):
    """The embedded model's shape and words, with random weights."""
    architecture, n = read_recipe()["architecture"], tiny().cfg.n_heads
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed.W_E": (architecture["d_vocab"], 64), "pos_embed.W_pos": (architecture["n_ctx"], 64)}
    shapes |= {"unembed.W_U": (64, architecture["d_vocab"])}
    for layer in range(architecture["n_layers"]):
        shapes |= {f"blocks.{layer}.attn.W_{key}": (n, 64, architecture["d_head"]) for key in "QKV"}
        shapes |= {f"blocks.{layer}.attn.W_O": (n, architecture["d_head"], 64)}
    weights = {key: scale * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return build(architecture, weights, tokenizer=tiny().tokenizer)


def small(family, seed):
    """A random model of a family at the usual small start, without a tokenizer."""
    model = fresh(family, n_ctx=96, d_vocab=243, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2)
    return model


def topics(model, n):
    """Episodes of the one task in the embedded model's language."""
    queries, pool = ik.data.word_pairs("topics", model).split(n, seed=0)
    return ik.data.draw_episodes(pool, queries, shots=8, separator=" ", seed=0)


def parts(model, n_prompts):
    """Every behaviour by its own function, on the census's prompts."""
    prompts, _ = prompts_of(model, None, n_prompts=n_prompts, seed=0)
    repeats, copies, text, shots, facts = (prompts[key] for key in SETS)
    direct = ik.direct_effect(model, repeats)
    return {
        "induction": ik.summarise(ik.induction(model, repeats)),
        "prefix_matching": ik.summarise(ik.prefix_matching(model, copies)),
        "duplicate_token": ik.summarise(ik.duplicate_token(model, repeats)),
        "direct_effect": ik.summarise(direct),
        "copy_suppression": ik.summarise(direct.assign(score=-direct["score"], control=-direct["control"])),
        "previous_token": ik.summarise(beside_neighbours("previous_token", 1, "", "")(model, text)),
        "first_token": ik.summarise(ik.first_token(model, text)),
        "current_token": ik.summarise(beside_neighbours("current_token", 0, "", "")(model, text)),
        "retrieval": ik.summarise(ik.head_census.retrieval_forced(model, facts)),
        "label_attention": ik.summarise(ik.label_attention(model, shots), variable="right"),
        "function_vector": ik.summarise(ik.fewshot.function_vector_effect(model, topics(model, n_prompts))),
        "copying": ik.summarise(ik.copying(model, own_prompts(model, prompts=n_prompts))),
        "token_copying": ik.summarise(ik.head_census.token_copying(model, prompts=n_prompts)),
        "ov_eigenvalues": ik.summarise(ik.ov_eigenvalues(model)),
    }


def test_the_census_is_its_parts():
    alone = parts(tiny(), 16)
    assert set(counted()["scorer"].values.tolist()) == set(alone)
    for name, one in alone.items():
        of_census = counted().sel(scorer=name)
        for key in SUMMARY:
            np.testing.assert_allclose(
                of_census[key].values.astype(float),
                one[key].values.astype(float),
                rtol=1e-9,
                err_msg=f"{name}, {key}",
            )
        if "control" in one:
            np.testing.assert_allclose(of_census["control"].values, one["control"].values, rtol=1e-9)
        else:
            assert bool(of_census["control"].isnull().all())


def test_one_behaviour_of_it_is_a_summary():
    one = counted().sel(scorer="induction")
    assert ik.summarise(one) is one
    assert [str(head) for head in ik.top_heads(one, 2)] == list(ik.head_table(one, 2).index)
    assert len(ik.head_table(one, None)) == 16
    assert ik.head_map(one).data[0].z.shape == (2, 8)
    assert "chance" in ik.head_table(counted().sel(scorer="copying"))


@pytest.mark.parametrize("seed", range(20))
def test_levels_are_those_of_holm(seed):
    drawn = np.random.default_rng(seed)
    p = dict(zip("abcdefgh", drawn.uniform(0, 0.05, 8) ** drawn.integers(1, 3, 8), strict=True))

    def summary_at(name, at):
        return {"passes": xr.DataArray([1.0 if p[name] <= at else 0.0, 0.0])}

    found = holm(summary_at, list(p), 0.05)
    assert {name for name, (_, one) in found.items() if one["passes"].values.any()} == set(
        census_naive.holm(p, 0.05)
    )
    assert set(found) == set(p)
    assert all(0.05 / 8 <= at <= 0.05 for at, _ in found.values())


@pytest.mark.parametrize("most", [1.0, None])
def test_strength_is_a_share_of_what_is_possible(most):
    drawn = np.random.default_rng(0)
    dims = ("prompt", "layer", "head")
    score, control = drawn.uniform(0, 1, (10, 2, 3)), drawn.uniform(0, 0.5, (10, 2, 3))
    result = xr.Dataset(
        {"score": (dims, score), "control": (dims, control), "chance": ("prompt", np.zeros(10))},
        coords={"layer": [0, 1], "head": [0, 1, 2]},
    )
    behaviour = SimpleNamespace(most=most)
    for half, at in zip(strengths(result, behaviour), (0, 1), strict=True):
        np.testing.assert_allclose(half, census_naive.strength(score[at::2], control[at::2], most), rtol=1e-9)


def test_heads_made_by_hand_have_their_names():
    """L0H0 reads the previous token, L1H0 is an induction head, L1H2 reads copies.

    L0H1 reads one fixed lag (itself, before that), the others nothing.
    """
    found = {
        str(name): said
        for name, said in zip(
            *(of_hand()[key].values.ravel() for key in ("name", "fingerprint")), strict=True
        )
    }
    assert found["L0H0"] == "previous token"
    assert {"induction", "prefix matching"} <= set(found["L1H0"].split(", "))
    assert set(found["L1H2"].split(", ")) == {"duplicate token", "current token"}
    assert found["L0H1"] == "current token"
    assert {found[name] for name in ("L0H2", "L1H1")} == {"unnamed"}
    one = of_hand().sel(scorer="previous_token", layer=0, head=0)
    assert float(one["mean"]) == pytest.approx(1, abs=1e-6)
    assert float(one["second_half"]) == pytest.approx(1, abs=1e-6)
    assert float(one["particular"]) == pytest.approx(5 / 6)  # one of six heads has the name


def test_what_a_model_cannot_be_asked_is_left_out_and_said():
    left = of_hand().attrs["left_out"]
    assert "label_attention" in left
    assert "tokenizer" in left
    assert not {"label_attention", "function_vector"} & set(of_hand()["scorer"].values.tolist())
    assert of_hand().attrs["text"] == "random tokens"


def test_induction_heads_of_the_embedded_model_are_named():
    names = counted()["named"].sel(scorer="prefix_matching")
    assert bool((names.sel(layer=1) == 1).any())
    assert not bool((names.sel(layer=0) == 1).any())
    assert bool((counted()["named"].sel(scorer="previous_token", layer=0) == 1).any())


def test_a_name_that_another_one_explains_sets_no_head_apart():
    """One layer of three heads: named after both, after the consequence alone, after neither."""
    dims = ("scorer", "layer", "head")
    found = xr.Dataset(
        {
            "named": (dims, [[[1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]]]),
            "first_half": (dims, [[[0.4, 0.1, 0.0]], [[0.9, 0.8, 0.1]]]),
        },
        coords={"scorer": ["induction", "retrieval"], "least": ("scorer", [0.1, 0.1])},
    )
    readable = {"induction": "induction", "retrieval": "retrieval"}
    alike = fingerprints(found, readable, {"induction": (), "retrieval": ()})
    beyond = fingerprints(found, readable, {"induction": (), "retrieval": ("induction", "not measured")})
    assert alike["fingerprint"].tolist() == [["retrieval, induction", "retrieval", "unnamed"]]
    assert beyond["fingerprint"].tolist() == alike["fingerprint"].tolist()
    assert alike["behaviour"].tolist() == [["retrieval", "retrieval", ""]]
    assert beyond["behaviour"].tolist() == [["induction", "retrieval", ""]]
    np.testing.assert_allclose(beyond["particular"], [[0.4 * 2 / 3, 0.8 / 3, 0.0]])


def test_a_head_of_whose_names_none_sets_it_apart_has_no_behaviour():
    """Named after the second alone, of which the first is the cause, and the other way round."""
    dims = ("scorer", "layer", "head")
    found = xr.Dataset(
        {"named": (dims, [[[0.0]], [[1.0]], [[1.0]]]), "first_half": (dims, [[[0.9]], [[0.5]], [[0.4]]])},
        coords={"scorer": ["a", "b", "c"], "least": ("scorer", [0.1] * 3)},
    )
    circle = fingerprints(found, {key: key for key in "abc"}, {"a": (), "b": ("c",), "c": ("b",)})
    assert circle["fingerprint"].tolist() == [["b, c"]]
    assert circle["behaviour"].tolist() == [[""]]
    assert circle["particular"].tolist() == [[0.0]]


def test_behaviours_that_explain_one_another_are_refused():
    a, b = (
        Behaviour(name, "does", "none", "ordinary text", ik.first_token, beyond=(other,))
        for name, other in ("ab", "ba")
    )
    for wanted in ([a, b], [Behaviour("a", "does", "none", "ordinary text", ik.first_token, beyond=("a",))]):
        with pytest.raises(ik.errors.Refused, match="none explains itself"):
            ik.census(tiny(), behaviours=wanted)


def test_strong_scores_that_could_not_be_tested_are_said():
    dims = ("scorer", "layer", "head")
    found = xr.Dataset(
        {
            "named": (dims, [[[np.nan, np.nan, 1.0]], [[0.0, 0.0, 0.0]], [[np.nan] * 3]]),
            "first_half": (dims, [[[0.6, 0.05, 0.6]], [[0.0] * 3], [[0.9] * 3]]),
        },
        coords={"scorer": ["first_token", "other", "weights"], "least": ("scorer", [0.1] * 3)},
    )
    readable = {"first_token": "first token", "other": "other", "weights": "weights"}
    said = fingerprints(found, readable, dict.fromkeys(readable, ()))["fingerprint"].tolist()
    assert said == [["unnamed (too few prompts to test first token)", "unnamed", "first token"]]


def test_seed_and_number_of_prompts_reach_every_measure():
    names = ["copying", "token_copying"]
    a, b = (
        ik.census(tiny(), behaviours=names, n_prompts=n, seed=seed, rows=1, progress=False)
        for n, seed in ((12, 0), (14, 7))
    )
    for found, n in ((a, 12), (b, 14)):
        assert (found["n"] == n).all()
    assert not np.isclose(a["mean"], b["mean"]).any()


def test_too_few_prompts_of_text_are_refused_at_the_call():
    with pytest.raises(ik.errors.Refused, match="got 1: pass more, or one long text"):
        ik.census(tiny(), text=torch.tensor([[0, 5, 6, 7, 8]]), behaviours=["first_token"])


def alibi(seed):
    """An untrained model as TransformerLens starts it, with ALiBi: it attends most to what stands nearest."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    shape = HookedTransformerConfig(
        n_layers=2, d_model=64, n_ctx=96, d_head=16, n_heads=4, d_vocab=243, attn_only=True, seed=seed,
        positional_embedding_type="alibi", normalization_type="LN", device="cpu",
    )  # fmt: skip
    return HookedTransformer(shape)


def test_names_follow_from_the_numbers():
    found = counted()
    words = {str(name): str(name).replace("_", " ") for name in found["scorer"].values}
    for layer, head in np.ndindex(2, 8):
        one = found.sel(layer=layer, head=head)
        named = {words[str(each)] for each in found["scorer"].values[one["named"].values == 1]}
        said = str(one["fingerprint"].item())
        if named:
            assert set(said.split(", ")) == named
        else:
            assert said.startswith("unnamed")
        assert (str(one["behaviour"].item()) == "") == (not named)
    passes, named = found["passes"].values, found["named"].values
    assert not ((named == 1) & (passes != 1)).any()  # levels are lower, so names are fewer
    assert bool(np.isnan(found["named"].sel(scorer="ov_eigenvalues")).all())
    assert (found["named_level"].dropna("scorer") <= 0.05).all()


def test_a_name_needs_significance_and_a_least_strength():
    passes, strength = np.array([1.0, 1.0, 1.0, 0.0, np.nan]), np.array([0.3, 0.1, 0.09, 0.9, 0.9])
    np.testing.assert_array_equal(names(passes, strength, 0.1), [1, 1, 0, 0, np.nan])
    np.testing.assert_array_equal(names(passes, strength, 0.0), [1, 1, 1, 0, np.nan])


def test_names_are_those_that_pass_and_are_strong():
    """Without a least strength the embedded model has more names; with one it has those of them that are as strong."""
    wanted = ["induction", "prefix_matching", "previous_token", "current_token"]
    measured = functools.partial(ik.census, tiny(), behaviours=wanted, n_prompts=12, rows=1, progress=False)
    own, all_of_them, strong = measured(), measured(least=0), measured(least=0.5)
    assert own["least"].values.tolist() == [0.1] * 4
    assert [each.attrs["least"] for each in (own, all_of_them, strong)] == ["of each behaviour", "0", "0.5"]
    significant = all_of_them["named"].values == 1
    for found, least in ((own, 0.1), (strong, 0.5)):
        expected = significant & (found["first_half"].values >= least)
        np.testing.assert_array_equal(found["named"].values == 1, expected)
        assert 0 < expected.sum() < significant.sum()


@pytest.mark.parametrize("least", [-0.1, 1, True, "much", float("nan")])
def test_a_least_strength_that_none_can_have_is_refused(least):
    with pytest.raises(ik.errors.Refused, match="wanted a least strength from 0 to below 1"):
        ik.census(tiny(), least=least)
    with pytest.raises(ik.errors.Refused, match="wanted a least strength from 0 to below 1"):
        Behaviour("mine", "does nothing", "none", "ordinary text", ik.previous_token, least=least)


def test_few_prompts_name_nobody():
    found = ik.census(tiny(), n_prompts=12, level=1e-4, behaviours=["induction"], progress=False)
    assert set(found["fingerprint"].values.ravel()) == {"not tested"}
    assert bool(found["particular"].isnull().all())
    assert len(table(found)) == 0


def shows_any(model):
    found = ik.census(model, n_prompts=16, rows=1, progress=False)
    return sorted(found["scorer"].values[(found["named"].values == 1).any((1, 2))].tolist())


def test_an_untrained_model_has_no_named_head():
    assert shows_any(untrained(0)) == []


@hooked_only
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_falling_off_with_distance_is_no_behaviour():
    model = alibi(0)
    attention = ik.summarise(
        ik.current_token(model, prompts_of(model, None, n_prompts=16, seed=0)[0]["ordinary text"])
    )
    assert (attention["passes"] == 1).any()  # beyond the mean of the other keys
    assert shows_any(model) == []


@pytest.mark.slow
@hooked_only
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_of_untrained_models_at_most_one_in_twenty_shows_any_behaviour():
    models = [(untrained, seed) for seed in range(100, 110)]
    models += [
        (functools.partial(small, family), seed)
        for family in ("attention-only", "GPT-2", "Llama")
        for seed in range(10)
    ]
    models += [(alibi, seed) for seed in range(10)]
    shown = [(seed, found) for make, seed in models if (found := shows_any(make(seed)))]
    assert len(shown) <= 2, shown


def test_a_behaviour_of_ones_own():
    two_back = ik.AttentionScorer("two back", ik.previous_token.mask, matched=False, skip_first=True)
    mine = Behaviour("mine", "attends to the previous token", "this test", "ordinary text", two_back)
    found = ik.census(tiny(), behaviours=["induction", mine], n_prompts=12, progress=False)
    assert found["scorer"].values.tolist() == ["induction", "mine"]
    text, _ = prompts_of(tiny(), None, n_prompts=12, seed=0)
    alone = ik.summarise(ik.previous_token(tiny(), text["ordinary text"]))
    np.testing.assert_array_equal(found["mean"].sel(scorer="mine"), alone["mean"])


def test_the_table_of_behaviours():
    assert len({each.name for each in BEHAVIOURS}) == len(BEHAVIOURS)
    assert all(each.meaning and each.paper and not each.meaning.endswith(".") for each in BEHAVIOURS)
    on_output = {"direct_effect", "copy_suppression", "function_vector", "token_copying", "concept_copying"}
    assert {each.name for each in BEHAVIOURS if each.least < 0.1} == on_output


def test_the_table_reports_on_the_half_that_did_not_choose():
    shown = table(counted(), 5)
    assert len(shown) == 5
    for name, row in shown.iterrows():
        (head,) = ik.heads.as_heads(name)
        one = counted().sel(layer=head.layer, head=head.head, scorer=row["behaviour"].replace(" ", "_"))
        assert row["strength"] == pytest.approx(float(one["second_half"]), abs=6e-4)
        assert row["heads"] == int((counted()["named"].sel(scorer=one["scorer"].item()) == 1).sum())
    order = [float(counted()["particular"].sel(layer=h.layer, head=h.head)) for h in ik.heads.as_heads(shown)]
    assert order == sorted(order, reverse=True)


def test_two_models_side_by_side():
    same = beside(counted(), counted())
    assert (same["first"].dropna() == same["in_both"][same["first"].notnull()]).all()
    assert same["spearman"].dropna().eq(1).all()
    other = beside(counted(), of_hand())
    assert "spearman" not in other
    assert "label attention" not in other.index


def test_every_head_and_behaviour_has_a_row():
    frame = every_head(counted())
    assert len(frame) == 16 * counted().sizes["scorer"]
    row = frame[(frame["scorer"] == "copying") & (frame["name"] == "L1H3")].iloc[0]
    assert row["mean"] == float(counted()["mean"].sel(scorer="copying", layer=1, head=3))


def test_it_survives_a_file(tmp_path):
    counted().to_netcdf(tmp_path / "census.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "census.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), counted())
        assert {key: back.attrs[key] for key in counted().attrs} == counted().attrs


def test_passages_show_the_induction_head_what_follows_the_copy():
    """On [0, r, r] the strongest pairs of L1H0 are a token and what came after its first copy, weight 1."""
    prompts = ik.repeated_tokens(by_hand(), bos=0, prompts=2, period=6)
    found = passages(by_hand(), prompts, rows=2, progress=False).sel(layer=1, head=0)
    for row in (0, 1):
        one = found.isel(row=row)
        tokens = prompts.tokens[int(one["prompt"])]
        assert float(one["weight"]) == pytest.approx(1, abs=1e-6)
        assert float(one["weighted"]) == pytest.approx(1, abs=1e-6)  # its value writes one 1
        assert int(tokens[int(one["key"]) - 1]) == int(tokens[int(one["query"])])


def test_a_long_text_is_cut_into_windows():
    text = " ".join(["fox dax ; apple wug ; fox"] * 400)
    found = ik.census(tiny(), text=text, behaviours=["previous_token"], n_prompts=12, progress=False)
    assert found.attrs["text"] == "windows of the text given"
    assert int(found["n"].max()) == 12


def test_nothing_is_measured_twice(monkeypatch):
    """One pass over each set of prompts (and its control) for all attention scores together."""
    from induction_kernel.head_census import _measuring

    calls = []
    observe = _measuring.observe
    monkeypatch.setattr(
        _measuring, "observe", lambda *given, **options: calls.append(given) or observe(*given, **options)
    )
    ik.census(
        tiny(), behaviours=["induction", "duplicate_token", "direct_effect"], n_prompts=12, progress=False
    )
    assert len(calls) == 1


def test_each_run_that_copying_takes_from_is_made_once():
    """With the entity, and with another one: z and the probability in it come from the same pass."""
    given = {"prompts": 8, "length": 9, "seed": 0}
    groups = entity_prompts(tiny(), None, **given)
    with passes.counted(tiny()) as seen:
        ik.head_census.token_copying(tiny(), **given, progress=False)
    due = [each[:, :-1] for group in groups for each in (group.source.tokens, group.other.tokens)]
    for tokens in due:
        lengths = torch.full((len(tokens),), tokens.shape[1])
        assert passes.times_run(seen, SimpleNamespace(tokens=tokens, lengths=lengths)) == (1, 1)


def test_the_map_colours_named_heads_and_no_others():
    figure = ik.plots.fingerprint_map(counted())
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    coloured = sum(np.isfinite(np.array(trace.z, dtype=float)).sum() for trace in heats[1:])
    assert coloured == int((counted()["behaviour"] != "").sum())
    assert np.isfinite(np.array(heats[0].z, dtype=float)).sum() + coloured == 16
    assert {trace.name for trace in figure.data if trace.showlegend} >= {"previous token"}


def test_names_that_many_heads_have_are_told_apart_when_pale():
    order = [each.name for each in BEHAVIOURS]
    often = ["induction", "duplicate_token", "previous_token", "first_token", "current_token"]
    pale = [np.array(re.findall(r"\d+", _pale(COLOURS[order.index(name)])), dtype=float) for name in often]
    for one, other in itertools.combinations(pale, 2):
        assert np.linalg.norm(one - other) > 35  # of 255 a channel; 31 between two pinks that looked alike


def test_the_page_says_what_was_found(tmp_path):
    where = ik.report(counted(), tmp_path / "census.html", model=tiny(), progress=False)
    text = where.read_text()
    for name in table(counted(), 20).index:
        assert f'id="card-{name}"' in text
    assert f"{int((counted()['behaviour'] != '').sum())} of 16 heads" in text
    assert "ik-explorer" in text
    bare = ik.report(counted(), tmp_path / "bare.html", progress=False).read_text()
    assert 'class="ik-explorer"' not in bare
    with pytest.raises(ValueError, match="wanted the model of this census"):
        ik.report(counted(), tmp_path / "other.html", model=by_hand())


def test_tokens_of_a_text_are_never_markup(tmp_path):
    found = counted().copy()
    found["query_text"] = xr.full_like(found["query_text"], "<script>alert(1)</script>").astype(str)
    text = ik.report(found, tmp_path / "census.html", progress=False).read_text()
    assert "<script>alert(1)" not in text


def test_function_vectors_of_a_census_are_of_tasks_that_stay_the_same(monkeypatch):
    """Two tasks stand in for the four in English: both halves of the prompts hold both."""
    from induction_kernel.head_census import _own_prompts

    first, second = topics(tiny(), 6), topics(tiny(), 5)
    monkeypatch.setattr(_own_prompts, "shipped_tasks", lambda *given, **options: [first, second])
    drawn = _own_prompts.Drawn(11, 0)
    found = _own_prompts.own_function_vectors(tiny(), drawn, progress=False)
    each = [ik.fewshot.function_vector_effect(tiny(), task, seed=0) for task in (first, second)]
    rows = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3), (0, 4), (0, 5), (1, 4)]
    for at, (task, row) in enumerate(rows):
        for key in ("score", "control"):
            np.testing.assert_array_equal(found[key].isel(prompt=at), each[task][key].isel(prompt=row))
    assert found.attrs["n_prompts"] == 11
