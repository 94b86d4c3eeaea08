"""Cells that start at different positions share a batch: equal to one whole run a cell, and one product a layer."""

import pytest
import torch
from quick import one_in
from whole_runs import CLOSE, NARROW, compared, edit_for, legal, tokens_for, weighed
from zoo import PAIRS, fresh_of, hooked_only, model_of

import induction_kernel as ik
from induction_kernel.metrics import Metric
from induction_kernel.replay._blocks import Blocks
from induction_kernel.replay._decoder import Decoder
from induction_kernel.replay._rows import Part, Rows, leaving, whole_rows

FEW = {
    "resid_pre": ("FromRun", "Scale"),
    "resid_mid": ("FromRun",),
    "mlp_out": ("FromRun",),
    "attn_out": ("Zero",),
    "resid_post": ("FromRun",),
    "z": ("FromRun", "Zero"),
    "v": ("FromRun",),
    "k": ("FromRun",),
    "q": ("Zero",),
    "pattern": ("KnockOut",),
}


def is_read(prompts):
    """Positions 2, 5 and a prompt's last: in the middle of a part, before others, at the start of some."""
    place = torch.arange(prompts.tokens.shape[1])
    return ((place == 2) | (place == 5) | (place == prompts.lengths[:, None] - 1)) & (
        place < prompts.lengths[:, None]
    )


SOME = Metric(
    "some", "nats", lambda found, _: found[:, :, 0].nan_to_num().sum(1) - found[:, 0, 1], is_read,
    lambda prompts: torch.stack([prompts.tokens[:, 0], torch.full((len(prompts),), 8)], 1),
)  # fmt: skip


def some_of_all(logits, prompts):
    logs = logits.log_softmax(-1)
    rows = torch.arange(len(prompts))
    of_first = logs[rows, :, prompts.tokens[:, 0]]
    return (of_first * is_read(prompts)).sum(1) - logs[:, 2, 8]


ROWS = [
    (name, kind, site, edit)
    for name, kind in PAIRS
    if name in ("attention-only", "GPT-2", "GPT-J", "MQA")
    for site, edits in FEW.items()
    for edit in edits
    if legal(name, edit, site, ("layer", "position"), None)
]


@pytest.mark.parametrize(("name", "kind", "site", "edit"), one_in(13, ROWS))
def test_equals_one_whole_run_a_cell(name, kind, site, edit):
    model = model_of(name, kind)
    prompts = tokens_for(model, [9, 7, 9])
    made, drawn = edit_for(edit, model, prompts, site)
    for metric in (weighed, NARROW):
        compared(
            model, prompts, edit=made, site=site, by=("layer", "position"), hold=None, metric=metric, drawn=drawn,
            close=CLOSE,
        )  # fmt: skip
    by = ("layer", "head", "position") if site in ("z", "v") else ("layer", "position")
    found, whole = (
        ik.sweep(model, prompts, edit=made, site=site, by=by, metric=metric, progress=False)["value"]
        for metric in (SOME, some_of_all)
    )
    assert float(abs(found - whole).max()) < CLOSE


@hooked_only
@pytest.mark.parametrize(
    ("site", "by"), [("resid_pre", ("layer", "position")), ("z", ("layer", "head", "position"))]
)
def test_every_layer_runs_once_for_all_positions(monkeypatch, site, by):
    model = model_of("GPT-2", "hooked")
    prompts = tokens_for(model, [9, 9])
    ik.sweep(
        model, prompts, edit=ik.Zero(), site=site, by=by, metric=NARROW, progress=False
    )  # checks the lane
    steps, step = [], Decoder.step

    def counted(self, layer, rows, **options):
        steps.append((layer, len(rows.parts)))
        return step(self, layer, rows, **options)

    monkeypatch.setattr(Decoder, "step", counted)
    ik.sweep(model, prompts, edit=ik.Zero(), site=site, by=by, metric=NARROW, progress=False)
    assert [layer for layer, _ in steps] == ([0, 1] if site == "resid_pre" else [1])
    assert all(parts >= 9 for _, parts in steps)


