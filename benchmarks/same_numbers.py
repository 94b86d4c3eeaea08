"""Are results the same in two versions of the package? Each is written to a file, and the files are compared.

    PYTHONPATH=old python benchmarks/same_numbers.py save old.npz
    PYTHONPATH=new python benchmarks/same_numbers.py save new.npz
    python benchmarks/same_numbers.py compare old.npz new.npz

`save` computes some 150 results of every public verb on the embedded model and, where the file of SmolLM2-135M is
there, some of each kind on that (minutes, on one core). `compare` prints a line a result with its largest absolute
difference and its largest relative one (to the largest number of the same array), and whether shapes and places of NaN
are equal. What only one version has is named. The exit status is 1 where anything but names differs.
"""

import argparse
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SMOLLM2 = Path(__file__).resolve().parent.parent / "data" / "SmolLM2-135M-Instruct.Q4_1.gguf"
LARGEST = 1e-5  # relative difference that passes for rounding


def main() -> int:
    asked = arguments()
    if asked.command == "save":
        return save(asked.path, asked.smollm2, asked.only)
    return compare(*(dict(np.load(path)) for path in (asked.first, asked.second)), tolerance=asked.tolerance)


def save(path: Path, smollm2: Path, only: str) -> int:
    """Compute every result and write its arrays; a result that fails is said, and left out."""
    os.environ.update(TQDM_DISABLE="1", HF_HUB_OFFLINE="1")
    import torch
    from same import embedded, regression
    from same.arrays import arrays_in
    from same.smollm2 import results

    import induction_kernel

    print(f"the package in {Path(induction_kernel.__file__).parent}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = embedded.RESULTS | regression.RESULTS | (results(smollm2) if smollm2.exists() else {})
    arrays, failed, begin = {}, 0, time.perf_counter()
    for name, result in table.items():
        start = time.perf_counter()
        if only in name:
            try:
                arrays |= {f"{name}|{key}": array for key, array in arrays_in(result())}
            except Exception as error:
                failed += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            if time.perf_counter() - start > 5:
                print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    np.savez_compressed(path, **arrays)
    print(f"{len(by_result(arrays))} results, {failed} failed, {time.perf_counter() - begin:.0f} s: {path}")
    return failed > 0


def compare(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], *, tolerance: float) -> int:
    """Print a line for each result of either file, and the largest difference of all."""
    rows = {name: differences(*pair) for name, pair in paired(by_result(first), by_result(second)).items()}
    print(f"{'result':32}{'arrays':>7}{'absolute':>10}{'relative':>10}  {'NaN':6}{'shapes':8}only in one")
    for name, row in rows.items():
        said = [f"{row[key]:.1e}" for key in ("absolute", "relative")]
        equal = ["equal" if row[key] else "DIFFER" for key in ("nan", "shapes")]
        alone = ", ".join(sorted(row["alone"]))
        print(f"{name:32}{row['arrays']:7}{said[0]:>10}{said[1]:>10}  {equal[0]:6} {equal[1]:7} {alone}")
    shared = {name: row for name, row in rows.items() if row["arrays"]}
    largest = {key: max(shared, key=lambda name: shared[name][key]) for key in ("absolute", "relative")}
    for key, name in largest.items():
        print(f"largest {key} difference of {len(shared)} results: {shared[name][key]:.2e} ({name})")
    missing = sorted(rows.keys() - shared.keys())
    if missing:
        print(f"in one file only: {'; '.join(missing)}")
    equal = all(row["nan"] and row["shapes"] and row["relative"] <= tolerance for row in shared.values())
    return bool(missing) or not equal


def by_result(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """`name|variable` -> array, as name -> variable -> array."""
    found = defaultdict(dict)
    for key, array in arrays.items():
        name, _, variable = key.partition("|")
        found[name][variable] = array
    return dict(found)


def paired(first: dict, second: dict) -> dict[str, tuple[dict, dict]]:
    return {name: (first.get(name, {}), second.get(name, {})) for name in first | second}


def differences(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict:
    """Of the arrays that both have: how many, the largest differences, whether shapes and NaN are equal."""
    shared = [key for key in first if key in second]
    same = [key for key in shared if first[key].shape == second[key].shape]
    gaps = [difference(first[key].astype(float), second[key].astype(float)) for key in same]
    return {
        "arrays": len(shared),
        "absolute": max((gap[0] for gap in gaps), default=0.0),
        "relative": max((gap[1] for gap in gaps), default=0.0),
        "nan": all(gap[2] for gap in gaps),
        "shapes": len(same) == len(shared),
        "alone": first.keys() ^ second.keys(),
    }


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, bool]:
    """Largest absolute and relative difference of two arrays of one shape; whether NaN and infinities are alike."""
    finite = np.isfinite(first) & np.isfinite(second)
    alike = np.array_equal(np.where(finite, 0, first), np.where(finite, 0, second), equal_nan=True)
    if not finite.any():
        return 0.0, 0.0, alike
    gap = float(np.abs(first[finite] - second[finite]).max())
    return gap, gap / (float(np.abs(first[finite]).max()) or 1.0), alike


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    saving = commands.add_parser("save")
    saving.add_argument("path", type=Path)
    saving.add_argument("--smollm2", type=Path, default=SMOLLM2)
    saving.add_argument("--only", default="", help="results whose name has this in it")
    comparing = commands.add_parser("compare")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    comparing.add_argument("--tolerance", type=float, default=LARGEST, help="largest relative difference")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
