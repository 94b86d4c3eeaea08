"""The comparison of GPT-2 small with published values, on a small model of as many layers and heads."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"d_model": 24, "d_head": 2, "d_mlp": 48, "d_vocab": 10001, "n_ctx": 101}


@pytest.fixture(scope="module")
def published():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield runpy.run_path(str(ROOT / "benchmarks" / "published.py"))
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def model(published):
    return published["random_model"](published["SHAPE"] | SMALL)


def test_the_scores_are_means_of_the_diagonal(published, model):
    rows = published["compared"](model)
    tokens = published["repeats"](model, 0).tokens
    assert tokens.shape == (10, 101)
    assert torch.equal(tokens[:, 1:51], tokens[:, 51:])
    assert 1000 <= int(tokens[:, 1:].min()) <= int(tokens[:, 1:].max()) < 10000
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    for row in rows[:-1]:
        layer, head = map(int, row["head"][1:].split("H"))
        stripe = cache["pattern", layer][:, head].diagonal(offset=1 - 50, dim1=-2, dim2=-1)
        assert row["ours"] == pytest.approx(float(stripe.mean()), abs=1e-4)
        assert row["difference"] == pytest.approx(row["ours"] - row["published"])
        assert 1 <= row["rank"] <= 144
    assert [row["head"] for row in rows] == ["L5H5", "L6H9", "L7H10", "L5H1", "L7H2", "L10H7"]
    assert [row["published"] for row in rows] == [0.93, 0.91, 0.91, 0.91, 0.83, "below 0"]
    assert rows[-1]["agrees"] == (rows[-1]["ours"] < 0)


def test_the_command_prints_a_table_and_writes_it(published, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(published["main"].__globals__, "SHAPE", published["SHAPE"] | SMALL)
    target = tmp_path / "found" / "published.json"
    monkeypatch.setattr(sys, "argv", ["published.py", "gpt2", "--random", "--out", str(target)])
    published["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        "head",
        "L5H5",
        "L6H9",
        "L7H10",
        "L5H1",
        "L7H2",
        "L10H7",
    ]
    found = json.loads(target.read_text())
    assert found["random"] is True
    assert found["command"] == "python benchmarks/published.py gpt2 --random"
    assert np.isfinite([row["ours"] for row in found["rows"]]).all()


def test_another_shape_is_refused(published):
    from zoo import tiny

    with pytest.raises(ValueError, match="12 layers of 12 heads"):
        published["compared"](tiny("GPT-2"))
