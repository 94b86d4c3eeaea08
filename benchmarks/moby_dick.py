"""Does a model predict a book better late in the context than early, and are induction heads why? Windows of a text.

The in-context-learning score (Olsson et al. 2022) on windows of 512 tokens that do not overlap: bands of 20
positions around 50 and 500 with intervals over windows, and the single positions beside them; then the same windows
with the ten strongest induction heads removed, and with as many random other heads of the same layers (a draw for
every ten windows, so that 20 draws cost one pass; the interval is over draws). The heads are chosen on repeated
random tokens; in their place stands their mean over other windows of the text.
Run with `python benchmarks/moby_dick.py MODEL TEXT`; `--out FOLDER` keeps every loss (`moby_dick.nc`) and draws the
loss by position (`moby_dick.html`), `--windows 20` tries it out (about six seconds of one core a window).
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import induction_kernel as ik
from induction_kernel.model import bos_id
from induction_kernel.stats import mean_interval, ratio

LENGTH, EARLY, LATE, WIDTH = 512, 50, 500, 20
HEADS, A_DRAW = 10, 10  # heads removed, windows a draw of random heads
REFERENCE, SHORT = 8, 128  # windows averaged over, and how much of each
BANDS = (1, 5, 10, 20, 40, 60, 100, 150, 200, 300, 400, 511)


def main() -> None:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    start = time.process_time()
    model = ik.load(asked.model, n_ctx=LENGTH)
    tokens, reference = windows(model, Path(asked.text).read_text(encoding="utf-8"), asked.windows)
    heads = ik.top_heads(ik.prefix_matching(model, progress=False), HEADS)
    print(f"{len(tokens)} windows of {LENGTH} tokens; removed: {' '.join(map(str, heads))}", flush=True)
    losses = measured(model, tokens, reference, heads)
    print_scores(losses)
    print_bands(losses)
    print(f"\n{(time.process_time() - start) / 60:.0f} minutes of processor time")
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        losses.to_netcdf(asked.out / "moby_dick.nc", engine="h5netcdf")
        draw(losses, asked.out / "moby_dick.html")


def windows(model, text: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` windows in random order, and others to average over."""
    ids = torch.tensor(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    start = [] if bos_id(model) is None else [bos_id(model)]
    inside = LENGTH - len(start)
    rows = ids[: len(ids) // inside * inside].view(-1, inside)
    if len(rows) < count + REFERENCE:
        raise SystemExit(f"the text has {len(rows)} windows, wanted {count} and {REFERENCE} to average over")
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    rows = torch.cat([torch.tensor(start, dtype=torch.long).expand(len(rows), -1), rows], 1)
    return rows[:count], rows[count : count + REFERENCE, :SHORT]


def measured(model, tokens: torch.Tensor, reference: torch.Tensor, heads: list) -> xr.Dataset:
    """`loss[run, prompt, position]`: the model as it is, without these heads, without random ones."""
    whole = _loss(model, tokens)
    print(".. as it is", flush=True)
    with ik.edited(model, ik.Mean(reference), heads):
        without = _loss(model, tokens)
    print(".. without the heads", flush=True)
    random, draws = [], np.arange(len(tokens)) // A_DRAW
    for number in range(draws[-1] + 1):
        others = ik.random_heads(model, like=heads, seed=number)
        with ik.edited(model, ik.Mean(reference), others):
            random.append(_loss(model, tokens[draws == number]))
    runs = {"as it is": whole, "induction heads": without, "random heads": np.concatenate(random)}
    return xr.Dataset(
        {"loss": (("run", "prompt", "position"), np.stack(list(runs.values())))},
        {"run": list(runs), "position": np.arange(LENGTH - 1), "draw": ("prompt", draws)},
        {"heads": " ".join(map(str, heads)), "unit": "nats", "edit": "Mean over other windows"},
    )


def _loss(model, tokens: torch.Tensor) -> np.ndarray:
    return ik.loss_by_position(model, tokens)["loss"].values[:, :-1]  # the last token predicts nothing


def band(losses: xr.DataArray, centre: int, width: int) -> np.ndarray:
    """`[run, prompt]`: as in `icl_score`."""
    return losses.values[..., centre - width // 2 : centre - width // 2 + width].mean(-1).astype(float)


def print_scores(losses: xr.Dataset) -> None:
    draws = losses["draw"].values
    print(f"\n{'nats':18}{'width':>6}{'score':>8}{'interval':>18}{'spread':>8}{'effect':>9}{'interval':>18}")
    for width in (WIDTH, 1):
        scores = band(losses["loss"], LATE, width) - band(losses["loss"], EARLY, width)
        for run, score in zip(losses["run"].values, scores, strict=True):
            by_draw = run == "random heads"
            print(
                f"{run:18}{width:6}{score.mean():8.3f}{interval(score, draws, by_draw)}{score.std(ddof=1):8.2f}",
                end="",
            )
            effect = score - scores[0]
            print("" if run == "as it is" else f"{effect.mean():9.3f}{interval(effect, draws, by_draw)}")
    for run in losses["run"].values[1:]:
        share = share_lost(losses, run)
        print(f"share of the score lost, {run}: {share[0]:.2f} [{share[1]:.2f}, {share[2]:.2f}]")


def interval(values: np.ndarray, draws: np.ndarray, by_draw: bool) -> str:
    """95% over windows; over draws where each has heads of its own."""
    if by_draw:
        values = np.array([values[draws == draw].mean() for draw in np.unique(draws)])
    low, high = mean_interval(values)
    return f"{f'[{low:.3f}, {high:.3f}]':>18}"


def share_lost(losses: xr.Dataset, run: str) -> tuple[float, float, float]:
    """Ratio of means of the effect on the score to the score, with its interval over groups of windows (draws)."""
    scores = band(losses["loss"], LATE, WIDTH) - band(losses["loss"], EARLY, WIDTH)
    groups = losses["draw"].values
    whole, edited = (
        np.array([each[groups == g].sum() for g in np.unique(groups)])
        for each in (scores[0], scores[list(losses["run"].values).index(run)])
    )
    share, low, high = ratio(whole - edited, whole)
    return float(share), float(low), float(high)


def print_bands(losses: xr.Dataset) -> None:
    print(f"\n{'loss by position':18}" + "".join(f"{run:>18}" for run in losses["run"].values))
    for low, high in pairwise(BANDS):
        means = losses["loss"].values[..., low:high].mean((1, 2))
        print(f"{f'{low} to {high - 1}':18}" + "".join(f"{mean:18.3f}" for mean in means))


def draw(losses: xr.Dataset, path: Path) -> None:
    """The loss of every ten positions, one line a run."""
    smooth = losses[["loss"]].drop_vars("draw").coarsen(position=10, boundary="trim").mean()
    results = {run: smooth.sel(run=run, drop=True) for run in losses["run"].values}
    ik.plots.line_plot(results, "loss", over="position", title="Loss by position").write_html(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name, a folder or a file that load takes")
    parser.add_argument("text", help="a text file")
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder for the losses and their figure")
    return parser.parse_args()


if __name__ == "__main__":
    main()
