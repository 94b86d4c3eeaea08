"""Which heads carry in-context learning: induction heads or function-vector heads? Yin & Steinhardt 2025 on one model.

Few-shot SST-2 (8 demonstrations) and windows of a text: the top 2% and 10% of either kind ablated, each without the
other kind's top 2%, beside 20 sets of random heads; accuracy, probability of the right label, and the difference
between the loss late and early in the windows, with 95% intervals and the share of random sets that do as much harm.
Function-vector heads are chosen on the word pairs that ship, whose mean takes the place of what is ablated. The paper
finds its effect in models of more than 345 million parameters.
Run with `python benchmarks/which_heads.py MODEL DATA`, a folder with `sst2.validation.tsv`, `sst2.train2000.tsv` and
`moby_dick.txt`; `--small` tries it out and saves nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import measuring
import torch

import induction_kernel as ik
from induction_kernel.model import bos_id

LENGTH, SHARES, CONTROLS, SHOTS = 522, (0.02, 0.1), 20, 8
MEASURES = ("accuracy", "label_probability", "icl_score")


def main() -> None:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    start = time.process_time()
    model = ik.load(asked.model, n_ctx=1024)
    pool = ik.data.load_classification(asked.data / "sst2.train2000.tsv")
    queries, _ = ik.data.load_classification(asked.data / "sst2.validation.tsv").split(asked.prompts)
    episodes = ik.data.draw_episodes(pool, queries, shots=SHOTS)
    text = windows(model, (asked.data / "moby_dick.txt").read_text(encoding="utf-8"), asked.windows)
    options: dict[str, Any] = (
        {"n_controls": 2, "early": 20, "late": 90} if asked.small else {"n_controls": CONTROLS}
    )
    text = text[:, :128] if asked.small else text
    found = ik.fewshot.which_heads(model, episodes, text, shares=SHARES, **options)
    minutes = (time.process_time() - start) / 60
    told(found)
    print(f"\n{minutes:.0f} minutes of processor time")
    if not asked.small:
        save(found, minutes)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--prompts", type=int, default=128, help="that heads are ablated on")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="to try this out: nothing is saved")
    return parser.parse_args()


def windows(model: Any, text: str, count: int) -> torch.Tensor:
    """Windows of the text that do not overlap, drawn at random, with the BOS token first if there is one."""
    ids = torch.tensor(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    start = [] if bos_id(model) is None else [bos_id(model)]
    inside = LENGTH - len(start)
    rows = ids[: len(ids) // inside * inside].view(-1, inside)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count]]
    return torch.cat([torch.tensor(start, dtype=torch.long).expand(len(rows), -1), rows], 1)


def told(found: Any) -> None:
    for share in found["share"].values:
        of = found.sel(share=share)
        both = float(of["overlap"])
        print(f"\n{share:.0%} of heads: {int(of['n_heads'])}; {both:.2f} of the top heads are of both kinds")
        for measure in MEASURES:
            print(f"{measure}, untouched {float(of[run_of(measure)].sel(run='untouched').mean()):.3f}")
            for name in found["set"].values:
                at = of.sel(set=name)
                change, low, high = (float(at[f"{measure}_change{end}"]) for end in ("", "_low", "_high"))
                p = float(at[f"{measure}_p"])
                print(
                    f"  without {name:22} {change:+.3f} [{low:+.3f}, {high:+.3f}]  "
                    + (
                        f"p {p:.3f}  {at[f'{measure}_verdict'].item()}" if p == p else ""
                    )  # none of random heads
                )
            apart = float(of[f"{measure}_difference_p"])
            print(f"  more harm: {of[f'{measure}_decides'].item()} (p {apart:.3f})")
    print(f"\ncorrelation of the two scores {float(found['correlation']):.2f}")
    print(f"tasks: {found.attrs['tasks']}; {found.attrs['n_verdicts']} verdicts", flush=True)


def run_of(measure: str) -> str:
    return {"accuracy": "correct", "label_probability": "right_probability", "icl_score": "late_less_early"}[
        measure
    ]


def save(found: Any, minutes: float) -> None:
    rows = []
    for share in found["share"].values:
        for name in found["set"].values:
            at = found.sel(share=share, set=name)
            drawn = name not in found["run"].values
            row: dict[str, Any] = {"share": float(share), "set": str(name)}
            row["heads"] = "" if drawn else str(at["heads"].sel(run=name).item())
            for measure in MEASURES:
                for key in (
                    "",
                    "_change",
                    "_change_low",
                    "_change_high",
                    "_excess",
                    "_excess_low",
                    "_excess_high",
                    "_p",
                    "_p_less",
                ):
                    value = float(at[measure + key])
                    row[measure + key] = None if value != value else round(value, 4)  # random heads have no p
                row[f"{measure}_verdict"] = str(at[f"{measure}_verdict"].item())
            rows.append(row)
    decided = {
        f"{measure}_decides": [str(each) for each in found[f"{measure}_decides"].values]
        for measure in MEASURES
    }
    decided |= {
        f"{measure}_difference_p": found[f"{measure}_difference_p"].values.round(4).tolist()
        for measure in MEASURES
    }
    untouched = {measure: float(found[run_of(measure)].sel(run="untouched").mean()) for measure in MEASURES}
    measuring.save(
        "which_heads", "python benchmarks/which_heads.py MODEL DATA", rows, untouched=untouched, **decided,
        overlap=found["overlap"].values.tolist(), correlation=float(found["correlation"]), minutes=minutes,
        tasks=found.attrs["tasks"], n_task_prompts=found.attrs["n_task_prompts"],
        n_verdicts=found.attrs["n_verdicts"], n_prompts=int(found.sizes["prompt"]),
        n_windows=int(found.sizes["window"]),
    )  # fmt: skip


if __name__ == "__main__":
    main()
