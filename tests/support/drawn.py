"""Every figure, drawn of results made up by formulas, as plain JSON: traces, axes, ticks, colours, legend, texts.

`PYTHONPATH=tests/support python tests/support/drawn.py` writes drawn.json anew; read its difference line by line before
it is committed, and look at the figures that it is of.
"""

import base64
import json
from pathlib import Path

import numpy as np
import xarray as xr
from described import LONG, ends, number
from made_curves import STEPS, TOKENS, curves, family, window

import induction_kernel as ik
from induction_kernel.evidence._co_occurrence import CO_OCCURRENCE
from induction_kernel.evidence._co_perturbation import CO_PERTURBATION
from induction_kernel.evidence._verdicts import Check, judge, not_defined

FILE = Path(__file__).with_suffix(".json")
NONE = float("nan")


def wave(*shape, least=0.0, most=1.0, of=1.7):
    """Numbers between two ends that hardly repeat."""
    at = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape)
    return least + (most - least) * (0.5 + 0.5 * np.sin(of * at))


def grid(layers, heads):
    names = [[f"L{layer}H{head}" for head in range(heads)] for layer in range(layers)]
    return {"layer": range(layers), "head": range(heads), "name": (("layer", "head"), names)}


def scores(layers=2, heads=8, prompts=16, **attrs):
    """Small scores, but for the last head of each even layer."""
    dims, shape = ("prompt", "layer", "head"), (prompts, layers, heads)
    score, control = wave(*shape, most=0.1), wave(*shape, most=0.1, of=2.3)
    score[:, ::2, -1] += 0.8
    variables = {
        "score": (dims, score),
        "control": (dims, control),
        "chance": ("prompt", wave(prompts, most=0.05)),
    }
    return xr.Dataset(
        variables, grid(layers, heads), {"method": "induction", "model": "a <b>", "unit": "share"} | attrs
    )


def of_weights(layers=2, heads=8):
    dims, shape = ("layer", "head"), (layers, heads)
    null = wave(50, *shape, least=-1, of=2.3)
    variables = {"score": (dims, wave(*shape, least=-1)), "chance": (dims, np.full(shape, -0.5))}
    attrs = {"method": "ov_eigenvalues", "model": "made up", "unit": "ratio"}
    return xr.Dataset(variables | {"null": (("draw", *dims), null)}, grid(layers, heads), attrs)


def split(n=14, **attrs):
    """An attribution by n components of each side, of which the second has a hostile name."""
    names = [f"L0H{i}" for i in range(n)]
    names[1] = "<b>MLP"
    sides = ("query_component", "key_component")
    values = wave(4, n, n, least=-1)
    variables = {"score": (("prompt", *sides), values), "control": (("prompt", *sides), values / 3)}
    said = {
        "method": "qk_attribution",
        "model": "a <b>",
        "of_head": "L1H7",
        "entries": "induction",
        "contrast": "less",
    }
    total = {"total": ("prompt", values.sum((1, 2)))}
    return xr.Dataset(variables | total, dict.fromkeys(sides, names), said | attrs)


def together(dim, *parts, **names):
    return xr.concat(parts, dim, join="outer", coords="minimal", compat="override").assign_coords(names)


def composed(by, layers=3, heads=4):
    dims, later = ("layer", "head", "receiver"), [(i, h) for i in range(1, layers) for h in range(heads)]
    layer = np.array([each for each, _ in later])
    known = np.broadcast_to(np.arange(layers)[:, None, None] < layer, (layers, heads, len(later)))
    score = np.where(known, wave(*known.shape, most=0.4), NONE)
    variables = {"score": (dims, score), "spread": (dims, np.where(known, 0.02, NONE)), "chance": 0.125}
    coords = {"receiver": [f"L{i}H{h}" for i, h in later], "receiver_layer": ("receiver", layer)}
    coords |= {"scorer": f"{by}_composition"} | grid(layers, heads)
    return xr.Dataset(variables, coords, {"method": f"{by}_composition", "model": "made up"})


WORDS = ["<bos>", " the", "\n", " incomprehensibilities", "<b>x</b>", " fox"]
SIZES = {"layer": 3, "head": 4, "position": len(WORDS)}