@hooked_only
def test_cells_that_change_nothing_are_not_run(monkeypatch):
    model = model_of("GPT-2", "hooked")
    prompts = tokens_for(model, [9, 9])
    other = prompts.tokens.clone()
    other[:, 4] = (other[:, 4] + 1) % model.cfg.d_vocab
    sizes, step = [], Decoder.step

    def counted(self, layer, rows, **options):
        sizes.append((layer, sum(len(part.ids) for part in rows.parts)))
        return step(self, layer, rows, **options)

    options = {"edit": ik.FromRun(other), "site": "resid_pre", "by": ("layer", "position"), "metric": NARROW}
    ik.sweep(model, prompts, progress=False, **options)
    monkeypatch.setattr(Decoder, "step", counted)
    found = ik.sweep(model, prompts, progress=False, **options)
    assert sizes == [(0, 1), (1, 1 + 5)]  # the stream before layer 0 differs at one position only
    unmoved = found["effect"].sel(layer=0, position=[0, 1, 2, 3, 5, 6, 7, 8])
    assert bool((unmoved == 0).all())


def test_rows_of_one_start_make_one_part():
    def rows(ids, start, *, narrow=False, fill=0.0):
        at = torch.arange(start, start + 1 if narrow else 5)[None]
        stream = torch.full((len(ids), 2, at.shape[1], 3), fill)
        return Rows.of([Part(ids, start, at, narrow)], 2, [stream])

    both = (
        rows([0], 1, fill=1.0)
        + rows([1, 2], 3, fill=2.0)
        + rows([3], 1, fill=3.0)
        + rows([4], 1, narrow=True)
    )
    assert [(part.ids, part.start, part.is_narrow) for part in both.parts] == [
        ([0, 3], 1, False), ([1, 2], 3, False), ([4], 1, True)
    ]  # fmt: skip
    assert [tuple(view.shape) for view in both.views] == [(2, 2, 4, 3), (2, 2, 2, 3), (1, 2, 1, 3)]
    assert [float(view[-1].mean()) for view in both.views] == [3.0, 2.0, 0.0]
    assert both.positions.tolist() == [1, 2, 3, 4] * 4 + [3, 4] * 4 + [1, 1]


def test_what_leaves_a_layer_is_what_is_read_or_all_if_fewer():
    part = Part([0], 2, torch.arange(2, 6)[None])
    assert leaving(part, None, 6) is part
    assert leaving(part, torch.tensor([[1, 5], [3, 4]]), 6).at.tolist() == [[2, 5], [3, 4]]
    assert leaving(part, torch.tensor([[0, 1, 2, 5]]), 6) is part
    assert leaving(Part([0], 2, torch.tensor([[2]]), True), None, 6).at.tolist() == [[2, 3, 4, 5]]


@pytest.mark.parametrize("name", ["GPT-2", "MQA"])
def test_the_blocks_run_whole_prompts(name):
    kind = next(kind for each, kind in PAIRS if each == name)
    model = model_of(name, kind)
    tokens = tokens_for(model, [6, 6]).tokens
    with torch.no_grad():
        lane = Blocks(model, tokens, None)
        found = lane.step(1, whole_rows(lane.resid_pre(1)[None].expand(3, -1, -1, -1)))
    (view,) = found.views
    assert float((view - lane.final).abs().max()) < CLOSE


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[0] in ("GPT-2", "GPT-J", "Llama")])
def test_a_batch_may_have_no_query_of_its_own(name, kind):
    """Every cell of the batch changes one position before the only one that is read."""
    model = fresh_of(name, kind, dtype=torch.float32)
    prompts = tokens_for(model, [9, 9])
    options = {"edit": ik.Zero(), "site": "resid_pre", "by": ("layer", "position"), "metric": NARROW}
    found = ik.sweep(model, prompts, layers=[1], positions=[3, 4], progress=False, **options)["value"]
    whole = ik.sweep(model, prompts, progress=False, **options)["value"].sel(layer=[1], position=[3, 4])
    assert float(abs(found - whole).max()) < 1e-5


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[0] in ("GPT-2", "GPT-J", "Llama")])
def test_a_lane_computes_no_rows_of_the_shape_of_some(name, kind):
    model = model_of(name, kind)
    lane = Decoder(model, tokens_for(model, [9, 9]).tokens, None)
    z = lane.untouched(0, "z")
    with torch.no_grad():
        for found in (lambda n: lane.logits(lane.final[:n]), lambda n: lane.maps[0].written(z[:n])):
            assert found(0).shape == (0, *found(2).shape[1:])
