"""Do induction heads form on text, at a size that two cores train in at most 40 minutes?

    python benchmarks/text_run.py FOLDER book.txt another.txt --code

trains a 2-layer attention-only model on the texts (with --code, also on the sources of Python's standard library, in
which names come again and again), and prints loss, in-context learning and the strongest heads by tokens seen, then
the window of the phase change if there is one. An interrupted run goes on.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import torch

import induction_kernel as ik
from induction_kernel.loading import read_recipe
from induction_kernel.training._recipe import Recipe, log_spaced
from induction_kernel.training._texts import read_corpus
from induction_kernel.training._trainer import fit

BANDS = (16, 48), (223, 255)


def library() -> str:
    """The sources of the standard library, without its tests, one after another."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        path
        for path in sorted(root.rglob("*.py"))
        if not {"site-packages", "test", "tests"} & set(path.parts)
    ]
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in files)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", type=Path, nargs="*")
    parser.add_argument("--code", action="store_true")
    parser.add_argument("--pieces", type=int, default=1000)
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--smeared", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    texts = list(given.texts)
    if given.code:
        texts.append(given.folder / "library.txt")
        texts[-1].write_text(library(), encoding="utf-8")
    recipe = Recipe(
        name="text", pieces=given.pieces, d_model=given.d_model, d_head=given.d_model // 8, smeared=given.smeared,
        context=256, batch_size=given.batch_size, steps=given.steps, sparsity=0.0,
        checkpoints=log_spaced(given.steps, 40, first=50),
    )  # fmt: skip
    run = given.folder / "run"
    if not (run / "model.safetensors").exists():
        fit(recipe, text=texts, folder=run)
    for entry in read_recipe(run)["checkpoints"]:
        prefix, previous = (
            max(max(heads) for heads in entry[key]) for key in ("prefix_matching", "previous_token")
        )
        print(
            f"step {entry['step']:5d}  {entry['tokens'] / 1e6:5.1f}M tokens  text {entry['loss_text']:.2f}  ICL "
            f"{entry['icl_score']:+.2f}  copies {entry['loss_first_copy']:.2f} -> {entry['loss_second_copy']:.2f}  "
            f"prefix {prefix:.2f}  previous {previous:.2f}"
        )
    held_back = torch.from_numpy(read_corpus(texts, recipe).held_back_rows(256, 128))
    early, late = BANDS
    curves = ik.training.training_curves(
        run, prompts=held_back, n=32, early=early, late=late, path=given.folder / "measured"
    )
    found = ik.training.phase_window(curves)
    print(found.to_pandas() if not found.dims else found)
    ik.plots.phase_plot(curves, found).write_html(given.folder / "curves.html")


if __name__ == "__main__":
    main()