def effects(*by, variable="effect", **attrs):
    sizes = [SIZES[dim] for dim in by]
    coords = {dim: range(SIZES[dim]) for dim in by}
    if "position" in by:
        coords["token"] = (("prompt", "position"), [WORDS] * 8)
    known = {"site": "z", "edit": "Mean", "metric": "repeat_loss", "unit": "nats", "model": "made up"}
    return xr.Dataset({variable: (("prompt", *by), wave(8, *sizes, least=-2))}, coords, known | attrs)


def patched():
    found = effects("layer", "head", edit="FromRun", unit="logits")
    return found.assign(normalised=found["effect"].mean("prompt") / 2)


def removed(shares=True):
    share = np.array([0.2, 0.5, 0.9])
    control = share[:, None] * wave(3, 20, least=-0.05, most=0.1)
    control[-1] = NONE
    variables = {
        "effect": (("prompt", "k"), 3 * share + wave(8, 3)),
        "control_effect": (("k", "draw"), 3 * control),
    }
    if shares:
        variables |= {
            f"share{end}": ("k", share + by) for end, by in (("", 0), ("_low", -0.1), ("_high", 0.1))
        }
        variables |= {"control_share": (("k", "draw"), control)}
    heads = ("k", ["L0H1", "L0H1 L1H2", " ".join(f"L2H{head}" for head in range(60))])
    attrs = effects().attrs | {"cautions": "The benefit is small."}
    return xr.Dataset(variables, {"k": [1, 2, 60], "heads": heads}, attrs)


def checked():
    exact, estimated = [3.0, 1.0, -2.0, 0.0, 0.1], [1.5, 1.1, -2.0, 0.0, NONE]
    cells = {
        "cell": ["L0H1 <s>", "L1H0", "L1H1", "L0H0", "L0H2"],
        "group": ("cell", ["strongest"] * 3 + ["random"] * 2),
    }
    found = effects("layer", "head", variable="estimate", correlation=0.98765, worst_miss=1.5)
    return found.assign(exact=("cell", exact), estimated=("cell", estimated)).assign_coords(cells)


def votes(*over, **attrs):
    sizes = {"layer": 3, "head": 4, "kernel": 2}
    right = (wave(40, *(sizes[dim] for dim in over), of=2.9) < 0.6).astype(float)
    coords = {dim: range(sizes[dim]) for dim in over} | (
        {"kernel": ["exp", "<linear>"]} if "kernel" in over else {}
    )
    variables = {"agreement": (("prompt", *over), right), "chance": ("prompt", np.full(40, 0.5))}
    return xr.Dataset(variables, coords, {"model": "a <b>"} | attrs)


def theory():
    distance = wave(5, 2, 6, least=0.1)
    distance = xr.DataArray(
        distance, dims=("seed", "kernel", "demonstrations"), attrs={"unit": "total <variation>"}
    )
    coords = {"seed": range(5), "kernel": ["paper", "<exp>"], "demonstrations": 2 ** np.arange(6)}
    return xr.Dataset({"distance": distance, "accuracy": distance / 2}, coords)


def table():
    middle = np.array([0.9, 0.7, 0.4])
    parts = {"agreement": middle, "agreement_low": middle - 0.1, "agreement_high": middle + 0.05}
    parts |= {key.replace("agreement", "accuracy"): value / 2 for key, value in parts.items()}
    rows = ["best head", "layer <sum>", "the votes of all heads of the model together"]
    found = xr.Dataset(
        {key: ("row", value) for key, value in parts.items()}, {"row": rows}, {"model": "made up"}
    )
    return found.assign(chance=0.25)


def conditions():
    coords = {"condition": ["baseline", "knock-out"], "what": ["labels", "others"]}
    effect = xr.DataArray(wave(40, 2, 2), dims=("prompt", "condition", "what"), attrs={"unit": "nats"})
    return xr.Dataset({"effect": effect}, coords)


def along(layers=3):
    dims, shape = ("layer", "head", "part", "point"), (layers, 4, 4, 5)
    coords = {
        "layer": range(layers),
        "head": range(4),
        "part": ["start", "1", "2", "query"],
        "point": wave(5),
    }
    attrs = {"model": "a <b>", "n_prompts": 8}
    return xr.Dataset({"attention": (dims, wave(*shape, least=0.001, most=0.4))}, coords, attrs)


