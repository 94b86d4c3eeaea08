"""Does a function vector carry a task to prompts that do not show it? Zero-shot accuracy by layer, with controls.

The tasks that ship with the package, each split in two: heads are chosen by their function-vector scores on the other
tasks' words, the vector is read on one part of the task's own words, and added to zero-shot prompts of the other part.
Beside it the vector of shuffled labels, vectors of random heads scaled to its length, and the accuracy of the same
queries after ten demonstrations. The best layer is chosen on every second query and reported on the others; numbers by
layer are of all queries. Then the embedded model's own task.
Run with `python benchmarks/function_vectors.py MODEL`; `--small` tries it out and saves nothing.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import measuring
import torch
import xarray as xr

import induction_kernel as ik

TASKS = ("antonyms", "capitals", "plurals", "past_tense")
HEADS, SHOTS = 10, 10  # as many as for GPT-J in Todd et al. 2024
KEPT = ("accuracy", "label_accuracy", "probability", "accuracy_gain", "probability_gain", "accuracy_excess")


def main() -> None:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    start = time.process_time()
    model = ik.load(asked.model, n_ctx=512)
    parts = {name: drawn(model, name) for name in TASKS}
    began = time.process_time()
    scores = {name: scored(model, parts[name][0][: asked.prompts]) for name in TASKS}
    seconds = (time.process_time() - began) / len(TASKS)
    print(
        f"{seconds:.0f} s of processor time for the score of all heads on {asked.prompts} prompts of a task",
        flush=True,
    )
    rows = []
    for name in TASKS:
        others = xr.concat(
            [scores[each] for each in TASKS if each != name], "prompt",
            data_vars="minimal", coords="minimal", compat="override", join="override",
        )  # fmt: skip
        rows.append(of_task(model, name, *parts[name], ik.top_heads(others, HEADS), asked.controls))
    tiny = ik.load("tiny")
    texts = ik.data.word_pairs("topics", tiny)
    test, train = texts.split(24)
    train, test = (
        episodes(train, each, shots=8, separator=" ", seed=seed) for seed, each in enumerate((train, test))
    )
    heads = ik.top_heads(scored(tiny, train), 2)
    rows.append(of_task(tiny, "topics (embedded model)", train, test, heads, asked.controls))
    minutes = (time.process_time() - start) / 60
    print(f"{minutes:.1f} minutes of processor time")
    if not asked.small:
        command = "python benchmarks/function_vectors.py MODEL"
        further = {"seconds_of_scores_a_task": seconds, "minutes": minutes, "prompts_scored": asked.prompts}
        measuring.save("function_vectors", command, rows, **further)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=16, help="that heads are chosen on, of each task")
    parser.add_argument("--controls", type=int, default=20, help="vectors of random heads")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="to try this out: nothing is saved")
    return parser.parse_args()


def drawn(model: Any, name: str) -> tuple[Any, Any]:
    """Episodes of one half of a task's words, and of the other half as queries, with demonstrations of the first."""
    pairs = ik.data.word_pairs(name, model)
    test, train = pairs.split(len(pairs) // 2)
    parts = [
        episodes(train, each, shots=SHOTS, sampling="random", seed=at)
        for at, each in enumerate((train, test))
    ]
    return parts[0], parts[1]


def episodes(pool: Any, queries: Any, **options: Any) -> Any:
    """Episodes whose queries may be in the pool: their own demonstrations leave them out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return ik.data.draw_episodes(pool, queries, **options)


def scored(model: Any, episodes: Any) -> xr.Dataset:
    return ik.fewshot.function_vector_effect(model, episodes, progress=False)


def of_task(
    model: Any, name: str, train: Any, test: Any, heads: list[ik.Head], controls: int
) -> dict[str, Any]:
    """One row: the task's numbers by layer."""
    vector = ik.fewshot.function_vector(model, train, heads, n_controls=controls, control="any layer")
    queries = ik.data.zero_shot(model, test)
    found = ik.fewshot.apply_function_vector(model, queries, vector, progress=False)
    nothing = torch.zeros(model.cfg.d_model)
    shown = ik.fewshot.apply_function_vector(model, test.prompts(model), nothing, layers=[0], progress=False)
    at_once = shown.sel(vector="none", layer=0)
    few = {key: float(at_once[key]) for key in ("accuracy", "label_accuracy", "probability")}
    third = model.cfg.n_layers // 3  # the layer that Todd et al. 2024 choose
    best = best_layer(found.isel(prompt=slice(0, None, 2)))
    options: dict[str, Any] = {"layers": [best], "progress": False}
    on_others = ik.fewshot.apply_function_vector(model, queries[1::2], vector, **options).isel(layer=0)
    print(
        f"\n{name}: {len(test)} queries, heads {vector.attrs['heads']}; answers: chance {chance(found):.3f}"
    )
    print(f"after {train.shown.shape[1]} demonstrations: accuracy {few['accuracy']:.2f}")
    chosen = f"layer {best}, chosen on every second query, on the {on_others.sizes['prompt']} others"
    for title, at in ((f"layer {third}", found.isel(layer=third)), (chosen, on_others)):
        print(title)
        for each in found["vector"].values:
            print(f"  {each:16} {in_words(at.sel(vector=each))}", flush=True)
    by_layer = {
        key + end: {str(each): rounded(found[key + end].sel(vector=each)) for each in found["vector"].values}
        for key in KEPT
        for end in ("", "_low", "_high")
    }
    lengths = dict(zip(map(str, found["vector"].values), rounded(found["norm"]), strict=True))
    return {
        "task": name, "heads": vector.attrs["heads"], "queries": len(test), "few_shot": few, "chance": chance(found),
        "length": lengths, "best_layer": best, "at_best_layer": numbers(on_others),
        "queries_at_best_layer": on_others.sizes["prompt"], "chance_at_best_layer": chance(on_others),
        **writers(model, train), "by_layer": by_layer,
    }  # fmt: skip


def best_layer(found: xr.Dataset) -> int:
    """The layer after which most of these prompts gain from the function vector; the first of equals."""
    right = found["correct"].transpose("prompt", "vector", "layer").mean("prompt")
    return int(right.sel(vector="function vector").argmax("layer"))


def numbers(at: xr.Dataset) -> dict[str, dict[str, float]]:
    """Each number of one layer, by vector."""
    return {
        key + end: {
            str(each): round(float(at[key + end].sel(vector=each)), 4) for each in at["vector"].values
        }
        for key in KEPT
        for end in ("", "_low", "_high")
    }


def chance(found: xr.Dataset) -> float:
    return float(found["label_chance"])


def rounded(values: xr.DataArray) -> list[float]:
    return values.values.round(4).tolist()


def in_words(at: xr.Dataset) -> str:
    low, high = float(at["accuracy_low"]), float(at["accuracy_high"])
    return (
        f"accuracy {float(at['accuracy']):.2f} [{low:.2f}, {high:.2f}], among answers "
        f"{float(at['label_accuracy']):.2f}, probability {float(at['probability']):.3f}, length {float(at['norm']):.1f}"
    )


def writers(model: Any, train: Any) -> dict[str, str]:
    """The strongest heads that pass on each side, with their effects in logits."""
    found = ik.summarise(ik.fewshot.writers_and_cancellers(model, train, progress=False))
    out = {}
    for side, largest in (("writers", True), ("cancellers", False)):
        heads = ik.top_heads(found, 5, by="excess", largest=largest, passing=True)
        values = [float(found["excess"].sel(layer=layer, head=head)) for layer, head in heads]
        said = [
            f"{head} {value:+.2f}"
            for head, value in zip(heads, values, strict=True)
            if (value > 0) == largest
        ]
        out[side] = ", ".join(said)
        print(f"{side}: {out[side] or 'none'}")
    return out


if __name__ == "__main__":
    main()