def losses(starts, width=24):
    loss = wave(len(starts), width, least=1, most=5)
    return xr.Dataset(
        {"loss": (("prompt", "position"), loss)}, {"start": ("prompt", starts)}, {"model": "made up"}
    )


def components(**attrs):
    coords = {"checkpoint": STEPS, "tokens": ("checkpoint", STEPS * TOKENS)}
    path = np.stack([np.linspace(-3, 3, len(STEPS)), np.abs(STEPS - 1400) / 500], 1)
    return xr.Dataset(
        {"component": (("checkpoint", "pc"), path), "explained": ("pc", [0.7, 0.2])}, coords, attrs
    )


def several_components():
    return together("model", components(), components() + 1, model=["one", "<two>"]).assign(
        explained=components()["explained"]
    )


def slope():
    found = curves(1400, model="made up")[["position_loss"]]
    return found.rename(position_loss="slope").copy(
        data={"slope": wave(*found["position_loss"].shape, least=-1)}
    )


def windows():
    parts = [window([NONE, NONE], [NONE, NONE]), window([1000, 1400], [1600, 2100])]
    return together("model", *parts, model=["one-layer", "two-layer"])


def counted():
    """A census of three behaviours: each head has one name, but for some that have none or were not tested."""
    dims, names = ("scorer", "layer", "head"), ["induction", "copying", "<own>"]
    at = np.arange(12).reshape(3, 4) % 5  # 3: no name, 4: not tested
    said = np.array(["induction", "copying, <own>", "<own>", "unnamed", "not tested"])
    behaviour = np.array([*names, "", ""])
    variables = {
        "mean": (dims, wave(3, 3, 4)),
        "second_half": (dims, wave(3, 3, 4, of=2.3)),
        "fingerprint": (dims[1:], said[at]),
        "behaviour": (dims[1:], behaviour[at]),
        "particular": (dims[1:], wave(3, 4)),
        "n_tested": (dims[1:], np.where(at == 4, 0, 3)),
    }
    return xr.Dataset(variables, {"scorer": names} | grid(3, 4), {"model": "a <b>", "level": 0.05})


def written(by="component"):
    """Direct effects by component, or of heads by source token."""
    if by == "component":
        names = ["embedding", "L0H0", "<b>L0H1", "MLP 0", "unembedding bias"]
        score = wave(9, len(names), least=-2, most=2)
        variables = {"score": (("prompt", by), score), "total": ("prompt", score.sum(1))}
        coords = {by: names}
    else:
        dims, shape = ("prompt", "layer", "head", by), (3, 2, 3, len(WORDS))
        variables = {"score": (dims, wave(*shape, least=-1))}
        coords = {by: range(len(WORDS)), "token": (("prompt", by), [WORDS] * 3)} | grid(2, 3)
        coords["text"] = ("prompt", ["one", "<two>", "three"])
    attrs = {"model": "a <b>", "method": "direct_effect", "on": "answers", "title": "direct effect"}
    return xr.Dataset(variables, coords, attrs)


def lens():
    dims, shape = ("prompt", "layer", "position"), (2, 4, len(WORDS))
    probability = wave(*shape, least=0.001)
    probability[..., -1] = NONE
    coords = {
        "layer": [-1, 0, 1, 2],
        "position": range(len(WORDS)),
        "token": (("prompt", "position"), [WORDS] * 2),
        "top": (dims, np.array([[WORDS] * 4] * 2)),
        "text": ("prompt", ["one", "<two>"]),
    }
    variables = {"probability": (dims, probability), "rank": (dims, np.ceil(3 / probability))}
    return xr.Dataset(variables, coords, {"model": "a <b>"})


def kinds():
    """Three measures without two kinds of heads and without random ones, at two shares."""
    dims, names = ("set", "share"), ["induction heads", "function-vector heads", "random heads"]
    coords = {"set": names, "share": [0.02, 0.1], "window": range(20), "prompt": range(40), "draw": range(5)}
    variables = {}
    for at, measure in enumerate(("accuracy", "label_probability", "icl_score")):
        change = wave(3, 2, least=-0.5, most=0.1, of=1.7 + at)
        variables[f"{measure}_change"] = (dims, change)
        variables[f"{measure}_change_low"] = (dims, change - 0.1)
        variables[f"{measure}_change_high"] = (dims, change + 0.05)
        variables[f"{measure}_control"] = (("share", "draw"), wave(2, 5, least=-0.2, of=2.3 + at))
    return xr.Dataset(variables, coords, {"model": "a <b>"})


def lists():
    """The probability of the last word of two kinds of lists, without two sets of heads and four random ones."""
    dims, coords = ("row", "mode", "prompt"), {"row": ["nonsense", "<French>"]}
    coords["mode"] = ["without token heads", "without concept heads"]
    variables = {
        "value": (dims, wave(2, 2, 12, most=0.5)),
        "baseline": (("row", "prompt"), wave(2, 12, least=0.5)),
        "random": (("row", "draw", "prompt"), wave(2, 4, 12, least=0.4, of=2.3)),
    }
    coords["like"] = ("draw", [mode for mode in coords["mode"] for _ in range(2)])
    return xr.Dataset(variables, coords, {"model": "a <b>"})


CHECKS = [
    Check("a share", 0.8, 0.7, 0.9, 0.5, n=24, of="prompts"),
    Check("a loss <nats>, said in so many words that it takes two lines", 0.4, 0.2, 0.6, 0.3, above=False),
    Check("a loss that rises", 0.4, 0.35, 0.6, 0.3, above=False),
    Check("no interval", 0.4, NONE, NONE, 0.6),
]


def judged():
    return [
        judge(CO_OCCURRENCE, CHECKS, attrs={"model": "a <b>"}),
        not_defined(CO_PERTURBATION, "one model alone"),
    ]


FIGURES = {
    "head_map": lambda: ik.head_map(scores()),
    "head_map, many layers": lambda: ik.head_map(scores(36, 12)),
    "head_map, signed": lambda: ik.head_map(of_weights()),
    "fingerprint_map": lambda: ik.plots.fingerprint_map(counted()),
    "head_map, of effects": lambda: ik.head_map(effects("layer", "head")),
    "head_map, of two scorers and models": lambda: ik.head_map(
        together("model", *[
            together("scorer", scores(layers, heads), scores(layers, heads) / 2, scorer=["induction", "ov_x"])
            for layers, heads in ((2, 8), (3, 4))
        ], model=["small", "<deep>"])
    ),
    "head_map, not tested": lambda: ik.head_map(
        together("scorer", scores(prompts=3), scores(prompts=3), scorer=["a", "b"])
    ),
    "head_map, compared": lambda: ik.head_map(ik.heads.compare(scores(), scores(method="copying") / 2, draws=100)),
    "head_map, composition": lambda: ik.head_map(composed("k")),
    "head_map, of two compositions": lambda: ik.head_map(
        together("scorer", composed("k"), composed("q"), scorer=["k_composition", "q_composition"])
    ),
    "head_map, composition of many heads": lambda: ik.head_map(composed("v", 3, 12)),
    "qk_map": lambda: ik.plots.qk_map(split(5)),
    "qk_map, the largest": lambda: ik.plots.qk_map(split(contrast="none").drop_vars("control"), k=3),
    "effect_map, heads": lambda: ik.plots.effect_map(effects("layer", "head")),
    "effect_map, layers": lambda: ik.plots.effect_map(effects("layer")),
    "effect_map, tokens": lambda: ik.plots.effect_map(effects("layer", "position")),
    "effect_map, many positions": lambda: ik.plots.effect_map(
        effects("layer", "position").isel(position=np.arange(120) % 6).assign_coords(position=range(120))
    ),
    "effect_map, strongest heads": lambda: ik.plots.effect_map(effects("layer", "head", "position"), top=3),
    "effect_map, normalised": lambda: ik.plots.effect_map(patched(), show="normalised"),
    "effect_map, estimates": lambda: ik.plots.effect_map(effects("layer", "head", variable="estimate")),
    "curve_plot": lambda: ik.plots.curve_plot(removed()),
    "curve_plot, of effects": lambda: ik.plots.curve_plot(removed(shares=False)),
    "attribution_check": lambda: ik.plots.attribution_check(checked()),
    "attribution_check, no effects": lambda: ik.plots.attribution_check(
        checked().assign(exact=checked()["exact"] * 0, estimated=checked()["estimated"] * 0)
    ),
    "line_plot": lambda: ik.plots.line_plot(votes("layer", "head"), "agreement"),
    "line_plot, two results": lambda: ik.plots.line_plot(
        {"<one>": votes("layer", "head"), "sum": votes("layer", "kernel")}, "agreement"
    ),
    "line_plot, panels": lambda: ik.plots.line_plot(theory(), ["distance", "accuracy"], over="demonstrations"),
    "line_plot, four panels": lambda: ik.plots.line_plot(theory(), ["distance", "accuracy"] * 2, over="demonstrations"),
    "interval_plot": lambda: ik.plots.interval_plot(table(), ["agreement", "accuracy"]),
    "interval_plot, colours": lambda: ik.plots.interval_plot(conditions(), "effect", over="condition"),
    "direct_effect_plot": lambda: ik.plots.direct_effect_plot(written()),
    "direct_effect_map, of heads by source token": lambda: ik.plots.direct_effect_map(written("key"), top=4),
    "lens_map": lambda: ik.plots.lens_map(lens()),
    "lens_map, ranks": lambda: ik.plots.lens_map(lens(), show="rank", prompt=1),
    "which_heads_plot": lambda: ik.plots.which_heads_plot(kinds()),
    "list_plot": lambda: ik.plots.list_plot(lists()),
    "demonstration_map": lambda: ik.plots.demonstration_map(along()),
    "demonstration_map, many layers": lambda: ik.plots.demonstration_map(along(24)),
    "demonstration_map, heads": lambda: ik.plots.demonstration_map(along(), heads=["L0H1", "L2H3"]),
    "evidence_plot": lambda: ik.plots.evidence_plot(judged()),
    "phase_plot": lambda: ik.plots.phase_plot(curves(1400, model="a <b>"), window(1100, 1800)),
    "phase_plot, runs": lambda: ik.plots.phase_plot(
        family(one_layer=[None, None], two_layer=[1300, 1700])[["icl_score", "prefix_matching", "loss"]], windows()
    ),
    "component_plot": lambda: ik.plots.component_plot(components(model="a <b>"), window(1100, 1800)),
    "component_plot, runs": lambda: ik.plots.component_plot(several_components()),
    "slope_plot": lambda: ik.plots.slope_plot(slope(), window(1100, 1800)),
    "loss_plot": lambda: ik.plots.loss_plot(losses([6, 11, 8])),
    "loss_plot, no repeat": lambda: ik.plots.loss_plot(losses([-1])),
    "score_plot": lambda: ik.plots.score_plot(scores(), of_weights()),
}  # fmt: skip
"""Name, and after a comma what is particular -> `call()`, a figure."""


def drawn(figure):
    """Its traces and its layout, without the template; of long arrays both ends."""
    found = plain(figure.to_plotly_json())
    return {
        "traces": found["data"],
        **{key: each for key, each in found["layout"].items() if key != "template"},
    }


def plain(value):
    if isinstance(value, dict) and "bdata" in value:  # how plotly packs numbers
        flat = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        return plain(flat.reshape([int(each) for each in str(value.get("shape", len(flat))).split(",")]))
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in sorted(value.items())}
    if isinstance(value, np.ndarray):
        return [list(value.shape), *ends(value)]
    if isinstance(value, list | tuple):
        if any(isinstance(each, dict) for each in value):
            return list(map(plain, value))
        return [len(value), *ends(flattened(value))] if len(value) > LONG else list(map(plain, value))
    return value if value is None else number(value)


def flattened(values):
    rows = [flattened(each) if isinstance(each, list | tuple) else [each] for each in values]
    return np.array([each for row in rows for each in row], object)


def write():
    def line(value):
        return json.dumps(value, ensure_ascii=False)

    figures = []
    for name, call in FIGURES.items():
        parts = drawn(call())
        traces = ",\n".join(f"   {line(each)}" for each in parts.pop("traces"))
        rest = "".join(f",\n  {line(key)}: {line(each)}" for key, each in parts.items())
        figures.append(f' {line(name)}: {{\n  "traces": [\n{traces}\n  ]{rest}\n }}')
    FILE.write_text("{\n" + ",\n".join(figures) + "\n}\n")


if __name__ == "__main__":
    write()
