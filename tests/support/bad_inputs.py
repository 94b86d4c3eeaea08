"""What users get wrong, and what they are told: (verb, what it is, call, exception, part of the message).

Every public verb has a row; `test_bad_inputs.py` runs each in a process without shape checks, as users run them.
"""

import traceback
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import xarray as xr
from encoders import bidirectional, classifier
from folders import write_hugging_face
from formula_curves import curves_of
from labelled_prompts import labelled
from made_curves import curves, family, window
from zoo import BASE, SHAPES, fresh, model_of, random_weights, tiny

import induction_kernel as ik
from induction_kernel import loading
from induction_kernel.evidence._mechanism import MECHANISM
from induction_kernel.evidence._verdicts import not_defined
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.prompts import concat, random_tokens, word_episodes

NAN = float("nan")


def model():
    return tiny("attention-only")


def worded():
    return ik.load("tiny")


def repeats(**options):
    return ik.repeated_tokens(model(), bos=0, **({"prompts": 8, "period": 6} | options))


def attention():
    """Patterns of two heads on five tokens."""
    return np.tril(np.full((2, 5, 5), 0.2))


def scores():
    return ik.induction(model(), repeats())


def with_nan(kind="embed"):
    """A model whose embedding (or, with "v", whose values in one layer) are NaN, under either class's names."""
    broken = fresh("attention-only")
    wanted = {"embed": lambda key: "embed" in key, "v": lambda key: {"W_V", "v"} & set(key.split("."))}[kind]
    with torch.no_grad():
        next(value for key, value in broken.named_parameters() if wanted(key))[...] = NAN
    return broken


def shots(**options):
    given = {
        "demonstrations": [("fox", "dax"), ("apple", "wug")], "queries": ["wolf"], "template": "{x} {y} ;",
        "labels": ["dax", "wug"], "separator": " ",
    } | options  # fmt: skip
    return ik.few_shot_prompts(worded(), given.pop("demonstrations"), given.pop("queries"), **given)


def split(head="L1H0"):
    return ik.scorers.qk_attribution(model(), repeats(), head)


def shot_weights():
    return ik.scorers.demonstration_weights(worded(), shots())


def square(ids, lengths):
    return torch.ones(len(ids), ids.shape[1], ids.shape[1], dtype=torch.bool)


def ragged():
    return repeats(period=(4, 6), prompts=8)


def beta_of(labels):
    """A re-weighting that changes nothing, of the embedded model."""
    dims = ("layer", "head", "label")
    return xr.Dataset({"beta": (dims, np.zeros((2, 8, len(labels))))}, {"label": labels})


def swept(**options):
    """A sweep of the attention-only model (two layers, four heads) but for what is given."""
    given = {"model": model(), "prompts": repeats()} | options
    return ik.sweep(given.pop("model"), given.pop("prompts"), **given)


def tokens(n=1, length=4):
    """`[n, length]` of ids that any model here knows."""
    return torch.arange(n * length).reshape(n, length)


def answered(prompts=None):
    prompts = repeats() if prompts is None else prompts
    return ik.prompts.with_answers(model(), prompts, [(1, 2)] * len(prompts))


def patched(**options):
    return ik.patch(
        model(), **({"source": repeats(seed=1), "into": repeats(), "metric": ik.repeat_loss} | options)
    )


def sent(**options):
    """By its keys, from layer 0 to L1H0."""
    given = {
        "source": repeats(seed=1),
        "into": repeats(),
        "receivers": "L1H0",
        "site": "k",
        "metric": ik.repeat_loss,
    }
    return ik.path_patch(options.pop("model", model()), **(given | options))


def attributed(**options):
    given = {"model": model(), "prompts": repeats(), "edit": ik.Zero()} | options
    return ik.attribution(given.pop("model"), given.pop("prompts"), **given)


def curve(**options):
    return ik.ablation_curve(model(), repeats(), scores(), **({"ks": (1,), "controls": 2} | options))


def probed(**options):
    return ik.kernel.probe(worded(), word_episodes(worded(), prompts=8), **options)


def within(edit, heads=None, *, of=None, **options):
    """What a context refuses, it refuses on entering."""
    with ik.edited(model() if of is None else of, edit, heads, **options):
        pass


def parallel():
    """GPT-J's blocks, in the class there is."""
    return model_of("GPT-J", "hooked" if has_hooked_transformer() else "bridge")


def hugging_face(folder, kind="llama", **changes):
    write_hugging_face(folder, kind, tokenizer=False, **changes)
    return folder


def written(folder, name, content):
    """The path of a file with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(folder, name="a.tsv"):
    return written(folder, name, "text\tlabel\nfox\t0\npear\t1\n")


def six_words(**changes):
    """Six words of two classes that the embedded model knows."""
    texts = tuple("fox wolf bear apple pear plum".split())
    given = {"classes": [0, 0, 0, 1, 1, 1], "labels": ("dax", "wug"), "template": "{x} {y} ;"} | changes
    return ik.data.LabelledTexts(texts, **given)


def episodes(**options):
    given = {
        "pool": six_words(),
        "queries": replace(six_words(), texts=tuple("lion goat tiger fig lime mango".split())),
    }
    given |= {"shots": 2} | options
    return ik.data.draw_episodes(given.pop("pool"), given.pop("queries"), **given)


def everything(n_tokens):
    return torch.ones(n_tokens, n_tokens, dtype=torch.bool)


def regressed(**options):
    """Kernel regression of two queries and their two demonstrations, of classes 0 and 1."""
    given = {
        "queries": np.ones((2, 3)),
        "demonstrations": np.ones((2, 2, 3)),
        "label_class": [[0, 1], [0, 1]],
    }
    given |= options
    of = given.pop("of", ik.kernel.kernel_regression)
    return of(given.pop("queries"), given.pop("demonstrations"), given.pop("label_class"), **given)


def alike(**options):
    return regressed(of=ik.kernel.explicit_similarity, bandwidth=1.0, **options)


def votes(classes=((0, 1), (0, 1))):
    """Equal weights of one layer's two heads, over two prompts of two demonstrations."""
    dims = ("prompt", "layer", "head", "demonstration")
    return xr.Dataset(
        {"weight": (dims, torch.full((2, 1, 2, 2), 0.5).numpy())},
        {
            "label_class": (("prompt", "demonstration"), [list(row) for row in classes]),
            "target": ("prompt", [0, 1]),
            "layer": [0],
            "head": [0, 1],
        },
    )


ROWS = [
    # load
    ("load", "unknown name", lambda tmp: ik.load("gtp2-smal"), ValueError, "gtp2-smal"),
    ("load", "absent path", lambda tmp: ik.load(tmp / "nothing"), ValueError, "nothing"),
    ("load", "folder without a model", lambda tmp: ik.load(tmp), ValueError, "config.json"),
    ("load", "unknown checkpoint", lambda tmp: ik.load("tiny", checkpoint=7), ValueError, "7"),
    ("load", "not a name", lambda tmp: ik.load(3), TypeError, "got int"),
    ("load", "two checkpoints", lambda tmp: ik.load("pythia-70m", checkpoint=0, checkpoint_index=0), ValueError, "pass one of them"),
    ("load", "checkpoint that is no number", lambda tmp: ik.load("tiny", checkpoint="last"), TypeError, "a training step"),
    ("load", "index that is no number", lambda tmp: ik.load("pythia-70m", checkpoint_index=1.0), TypeError, "checkpoint_index must be a whole number"),
    ("load", "index of a path", lambda tmp: ik.load("tiny", checkpoint_index=0), ValueError, "pass checkpoint, the step"),
    ("load", "index out of range", lambda tmp: ik.load("pythia-70m", checkpoint_index=999), ValueError, "from 0 to 153"),
    ("load", "step that was not kept", lambda tmp: ik.load("pythia-70m", checkpoint=1001), ValueError, "no checkpoint of step 1001"),
    ("load", "no checkpoints on the hub", lambda tmp: ik.load("gpt2", checkpoint=5), ValueError, "has no training checkpoints"),
    ("load", "checkpoint of an unlisted name", lambda tmp: ik.load("some/one", checkpoint=5), ValueError, 'revision="..."'),
    ("load", "unknown keyword on the hub", lambda tmp: ik.load("some/one", nonsense=5), TypeError, "takes no nonsense"),
    ("load", "folding for a Bridge", lambda tmp: ik.load("some/one", fold_ln=True), TypeError, "enable_compatibility_mode"),
    ("load", "unreachable hub", lambda tmp: ik.load("some/one"), ConnectionError, "cannot be reached"),
    ("load", "unknown device", lambda tmp: ik.load("tiny", device="gpu"), ValueError, "one torch knows"),
    ("load", "meta device", lambda tmp: ik.load("tiny", device="meta"), ValueError, "holds no weights"),
    ("load", "absent device", lambda tmp: ik.load("tiny", device="cuda:99"), ValueError, "not available here"),
    ("load", "unknown dtype", lambda tmp: ik.load("tiny", dtype="float99"), ValueError, "floating point"),
    ("load", "integer dtype", lambda tmp: ik.load("tiny", dtype=torch.int64), ValueError, "floating point"),
    ("load", "dtype without arithmetic", lambda tmp: ik.load("tiny", dtype=torch.float8_e4m3fn), ValueError, "floating point"),
    ("load", "devices that are no number", lambda tmp: ik.load("gpt2", n_devices="all"), TypeError, "n_devices must be a whole number"),
    ("load", "no devices", lambda tmp: ik.load("gpt2", n_devices=0), ValueError, "n_devices must be from 1"),
    ("load", "absent devices", lambda tmp: ik.load("gpt2", n_devices=99), ValueError, "n_devices must be from 1"),
    ("load", "device and map", lambda tmp: ik.load("some/one", device="cpu", device_map="auto"), ValueError, "device must be left out"),
    ("load", "n_devices and map", lambda tmp: ik.load("some/one", n_devices=1, device_map="auto"), ValueError, "n_devices must be left out"),
    ("load", "unknown map", lambda tmp: ik.load("some/one", device_map="everywhere"), ValueError, "one of auto, balanced"),
    ("load", "map to nowhere", lambda tmp: ik.load("some/one", device_map={"": "gpu"}), ValueError, "device_map['']: device must be"),
    ("load", "map that is none", lambda tmp: ik.load("some/one", device_map=3), TypeError, "got int: 3"),
    ("load", "map of an embedded model", lambda tmp: ik.load("tiny", device_map="auto"), TypeError, "takes checkpoint, device, dtype and bridge"),
    ("load", "folding that is no bool", lambda tmp: ik.load(hugging_face(tmp), fold_ln="yes"), TypeError, "fold_ln must be True or False"),
    ("load", "unknown keyword of a folder", lambda tmp: ik.load(hugging_face(tmp), nonsense=1), TypeError, "takes no nonsense"),
    ("load", "context too long", lambda tmp: ik.load(hugging_face(tmp), n_ctx=65), ValueError, "from 1 to 64"),
    ("load", "processed Bridge", lambda tmp: ik.load(hugging_face(tmp), bridge=True, fold_ln=True), TypeError, "enable_compatibility_mode"),
    ("load", "checkpoint of a folder", lambda tmp: ik.load(hugging_face(tmp), checkpoint=1), ValueError, "no training checkpoints"),
    ("load", "scores unscaled in a Bridge", lambda tmp: ik.load(hugging_face(tmp, "gpt2", scale_attn_weights=False), bridge=True), ValueError, "differs from the Hugging Face model"),
    ("load", "an adapter that refuses", lambda tmp: ik.load(hugging_face(tmp, "gpt_neox", attention_bias=False)), ValueError, "cannot be a TransformerBridge"),
    ("load", "half-written file", lambda tmp: ik.load(half_written(tmp)), ValueError, "half"),
    ("load", "NaN weights", lambda tmp: loading.build(BASE | SHAPES["GPT-2"], nan_weights()), ValueError, "NaN"),
    ("load", "a null byte", lambda tmp: ik.load("a\0b"), ValueError, "null byte"),
    ("load", "a name that is too long", lambda tmp: ik.load("a" * 5000), ValueError, "wanted a model's name or path"),
    ("load", "a flag that is none", lambda tmp: loading.build(BASE | {"attn_only": "no"}, {}), ValueError, "attn_only must be True or False"),
    ("load", "more layers than weights", lambda tmp: loading.build(BASE | {"n_layers": 10**9}, {}), ValueError, "the weights lack blocks.0"),
    ("load", "a width that is no number", lambda tmp: loading.build(BASE | {"rotary_base": "x"}, {}), ValueError, "rotary_base must be a number above 0"),
    # Prompts and as_prompts
    ("Prompts", "float tokens", lambda tmp: ik.Prompts(torch.zeros(1, 3), torch.tensor([3]), torch.ones(1, 3)), TypeError, "integer token ids"),
    ("Prompts", "lengths too long", lambda tmp: replace(repeats(), lengths=torch.full((8,), 99)), ValueError, "lengths between 1"),
    ("Prompts", "other shape of scored", lambda tmp: replace(repeats(), scored=torch.ones(2, 2).bool()), ValueError, "scored"),
    ("Prompts", "index out of range", lambda tmp: repeats()[99], IndexError, "prompts from 0 to 7, as there are 8, got 99"),
    ("Prompts", "one index out of range", lambda tmp: repeats()[[0, -9]], IndexError, "got -9"),
    ("as_prompts", "empty list", lambda tmp: ik.as_prompts(worded(), []), ValueError, "at least one prompt"),
    ("as_prompts", "empty string", lambda tmp: ik.as_prompts(worded(), ["fox", ""], bos=False), ValueError, "prompt 1 has no tokens"),
    ("as_prompts", "empty tensor", lambda tmp: ik.as_prompts(model(), torch.zeros(0, 4).long()), ValueError, "at least one prompt"),
    ("as_prompts", "float tokens", lambda tmp: ik.as_prompts(model(), torch.zeros(1, 4)), TypeError, "integer token ids"),
    ("as_prompts", "id out of the vocabulary", lambda tmp: ik.as_prompts(model(), torch.tensor([[1, 50]])), ValueError, "0 to 49, got 50"),
    ("as_prompts", "negative id", lambda tmp: ik.as_prompts(model(), torch.tensor([[1, -1]])), ValueError, "got -1"),
    ("as_prompts", "beyond the context", lambda tmp: ik.as_prompts(model(), torch.zeros(1, 41).long()), ValueError, "context is 40"),
    ("as_prompts", "text without tokenizer", lambda tmp: ik.as_prompts(model(), "a fox"), ValueError, "no tokenizer"),
    ("as_prompts", "a table", lambda tmp: ik.as_prompts(worded(), pd.DataFrame({"text": ["fox"]})), TypeError, "one of its columns"),
    ("as_prompts", "an array of objects", lambda tmp: ik.as_prompts(worded(), np.array(["fox", None])), TypeError, "item 1 is None"),
    ("as_prompts", "a missing value among texts", lambda tmp: ik.as_prompts(worded(), ["fox", NAN]), TypeError, "item 1 is nan"),
    ("as_prompts", "lengths of text", lambda tmp: ik.as_prompts(worded(), "fox", lengths=[1]), ValueError, "lengths= is for right-padded"),
    ("as_prompts", "BOS of tokens", lambda tmp: ik.as_prompts(worded(), torch.tensor([[5, 6]]), bos=True), ValueError, "bos= is for text"),
    ("as_prompts", "lengths too long", lambda tmp: ik.as_prompts(worded(), torch.tensor([[5, 6]]), lengths=[3]), ValueError, "between 1 and 2"),
    ("as_prompts", "padding alone", lambda tmp: ik.as_prompts(worded(), torch.tensor([[5, 6], [2, 2]])), ValueError, "prompt 1 is padding alone"),
    ("as_prompts", "a dict without ids", lambda tmp: ik.as_prompts(worded(), {"text": ["fox"]}), TypeError, "input_ids"),
    ("as_prompts", "a word that is not known", lambda tmp: ik.as_prompts(worded(), "appel"), ValueError, "near: 'apple'"),
    ("as_prompts", "a number", lambda tmp: ik.as_prompts(model(), 3), TypeError, "got int"),
    ("as_prompts", "not a model", lambda tmp: ik.as_prompts(SimpleNamespace(), "a"), TypeError, "HookedTransformer or"),
    # repeated_tokens, random tokens
    ("repeated_tokens", "no BOS where asked for", lambda tmp: ik.repeated_tokens(model(), bos=True), ValueError, "no BOS token"),
    ("repeated_tokens", "BOS out of the vocabulary", lambda tmp: ik.repeated_tokens(model(), bos=99), ValueError, "got 99"),
    ("repeated_tokens", "one repeat", lambda tmp: repeats(repeats=1), ValueError, "repeats >= 2"),
    ("repeated_tokens", "beyond the context", lambda tmp: repeats(period=20), ValueError, "at most 19"),
    ("repeated_tokens", "no period", lambda tmp: repeats(period=0), ValueError, "period >= 1"),
    ("repeated_tokens", "range the wrong way", lambda tmp: repeats(period=(9, 5)), ValueError, "range"),
    ("repeated_tokens", "no prompts", lambda tmp: repeats(prompts=0), ValueError, "prompts >= 1"),
    ("repeated_tokens", "all excluded", lambda tmp: repeats(exclude=0.5), ValueError, "exclude"),
    ("repeated_tokens", "random tokens beyond", lambda tmp: random_tokens(model(), bos=0, length=50), ValueError, "at most 39"),
    ("Prompts", "nothing to concatenate", lambda tmp: concat([]), ValueError, "at least one"),
    ("Prompts", "a span beyond the prompt", lambda tmp: replace(repeats(), spans={"a": torch.tensor([[0, 99]] * 8)}), ValueError, "within its 13 tokens"),
    # needles, marks, retrieval
    ("prompts.needles", "depths beyond the end", lambda tmp: ik.prompts.needles(model(), depths=[2]), ValueError, "from 0 to 1"),
    ("prompts.needles", "too short", lambda tmp: ik.prompts.needles(model(), length=3), ValueError, "wanted a length from 18 to 36"),
    ("prompts.needles", "text without a tokenizer", lambda tmp: ik.prompts.needles(model(), "Bees fly."), ValueError, "has no tokenizer"),
    ("prompts.mark", "words that are not there", lambda tmp: ik.prompts.mark(worded(), "fox dax", spans={"a": "bear"}), ValueError, "stands 0 times"),
    ("prompts.mark", "spans as a list", lambda tmp: ik.prompts.mark(worded(), "fox dax", spans=["fox"]), TypeError, "mapping from names"),
    ("head_census.retrieval", "prompts without a needle", lambda tmp: ik.head_census.retrieval(model(), repeats()), ValueError, "a span 'needle' each"),
    ("head_census.retrieval", "no tokens to write", lambda tmp: ik.head_census.retrieval(model(), max_new_tokens=0), ValueError, "max_new_tokens >= 1"),
    ("head_census.retrieval_forced", "prompts without a needle", lambda tmp: ik.head_census.retrieval_forced(model(), tokens()), ValueError, "got prompts with none"),
    ("head_census.retrieval_forced", "outputs that are not tokens", lambda tmp: ik.head_census.retrieval_forced(classifier("native")), ValueError, "reads logits of the prompts' own tokens"),
    ("head_census.query_focused_retrieval", "prompts without a needle", lambda tmp: ik.head_census.query_focused_retrieval(model(), repeats()), ValueError, "a span 'needle' each"),
    ("head_census.query_focused_retrieval", "an empty question of unknown ids", lambda tmp: ik.head_census.query_focused_retrieval(model(), null=[99]), ValueError, "from 0 to 49 in null"),
    # few_shot_prompts, pairs
    ("few_shot_prompts", "template without y", lambda tmp: shots(template="{x}:"), ValueError, "{x} and {y} once each"),
    ("few_shot_prompts", "template the wrong way", lambda tmp: shots(template="{y} {x}"), ValueError, "before {y}"),
    ("few_shot_prompts", "wrong label word", lambda tmp: shots(demonstrations=[("fox", "cat")]), ValueError, "got 'cat'"),
    ("few_shot_prompts", "wrong label index", lambda tmp: shots(demonstrations=[("fox", 2)]), ValueError, "from 0 to 1, got 2"),
    ("few_shot_prompts", "label of another type", lambda tmp: shots(demonstrations=[("fox", None)]), TypeError, "label word or its index"),
    ("few_shot_prompts", "labels with one first token", lambda tmp: shots(labels=["dax", "dax wug"], demonstrations=[("fox", 0), ("pear", 1)]), ValueError, "same token"),
    ("few_shot_prompts", "one label", lambda tmp: shots(labels=["dax"]), ValueError, "at least two"),
    ("few_shot_prompts", "empty label", lambda tmp: shots(labels=["dax", " "]), ValueError, "non-empty"),
    ("few_shot_prompts", "empty class", lambda tmp: shots(demonstrations=[("fox", "dax")]), ValueError, "none of ['wug']"),
    ("few_shot_prompts", "no demonstrations", lambda tmp: shots(demonstrations=[]), ValueError, "at least one demonstration"),
    ("few_shot_prompts", "no queries", lambda tmp: shots(queries=[]), ValueError, "at least one query"),
    ("few_shot_prompts", "beyond the context", lambda tmp: shots(demonstrations=[("fox", 0), ("pear", 1)] * 30), ValueError, "the context is"),
    ("few_shot_prompts", "no tokenizer", lambda tmp: ik.few_shot_prompts(model(), [("a", 0)], ["b"], labels=["c", "d"]), ValueError, "need a tokenizer"),
    ("prompts.word_episodes", "noise above 1", lambda tmp: word_episodes(worded(), noise=2), ValueError, "noise 0 to 1"),
    ("few_shot_prompts", "a column in the template", lambda tmp: shots(template="{x} {Title} {y} ;"), ValueError, "got {Title} in '{x} {Title} {y} ;'"),
    ("few_shot_prompts", "unknown words", lambda tmp: shots(queries=["hello"]), ValueError, "'shelf'): use words of its vocabulary in texts, labels and template"),
    ("few_shot_prompts", "a template of unknown words", lambda tmp: shots(template="Input: {x} {y}"), ValueError, "does not know 'Input', ':': use words of its vocabulary in texts, labels and template"),
    ("head_table", "no rows", lambda tmp: ik.head_table(scores(), -1), ValueError, "k >= 1"),
    ("compare", "confidence in percent", lambda tmp: ik.compare(scores(), scores(), confidence=95), ValueError, "between 0 and 1"),
    ("summarise", "options for a summary", lambda tmp: ik.summarise(ik.summarise(scores()), margin=0.5), ValueError, "got a summary"),
    ("copying", "a centre that its method has not", lambda tmp: ik.copying(model(), repeats(), method="BAN", centre="sample"), ValueError, 'with method="OLS" only'),
    ("copying", "NaN weights", lambda tmp: ik.copying(with_nan("v"), repeats()), ValueError, "not finite"),
    ("induction", "layers as a number", lambda tmp: ik.induction(model(), repeats(), layers=1), TypeError, "list of whole numbers"),
    ("repeated_tokens", "period as text", lambda tmp: repeats(period="a"), TypeError, "range (low, high)"),
    ("few_shot_prompts", "label word in capitals", lambda tmp: shots(demonstrations=[("fox", "Dax")]), ValueError, "did you mean 'dax'?"),
    ("few_shot_prompts", "demonstrations as a dict", lambda tmp: shots(demonstrations={"fox": "dax"}), TypeError, "list of demonstrations (x, y)"),
    ("few_shot_prompts", "labels in no order", lambda tmp: shots(labels={"dax", "wug"}), TypeError, "labels as a list"),
    ("few_shot_prompts", "queries as a string", lambda tmp: shots(queries="fox"), TypeError, "list of queries"),
    ("pairs", "answers out of the vocabulary", lambda tmp: ik.pairs(worded(), clean=["fox"], corrupted=["pear"], answers=[(5, -3)]), ValueError, "answer ids"),
    ("ablate", "metric as text", lambda tmp: ik.ablate(model(), repeats(), "L0H1", metric="loss"), TypeError, "wanted a metric"),
    ("ablate", "NaN from a metric", lambda tmp: ik.ablate(model(), repeats(), "L0H1", metric=lambda logits, p: logits[:, 0, 0] * NAN), ValueError, "not finite"),
    ("Mean", "a reference of one token", lambda tmp: ik.ablate(model(), repeats(), "L0H1", edit=ik.Mean(torch.tensor([[1], [2]]))), ValueError, "more than one token"),
    ("Prompts", "lengths as a list", lambda tmp: replace(repeats(), lengths=[13] * 8), TypeError, "lengths as a tensor of torch.int64, got list"),
    ("Prompts", "scored as numbers", lambda tmp: replace(repeats(), scored=repeats().scored.long()), TypeError, "scored as a tensor of torch.bool, got torch.int64"),
    ("Prompts", "none of them", lambda tmp: repeats()[[]], ValueError, "at least one of the 8 prompts"),
    ("Prompts", "a mask of others", lambda tmp: repeats()[[True, False]], ValueError, "a mask of 8 prompts"),
    ("Prompts", "numbers that are not whole", lambda tmp: repeats()[[0.0]], TypeError, "prompts by a number"),
    ("as_prompts", "lengths as text", lambda tmp: ik.as_prompts(model(), torch.ones(1, 3).long(), lengths="3"), TypeError, "lengths as whole numbers, one per prompt"),
    ("as_prompts", "half a character", lambda tmp: ik.as_prompts(worded(), "fox \ud83d"), ValueError, "half a character"),
    ("repeated_tokens", "a model too small", lambda tmp: ik.repeated_tokens(fresh("GPT-2", n_ctx=1)), ValueError, "this model is too small"),
    ("as_prompts", "a tokenizer's output of words", lambda tmp: ik.as_prompts(worded(), {"input_ids": [["fox"]], "attention_mask": [[1]]}), TypeError, "output of whole numbers, got [['fox']]"),
    ("as_prompts", "a tokenizer's output of none", lambda tmp: ik.as_prompts(worded(), {"input_ids": [], "attention_mask": []}), ValueError, "at least one prompt"),
    ("induction", "layer as a NumPy number", lambda tmp: ik.induction(model(), repeats(), layers=np.int64(1)), TypeError, "list of whole numbers"),
    ("data.load_classification", "words that are lists", lambda tmp: ik.data.load_classification(pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}), labels={0: ["bad"], 1: "good"}), TypeError, "labels as a list of words"),
    ("data.LabelledTexts", "an infinite class", lambda tmp: ik.data.LabelledTexts(("a", "b"), np.array([0, np.inf]), ("bad", "good")), TypeError, "classes as whole numbers"),
    ("attribution", "no seed", lambda tmp: attributed(seed=None), TypeError, "seed as a whole number"),
    ("fewshot.label_knock_out", "seed as text", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), "L1H7", seed="0"), TypeError, "seed as a whole number"),
    ("ablation_curve", "seed as text", lambda tmp: curve(seed="0"), TypeError, "seed as a whole number"),
    ("repeated_tokens", "no seed", lambda tmp: repeats(seed=None), TypeError, "seed as a whole number, 0 or more, got None"),
    ("repeated_tokens", "negative seed", lambda tmp: repeats(seed=-1), ValueError, "seed from 0 to"),
    ("few_shot_prompts", "labels without an order", lambda tmp: shots(labels={"dax", "wug"}), TypeError, "in the order of their classes"),
    ("few_shot_prompts", "a query that is missing", lambda tmp: shots(queries=["wolf", None]), TypeError, "a query as x or (x, y), got None"),
    ("few_shot_prompts", "no separator", lambda tmp: shots(separator=None), TypeError, "separator as text, got None"),
    ("prompts.word_episodes", "shots that are not whole", lambda tmp: word_episodes(worded(), shots=8.0), TypeError, "shots and prompts as whole numbers"),
    ("summarise", "the mean over prompts", lambda tmp: ik.summarise(scores().mean("prompt")), ValueError, "no dimension prompt"),
    ("head_table", "one prompt by number", lambda tmp: ik.head_table(scores().isel(prompt=0)), ValueError, "isel(prompt=[0])"),
    ("head_table", "with and without a control", lambda tmp: ik.head_table(xr.concat([scores(), ik.induction(model(), repeats().tokens)], "prompt")), ValueError, "8 of 16 prompts have no control"),
    ("summarise", "draws that are not whole", lambda tmp: ik.summarise(scores(), draws=1e4), ValueError, "whole draws >= 100, got confidence=0.95, draws=10000.0"),
    ("plots.loss_plot", "the mean over prompts", lambda tmp: ik.plots.loss_plot(ik.loss_by_position(model(), repeats()).mean("prompt")), ValueError, "isel(prompt=[0])"),
    ("attention_view", "one prompt by number", lambda tmp: ik.attention_view(ik.patterns(model(), repeats(), "L0H0").isel(prompt=0)), ValueError, "patterns by prompt"),
    ("AttentionScorer", "a mask that is no function", lambda tmp: ik.AttentionScorer("mine", torch.ones(3, 3).bool()), TypeError, "mask as a function"),
    ("AttentionScorer", "a mask of tokens alone", lambda tmp: ik.AttentionScorer("mine", lambda t: square(t, t)), TypeError, "two arguments, tokens and lengths"),
    ("sweep", "a metric of logits alone", lambda tmp: swept(metric=lambda logits: logits[:, -1, 0]), TypeError, "two arguments, logits"),
    ("ablate", "heads by layer", lambda tmp: ik.ablate(model(), repeats(), {1: [0, 2]}), TypeError, "got dict: pass its names"),
    ("icl_score", "positions that are not whole", lambda tmp: ik.icl_score(model(), torch.zeros(2, 30).long(), early=2.0, late=9), ValueError, "whole numbers 0 <= early"),
    ("induction", "a model without weights", lambda tmp: ik.induction(torch.nn.Module.to(fresh("attention-only"), "meta")), ValueError, "on the device 'meta'"),
    ("random_heads", "their number", lambda tmp: ik.random_heads(model(), 3), TypeError, 'random_heads(model, like=["L1H0"]), got 3'),
    ("heads.random_sets", "the number of heads", lambda tmp: ik.heads.random_sets(model(), 3), TypeError, "the heads to match"),
    ("random_heads", "not a model", lambda tmp: ik.random_heads("gpt2", like=["L0H0"]), TypeError, "got str"),
    ("training.Recipe", "layers", lambda tmp: ik.training.Recipe(layers=5), ValueError, "from 1 to 4"),
    ("training.log_spaced", "no steps", lambda tmp: ik.training.log_spaced(0, 4), ValueError, "first must be a whole number"),
    ("training.log_spaced", "no count", lambda tmp: ik.training.log_spaced(10, 0), ValueError, "count must be a whole number"),
    ("training.train", "a text for the language's recipe", lambda tmp: ik.training.train(text=tmp / "book.txt", folder=tmp / "run"), ValueError, "pieces=None and text"),
    ("training.train", "pieces without a text", lambda tmp: ik.training.train(ik.training.Recipe(pieces=300), folder=tmp / "run"), ValueError, "pieces=300 and no text"),
    ("training.train", "a text without a folder", lambda tmp: ik.training.train(ik.training.Recipe(pieces=300), text=tmp / "book.txt"), ValueError, "name a folder to store it in"),
    ("training.train", "a text that is not there", lambda tmp: ik.training.train(ik.training.Recipe(pieces=300), text=tmp / "book.txt", folder=tmp / "run"), ValueError, "cannot read"),
    ("training.train", "no recipe", lambda tmp: ik.training.train("tiny"), TypeError, "wanted a Recipe, got str"),
    ("training.train", "a folder in a file", lambda tmp: ik.training.train(folder=table(tmp) / "run", progress=False), ValueError, "wanted a folder"),
    ("training.train_families", "none", lambda tmp: ik.training.train_families(tmp, families={}), ValueError, "families with the same checkpoints"),
    ("training.train_families", "a file", lambda tmp: ik.training.train_families(table(tmp)), ValueError, "it is a file"),
    ("training.family_curves", "no such file", lambda tmp: ik.training.family_curves(tmp / "curves.nc"), ValueError, "cannot read curves"),
    ("training.family_curves", "a table", lambda tmp: ik.training.family_curves(table(tmp)), ValueError, "it is not a netCDF file"),
    ("training.training_curves", "text is needed", lambda tmp: ik.training.training_curves(unlike_stories(tmp), checkpoints=[0], progress=False), ValueError, "pass prompts="),
    ("training.training_curves", "prompts too short for the bands", lambda tmp: ik.training.training_curves("tiny", prompts=tokens(2, 90), checkpoints=[0], progress=False), ValueError, "pass longer prompts, or early= and late="),
    ("training.training_curves", "a band beyond the prompts", lambda tmp: ik.training.training_curves("tiny", late=(80, 120), checkpoints=[0], progress=False), ValueError, "early before late within them"),
    ("training.training_curves", "a single position", lambda tmp: ik.training.training_curves("tiny", early=(10, 11)), ValueError, "at least 20 positions"),
    ("training.training_curves", "too few prompts", lambda tmp: ik.training.training_curves("tiny", n=8), ValueError, "at least 16"),
    ("training.training_curves", "an absent checkpoint", lambda tmp: ik.training.training_curves("tiny", checkpoints=[7]), ValueError, "no checkpoint of step 7"),
    ("training.phase_window", "scores, not curves", lambda tmp: ik.training.phase_window(scores()), ValueError, "training_curves"),
    ("training.phase_window", "no Dataset", lambda tmp: ik.training.phase_window([1, 2]), TypeError, "got list"),
    ("training.phase_window", "three checkpoints", lambda tmp: ik.training.phase_window(curves_of().isel(checkpoint=slice(0, 4))), ValueError, "at least 4 checkpoints"),
    ("training.phase_window", "too few draws", lambda tmp: ik.training.phase_window(curves_of(), draws=10), ValueError, "draws of at least 100"),
    ("training.phase_window", "no smoothing", lambda tmp: ik.training.phase_window(curves_of(), smoothing=0), ValueError, "smoothing in ln(tokens)"),
    ("training.phase_window", "one prompt", lambda tmp: ik.training.phase_window(curves_of().isel(prompt=[0])), ValueError, "at least 2 prompts"),
    ("training.onset_coupling", "an unknown curve", lambda tmp: ik.training.onset_coupling(curves_of(), "icl_score", "accuracy"), ValueError, "two different curves"),
    ("training.onset_coupling", "a curve with itself", lambda tmp: ik.training.onset_coupling(curves_of(), "loss", "loss"), ValueError, "two different curves"),
    ("training.loss_components", "no losses of tokens", lambda tmp: ik.training.loss_components(curves_of().drop_vars("sampled_loss")), ValueError, "without sampled_loss"),
    ("training.loss_components", "one example", lambda tmp: ik.training.loss_components(curves_of().isel(prompt=[0])), ValueError, "2 examples"),
    ("training.loss_slope", "no losses by position", lambda tmp: ik.training.loss_slope(curves_of()), ValueError, "without position_loss"),
    ("training.before_and_after", "another Dataset than a window", lambda tmp: ik.training.before_and_after(curves_of(), curves_of()), ValueError, "wanted the phase_window of these curves"),
    ("training.before_and_after", "no Dataset", lambda tmp: ik.training.before_and_after(curves_of(), (1.0, 2.0)), TypeError, "got tuple"),
    ("report", "prompts themselves", lambda tmp: ik.report(worded(), tmp / "a.html", n_prompts=repeats()), TypeError, "number of prompts"),
    ("head_table", "several scorers", lambda tmp: ik.head_table(ik.observe(model(), repeats(), [ik.induction])), ValueError, "sel(scorer"),
    ("summarise", "absent variable", lambda tmp: ik.summarise(scores(), variable="right"), ValueError, "'right'"),
    ("pairs", "unequal lengths", lambda tmp: ik.pairs(worded(), clean=["fox saw"], corrupted=["fox"]), ValueError, "'saw'"),
    ("pairs", "unequal numbers", lambda tmp: ik.pairs(worded(), clean=["fox", "pear"], corrupted=["fox"]), ValueError, "2 clean and 1"),
    ("pairs", "answer of two tokens", lambda tmp: ik.pairs(worded(), clean=["fox"], corrupted=["pear"], answers=[("red fox", "fox")]), ValueError, "2 tokens"),
    ("pairs", "one answer as right and wrong", lambda tmp: ik.pairs(worded(), clean=["fox"], corrupted=["pear"], answers=[("fox", "fox")]), ValueError, "another that is wrong, got ('fox', 'fox')"),
    ("as_prompts", "results", lambda tmp: ik.as_prompts(model(), scores()), TypeError, "got a Dataset of results"),
    ("as_prompts", "both of a pair", lambda tmp: ik.as_prompts(worded(), ik.pairs(worded(), clean=["fox"], corrupted=["pear"])), TypeError, "got Pairs: pass its `clean`"),
    ("pairs", "missing answers", lambda tmp: ik.pairs(worded(), clean=["fox"], corrupted=["pear"], answers=[]), ValueError, "(right, wrong)"),
    # scorers
    ("AttentionScorer", "mask of another shape", lambda tmp: ik.AttentionScorer("mine", lambda t, n: torch.ones(3).bool())(model(), repeats()), ValueError, "mask of mine"),
    ("AttentionScorer", "mask that is not bool", lambda tmp: ik.AttentionScorer("mine", lambda t, n: square(t, n).float())(model(), repeats()), ValueError, "mask of mine"),
    ("induction", "nothing repeats", lambda tmp: ik.induction(model(), torch.arange(9)), ValueError, "nothing to read in prompt 0"),
    ("induction", "NaN weights", lambda tmp: ik.induction(with_nan(), repeats()), ValueError, "not finite"),
    ("induction", "not a model", lambda tmp: ik.induction("gpt2"), TypeError, "got str"),
    ("induction", "unknown compat", lambda tmp: ik.induction(model(), repeats(), compat="old"), ValueError, "diagonal"),
    ("induction", "layer out of range", lambda tmp: ik.induction(model(), repeats(), layers=[2]), ValueError, "layers from 0 to 1"),
    ("prefix_matching", "batch size", lambda tmp: ik.prefix_matching(model(), repeats(), batch_size=0), ValueError, "batch_size >= 1"),
    ("previous_token", "one token", lambda tmp: ik.previous_token(model(), torch.tensor([[1]])), ValueError, "nothing to read"),
    ("duplicate_token", "nothing repeats", lambda tmp: ik.duplicate_token(model(), torch.arange(5)), ValueError, "nothing to read"),
    ("first_token", "one token", lambda tmp: ik.first_token(model(), torch.tensor([[1]])), ValueError, "nothing to read"),
    ("current_token", "two tokens", lambda tmp: ik.current_token(model(), torch.tensor([[1, 2]])), ValueError, "nothing to read"),
    ("first_token", "not a model", lambda tmp: ik.first_token("gpt2"), TypeError, "got str"),
    ("scorers.head_sizes", "one token", lambda tmp: ik.scorers.head_sizes(model(), torch.tensor([[1]])), ValueError, "at least two tokens"),
    ("scorers.head_sizes", "NaN weights", lambda tmp: ik.scorers.head_sizes(with_nan(), repeats()), ValueError, "not finite"),
    ("scorers.head_sizes", "batch size", lambda tmp: ik.scorers.head_sizes(model(), repeats(), batch_size=0), ValueError, "batch_size >= 1"),
    ("scorers.head_sizes", "layer out of range", lambda tmp: ik.scorers.head_sizes(model(), repeats(), layers=[2]), ValueError, "layers from 0 to 1"),
    ("scorers.head_sizes", "unknown size", lambda tmp: ik.summarise(ik.scorers.head_sizes(model(), repeats()), variable="sinks"), ValueError, "'sink'"),
    ("prompts.ordinary_text", "more than there is", lambda tmp: ik.prompts.ordinary_text(worded(), prompts=100), ValueError, "64 windows of 64 tokens, wanted 100"),
    ("prompts.ordinary_text", "no prompts", lambda tmp: ik.prompts.ordinary_text(worded(), prompts=0), ValueError, "prompts >= 1"),
    ("prompts.ordinary_text", "beyond the context", lambda tmp: ik.prompts.ordinary_text(worded(), length=96), ValueError, "length from 1 to 95"),
    ("prompts.ordinary_text", "half a prompt", lambda tmp: ik.prompts.ordinary_text(worded(), prompts=0.5), TypeError, "whole numbers"),
    ("prompts.ordinary_text", "an unknown word", lambda tmp: ik.prompts.ordinary_text(worded(), "the foxes ran", prompts=1, length=2), ValueError, "'foxes'"),
    ("prompts.ordinary_text", "token ids", lambda tmp: ik.prompts.ordinary_text(worded(), [1, 2]), TypeError, "one text or several"),
    ("prompts.ordinary_text", "text without a tokenizer", lambda tmp: ik.prompts.ordinary_text(model(), "the fox"), ValueError, "no tokenizer"),
    ("label_attention", "no demonstrations", lambda tmp: ik.label_attention(model(), repeats()), ValueError, "few_shot"),
    ("scorers.demonstration_weights", "unknown pooling", lambda tmp: ik.scorers.demonstration_weights(worded(), shots(), pooling="min"), ValueError, "label"),
    ("scorers.demonstration_weights", "unknown span", lambda tmp: ik.scorers.demonstration_weights(worded(), shots(), span="template"), ValueError, "got 'template'"),
    ("scorers.demonstration_weights", "words that nobody said", lambda tmp: ik.scorers.demonstration_weights(model(), labelled(repeats()), span="words"), ValueError, "that say where x is"),
    ("copying", "unknown method", lambda tmp: ik.copying(model(), repeats(), method="WAN"), ValueError, "OLS"),
    ("ov_eigenvalues", "no MLP", lambda tmp: ik.ov_eigenvalues(model(), embedding="effective"), ValueError, "block 0"),
    ("ov_eigenvalues", "unknown embedding", lambda tmp: ik.ov_eigenvalues(model(), embedding="raw"), ValueError, "tokens"),
    ("ov_eigenvalues", "NaN weights", lambda tmp: ik.ov_eigenvalues(with_nan()), ValueError, "not finite"),
    ("qk_trace", "rotary", lambda tmp: ik.qk_trace(tiny("Llama")), ValueError, "rotary"),
    ("qk_trace", "one layer", lambda tmp: ik.qk_trace(fresh("attention-only", n_layers=1)), ValueError, "two layers"),
    ("qk_trace", "no draws", lambda tmp: ik.qk_trace(model(), draws=0), ValueError, "draws >= 1"),
    ("qk_trace", "NaN weights", lambda tmp: ik.qk_trace(with_nan()), ValueError, "not finite"),
    ("composition", "unknown kind", lambda tmp: ik.composition(model(), by="o"), ValueError, '"k", "q" or "v"'),
    ("composition", "one layer", lambda tmp: ik.composition(fresh("attention-only", n_layers=1)), ValueError, "two layers"),
    ("composition", "not a model", lambda tmp: ik.composition("tiny"), TypeError, "TransformerLens"),
    ("evidence.mechanism", "no models", lambda tmp: ik.evidence.mechanism({}), ValueError, "at least one model"),
    ("evidence.mechanism", "a threshold beyond 1", lambda tmp: ik.evidence.mechanism(model(), correlation=2), ValueError, "[-1, 1)"),
    ("evidence.mechanism", "not a model", lambda tmp: ik.evidence.mechanism(3), TypeError, "TransformerLens"),
    ("evidence.direct_ablation", "not a model", lambda tmp: ik.evidence.direct_ablation(3), TypeError, "TransformerLens"),
    ("evidence.direct_ablation", "no prompts", lambda tmp: ik.evidence.direct_ablation(model()), ValueError, "pass prompts="),
    ("evidence.direct_ablation", "short prompts", lambda tmp: ik.evidence.direct_ablation(model(), prompts=tokens(4, 12)), ValueError, "early= and late="),
    ("evidence.direct_ablation", "no such step", lambda tmp: ik.evidence.direct_ablation("tiny", checkpoints=[7]), ValueError, "tiny has no checkpoint of step 7: there are 0, 100"),
    ("evidence.direct_ablation", "a window that ends first", lambda tmp: ik.evidence.direct_ablation("tiny", window=(2, 1)), ValueError, "start before end"),
    ("evidence.direct_ablation", "windows of several runs", lambda tmp: ik.evidence.direct_ablation("tiny", window=window([1400, 1500], [1700, 1800])), ValueError, "wanted the window of one run"),
    ("evidence.direct_ablation", "a share of 1", lambda tmp: ik.evidence.direct_ablation("tiny", share=1), ValueError, "shares in [0, 1)"),
    ("observe", "one scorer without a list", lambda tmp: ik.observe(model(), repeats(), ik.induction), TypeError, "list of attention scorers"),
    ("observe", "no scorers", lambda tmp: ik.observe(model(), repeats(), []), ValueError, "at least one scorer"),
    ("observe", "one scorer twice", lambda tmp: ik.observe(model(), repeats(), [ik.induction] * 2), ValueError, "each name once"),
    ("census", "not a model", lambda tmp: ik.census(3), TypeError, "wanted a TransformerLens HookedTransformer"),
    ("census", "few prompts", lambda tmp: ik.census(model(), n_prompts=8), ValueError, "wanted n_prompts >= 12"),
    ("census", "an unknown behaviour", lambda tmp: ik.census(model(), behaviours=["indution"]), ValueError, "got 'indution'; \"induction\"?"),
    ("census", "a behaviour without a list", lambda tmp: ik.census(model(), behaviours="induction"), TypeError, "wanted behaviours as a list"),
    ("census", "no behaviours", lambda tmp: ik.census(model(), behaviours=[]), ValueError, "at least one behaviour"),
    ("census", "a scorer for a behaviour", lambda tmp: ik.census(model(), behaviours=[ik.induction]), TypeError, "names or Behaviour, got AttentionScorer"),
    ("census", "a level of 5", lambda tmp: ik.census(model(), level=5), ValueError, "level between 0 and 1"),
    ("census", "no rows", lambda tmp: ik.census(model(), rows=0), ValueError, "rows from 1 to 8"),
    ("head_census.passages", "no rows", lambda tmp: ik.head_census.passages(model(), repeats(), rows=0), ValueError, "rows from 1 to 8"),
    ("head_census.table", "scores", lambda tmp: ik.head_census.table(scores()), TypeError, "wanted what census(model) returned, got Dataset"),
    ("head_census.beside", "scores", lambda tmp: ik.head_census.beside(scores(), scores()), TypeError, "wanted what census(model) returned, got Dataset"),
    ("head_census.Behaviour", "prompts of no kind", lambda tmp: ik.head_census.Behaviour("a", "b", "c", "letters", ik.induction), ValueError, "wanted the prompts of a as one of"),
    ("head_census.Behaviour", "a measure that is none", lambda tmp: ik.head_census.Behaviour("a", "b", "c", "ordinary text", 3), TypeError, "wanted the measure of a as an AttentionScorer or a function, got int"),
    ("plots.fingerprint_map", "scores", lambda tmp: ik.plots.fingerprint_map(scores()), ValueError, "wanted what census(model) returned"),
    ("plots.fingerprint_map", "a list", lambda tmp: ik.plots.fingerprint_map([1]), TypeError, "got list"),
    ("patterns", "no heads", lambda tmp: ik.patterns(model(), repeats(), []), ValueError, "at least one head"),
    # heads
    ("Head", "a word", lambda tmp: ik.patterns(model(), repeats(), "first"), ValueError, "L5H1"),
    ("Head", "a number", lambda tmp: ik.patterns(model(), repeats(), 3), TypeError, "(layer, head)"),
    ("Head", "not in the model", lambda tmp: ik.patterns(model(), repeats(), "L5H1"), ValueError, "layers 0 to 1"),
    ("summarise", "not a Dataset", lambda tmp: ik.summarise([0.5]), TypeError, "got list"),
    ("summarise", "another Dataset", lambda tmp: ik.summarise(ik.repeat_loss(model(), repeats())), TypeError, "`score`"),
    ("summarise", "confidence in percent", lambda tmp: ik.summarise(scores(), confidence=95), ValueError, "between 0 and 1"),
    ("top_heads", "no heads", lambda tmp: ik.top_heads(scores(), 0), ValueError, "k >= 1"),
    ("top_heads", "absent layer", lambda tmp: ik.top_heads(scores(), 2, layers=[4]), ValueError, "wanted layers"),
    ("top_heads", "several scorers", lambda tmp: ik.top_heads(ik.observe(model(), repeats(), [ik.induction]), 2), ValueError, "sel(scorer"),
    ("top_heads", "by a variable that is not there", lambda tmp: ik.top_heads(scores(), by="exces"), ValueError, 'by="excess"?'),
    ("top_heads", "by a variable of more than heads", lambda tmp: ik.top_heads(shot_weights(), by="weight"), ValueError, "over demonstration: choose one"),
    ("top_heads", "a sweep by position", lambda tmp: ik.top_heads(ik.sweep(model(), repeats(), site="resid_pre", by=("layer", "position"))), ValueError, 'make it with by=("layer", "head")'),
    ("summarise", "weights of demonstrations", lambda tmp: ik.summarise(shot_weights()), ValueError, "label_attention(model, prompts"),
    ("head_map", "weights of demonstrations", lambda tmp: ik.head_map(shot_weights()), ValueError, "kernel.vote(weights, prompts)"),
    ("compare", "a comparison", lambda tmp: ik.compare(ik.compare(scores(), scores()), scores()), ValueError, "has no summary"),
    ("random_heads", "too few others", lambda tmp: ik.random_heads(model(), like=["L0H0", "L0H1", "L0H2"]), ValueError, "any layer"),
    ("random_heads", "unknown control", lambda tmp: ik.random_heads(model(), like=["L0H0"], control="none"), ValueError, "same layer"),
    ("heads.random_sets", "none", lambda tmp: ik.heads.random_sets(model(), like=["L0H0"], n=0), ValueError, "n >= 1 random sets"),
    ("heads.random_sets", "too few others", lambda tmp: ik.heads.random_sets(model(), like=["L0H0", "L0H1", "L0H2"]), ValueError, "any layer"),
    ("compare", "other heads", lambda tmp: ik.compare(scores(), ik.induction(model(), repeats(), layers=[0])), ValueError, "same layers and heads"),
    # metrics and ablation
    ("loss_by_position", "text without tokenizer", lambda tmp: ik.loss_by_position(model(), "fox"), ValueError, "no tokenizer"),
    ("repeat_loss", "no second copy", lambda tmp: ik.repeat_loss(model(), torch.tensor([[1, 2, 3]])), ValueError, "or another metric, such as loss"),
    ("icl_score", "short prompts", lambda tmp: ik.icl_score(model(), torch.zeros(2, 30).long()), ValueError, "early= and late="),
    ("icl_score", "short prompts of a model that sees the next token", lambda tmp: ik.icl_score(bidirectional("native"), torch.tensor([[1, 2]])), ValueError, "icl_score reads how well next tokens are predicted"),
    ("icl_score", "short prompts, and positions that they have", lambda tmp: ik.icl_score(model(), torch.zeros(2, 30).long()), ValueError, "such as early=3, late=27"),
    ("icl_score", "early after late", lambda tmp: ik.icl_score(model(), torch.zeros(2, 30).long(), early=9, late=3), ValueError, "early < late"),
    ("logit_difference", "no prompts", lambda tmp: ik.logit_difference(model()), ValueError, "pass prompts="),
    ("logit_difference", "no answers", lambda tmp: ik.logit_difference(model(), repeats()), ValueError, "answers"),
    ("label_accuracy", "no labels of the queries", lambda tmp: ik.label_accuracy(worded(), shots()), ValueError, "queries carry labels"),
    ("ablate", "no heads", lambda tmp: ik.ablate(model(), repeats(), []), ValueError, "at least one head"),
    ("ablate", "absent head", lambda tmp: ik.ablate(model(), repeats(), "L0H4"), ValueError, "heads 0 to 3"),
    ("ablate", "metric of one number", lambda tmp: ik.ablate(model(), repeats(), "L0H1", metric=lambda logits, p: logits.mean()), ValueError, "one number a prompt"),
    ("Zero", "the class itself", lambda tmp: ik.ablate(model(), repeats(), "L0H1", edit=ik.Zero), TypeError, "got the class Zero: write ik.Zero()"),
    ("Mean", "text as reference", lambda tmp: ik.ablate(model(), repeats(), "L0H1", edit=ik.Mean("fox")), ValueError, "no tokenizer"),
    # sweep
    ("sweep", "not a model", lambda tmp: ik.sweep("gpt2", repeats()), TypeError, "got str"),
    ("sweep", "unknown site", lambda tmp: swept(site="hook_z"), ValueError, "got 'hook_z': write site=\"z\""),
    ("sweep", "a hook by its full name", lambda tmp: swept(site="blocks.0.hook_resid_pre"), ValueError, 'write site="resid_pre"'),
    ("sweep", "a site that is no hook's", lambda tmp: swept(site="attention"), ValueError, "resid_mid, resid_post, got 'attention'"),
    ("path_patch", "a hook instead of a site", lambda tmp: ik.path_patch(worded(), source=shots(), into=shots(), receivers="L1H0", site="hook_q"), ValueError, 'write site="q"'),
    ("sweep", "by in the wrong order", lambda tmp: swept(by=("head", "layer")), ValueError, "wanted by for site 'z'"),
    ("sweep", "by as text", lambda tmp: swept(by="layer"), ValueError, "got 'layer'"),
    ("sweep", "by head where there are none", lambda tmp: swept(site="resid_pre"), ValueError, 'for heads pass site="z"'),
    ("sweep", "heads where there are none", lambda tmp: swept(site="attn_out", by=("layer",), heads="L0H0"), ValueError, "has no heads"),
    ("sweep", "heads out of range", lambda tmp: swept(heads=["L0H1", "L2H0"]), ValueError, "layers 0 to 1"),
    ("sweep", "no heads", lambda tmp: swept(heads=[]), ValueError, "at least one head"),
    ("sweep", "query head as key/value head", lambda tmp: swept(model=tiny("Llama"), prompts=tokens(2), site="k", heads="L0H2", metric=ik.loss), ValueError, "query head h has key/value head h // 2"),
    ("sweep", "query head as value head", lambda tmp: swept(model=tiny("Llama"), prompts=tokens(2), site="v", heads=[(1, 3)], metric=ik.loss), ValueError, "2 key/value heads"),
    ("sweep", "heads in other layers", lambda tmp: swept(heads="L0H0", layers=[1]), ValueError, "leave out layers= or heads="),
    ("sweep", "negative layer", lambda tmp: swept(layers=[-1]), ValueError, "layers from 0 to 1, got [-1]: they count from 0, and the last is layers=[1]"),
    ("sweep", "layer too large", lambda tmp: swept(layers=2), ValueError, "layers from 0 to 1, got [2]"),
    ("sweep", "position too large", lambda tmp: swept(by=("layer", "position"), positions=[13]), ValueError, "positions from 0 to 12"),
    ("sweep", "negative position", lambda tmp: swept(by=("layer", "position"), positions=[-1]), ValueError, "positions from 0 to 12, got [-1]: they count from 0, and the last is positions=[12]"),
    ("sweep", "positions that are not swept", lambda tmp: swept(positions=[0]), ValueError, "put 'position' into by"),
    ("sweep", "no MLP", lambda tmp: swept(site="mlp_out", by=("layer",)), ValueError, "no mlp_out"),
    ("sweep", "no middle of attention alone", lambda tmp: swept(site="resid_mid", by=("layer",)), ValueError, "no resid_mid"),
    ("sweep", "no middle of parallel blocks", lambda tmp: swept(model=parallel(), prompts=tokens(2), site="resid_mid", by=("layer",), metric=ik.loss), ValueError, "both read resid_pre"),
    ("sweep", "held queries", lambda tmp: swept(site="q", hold="patterns"), ValueError, "an edit of q acts only through patterns"),
    ("sweep", "held keys", lambda tmp: swept(site="k", hold="patterns"), ValueError, "an edit of k acts only through patterns"),
    ("sweep", "held pattern", lambda tmp: swept(site="pattern", hold="patterns"), ValueError, "an edit of pattern acts only"),
    ("sweep", "unknown hold", lambda tmp: swept(hold=True), ValueError, "hold=None or 'patterns'"),
    ("sweep", "max_tokens below a prompt", lambda tmp: swept(max_tokens=12), ValueError, "at least one prompt, 13 tokens, got 12"),
    ("sweep", "one prompt and its own mean", lambda tmp: ik.sweep(model(), [[1, 2, 3, 4]], metric=ik.loss), ValueError, "nothing to average over"),
    ("sweep", "copies of one prompt and their own mean", lambda tmp: ik.sweep(model(), [[1, 2, 3, 4]] * 3, metric=ik.loss), ValueError, "nothing to average over"),
    ("sweep", "an edit given as a class", lambda tmp: swept(edit=ik.Mean), TypeError, "Zero() or Mean(reference), got the class Mean: write ik.Mean()"),
    ("sweep", "an edit's class that takes arguments", lambda tmp: swept(edit=ik.Scale), TypeError, "write ik.Scale(...)"),
    ("sweep", "a class that is no edit", lambda tmp: swept(edit=dict), TypeError, "got <class 'dict'>"),
    ("sweep", "a tensor as edit", lambda tmp: swept(edit=torch.zeros(4)), TypeError, "got a Tensor: see Add(vector)"),
    ("sweep", "no edit", lambda tmp: swept(edit="zero"), TypeError, "got 'zero'"),
    ("sweep", "metric of another shape", lambda tmp: swept(metric=lambda logits, p: logits[:, :, 0]), ValueError, "one number a prompt [8], got [8, 13]"),
    ("sweep", "metric that is no tensor", lambda tmp: swept(metric=lambda logits, p: 1.0), ValueError, "got float"),
    ("sweep", "metric that gives NaN", lambda tmp: swept(metric=lambda logits, p: (0 * logits[:, 0, 0]) / 0), ValueError, "prompt 0 is not finite"),
    ("sweep", "metric given as a class", lambda tmp: swept(metric=dict), TypeError, "wanted a metric"),
    ("sweep", "prompts without a second copy", lambda tmp: swept(prompts=tokens(2)), ValueError, "no scored second copy"),
    ("sweep", "NaN weights", lambda tmp: swept(model=with_nan()), ValueError, "not finite"),
    # edits
    ("Zero", "of patterns", lambda tmp: swept(edit=ik.Zero(), site="pattern"), ValueError, "still sum to 1, got Zero"),
    ("ZeroValues", "of patterns", lambda tmp: swept(edit=ik.ZeroValues(), site="pattern"), ValueError, "still sum to 1, got ZeroValues"),
    ("ZeroValues", "of queries", lambda tmp: swept(edit=ik.ZeroValues(), site="q"), ValueError, "of z and v"),
    ("ZeroValues", "of the stream", lambda tmp: swept(edit=ik.ZeroValues(), site="attn_out", by=("layer",)), ValueError, "use Zero() at site='attn_out'"),
    ("Mean", "of patterns over all positions", lambda tmp: swept(edit=ik.Mean(by_position=False), site="pattern"), ValueError, "a mean of patterns is by position"),
    ("Scale", "of patterns", lambda tmp: swept(edit=ik.Scale(2.0), site="pattern"), ValueError, "still sum to 1, got Scale"),
    ("Scale", "infinite", lambda tmp: ik.Scale(float("inf")), ValueError, "finite number to scale by"),
    ("Scale", "text", lambda tmp: ik.Scale("2"), ValueError, "got '2'"),
    ("Add", "of patterns", lambda tmp: swept(edit=ik.Add(torch.ones(13)), site="pattern"), ValueError, "still sum to 1, got Add"),
    ("Add", "width of the stream at heads", lambda tmp: swept(edit=ik.Add(torch.ones(16))), ValueError, "broadcasts to [8, 13, 4, 4] at z, got [16]"),
    ("Add", "width of a head in the stream", lambda tmp: swept(edit=ik.Add(torch.ones(4)), site="resid_pre", by=("layer",)), ValueError, "broadcasts to [8, 13, 16]"),
    ("Add", "one number for a vector", lambda tmp: swept(edit=ik.Add(torch.ones(1))), ValueError, "broadcasts to"),
    ("Add", "a list", lambda tmp: ik.Add([1.0, 2.0]), TypeError, "floating-point tensor, got list"),
    ("Add", "NaN", lambda tmp: ik.Add(torch.tensor([NAN])), ValueError, "finite numbers"),
    ("Mean", "by position of ragged prompts", lambda tmp: swept(prompts=ragged(), edit=ik.Mean(by_position=True)), ValueError, "Mean(by_position=False)"),
    ("Mean", "of patterns of ragged prompts", lambda tmp: swept(prompts=ragged(), site="pattern"), ValueError, "a mean by position needs prompts and reference of one length"),
    ("Mean", "reference of another length by position", lambda tmp: swept(edit=ik.Mean(repeats(period=5), by_position=True)), ValueError, "got [11, 13]"),
    ("Resample", "one prompt", lambda tmp: swept(prompts=repeats(prompts=1), edit=ik.Resample()), ValueError, "two prompts or more"),
    ("Resample", "shorter reference", lambda tmp: swept(edit=ik.Resample(repeats(period=5))), ValueError, "prompt 0 has 13 tokens, the one drawn for it 11"),
    ("FromRun", "another number", lambda tmp: swept(edit=ik.FromRun(repeats(prompts=4))), ValueError, "got 4 for 8"),
    ("FromRun", "other lengths", lambda tmp: swept(edit=ik.FromRun(repeats(period=5))), ValueError, "prompt 0 has 13 tokens, its source 11"),
    ("KnockOut", "a mask of numbers", lambda tmp: ik.KnockOut(torch.ones(13, 13)), TypeError, "bool tensor to knock out, got torch.float32"),
    ("KnockOut", "no mask", lambda tmp: ik.KnockOut([True]), TypeError, "got list"),
    ("KnockOut", "not of patterns", lambda tmp: swept(edit=ik.KnockOut(everything(13))), ValueError, "wanted site='pattern', got site='z'"),
    # conveniences
    ("knock_out", "a query left with nothing", lambda tmp: ik.knock_out(model(), repeats(), everything(13)), ValueError, "query 0 of prompt 0, head 0, would be left with nothing"),
    ("knock_out", "a mask of another length", lambda tmp: ik.knock_out(model(), repeats(), everything(12)), ValueError, "broadcasts to [8, 4, 13, 13], got [12, 12]"),
    ("knock_out", "a mask for other prompts", lambda tmp: ik.knock_out(model(), repeats(), square(tokens(4, 13), None)), ValueError, "got [4, 1, 13, 13]"),
    ("knock_out", "a function of numbers", lambda tmp: ik.knock_out(model(), repeats(), lambda t, n: square(t, n).float()), TypeError, "got torch.float32"),
    ("knock_out", "a list", lambda tmp: ik.knock_out(model(), repeats(), [[True]]), TypeError, "got list"),
    ("knock_out", "absent head", lambda tmp: ik.knock_out(model(), repeats(), everything(13).triu(1), heads="L0H4"), ValueError, "heads 0 to 3"),
    ("ablation_curve", "no heads", lambda tmp: curve(ks=(0, 1)), ValueError, "ks from 1 to 8 heads"),
    ("ablation_curve", "too many heads", lambda tmp: curve(ks=(9,)), ValueError, "ks from 1 to 8 heads"),
    ("ablation_curve", "half a head", lambda tmp: curve(ks=(1.5,)), ValueError, "ks from 1 to 8 heads"),
    ("ablation_curve", "no ks", lambda tmp: curve(ks=()), ValueError, "got ()"),
    ("ablation_curve", "no controls", lambda tmp: curve(controls=0), ValueError, "controls >= 1"),
    ("ablation_curve", "too few others in a layer", lambda tmp: curve(ks=(8,)), ValueError, "0 other heads, 4 are needed: choose fewer heads"),
    ("ablation_curve", "scores as a number", lambda tmp: ik.ablation_curve(model(), repeats(), 3), TypeError, "got int"),
    ("ablation_curve", "one head as text", lambda tmp: ik.ablation_curve(model(), repeats(), "L1H0"), TypeError, "heads strongest first, got str"),
    ("ablation_curve", "heads in no order", lambda tmp: ik.ablation_curve(model(), repeats(), {"L1H0", "L0H0"}), TypeError, "heads strongest first, got set"),
    ("ablation_curve", "not a model", lambda tmp: ik.ablation_curve(None, repeats(), scores()), TypeError, "got NoneType"),
    ("edited", "not a model", lambda tmp: within(ik.Zero(), "L0H0", of="gpt2"), TypeError, "got str"),
    ("edited", "a mean of no reference", lambda tmp: within(ik.Mean(), "L0H0"), ValueError, "does not depend on the prompt"),
    ("edited", "a mean by position", lambda tmp: within(ik.Mean(repeats(), by_position=True), "L0H0"), ValueError, "knows no positions"),
    ("edited", "another run", lambda tmp: within(ik.FromRun(repeats()), "L0H0"), ValueError, "does not depend on the prompt"),
    ("edited", "other prompts", lambda tmp: within(ik.Resample(repeats()), "L0H0"), ValueError, "does not depend on the prompt"),
    ("edited", "a vector for each position", lambda tmp: within(ik.Add(torch.ones(13, 1, 4)), "L0H0"), ValueError, "Add(vector) of one position"),
    ("edited", "a pattern", lambda tmp: within(ik.KnockOut(everything(1).tril(-1)), "L0H0", site="pattern"), ValueError, "does not depend on the prompt"),
    ("edited", "absent head", lambda tmp: within(ik.Zero(), "L2H0"), ValueError, "layers 0 to 1"),
    ("edited", "the class itself", lambda tmp: within(ik.Zero, "L0H0"), TypeError, "write ik.Zero()"),
    ("patch", "unequal lengths", lambda tmp: patched(source=repeats(period=5)), ValueError, "wanted equal lengths"),
    ("patch", "unequal numbers", lambda tmp: patched(source=repeats(prompts=4)), ValueError, "got 4 for 8"),
    ("patch", "no answers", lambda tmp: patched(metric=ik.logit_difference), ValueError, "needs prompts with answers"),
    ("patch", "metric of another shape", lambda tmp: patched(metric=lambda logits, p: logits[:, -1, :2]), ValueError, "got [8, 2]"),
    ("patch", "a head of the stream", lambda tmp: patched(by=("layer", "head")), ValueError, "wanted by for site 'resid_pre'"),
    ("path_patch", "no receivers", lambda tmp: sent(receivers=[]), ValueError, "got none"),
    ("path_patch", "sender beside the receiver", lambda tmp: sent(senders="L1H2"), ValueError, "come before a receiver"),
    ("path_patch", "unknown site", lambda tmp: sent(site="z"), ValueError, "wanted site out of"),
    ("path_patch", "receivers of the stream", lambda tmp: sent(site="resid_post"), ValueError, "leave out receivers="),
    ("path_patch", "unequal numbers", lambda tmp: sent(source=repeats(prompts=4)), ValueError, "4 and 8"),
    ("path_patch", "unequal lengths", lambda tmp: sent(source=repeats(period=5)), ValueError, "wanted equal lengths"),
    ("path_patch", "query head as key head", lambda tmp: sent(model=tiny("Llama"), source=tokens(), into=tokens(), receivers="L1H3", metric=ik.loss), ValueError, "2 key/value heads"),
    ("path_patch", "no MLP", lambda tmp: sent(receivers=[1], site="mlp_out"), ValueError, "attention-only"),
    ("attribution", "a metric without a gradient", lambda tmp: attributed(model=worded(), prompts=word_episodes(worded(), prompts=2), metric=ik.label_accuracy), ValueError, "can be differentiated"),
    ("attribution", "a site without heads by head", lambda tmp: attributed(site="attn_out"), ValueError, "wanted by"),
    ("attribution", "the class itself", lambda tmp: attributed(edit=ik.Zero), TypeError, "got the class Zero: write ik.Zero()"),
    ("attribution", "fewer than none to verify", lambda tmp: attributed(verify=-1), ValueError, "0 for none"),
    ("attribution", "infinite slope", lambda tmp: attributed(metric=lambda logits, p: (logits[:, 0, 0] * 0).sqrt()), ValueError, "not finite"),
    ("attribution", "budget below a prompt", lambda tmp: attributed(max_tokens=3), ValueError, "max_tokens"),
    ("attribution", "unequal lengths", lambda tmp: attributed(edit=ik.FromRun(repeats(period=5))), ValueError, "wanted equal lengths"),
    # metrics and direct effects
    ("prompts.with_answers", "too few answers", lambda tmp: ik.prompts.with_answers(model(), repeats(), [(1, 2)]), ValueError, "each of 8 prompts"),
    ("prompts.with_answers", "a number", lambda tmp: ik.prompts.with_answers(model(), repeats(), 5), ValueError, "(right, wrong)"),
    ("prompts.with_answers", "out of the vocabulary", lambda tmp: ik.prompts.with_answers(model(), tokens(), [(1, 50)]), ValueError, "answer ids from 0 to 49"),
    ("prompts.with_answers", "an answer of two tokens", lambda tmp: ik.prompts.with_answers(worded(), "fox", [("red fox", "fox")]), ValueError, "2 tokens"),
    ("prompts.with_answers", "a pair outside a list", lambda tmp: ik.prompts.with_answers(worded(), "fox", ("dax", "wug")), ValueError, "wanted a list with one (right, wrong) for each of 1 prompts"),
    ("prompts.with_answers", "one word a prompt", lambda tmp: ik.prompts.with_answers(worded(), "fox", ["ab"]), ValueError, "(right, wrong)"),
    ("probability", "no answers", lambda tmp: ik.probability(model(), repeats()), ValueError, "probability needs prompts with answers"),
    ("probability", "no prompts", lambda tmp: ik.probability(model()), ValueError, "pass prompts="),
    ("loss", "one token", lambda tmp: ik.loss(model(), torch.tensor([[1]])), ValueError, "loss reads no position of prompt 0"),
    ("loss", "a model that sees next tokens", lambda tmp: ik.loss(bidirectional("native"), torch.tensor([[1, 2]])), ValueError, "attends to them"),
    ("loss", "outputs that are classes", lambda tmp: ik.loss(classifier("native"), torch.tensor([[1, 2]])), ValueError, "answers by number"),
    ("copying", "outputs that are classes", lambda tmp: ik.copying(classifier("native"), torch.tensor([[1, 2]])), ValueError, "answers by number"),
    ("prompts.with_answers", "a class by name", lambda tmp: ik.prompts.with_answers(classifier("native"), torch.tensor([[1, 2]]), [("good", "bad")]), ValueError, "numbers from 0 to 4"),
    ("loss", "no prompts", lambda tmp: ik.loss(model()), ValueError, "pass prompts="),
    ("kl_to", "not logits", lambda tmp: ik.kl_to([0.5, 0.5]), TypeError, "logits of a clean run"),
    ("kl_to", "one prompt's logits alone", lambda tmp: ik.kl_to(torch.zeros(50)), ValueError, "got [50]"),
    ("kl_to", "infinite logits", lambda tmp: ik.kl_to(torch.full((8, 50), float("inf"))), ValueError, "clean logits are not finite"),
    ("kl_to", "another number of prompts", lambda tmp: swept(metric=ik.kl_to(torch.zeros(4, 50))), ValueError, "got 4 for 8"),
    ("scorers.qk_attribution", "a head that is not there", lambda tmp: ik.scorers.qk_attribution(model(), repeats(), "L5H0"), ValueError, "L5H0 does not exist"),
    ("scorers.qk_attribution", "a mask", lambda tmp: ik.scorers.qk_attribution(model(), repeats(), "L1H0", scorer=square), TypeError, "wanted an attention scorer"),
    ("scorers.qk_attribution", "nothing repeats", lambda tmp: ik.scorers.qk_attribution(model(), tokens(2, 6), "L1H0"), ValueError, "nothing to read in prompt 0"),
    ("scorers.qk_attribution", "no other key", lambda tmp: ik.scorers.qk_attribution(model(), repeats(), "L1H0", scorer=ik.AttentionScorer("all", square)), ValueError, "sees no other key"),
    ("scorers.qk_attribution", "NaN weights", lambda tmp: ik.scorers.qk_attribution(with_nan("v"), repeats(), "L1H0"), ValueError, "not finite"),
    ("scorers.qk_table", "scores", lambda tmp: ik.scorers.qk_table(scores()), TypeError, "of qk_attribution, got Dataset"),
    ("scorers.qk_table", "unknown side", lambda tmp: ik.scorers.qk_table(split(), by="keys"), ValueError, "by=\"pair\""),
    ("scorers.qk_table", "no rows", lambda tmp: ik.scorers.qk_table(split(), 0), ValueError, "1 or more"),
    ("scorers.qk_table", "half a row", lambda tmp: ik.scorers.qk_table(split(), 2.5), ValueError, "a whole number of rows, 1 or more, or None for all, got 2.5"),
    ("scorers.qk_senders", "unknown side", lambda tmp: ik.scorers.qk_senders(split(), side="k"), ValueError, "side=\"query\""),
    ("scorers.qk_senders", "first layer", lambda tmp: ik.scorers.qk_senders(split("L0H1")), ValueError, "no head comes before L0H1"),
    ("plots.save_figure", "a Dataset", lambda tmp: ik.plots.save_figure(scores(), tmp / "a.html"), TypeError, "a plotly figure, got Dataset"),
    ("plots.save_figure", "an ending", lambda tmp: ik.plots.save_figure(ik.head_map(scores()), tmp / "a.jpg"), ValueError, ".png, .svg, .pdf, got"),
    ("plots.save_figure", "a width", lambda tmp: ik.plots.save_figure(ik.head_map(scores()), tmp / "a.pdf", width="one column"), ValueError, "'single column', 'text', 'double column'; got 'one column'"),
    ("plots.save_figure", "no room", lambda tmp: ik.plots.save_figure(ik.head_map(scores()), tmp / "a.pdf", width=1), ValueError, "a width with room for the text"),
    ("plots.save_figure", "a page's width", lambda tmp: ik.plots.save_figure(ik.head_map(scores()), tmp / "a.html", width=3), ValueError, "fills its window"),
    ("plots.save_figure", "a script", lambda tmp: ik.plots.save_figure(ik.head_map(scores()), tmp / "a.html", script="web"), ValueError, "'inside', 'beside', 'cdn', got 'web'"),
    ("plots.save_figure", "no folder", lambda tmp: ik.plots.save_figure(ik.head_map(scores()), tmp / "no" / "a.png"), ValueError, "existing folder"),
    ("plots.qk_map", "scores", lambda tmp: ik.plots.qk_map(scores()), ValueError, "of qk_attribution, got a score over"),
    ("plots.qk_map", "nothing to show", lambda tmp: ik.plots.qk_map(split(), k=0), ValueError, "k >= 1 components"),
    ("direct_effect", "unknown reading", lambda tmp: ik.direct_effect(model(), repeats(), on="repeat"), ValueError, 'on="next token"'),
    ("direct_effect", "no answers", lambda tmp: ik.direct_effect(model(), repeats(), on="answers"), ValueError, "prompts with answers"),
    ("direct_effect", "one token", lambda tmp: ik.direct_effect(model(), torch.tensor([[1]])), ValueError, "nothing to read in prompt 0"),
    ("direct_effect", "NaN weights", lambda tmp: ik.direct_effect(with_nan("v"), repeats()), ValueError, "not finite"),
    ("direct_effect", "not a model", lambda tmp: ik.direct_effect("gpt2"), TypeError, "got str"),
    ("direct_effect", "other dimensions", lambda tmp: ik.direct_effect(model(), repeats(), by=("layer", "key")), ValueError, "wanted by=None or one of"),
    ("direct_effect", "some layers by component", lambda tmp: ik.direct_effect(model(), repeats(), by="component", layers=[0]), ValueError, "no layers="),
    ("scorers.logit_lens", "one token", lambda tmp: ik.scorers.logit_lens(model(), torch.tensor([[1]])), ValueError, "logit_lens has nothing to read in prompt 0"),
    ("scorers.logit_lens", "no answers", lambda tmp: ik.scorers.logit_lens(model(), repeats(), on="answers"), ValueError, "prompts with answers"),
    ("plots.direct_effect_plot", "heads", lambda tmp: ik.plots.direct_effect_plot(ik.direct_effect(model(), repeats())), ValueError, "by component"),
    ("plots.direct_effect_map", "heads", lambda tmp: ik.plots.direct_effect_map(ik.direct_effect(model(), repeats())), ValueError, "by position or key"),
    ("plots.lens_map", "scores", lambda tmp: ik.plots.lens_map(scores()), ValueError, "scorers.logit_lens"),
    ("logit_difference", "answers of another model", lambda tmp: ik.logit_difference(tiny("attention-only"), replace(answered(), tokens=answered().tokens + 50)), ValueError, "0 to 49"),
    # kernel regression
    ("prompts.word_episodes", "five classes", lambda tmp: word_episodes(worded(), classes=5), ValueError, "2, 3 or 4 classes"),
    ("prompts.word_episodes", "fewer shots than classes", lambda tmp: word_episodes(worded(), classes=4, shots=3), ValueError, "shots 4 to 44"),
    ("kernel.vote", "a table of numbers", lambda tmp: ik.kernel.vote([[0.5]]), TypeError, "demonstration_weights(model, prompts), got list"),
    ("kernel.vote", "scores", lambda tmp: ik.kernel.vote(scores()), ValueError, "`weight` over prompt and demonstration"),
    ("kernel.vote", "no prompts", lambda tmp: ik.kernel.vote(votes().isel(prompt=slice(0))), ValueError, "at least one prompt"),
    ("kernel.vote", "no demonstrations", lambda tmp: ik.kernel.vote(votes(classes=[[0, 1], [-1, -1]])), ValueError, "prompt 1 has no demonstration"),
    ("kernel.vote", "NaN weights", lambda tmp: ik.kernel.vote(votes() * NAN), ValueError, "infinite ones in prompt 0"),
    ("kernel.vote", "other prompts", lambda tmp: ik.kernel.vote(votes(), word_episodes(worded(), prompts=2)), ValueError, "weights are of other prompts"),
    ("kernel.vote", "prompts without demonstrations", lambda tmp: ik.kernel.vote(votes(), repeats()), ValueError, "prompts with demonstrations"),
    ("kernel.vote", "labels for fewer classes", lambda tmp: ik.kernel.vote(votes(classes=[[0, 1], [0, 2]]).assign_coords(label=["a", "b"])), ValueError, "classes from 0 to 1"),
    ("kernel.vote", "too few predictions", lambda tmp: ik.kernel.vote(votes(), None, [0]), ValueError, "each of 2 prompts"),
    ("kernel.vote", "predicted words", lambda tmp: ik.kernel.vote(votes(), None, ["a", "b"]), TypeError, "whole numbers"),
    ("kernel.vote", "an unknown class predicted", lambda tmp: ik.kernel.vote(votes(), None, [0, -1]), ValueError, "predictions from 0 to 1"),
    ("kernel.vote", "scores as predictions", lambda tmp: ik.kernel.vote(votes(), None, scores()), ValueError, "Dataset of fewshot.predict"),
    ("kernel.vote", "too few permutations", lambda tmp: ik.kernel.vote(votes(), permutations=10), ValueError, "at least 19 permutations"),
    ("kernel.vote", "level of 1", lambda tmp: ik.kernel.vote(votes(), level=1), ValueError, "level between 0 and 1"),
    ("kernel.sum_heads", "not a Dataset", lambda tmp: ik.kernel.sum_heads(None), TypeError, "got NoneType"),
    ("kernel.sum_heads", "no heads", lambda tmp: ik.kernel.sum_heads(ik.kernel.sum_heads(votes())), ValueError, "over layer and head"),
    ("kernel.sum_heads", "writes of another model", lambda tmp: ik.kernel.sum_heads(votes(), ik.kernel.label_logits(worded(), word_episodes(worded(), prompts=2))), ValueError, "of the same model"),
    ("kernel.sum_heads", "writes as numbers", lambda tmp: ik.kernel.sum_heads(votes(), [[1.0, 1.0]]), TypeError, "label_logits(model, prompts), got list"),
    ("kernel.label_logits", "no demonstrations", lambda tmp: ik.kernel.label_logits(model(), repeats()), ValueError, "prompts with demonstrations"),
    ("kernel.label_logits", "NaN weights", lambda tmp: ik.kernel.label_logits(with_nan("v"), labelled(repeats())), ValueError, "not finite"),
    ("kernel.label_logits", "not a model", lambda tmp: ik.kernel.label_logits("gpt2"), TypeError, "got str"),
    ("kernel.label_logits", "no prompts at a time", lambda tmp: ik.kernel.label_logits(model(), labelled(repeats()), batch_size=0), ValueError, "batch_size >= 1"),
    ("kernel.control_weights", "not a Dataset", lambda tmp: ik.kernel.control_weights(votes()["weight"]), TypeError, "got DataArray"),
    ("kernel.permuted_run", "predictions instead of a run", lambda tmp: ik.kernel.permuted_run(votes(), [0, 1], [1, 0]), TypeError, "Dataset of fewshot.predict, got list"),
    ("kernel.permuted_run", "weights instead of a run", lambda tmp: ik.kernel.permuted_run(votes(), [0, 1], votes()), ValueError, "`prediction` and `label_class`"),
    ("kernel.permuted_run", "a run of other prompts", lambda tmp: ik.kernel.permuted_run(votes(), [0, 1], votes(classes=[[0, 1], [1, -1]]).assign(prediction=("prompt", [0, 1]))), ValueError, "the same demonstrations"),
    ("kernel.held_out", "a layer's sum", lambda tmp: ik.kernel.held_out(ik.kernel.sum_heads(votes()), [0, 1]), ValueError, "over layer and head"),
    ("kernel.held_out", "two poolings", lambda tmp: ik.kernel.held_out(votes().expand_dims(pooling=["max", "sum"]), [0, 1]), ValueError, "by .sel"),
    ("kernel.held_out", "too few prompts", lambda tmp: ik.kernel.held_out(votes(), [0, 1]), ValueError, "at least 2 prompts to choose on"),
    ("kernel.held_out", "prompts as predictions", lambda tmp: ik.kernel.held_out(votes(), repeats()), TypeError, "predict(model, prompts) has"),
    ("kernel.held_out", "one split", lambda tmp: ik.kernel.held_out(votes(), [0, 1], splits=1), ValueError, "splits >= 2"),
    ("kernel.held_out", "nothing to score on", lambda tmp: ik.kernel.held_out(votes(), [0, 1], share=1), ValueError, "share and confidence between 0 and 1"),
    ("kernel.held_out", "a name taken", lambda tmp: ik.kernel.held_out(votes(), [0, 1], others={"constant": votes()}), ValueError, "row of its own"),
    ("kernel.held_out", "kernels of other prompts", lambda tmp: ik.kernel.held_out(votes(), [0, 1], others={"kernel": votes().isel(prompt=[0])}), ValueError, "'kernel' are of other prompts"),
    ("kernel.reconstruction_table", "not a Dataset", lambda tmp: ik.kernel.reconstruction_table("found"), TypeError, "held_out, got str"),
    ("kernel.reconstruction_table", "scores", lambda tmp: ik.kernel.reconstruction_table(scores()), ValueError, "held_out, got variables"),
    # probes and theory
    ("kernel.probe", "prompts without demonstrations", lambda tmp: ik.kernel.probe(model(), repeats()), ValueError, "wanted prompts with demonstrations"),
    ("kernel.probe", "vectors as a word", lambda tmp: probed(vectors="key"), TypeError, "vectors as a list"),
    ("kernel.probe", "unknown vectors", lambda tmp: probed(vectors=["query"]), ValueError, "['key', 'value'], once each, got ['query']"),
    ("kernel.probe", "unknown target", lambda tmp: probed(targets=["labels"]), ValueError, "got ['labels']"),
    ("kernel.probe", "one offset", lambda tmp: probed(offsets=0), TypeError, "offsets as a list"),
    ("kernel.probe", "offsets that are no numbers", lambda tmp: probed(offsets=[0.5]), TypeError, "whole numbers, got [0.5]"),
    ("kernel.probe", "an offset twice", lambda tmp: probed(offsets=[0, 0]), ValueError, "different offsets"),
    ("kernel.probe", "offsets beyond every prompt", lambda tmp: probed(offsets=[99]), ValueError, "at each of the offsets [99]"),
    ("kernel.probe", "more folds than prompts", lambda tmp: probed(folds=9), ValueError, "2 to 8 folds"),
    ("kernel.probe", "folds that are no number", lambda tmp: probed(folds=2.5), TypeError, "whole numbers, got 2.5"),
    ("kernel.probe", "no penalty", lambda tmp: probed(penalty=0), ValueError, "penalty > 0, got 0"),
    ("kernel.probe", "next tokens too rare", lambda tmp: probed(min_count=999), ValueError, "two classes for the target 'next token'"),
    ("kernel.probe", "absent layer", lambda tmp: probed(layers=[7]), ValueError, "layers from 0 to 1"),
    ("kernel.probe", "no prompts at a time", lambda tmp: probed(batch_size=0), ValueError, "batch_size >= 1"),
    ("kernel.probe", "not a model", lambda tmp: ik.kernel.probe("gpt2", "a"), TypeError, "got str"),
    ("theory.hidden_markov_tasks", "fewer states than tasks", lambda tmp: ik.theory.hidden_markov_tasks(tasks=9, states=8), ValueError, "at least one state per task"),
    ("theory.hidden_markov_tasks", "half a task", lambda tmp: ik.theory.hidden_markov_tasks(tasks=2.5), TypeError, "tasks as a whole number"),
    ("theory.hidden_markov_tasks", "no observations", lambda tmp: ik.theory.hidden_markov_tasks(observations=0), ValueError, "observations >= 1"),
    ("theory.hidden_markov_tasks", "concentration 0", lambda tmp: ik.theory.hidden_markov_tasks(emission=0), ValueError, "transition and emission from 1e-6"),
    ("theory.hidden_markov_tasks", "overlap in percent", lambda tmp: ik.theory.hidden_markov_tasks(overlap=50), ValueError, "overlap and leak from 0 to 1"),
    ("theory.kernel_theory", "one number of demonstrations", lambda tmp: ik.theory.kernel_theory(demonstrations=8), TypeError, "demonstrations as a list"),
    ("theory.kernel_theory", "no demonstrations", lambda tmp: ik.theory.kernel_theory(demonstrations=[0, 1]), ValueError, "demonstrations >= 1"),
    ("theory.kernel_theory", "the same number twice", lambda tmp: ik.theory.kernel_theory(demonstrations=[4, 4]), ValueError, "different numbers"),
    ("theory.kernel_theory", "very long inputs", lambda tmp: ik.theory.kernel_theory(length=500), ValueError, "length up to 64"),
    ("theory.kernel_theory", "truncated to nothing", lambda tmp: ik.theory.kernel_theory(truncation=0), ValueError, "truncation >= 1"),
    ("theory.kernel_theory", "bandwidth 0", lambda tmp: ik.theory.kernel_theory(bandwidth=0), ValueError, "bandwidth > 0"),
    ("theory.kernel_theory", "no seeds", lambda tmp: ik.theory.kernel_theory(seeds=0), ValueError, "seeds >= 1"),
    # figures and page
    ("head_map", "not scores", lambda tmp: ik.head_map({"a": 1}), TypeError, "dict"),
    ("plots.loss_plot", "not losses", lambda tmp: ik.plots.loss_plot(scores()), (TypeError, ValueError), "loss"),
    ("plots.score_plot", "the scores of one head", lambda tmp: ik.plots.score_plot(scores(), scores().isel(head=[0])), ValueError, "the same heads"),
    ("plots.score_plot", "a number", lambda tmp: ik.plots.score_plot(scores(), 1.0), TypeError, "Dataset"),
    # kernel: data, episodes, evaluation
    ("data.LabelledTexts", "no texts", lambda tmp: ik.data.LabelledTexts((), torch.zeros(0).long().numpy(), ("a", "b")), ValueError, "got none"),
    ("data.LabelledTexts", "an empty text", lambda tmp: ik.data.LabelledTexts(("fox", " "), [0, 1], ("a", "b")), ValueError, "an empty one at 1"),
    ("data.LabelledTexts", "one string", lambda tmp: ik.data.LabelledTexts("fox", [0], ("a", "b")), TypeError, "sequence of strings"),
    ("data.LabelledTexts", "classes that are words", lambda tmp: ik.data.LabelledTexts(("fox",), ["a"], ("a", "b")), TypeError, "whole numbers"),
    ("data.LabelledTexts", "classes that are halves", lambda tmp: ik.data.LabelledTexts(("fox",), [0.5], ("a", "b")), TypeError, "whole numbers, got float64"),
    ("data.LabelledTexts", "a text that is missing", lambda tmp: ik.data.LabelledTexts(("fox", None), [0, 1], ("a", "b")), TypeError, "got None at 1"),
    ("data.LabelledTexts", "classes for other texts", lambda tmp: ik.data.LabelledTexts(("fox",), [0, 1], ("a", "b")), ValueError, "one class per text [1], got [2]"),
    ("data.LabelledTexts", "class without a label", lambda tmp: ik.data.LabelledTexts(("fox", "pear"), [0, 2], ("a", "b")), ValueError, "from 0 to 1"),
    ("data.LabelledTexts", "one label", lambda tmp: ik.data.LabelledTexts(("fox",), [0], ("a",)), ValueError, "at least two"),
    ("data.LabelledTexts", "template without labels", lambda tmp: six_words(template="{x}:"), ValueError, "{x} and {y} once each"),
    ("data.LabelledTexts", "all in one half", lambda tmp: six_words().split(6), ValueError, "n from 1 to 5"),
    ("data.LabelledTexts", "too few words", lambda tmp: six_words().relabelled(["dax"]), ValueError, "2 label words"),
    ("data.load_classification", "absent file", lambda tmp: ik.data.load_classification(str(tmp / "no.tsv")), ValueError, "a file or folder that exists"),
    ("data.load_classification", "unknown ending", lambda tmp: ik.data.load_classification(written(tmp, "a.xlsx", "x")), ValueError, "ends in .tsv, .csv"),
    ("data.load_classification", "another encoding", lambda tmp: ik.data.load_classification(written(tmp, "a.txt", b"A:x one\nB:y caf\xe9\n")), ValueError, "line 2 of a.txt is not utf-8"),
    ("data.load_classification", "unknown encoding", lambda tmp: ik.data.load_classification(written(tmp, "a.txt", "A one\n"), encoding="utf-9"), ValueError, "got 'utf-9'"),
    ("data.load_classification", "unknown column", lambda tmp: ik.data.load_classification(written(tmp, "a.tsv", "sentence\tlabel\nfox\t0\n"), text="review"), ValueError, "['sentence', 'label'] of a.tsv, got text='review'"),
    ("data.load_classification", "columns not said", lambda tmp: ik.data.load_classification(written(tmp, "a.csv", "fox,0\npear,1\n")), ValueError, "wanted text= one of the columns ['0', '1']"),
    ("data.load_classification", "one class", lambda tmp: ik.data.load_classification(written(tmp, "a.tsv", "text\tlabel\nfox\t0\nwolf\t0\n")), ValueError, "at least two classes, got only ['0']"),
    ("data.load_classification", "words for other classes", lambda tmp: ik.data.load_classification(table(tmp), labels=["a", "b", "c"]), ValueError, "a word for each of the 2 classes ['0', '1']"),
    ("data.load_classification", "class without a word", lambda tmp: ik.data.load_classification(table(tmp), labels={"0": "dax", "2": "wug"}), ValueError, "got none for ['1']"),
    ("data.load_classification", "classes of another data set", lambda tmp: ik.data.load_classification(table(tmp, "trec.tsv")), ValueError, "wanted classes ['ABBR'"),
    ("data.load_classification", "text that is missing", lambda tmp: ik.data.load_classification(written(tmp, "a.tsv", "text\tlabel\nfox\t0\n\t1\n")), ValueError, "none in row 1"),
    ("data.load_classification", "class that is missing", lambda tmp: ik.data.load_classification(written(tmp, "a.tsv", "text\tlabel\nfox\t0\npear\n")), ValueError, "wanted a class in every row of a.tsv, got none in row 1"),
    ("data.load_classification", "unknown column in a template", lambda tmp: ik.data.load_classification(table(tmp), text="{tekst}: {label}"), ValueError, "without a column 'tekst': did you mean 'text'?"),
    ("data.load_classification", "a brace alone", lambda tmp: ik.data.load_classification(table(tmp), text="{text} {"), ValueError, "twice, {{ or }}"),
    ("data.load_classification", "a column twice", lambda tmp: ik.data.load_classification(written(tmp, "a.csv", "text,text,label\nfox,pear,0\n")), ValueError, "several columns 'text'"),
    ("data.load_classification", "column that is no name", lambda tmp: ik.data.load_classification(table(tmp), text=1.5, label="label"), TypeError, "its name or its number from 0, got 1.5"),
    ("data.load_classification", "columns of lines", lambda tmp: ik.data.load_classification((written(tmp, "a.txt", "fox\n"), written(tmp, "b.txt", "0\n")), text="x"), ValueError, "read line by line"),
    ("data.load_classification", "unknown way with missing values", lambda tmp: ik.data.load_classification(table(tmp), missing="ignore"), ValueError, "wanted missing in ['refuse', 'drop'], got 'ignore'"),
    ("data.load_classification", "a table's dict", lambda tmp: ik.data.load_classification({"text": ["fox"], "label": [0]}), TypeError, "a DataFrame or a name, got dict"),
    ("data.load_classification", "classes that differ in capitals", lambda tmp: ik.data.load_classification(written(tmp, "a.csv", "text,label\nfox,Dax\npear,dax\n")), ValueError, "differ only in upper and lower case"),
    ("data.load_classification", "two words for a class", lambda tmp: ik.data.load_classification(table(tmp), labels={0: "dax", "0": "foo", 1: "wug"}), ValueError, "one word for the class '0'"),
    ("data.load_classification", "an Excel workbook", lambda tmp: ik.data.load_classification(written(tmp, "a.xlsx", b"PK\x03\x04")), ValueError, "save it as .csv"),
    ("data.load_classification", "UTF-16 without a mark", lambda tmp: ik.data.load_classification(written(tmp, "a.csv", "text,label\n".encode("utf-16-le"))), ValueError, "holds null bytes"),
    ("data.load_classification", "broken Parquet", lambda tmp: ik.data.load_classification(written(tmp, "a.parquet", b"PAR1")), ValueError, "cannot read a.parquet as Parquet"),
    ("data.load_classification", "broken gzip", lambda tmp: ik.data.load_classification(written(tmp, "a.csv.gz", b"\x1f\x8b")), ValueError, "cannot unpack a.csv.gz"),
    ("data.load_classification", "a list in a cell", lambda tmp: ik.data.load_classification(written(tmp, "a.jsonl", '{"text": ["fox"], "label": 0}')), ValueError, "got a list in row 0"),
    ("data.load_classification", "empty file", lambda tmp: ik.data.load_classification(written(tmp, "a.jsonl", "")), ValueError, "at least one labelled text"),
    ("data.load_classification", "rows of other lengths", lambda tmp: ik.data.load_classification(written(tmp, "a.tsv", "text\tlabel\nfox\t0\t1\n")), ValueError, "cannot read a.tsv as a table"),
    ("data.load_classification", "lines without a class", lambda tmp: ik.data.load_classification(written(tmp, "a.txt", "fox\n")), ValueError, "lines 'CLASS:fine text'"),
    ("data.load_classification", "not JSON", lambda tmp: ik.data.load_classification(written(tmp, "a.jsonl", "fox\n")), ValueError, "line 1 of a.jsonl is not JSON"),
    ("data.load_classification", "JSON without names", lambda tmp: ik.data.load_classification(written(tmp, "a.jsonl", "[1]\n")), ValueError, "wanted an object in line 1"),
    ("data.load_classification", "folder of other files", lambda tmp: ik.data.load_classification(table(tmp).parent), ValueError, "wanted val_text.txt and val_labels.txt"),
    ("data.load_classification", "pair of other lengths", lambda tmp: ik.data.load_classification((written(tmp, "a.txt", "fox\npear\n"), written(tmp, "b.txt", "0\n"))), ValueError, "as many classes as texts, got 1 lines"),
    ("data.load_classification", "a split of a table", lambda tmp: ik.data.load_classification(pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}), split="test"), ValueError, "split= is for a folder"),
    ("data.load_classification", "unlisted name without a split", lambda tmp: ik.data.load_classification("some/one", text="x", label="y"), ValueError, "wanted split="),
    ("data.load_classification", "unreachable hub", lambda tmp: ik.data.load_classification("sst2"), ConnectionError, "the hub cannot be reached"),
    ("data.Episodes", "indices out of range", lambda tmp: replace(episodes(), shown=episodes().shown + 9), ValueError, "shown from 0 to 5"),
    ("data.Episodes", "shapes that differ", lambda tmp: replace(episodes(), classes=episodes().classes[:, :1]), ValueError, "wanted classes [6, 2]"),
    ("data.Episodes", "other prompts", lambda tmp: replace(episodes(), shown=episodes().shown[:1]), ValueError, "wanted shown [6, demonstration]"),
    ("data.Episodes", "template without texts", lambda tmp: replace(episodes(), template="{y}"), ValueError, "{x} and {y} once each"),
    ("data.draw_episodes", "not texts", lambda tmp: ik.data.draw_episodes(six_words(), ["fox"]), TypeError, "queries as LabelledTexts"),
    ("data.draw_episodes", "other labels", lambda tmp: episodes(queries=six_words(labels=("no", "yes"))), ValueError, "the same labels"),
    ("data.draw_episodes", "one class", lambda tmp: episodes(pool=six_words()[:3]), ValueError, "got 'dax' alone"),
    ("data.draw_episodes", "more shots than texts", lambda tmp: episodes(shots=7), ValueError, "shots up to 6"),
    ("data.draw_episodes", "no shots", lambda tmp: episodes(shots=0), ValueError, "shots >= 1"),
    ("data.draw_episodes", "unknown sampling", lambda tmp: episodes(sampling="best"), ValueError, "got 'best'"),
    ("data.draw_episodes", "embedding of random draws", lambda tmp: episodes(embed=len), ValueError, 'for sampling="nearest"'),
    ("data.draw_episodes", "embedding that is not finite", lambda tmp: episodes(sampling="nearest", embed=lambda texts: torch.full((len(texts), 2), NAN).numpy()), ValueError, "NaN"),
    ("data.draw_episodes", "embedding of other texts", lambda tmp: episodes(sampling="nearest", embed=lambda texts: torch.ones(2, 2).numpy()), ValueError, "one row per text, got [2, 2]"),
    ("data.draw_episodes", "beyond the context", lambda tmp: episodes(shots=6, template="{x} " + "fox " * 30 + "{y} ;").prompts(worded()), ValueError, "demonstrations"),
    ("fewshot.predict", "queries without demonstrations", lambda tmp: ik.fewshot.predict(worded(), six_words()), ValueError, "give pool="),
    ("fewshot.predict", "episodes and a pool", lambda tmp: ik.fewshot.predict(worded(), episodes(), pool=six_words()), ValueError, "go with LabelledTexts"),
    ("FewShotPrompts", "no demonstrations", lambda tmp: ik.FewShotPrompts(repeats().tokens, repeats().lengths, repeats().scored, demonstrations=None), TypeError, "make Prompts"),
    ("evidence.Argument", "no claim", lambda tmp: ik.evidence.Argument("mine", "7 Mine"), TypeError, "claim"),
    ("evidence.Argument", "a name of two words", lambda tmp: replace(MECHANISM, name="my own"), ValueError, "a plain word of letters, digits and underscores, such as 'co_occurrence', got 'my own'"),
    ("evidence.Argument", "an empty claim", lambda tmp: replace(MECHANISM, claim=" "), ValueError, "wanted claim as a text that pages can print, got ' '"),
    ("evidence.Argument", "a number as title", lambda tmp: replace(MECHANISM, title=7), TypeError, "wanted title as a string, got int"),
    ("evidence.Argument", "a result to run", lambda tmp: replace(MECHANISM, run=scores()), TypeError, "wanted run as a function of the inputs, got Dataset"),
    ("evidence.Argument", "draw of the result alone", lambda tmp: replace(MECHANISM, draw=lambda result: []), TypeError, "wanted draw as a function of all results and its own, got one that takes (result)"),
    ("evidence.Check", "ends that are swapped", lambda tmp: ik.evidence.Check("share", 0.5, 0.6, 0.4, 0.5), ValueError, "wanted an interval with low <= high for 'share', got 0.6 and 0.4"),
    ("evidence.judge", "no checks", lambda tmp: ik.evidence.judge(MECHANISM, []), ValueError, "one or more checks"),
    ("evidence.judge", "a check that is no list", lambda tmp: ik.evidence.judge(MECHANISM, ik.evidence.Check("share", 0.5, 0.4, 0.6, 0.5)), TypeError, "wanted checks as a list of Check"),
    ("evidence.judge", "the name of an argument", lambda tmp: ik.evidence.judge("mechanism", []), TypeError, "wanted the Argument that the verdict is of, got str"),
    ("evidence.inconclusive", "the name of an argument", lambda tmp: ik.evidence.inconclusive("mechanism", "no heads"), TypeError, "wanted the Argument that the verdict is of, got str"),
    ("evidence.not_defined", "an error as the reason", lambda tmp: ik.evidence.not_defined(MECHANISM, ValueError("no")), TypeError, "wanted the reason as a string, got ValueError"),
    ("evidence.Table", "a row that is too short", lambda tmp: ik.evidence.Table(["prompt", "nats"], [["0"]]), ValueError, "wanted rows of 2 cells, one for each title in ['prompt', 'nats'], got ['0']"),
    ("evidence.Inputs", "nothing", lambda tmp: ik.evidence.Inputs(), TypeError, "model"),
    ("evidence.SixArguments", "nothing", lambda tmp: ik.evidence.SixArguments(), TypeError, "model"),
    ("fewshot.predict", "not prompts", lambda tmp: ik.fewshot.predict(worded(), ["fox"]), TypeError, "Episodes or FewShotPrompts, got list"),
    ("fewshot.predict", "prompts without demonstrations", lambda tmp: ik.fewshot.predict(model(), repeats()), ValueError, "with demonstrations"),
    ("fewshot.predict", "unknown pooling", lambda tmp: ik.fewshot.predict(worded(), episodes(), pooling="median"), ValueError, "got 'median'"),
    ("fewshot.predict", "the same pooling twice", lambda tmp: ik.fewshot.predict(worded(), episodes(), pooling=("max", "max")), ValueError, "each once"),
    ("fewshot.predict", "unknown span", lambda tmp: ik.fewshot.predict(worded(), episodes(), pooling="max", span="x"), ValueError, "wanted span in ['demonstration', 'words'], got 'x'"),
    ("fewshot.predict", "no batches", lambda tmp: ik.fewshot.predict(worded(), episodes(), batch_size=0), ValueError, "batch_size >= 1"),
    ("fewshot.predict", "a folder of other things", lambda tmp: ik.fewshot.predict(worded(), episodes(), path=table(tmp).parent), ValueError, "holds other files"),
    ("fewshot.predict", "a file", lambda tmp: ik.fewshot.predict(worded(), episodes(), path=table(tmp)), ValueError, "wanted a folder"),
    ("fewshot.predict", "a folder nowhere", lambda tmp: ik.fewshot.predict(worded(), episodes(), path=tmp / "no" / "run"), ValueError, "in an existing one"),
    ("fewshot.predict", "a name that is too long", lambda tmp: ik.fewshot.predict(worded(), episodes(), path=tmp / ("a" * 300)), ValueError, "File name too long"),
    ("fewshot.predict", "not a model", lambda tmp: ik.fewshot.predict("gpt2", word_episodes(worded())), TypeError, "HookedTransformer"),
    ("fewshot.predict", "labels that share their first token", lambda tmp: ik.fewshot.predict(worded(), episodes().relabelled(("dax", "dax wug"))), ValueError, "same token"),
    ("fewshot.retrieval_effect", "more shots than texts", lambda tmp: ik.fewshot.retrieval_effect(worded(), six_words(), episodes().queries, shots=9), ValueError, "shots up to 6"),
    ("fewshot.retrieval_effect", "not texts", lambda tmp: ik.fewshot.retrieval_effect(worded(), ["fox"], six_words()), TypeError, "pool as LabelledTexts"),
    ("fewshot.label_format_effect", "not episodes", lambda tmp: ik.fewshot.label_format_effect(worded(), six_words()), TypeError, "wanted Episodes"),
    ("fewshot.label_format_effect", "too few words", lambda tmp: ik.fewshot.label_format_effect(worded(), episodes(), formats={"one": ["kiki"]}), ValueError, "2 label words"),
    ("fewshot.label_format_effect", "words unknown to the tokenizer", lambda tmp: ik.fewshot.label_format_effect(worded(), episodes()), ValueError, "format 'upper case' with labels ['DAX', 'WUG']"),
    ("fewshot.input_shift_effect", "not episodes", lambda tmp: ik.fewshot.input_shift_effect(worded(), repeats()), TypeError, "wanted Episodes"),
    ("fewshot.input_shift_effect", "unknown shift", lambda tmp: ik.fewshot.input_shift_effect(worded(), episodes(), shift="noise"), ValueError, "got 'noise'"),
    ("fewshot.input_shift_effect", "shares in percent", lambda tmp: ik.fewshot.input_shift_effect(worded(), episodes(), shares=(25, 50)), ValueError, "up to 1, each once"),
    ("fewshot.order_effect", "not episodes", lambda tmp: ik.fewshot.order_effect(worded(), None), TypeError, "wanted Episodes"),
    ("fewshot.order_effect", "one order", lambda tmp: ik.fewshot.order_effect(worded(), episodes(), orders=1), ValueError, "orders >= 2"),
    ("fewshot.order_effect", "one demonstration", lambda tmp: ik.fewshot.order_effect(worded(), episodes(shots=1)), ValueError, "at least two demonstrations"),
    ("effect_map", "not a Dataset", lambda tmp: ik.effect_map([1.0]), TypeError, "of sweep, patch or attribution, got list"),
    ("effect_map", "scores", lambda tmp: ik.effect_map(scores()), ValueError, "head_map draws them"),
    ("fewshot.label_knock_out", "no demonstrations", lambda tmp: ik.fewshot.label_knock_out(model(), repeats(), "L1H0"), ValueError, "few_shot"),
    ("fewshot.label_knock_out", "no heads", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), []), ValueError, "at least one head"),
    ("fewshot.label_knock_out", "absent head", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), "L9H0"), ValueError, "layers 0 to 1"),
    ("fewshot.label_knock_out", "unknown class", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), "L1H7", which="fep"), ValueError, "one of the labels ['dax', 'wug']"),
    ("fewshot.label_knock_out", "class beyond the labels", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), "L1H7", which=2), ValueError, "or its index, got 2"),
    ("fewshot.label_knock_out", "class of another type", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), "L1H7", which=1.0), TypeError, 'which="all"'),
    ("fewshot.label_knock_out", "negative draws", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), "L1H7", draws=-1), ValueError, "0 for none"),
    ("fewshot.label_knock_out", "no other heads", lambda tmp: ik.fewshot.label_knock_out(worded(), shots(), [f"L1H{i}" for i in range(8)]), ValueError, "other heads"),
    ("fewshot.fit_label_weights", "unknown right labels", lambda tmp: ik.fewshot.fit_label_weights(worded(), shots()), ValueError, "queries as (x, y)"),
    ("fewshot.fit_label_weights", "no steps", lambda tmp: ik.fewshot.fit_label_weights(worded(), word_episodes(worded(), prompts=2), steps=0), ValueError, "steps=0"),
    ("fewshot.fit_label_weights", "no heads", lambda tmp: ik.fewshot.fit_label_weights(worded(), word_episodes(worded(), prompts=2), heads=[]), ValueError, "at least one head"),
    ("fewshot.fit_label_weights", "no demonstrations", lambda tmp: ik.fewshot.fit_label_weights(model(), repeats()), ValueError, "few_shot"),
    ("fewshot.reweighted", "another shape", lambda tmp: ik.fewshot.reweighted(worded(), shots(), np.zeros((2, 8))), ValueError, "wanted beta of shape [2, 8, 2]"),
    ("fewshot.reweighted", "NaN", lambda tmp: ik.fewshot.reweighted(worded(), shots(), np.full((2, 8, 2), NAN)), ValueError, "without NaN"),
    ("fewshot.reweighted", "a list", lambda tmp: ik.fewshot.reweighted(worded(), shots(), [0.0]), TypeError, "got list"),
    ("fewshot.reweighted", "another Dataset", lambda tmp: ik.fewshot.reweighted(worded(), shots(), scores()), TypeError, "what fit_label_weights returned"),
    ("fewshot.reweighted", "other labels", lambda tmp: ik.fewshot.reweighted(worded(), shots(), beta_of(["wug", "dax"])), ValueError, "['dax', 'wug'], got ['wug', 'dax']"),
    ("fewshot.label_flow", "no demonstrations", lambda tmp: ik.fewshot.label_flow(model(), repeats()), ValueError, "few_shot"),
    ("fewshot.label_flow", "a loss over words", lambda tmp: ik.fewshot.label_flow(worded(), shots(), over="words"), ValueError, '"labels" or "vocabulary"'),
    ("fewshot.label_flow", "unknown right labels", lambda tmp: ik.fewshot.label_flow(worded(), shots()), ValueError, "queries carry labels"),
    ("fewshot.label_auc", "no weights", lambda tmp: ik.fewshot.label_auc(scores(), [0]), TypeError, "pooling='label'"),
    ("fewshot.label_auc", "predictions of other prompts", lambda tmp: ik.fewshot.label_auc(ik.scorers.demonstration_weights(worded(), shots()), [0, 1]), ValueError, "each of 1 prompts, got shape [2]"),
    ("fewshot.label_auc", "no draws", lambda tmp: ik.fewshot.label_auc(ik.scorers.demonstration_weights(worded(), shots()), [0], draws=0), ValueError, "1 or more, got 0"),
    ("head_census.token_copying", "too long for the context", lambda tmp: ik.head_census.token_copying(model(), length=30), ValueError, "twice as much fits the context of 40"),
    ("head_census.token_copying", "no room for an entity", lambda tmp: ik.head_census.token_copying(model(), length=5), ValueError, "wanted a length above 5"),
    ("head_census.token_copying", "no prompts", lambda tmp: ik.head_census.token_copying(model(), prompts=0), ValueError, "prompts >= 1"),
    ("head_census.token_copying", "absent head", lambda tmp: ik.head_census.token_copying(model(), length=12, heads="L5H0"), ValueError, "L5H0 does not exist"),
    ("head_census.concept_copying", "no tokenizer", lambda tmp: ik.head_census.concept_copying(model()), ValueError, "no tokenizer"),
    ("head_census.concept_copying", "words that are single tokens", lambda tmp: ik.head_census.concept_copying(worded()), ValueError, "at least two entities of one number"),
    ("head_census.concept_copying", "one word", lambda tmp: ik.head_census.concept_copying(worded(), words="fox"), TypeError, "words as a list of strings"),
    ("head_census.list_ablation", "unknown task", lambda tmp: ik.head_census.list_ablation(worded(), "L0H1", "L1H1", tasks=["Latin"]), ValueError, "wanted tasks out of nonsense"),
    ("head_census.list_ablation", "absent head", lambda tmp: ik.head_census.list_ablation(worded(), "L0H1", "L7H1"), ValueError, "L7H1 does not exist"),
    ("head_census.list_ablation", "no English", lambda tmp: ik.head_census.list_ablation(worded(), "L0H1", "L1H1", tasks=["French"]), ValueError, "can write 0 words of French"),
    ("fewshot.function_vector_effect", "no demonstrations", lambda tmp: ik.fewshot.function_vector_effect(model(), repeats()), ValueError, "few_shot"),
    ("fewshot.function_vector_effect", "unknown right labels", lambda tmp: ik.fewshot.function_vector_effect(worded(), shots()), ValueError, "queries carry labels"),
    ("fewshot.function_vector_effect", "absent head", lambda tmp: ik.fewshot.function_vector_effect(worded(), shots(), heads="L2H0"), ValueError, "layers 0 to 1"),
    ("data.word_pairs", "unknown task", lambda tmp: ik.data.word_pairs("antonym"), ValueError, "did you mean 'antonyms'"),
    ("data.word_pairs", "words the tokenizer does not know", lambda tmp: ik.data.word_pairs("capitals", worded()), ValueError, "cannot be written for this model"),
    ("data.word_pairs", "no tokenizer", lambda tmp: ik.data.word_pairs("capitals", model()), ValueError, "word pairs need a tokenizer"),
    ("data.zero_shot", "not texts", lambda tmp: ik.data.zero_shot(worded(), ["fox"]), TypeError, "word_pairs(...), or Episodes, got list"),
    ("fewshot.function_vector", "no demonstrations", lambda tmp: ik.fewshot.function_vector(model(), repeats(), "L1H0"), ValueError, "few_shot"),
    ("fewshot.function_vector", "no heads", lambda tmp: ik.fewshot.function_vector(worded(), shots(), []), ValueError, "at least one head"),
    ("fewshot.function_vector", "absent head", lambda tmp: ik.fewshot.function_vector(worded(), shots(), "L2H0"), ValueError, "layers 0 to 1"),
    ("fewshot.function_vector", "a negative number of controls", lambda tmp: ik.fewshot.function_vector(worded(), shots(), "L1H7", n_controls=-1), ValueError, "0 for none"),
    ("fewshot.function_vector", "no other heads", lambda tmp: ik.fewshot.function_vector(worded(), shots(), [f"L1H{i}" for i in range(8)]), ValueError, "other heads"),
    ("fewshot.apply_function_vector", "no answers", lambda tmp: ik.fewshot.apply_function_vector(model(), repeats(), torch.zeros(16)), ValueError, "prompts with answers"),
    ("fewshot.apply_function_vector", "a list", lambda tmp: ik.fewshot.apply_function_vector(worded(), word_episodes(worded(), prompts=2), [0.0]), TypeError, "the result of function_vector"),
    ("fewshot.apply_function_vector", "scores", lambda tmp: ik.fewshot.apply_function_vector(worded(), word_episodes(worded(), prompts=2), scores()), ValueError, "the result of function_vector"),
    ("fewshot.apply_function_vector", "a vector of another length", lambda tmp: ik.fewshot.apply_function_vector(worded(), word_episodes(worded(), prompts=2), torch.zeros(3)), ValueError, "d_model"),
    ("fewshot.apply_function_vector", "NaN", lambda tmp: ik.fewshot.apply_function_vector(worded(), word_episodes(worded(), prompts=2), torch.full((worded().cfg.d_model,), NAN)), ValueError, "finite numbers"),
    ("fewshot.apply_function_vector", "at z", lambda tmp: ik.fewshot.apply_function_vector(worded(), word_episodes(worded(), prompts=2), torch.zeros(3), site="z"), ValueError, '"resid_post" or "resid_pre"'),
    ("fewshot.apply_function_vector", "absent layer", lambda tmp: ik.fewshot.apply_function_vector(worded(), word_episodes(worded(), prompts=2), torch.zeros(3), layers=[2]), ValueError, "layers from 0 to 1"),
    ("fewshot.apply_function_vector", "half a layer", lambda tmp: ik.fewshot.apply_function_vector(worded(), word_episodes(worded(), prompts=2), torch.zeros(3), layers=[0.5]), TypeError, "layers as a list of whole numbers"),
    ("fewshot.writers_and_cancellers", "unknown right labels", lambda tmp: ik.fewshot.writers_and_cancellers(worded(), shots()), ValueError, "queries carry labels"),
    ("fewshot.writers_and_cancellers", "one prompt", lambda tmp: ik.fewshot.writers_and_cancellers(worded(), word_episodes(worded(), prompts=1)), ValueError, "two different right answers"),
    ("fewshot.which_heads", "not few-shot", lambda tmp: ik.fewshot.which_heads(worded(), "fox", repeats(), early=2, late=8, width=2), TypeError, "few-shot prompts or Episodes"),
    ("fewshot.which_heads", "short windows", lambda tmp: ik.fewshot.which_heads(worded(), word_episodes(worded()), ["fox wolf bear"]), ValueError, "the shortest window"),
    ("fewshot.which_heads", "bands that overlap", lambda tmp: ik.fewshot.which_heads(worded(), word_episodes(worded()), ["fox wolf bear"], early=10, late=20), ValueError, "do not overlap"),
    ("fewshot.which_heads", "shares in percent", lambda tmp: ik.fewshot.which_heads(worded(), word_episodes(worded()), ["fox wolf bear"], shares=(2, 10)), ValueError, "above 0 and at most 1"),
    ("fewshot.which_heads", "no controls", lambda tmp: ik.fewshot.which_heads(worded(), word_episodes(worded()), ["fox wolf bear"], n_controls=0), ValueError, "n_controls >= 1"),
    ("fewshot.which_heads", "a task in words", lambda tmp: ik.fewshot.which_heads(worded(), word_episodes(worded()), repeats(), tasks="topics", early=2, late=8, width=2), TypeError, "tasks as few-shot prompts or Episodes"),
    ("fewshot.which_heads", "no tasks", lambda tmp: ik.fewshot.which_heads(worded(), word_episodes(worded()), repeats(), tasks=[], early=2, late=8, width=2), ValueError, "at least one task"),
    ("fewshot.which_heads", "the prompts as a task", lambda tmp: ik.fewshot.which_heads(worded(), word_episodes(worded()), repeats(), tasks=word_episodes(worded()), early=2, late=8, width=2), ValueError, "other than that of the prompts"),
    ("plots.which_heads_plot", "not a Dataset", lambda tmp: ik.plots.which_heads_plot([1.0]), TypeError, "of which_heads(model, prompts, text), got list"),
    ("plots.which_heads_plot", "scores", lambda tmp: ik.plots.which_heads_plot(scores()), ValueError, "which holds 'accuracy_change'"),
    ("effect_map", "everything edited at once", lambda tmp: ik.effect_map(swept(by=())), ValueError, "give by="),
    ("effect_map", "normalised of a sweep", lambda tmp: ik.effect_map(swept(), show="normalised"), ValueError, "of patch, which holds 'normalised'"),
    ("effect_map", "no heads", lambda tmp: ik.effect_map(swept(), top=0), ValueError, "top >= 1"),
    ("plots.curve_plot", "a sweep", lambda tmp: ik.plots.curve_plot(swept()), ValueError, "effect_map draws a sweep"),
    ("plots.curve_plot", "not a Dataset", lambda tmp: ik.plots.curve_plot(None), TypeError, "ablation_curve, got NoneType"),
    ("plots.attribution_check", "a sweep", lambda tmp: ik.plots.attribution_check(swept()), ValueError, "holds 'exact'"),
    ("plots.attribution_check", "nothing verified", lambda tmp: ik.plots.attribution_check(attributed()), ValueError, "verify=20"),
("explore", "nothing", lambda tmp: ik.explore(), TypeError, "wanted a model and prompts, or patterns=array with tokens=[...], got neither"),
    ("explore", "a model and patterns", lambda tmp: ik.explore(model(), repeats(), patterns=attention()), TypeError, "got both"),
    ("explore", "a model alone", lambda tmp: ik.explore(model()), TypeError, "wanted prompts for the model to read"),
    ("explore", "prompts first", lambda tmp: ik.explore(repeats(), model()), TypeError, "wanted a TransformerLens HookedTransformer"),
    ("explore", "tokens with a model", lambda tmp: ik.explore(model(), repeats(), tokens=["a"]), TypeError, "a model's prompts bring their own"),
    ("explore", "prompts with patterns", lambda tmp: ik.explore(prompts=repeats(), patterns=attention()), TypeError, "patterns= come without prompts"),
    ("explore", "no heads", lambda tmp: ik.explore(model(), repeats(), heads=[]), ValueError, "at least one head"),
    ("explore", "a head that is not there", lambda tmp: ik.explore(model(), repeats(), heads="L9H1"), ValueError, "layers 0 to 1"),
    ("explore", "a head that patterns leave out", lambda tmp: ik.explore(patterns=ik.patterns(model(), repeats(), "L1H1"), heads="L0H0"), ValueError, "wanted heads of these patterns, got L0H0"),
    ("explore", "scores as text", lambda tmp: ik.explore(model(), repeats(), scores="induction"), TypeError, "wanted scores as a result such as induction(model)"),
    ("explore", "the scorer itself", lambda tmp: ik.explore(model(), repeats(), scores={"mine": ik.induction}), TypeError, "mine: wanted a result or an array [layer, head]"),
    ("explore", "scores of another grid", lambda tmp: ik.explore(model(), repeats(), scores={"mine": np.zeros((3, 3))}), ValueError, "mine: wanted an array [layer, head] of 2 x 4, got [3, 3]"),
    ("explore", "scores of a larger model", lambda tmp: ik.explore(model(), repeats(), scores=ik.induction(worded())), ValueError, "these are of another model"),
    ("explore", "a table as scores", lambda tmp: ik.explore(model(), repeats(), scores=ik.head_table(scores())), TypeError, "got DataFrame"),
    ("explore", "losses as scores", lambda tmp: ik.explore(model(), repeats(), scores=ik.loss_by_position(model(), repeats())), TypeError, "position"),
    ("explore", "another shape beside", lambda tmp: ik.explore(model(), repeats(), beside=worded()), ValueError, "wanted a model beside with 2 layers of 4 heads, got 2 of 8"),
    ("explore", "an unknown precision", lambda tmp: ik.explore(model(), repeats(), precision="high"), ValueError, "wanted precision in ['plain', 'fine'], got 'high'"),
    ("explore", "patterns that are text", lambda tmp: ik.explore(patterns="attention"), TypeError, "wanted patterns [head, query, key]"),
    ("explore", "a ragged list", lambda tmp: ik.explore(patterns=[[1.0], [0.5, 0.5]]), TypeError, "wanted patterns [head, query, key]"),
    ("explore", "one pattern", lambda tmp: ik.explore(patterns=attention()[0]), ValueError, "got shape [5, 5]"),
    ("explore", "attention between two texts", lambda tmp: ik.explore(patterns=attention()[..., :3]), ValueError, "as many queries as keys; got shape [2, 5, 3]"),
    ("explore", "scores before the softmax", lambda tmp: ik.explore(patterns=attention() - 3), ValueError, "pass patterns after the softmax"),
    ("explore", "NaN", lambda tmp: ik.explore(patterns=attention() * NAN), ValueError, "NaN or infinite ones in 2 of 2 heads"),
    ("explore", "token ids", lambda tmp: ik.explore(patterns=attention(), tokens=[1, 2, 3, 4, 5]), TypeError, "wanted tokens as strings"),
    ("explore", "too few tokens", lambda tmp: ik.explore(patterns=attention(), tokens=["a", "b"]), ValueError, "wanted 1 lists of [5] tokens, got [2]"),
    ("explore", "a text as tokens", lambda tmp: ik.explore(patterns=attention(), tokens="a b c d e"), TypeError, "wanted tokens as strings, a list for each prompt"),
    ("explore", "patterns of one prompt by number", lambda tmp: ik.explore(patterns=ik.patterns(model(), repeats(), "L0H0").isel(prompt=0)), ValueError, "it lacks prompt"),
    ("explore", "scores as patterns", lambda tmp: ik.explore(patterns=scores()), ValueError, "wanted the Dataset of patterns(...), it lacks"),
    ("explore", "a folder that is not there", lambda tmp: ik.explore(patterns=attention()).save(tmp / "no" / "page.html"), ValueError, "existing folder"),
    ("attention_view", "absent prompt", lambda tmp: ik.attention_view(ik.patterns(model(), repeats(), "L0H0"), prompt=99), ValueError, "99"),
    ("kernel.representations", "neither episodes nor prompts", lambda tmp: ik.kernel.representations(worded(), ["fox"], "residual"), TypeError, "wanted Episodes or few-shot Prompts"),
    ("kernel.representations", "unknown", lambda tmp: ik.kernel.representations(worded(), episodes(), "bert"), ValueError, "'tfidf', 'embedding', 'residual', 'head'"),
    ("kernel.representations", "texts of prompts", lambda tmp: ik.kernel.representations(worded(), shots(), "tfidf"), ValueError, "['residual', 'head']"),
    ("kernel.representations", "embedding of prompts", lambda tmp: ik.kernel.representations(None, shots(), len), ValueError, "pass Episodes"),
    ("kernel.representations", "no model", lambda tmp: ik.kernel.representations(None, episodes(), "residual"), TypeError, "pass the model"),
    ("kernel.representations", "no demonstrations", lambda tmp: ik.kernel.representations(model(), repeats(), "head"), ValueError, "few_shot"),
    ("kernel.representations", "absent layer", lambda tmp: ik.kernel.representations(worded(), episodes(), "residual", layers=[9]), ValueError, "layers from 0 to 1"),
    ("kernel.representations", "layers of texts", lambda tmp: ik.kernel.representations(None, episodes(), "tfidf", layers=[0]), ValueError, "layers= is for"),
    ("kernel.representations", "unknown pooling", lambda tmp: ik.kernel.representations(worded(), episodes(), "head", pooling="sum"), ValueError, "['max', 'label']"),
    ("kernel.representations", "embedding that is no table", lambda tmp: ik.kernel.representations(None, episodes(), lambda texts: [1.0] * len(texts)), ValueError, "finite numbers [11, d]"),
    ("kernel.representations", "embedding that is not finite", lambda tmp: ik.kernel.representations(None, episodes(), lambda texts: np.full((len(texts), 2), NAN)), ValueError, "finite numbers"),
    ("kernel.kernel_regression", "unknown kernel", lambda tmp: regressed(kernel="laplace"), ValueError, "wanted one kernel of"),
    ("kernel.kernel_regression", "a kernel twice", lambda tmp: regressed(kernel=("cosine", "cosine")), ValueError, "several different ones"),
    ("kernel.kernel_regression", "no bandwidth", lambda tmp: regressed(bandwidth=0), ValueError, "a number above 0"),
    ("kernel.kernel_regression", "a switch as bandwidth", lambda tmp: regressed(bandwidth=True), ValueError, "a number above 0, got True"),
    ("kernel.kernel_regression", "unknown rule", lambda tmp: regressed(bandwidth="silverman"), ValueError, 'wanted bandwidth="loo"'),
    ("kernel.kernel_regression", "no classes", lambda tmp: regressed(label_class=None), TypeError, "wanted label_class"),
    ("kernel.kernel_regression", "classes of other demonstrations", lambda tmp: regressed(label_class=[0, 1]), ValueError, "whole numbers [2, 2]"),
    ("kernel.kernel_regression", "other features", lambda tmp: regressed(queries=np.ones((2, 4))), ValueError, "got [2, 4] and [2, 2, 3]"),
    ("kernel.kernel_regression", "words", lambda tmp: regressed(queries=[["a", "b", "c"]] * 2), TypeError, "arrays of numbers"),
    ("kernel.kernel_regression", "not finite", lambda tmp: regressed(queries=np.full((2, 3), NAN)), ValueError, "wanted finite representations"),
    ("kernel.kernel_regression", "features of a missing demonstration", lambda tmp: regressed(label_class=[[0, -1], [0, 1]]), ValueError, "wanted NaN as features"),
    ("kernel.kernel_regression", "nothing to leave out", lambda tmp: regressed(demonstrations=np.ones((2, 1, 3)), label_class=[[0], [1]]), ValueError, "at least two demonstrations"),
    ("kernel.kernel_regression", "weights", lambda tmp: ik.kernel.kernel_regression(shot_weights()), TypeError, "the Dataset of representations"),
    ("kernel.kernel_regression", "both forms", lambda tmp: ik.kernel.kernel_regression(shot_weights(), np.ones((1, 2, 3))), TypeError, "pass it alone"),
    ("kernel.explicit_similarity", "leave-one-out without classes", lambda tmp: ik.kernel.explicit_similarity(np.ones((2, 3)), np.ones((2, 2, 3))), TypeError, "or bandwidth="),
    ("kernel.explicit_similarity", "unknown kernel", lambda tmp: alike(kernel=3), ValueError, "wanted one kernel of"),
    ("kernel.next_token_similarity", "prompts", lambda tmp: ik.kernel.next_token_similarity(worded(), shots()), TypeError, "wanted Episodes"),
    ("kernel.next_token_similarity", "not a model", lambda tmp: ik.kernel.next_token_similarity(None, episodes()), TypeError, "HookedTransformer"),
    ("kernel.kernel_alignment", "weights twice", lambda tmp: ik.kernel.kernel_alignment(shot_weights(), shot_weights()), TypeError, "`similarity` over prompt and demonstration"),
    ("kernel.kernel_alignment", "other prompts", lambda tmp: ik.kernel.kernel_alignment(shot_weights(), alike()), ValueError, "the same episodes"),
    ("kernel.kernel_alignment", "level", lambda tmp: ik.kernel.kernel_alignment(regressed(), alike(), level=1), ValueError, "level between 0 and 1"),
    ("kernel.kernel_alignment", "draws", lambda tmp: ik.kernel.kernel_alignment(regressed(), alike(), draws=5), ValueError, "draws >= 100"),
    ("kernel.fitted_bandwidth", "kernel without one", lambda tmp: ik.kernel.fitted_bandwidth(regressed(), np.ones((2, 3)), np.ones((2, 2, 3)), kernel="linear"), ValueError, "kernels with a bandwidth"),
    ("kernel.fitted_bandwidth", "similarities", lambda tmp: ik.kernel.fitted_bandwidth(alike(), np.ones((2, 3)), np.ones((2, 2, 3))), TypeError, "`weight` over prompt"),
    ("kernel.fitted_bandwidth", "queries alone", lambda tmp: ik.kernel.fitted_bandwidth(regressed(), np.ones((2, 3))), TypeError, "wanted demonstrations with"),
    ("kernel.fitted_bandwidth", "other prompts", lambda tmp: ik.kernel.fitted_bandwidth(regressed(), ik.kernel.representations(None, episodes(), "tfidf")), ValueError, "the same episodes"),
    ("plots.line_plot", "not a Dataset", lambda tmp: ik.plots.line_plot([0.5], "accuracy"), TypeError, "got list"),
    ("plots.line_plot", "absent variable", lambda tmp: ik.plots.line_plot(scores(), "accuracy"), ValueError, "holds 'accuracy'"),
    ("plots.line_plot", "absent dimension", lambda tmp: ik.plots.line_plot(scores(), "score", over="offset"), ValueError, "over=..."),
    ("plots.list_plot", "not a Dataset", lambda tmp: ik.plots.list_plot([0.5]), TypeError, "of list_ablation(model, token_heads, concept_heads), got list"),
    ("plots.list_plot", "scores", lambda tmp: ik.plots.list_plot(scores()), ValueError, "which holds 'random'"),
    ("plots.interval_plot", "not a Dataset", lambda tmp: ik.plots.interval_plot([0.5], "accuracy"), TypeError, "got list"),
    ("plots.interval_plot", "nothing to show", lambda tmp: ik.plots.interval_plot(scores(), []), ValueError, "at least one variable"),
    ("plots.interval_plot", "absent dimension", lambda tmp: ik.plots.interval_plot(scores(), "score"), ValueError, "over 'row'"),
    ("evidence.co_occurrence", "not a Dataset", lambda tmp: ik.evidence.co_occurrence(0.5), TypeError, "training_curves, got float"),
    ("evidence.co_occurrence", "scores", lambda tmp: ik.evidence.co_occurrence(scores()), ValueError, "without icl_score"),
    ("evidence.co_occurrence", "several models", lambda tmp: ik.evidence.co_occurrence(family(one=1000, two=1400)), ValueError, "or test all of them with continuity"),
    ("evidence.co_occurrence", "windows of other runs", lambda tmp: ik.evidence.co_occurrence(curves([1000, 1400]), window=ik.training.phase_window(curves(1400))), ValueError, "leave window out"),
    ("evidence.co_occurrence", "a window that is none", lambda tmp: ik.evidence.co_occurrence(curves(1400), window=(1000, 2000)), TypeError, "phase_window, got tuple"),
    ("evidence.co_perturbation", "not a Dataset", lambda tmp: ik.evidence.co_perturbation([]), TypeError, "training_curves, got list"),
    ("evidence.co_perturbation", "absent model", lambda tmp: ik.evidence.co_perturbation(family(one=1000, two=1400), pairs={"one": "onto"}), ValueError, "got ['onto']"),
    ("evidence.co_perturbation", "windows of other runs", lambda tmp: ik.evidence.co_perturbation(family(one=1000, two=1400), pairs={"one": "two"}, window=ik.training.phase_window(curves(1400))), ValueError, "leave window out"),
    ("evidence.continuity", "a list", lambda tmp: ik.evidence.continuity([ik.evidence.co_occurrence(curves(1400))]), TypeError, "got list"),
    ("evidence.continuity", "a number for a model", lambda tmp: ik.evidence.continuity({"small": 0.5, "large": 0.7}), TypeError, "got float"),
    ("evidence.continuity", "curves for a model", lambda tmp: ik.evidence.continuity({"small": curves(1400), "large": curves(1400)}), ValueError, "an argument"),
    ("evidence.continuity", "one argument twice", lambda tmp: ik.evidence.continuity({"small": [not_defined(MECHANISM, "")] * 2}), ValueError, "each argument once"),
    ("plots.phase_plot", "not a Dataset", lambda tmp: ik.plots.phase_plot([0.5]), TypeError, "training_curves, got list"),
    ("plots.phase_plot", "no curves", lambda tmp: ik.plots.phase_plot(scores()), ValueError, "Dataset of training_curves"),
    ("plots.phase_plot", "curves as the window", lambda tmp: ik.plots.phase_plot(curves(1400), curves(1400)), ValueError, "holds 'exists'"),
    ("plots.phase_plot", "windows of other runs", lambda tmp: ik.plots.phase_plot(curves(1400), window([1000], [1500])), ValueError, "window of the same curves"),
    ("plots.component_plot", "curves", lambda tmp: ik.plots.component_plot(curves(1400)), ValueError, "holds 'component'"),
    ("plots.component_plot", "one component", lambda tmp: ik.plots.component_plot(xr.Dataset({"component": (("checkpoint", "pc"), [[1.0]])})), ValueError, "two components"),
    ("plots.slope_plot", "curves", lambda tmp: ik.plots.slope_plot(curves(1400)), ValueError, "holds 'slope'"),
    ("plots.slope_plot", "several runs", lambda tmp: ik.plots.slope_plot(xr.Dataset({"slope": (("seed", "checkpoint", "position"), np.ones((2, 2, 2)))})), ValueError, ".sel(seed=...)"),
    ("plots.evidence_plot", "not a Dataset", lambda tmp: ik.plots.evidence_plot([0.5]), TypeError, "got float"),
    ("plots.evidence_plot", "nothing", lambda tmp: ik.plots.evidence_plot([]), ValueError, "at least one argument"),
    ("plots.evidence_plot", "curves", lambda tmp: ik.plots.evidence_plot(curves(1400)), ValueError, "its checks and its verdict"),
    ("kernel.demonstration_attention", "no demonstrations", lambda tmp: ik.kernel.demonstration_attention(model(), repeats()), ValueError, "few_shot"),
    ("kernel.demonstration_attention", "one point", lambda tmp: ik.kernel.demonstration_attention(worded(), shots(), points=1), ValueError, "at least 2 points"),
    ("kernel.demonstration_attention", "absent layer", lambda tmp: ik.kernel.demonstration_attention(worded(), shots(), layers=[9]), ValueError, "layers from 0 to 1"),
    ("kernel.vote_view", "not prompts", lambda tmp: ik.kernel.vote_view(shot_weights(), ["fox dax"]), TypeError, "got list"),
    ("kernel.vote_view", "a head of no weights", lambda tmp: ik.kernel.vote_view(shot_weights().sel(layer=0, head=0), shots(), head="L0H0"), ValueError, "leave it out"),
    ("kernel.vote_view", "no such head", lambda tmp: ik.kernel.vote_view(shot_weights(), shots(), head="L9H0"), ValueError, "L9H0"),
    ("kernel.vote_view", "no such prompt", lambda tmp: ik.kernel.vote_view(shot_weights(), shots(), head="L0H0", show=[99]), ValueError, "99"),
    ("kernel.vote_view", "every head", lambda tmp: ik.kernel.vote_view(shot_weights(), shots()), ValueError, "choose by .sel"),
    ("kernel.vote_view", "other prompts", lambda tmp: ik.kernel.vote_view(shot_weights().sel(layer=0, head=0), ik.prompts.word_episodes(worded(), prompts=1)), ValueError, "other prompts"),
    ("plots.demonstration_map", "scores", lambda tmp: ik.plots.demonstration_map(scores()), ValueError, "of demonstration_attention"),
    ("plots.demonstration_map", "absent head", lambda tmp: ik.plots.demonstration_map(ik.kernel.demonstration_attention(worded(), shots()), heads="L9H9"), ValueError, "L9H9"),
    ("fewshot.few_shot_study", "too few queries", lambda tmp: ik.fewshot.few_shot_study(worded(), queries=4), ValueError, "at least 8 queries"),
    ("fewshot.few_shot_study", "a template for words", lambda tmp: ik.fewshot.few_shot_study(worded(), template="{x}: {y}"), ValueError, "go with LabelledTexts"),
    ("fewshot.few_shot_study", "a pool for episodes", lambda tmp: ik.fewshot.few_shot_study(worded(), episodes(), pool=six_words()), ValueError, "go with LabelledTexts"),
    ("fewshot.few_shot_study", "text", lambda tmp: ik.fewshot.few_shot_study(worded(), "fox"), TypeError, "got str"),
    ("fewshot.few_shot_study", "no demonstrations", lambda tmp: ik.fewshot.few_shot_study(model(), repeats()), ValueError, "few_shot"),
    ("fewshot.FewShotStudy", "nothing", lambda tmp: ik.fewshot.FewShotStudy(), TypeError, "prompts"),
    ("evidence.generality", "no model", lambda tmp: ik.evidence.generality("tiny"), TypeError, "got str: load one"),
    ("evidence.generality", "no heads", lambda tmp: ik.evidence.generality(worded(), []), ValueError, "at least one head"),
    ("evidence.generality", "absent head", lambda tmp: ik.evidence.generality(worded(), "L9H9"), ValueError, "L9H9"),
    ("evidence.generality", "one control", lambda tmp: ik.evidence.generality(worded(), controls=1), ValueError, "controls >= 2"),
    ("evidence.generality", "a number as passages", lambda tmp: ik.evidence.generality(worded(), passages=3), TypeError, "one text or a list"),
    ("evidence.generality", "a short text", lambda tmp: ik.evidence.generality(worded(), passages="fox wolf bear"), ValueError, "pass a longer one"),
    ("evidence.generality", "one passage", lambda tmp: ik.evidence.generality(worded(), passages=["fox wolf bear horse"]), ValueError, "at least two passages"),
    ("evidence.generality", "passages said once", lambda tmp: ik.evidence.generality(worded(), passages=shots()), ValueError, "with a control"),
    ("evidence.generality", "pattern as text", lambda tmp: ik.evidence.generality(worded(), pattern="fox dax"), TypeError, "made by few_shot_prompts"),
    ("evidence.generality", "pattern without labels", lambda tmp: ik.evidence.generality(worded(), pattern=repeats()), ValueError, "carry labels"),
    ("evidence.generality", "translations as text", lambda tmp: ik.evidence.generality(worded(), translations="fox"), TypeError, "list of Translation"),
    ("evidence.six_arguments", "a number", lambda tmp: ik.evidence.six_arguments(3), TypeError, "TransformerLens"),
    ("evidence.six_arguments", "a function as an argument", lambda tmp: ik.evidence.six_arguments(model(), arguments=[ik.evidence.mechanism]), TypeError, "wanted arguments as a list of ik.evidence.Argument"),
    ("evidence.six_arguments", "one argument twice", lambda tmp: ik.evidence.six_arguments(model(), arguments=[MECHANISM, MECHANISM]), ValueError, "one or more arguments of different names"),
    ("evidence.six_arguments", "no such step", lambda tmp: ik.evidence.six_arguments("tiny", families=family(two=[1400]), checkpoints=[7]), ValueError, "tiny has no checkpoint of step 7: there are 0, 100"),
    ("evidence.six_arguments", "a short text", lambda tmp: ik.evidence.six_arguments(worded(), prompts="fox wolf bear"), ValueError, "pass a longer one"),
    ("evidence.six_arguments", "a number as prompts", lambda tmp: ik.evidence.six_arguments(worded(), prompts=3), TypeError, "got int"),
    ("evidence.six_arguments", "families that are no curves", lambda tmp: ik.evidence.six_arguments(model(), families=scores()), ValueError, "without icl_score"),
    ("report", "a table", lambda tmp: ik.report(3, tmp / "a.html"), TypeError, "wanted a TransformerLens model, what fewshot.few_shot_study(...) returned or what evidence.six_arguments(...) returned, got int"),
    ("report", "unwritable output", lambda tmp: ik.report(model(), tmp / "no" / "a.html"), ValueError, "existing folder"),
    ("report", "a null byte", lambda tmp: ik.report(model(), tmp / "a\0.html"), ValueError, "null byte"),
    ("report", "prompts for what is measured", lambda tmp: ik.report(ik.evidence.six_arguments(model(), progress=False), tmp / "a.html", n_prompts=12, seed=1), ValueError, "n_prompts=, seed= go with a model, got SixArguments"),
    ("report", "a model beside a model", lambda tmp: ik.report(model(), tmp / "a.html", model=model()), ValueError, "model= goes with what census(...) returned"),
    ("report", "scores", lambda tmp: ik.report(scores(), tmp / "a.html"), TypeError, "got Dataset: head_table, head_map and effect_map show a Dataset"),
    ("report", "unwritable output", lambda tmp: ik.report(ik.fewshot.few_shot_study(worded(), queries=8, splits=2, progress=False), tmp / "no" / "a.html"), ValueError, "existing folder"),
    ("report", "unwritable output", lambda tmp: ik.report(worded(), tmp / "no" / "report.html"), ValueError, "existing folder"),
    ("report", "a folder", lambda tmp: ik.report(worded(), tmp), ValueError, "cannot write"),
    ("report", "too few prompts", lambda tmp: ik.report(worded(), tmp / "a.html", n_prompts=3), ValueError, "at least 12"),
    ("report", "no time", lambda tmp: ik.report(worded(), tmp / "a.html", minutes=-1), ValueError, "wanted minutes above 0, or None for no bound, got -1"),
    ("report", "minutes for what is measured", lambda tmp: ik.report(ik.fewshot.few_shot_study(worded(), queries=8, splits=2, progress=False), tmp / "a.html", minutes=1), ValueError, "minutes= go with a model, got FewShotStudy"),
    ("report", "a model that sees the next token", lambda tmp: ik.report(bidirectional("native"), tmp / "a.html"), ValueError, "report reads how well next tokens are predicted, got a model that attends to them (bidirectional attention): for such a model use head_table"),
    ("report", "outputs that are classes", lambda tmp: ik.report(classifier("native"), tmp / "a.html"), ValueError, "5 outputs are not its tokens (d_vocab_out): for such a model use head_table"),
    ("report", "absent heads", lambda tmp: ik.report(worded(), tmp / "a.html", heads="L9H9"), ValueError, "L9H9"),
    ("training.over_checkpoints", "no source", lambda tmp: ik.training.over_checkpoints(3, {"loss": ik.repeat_loss}), TypeError, "wanted a source's name or path, or label -> source, got int"),
    ("training.over_checkpoints", "no sources", lambda tmp: ik.training.over_checkpoints({}, {"loss": ik.repeat_loss}), ValueError, "wanted label -> source"),
    ("training.over_checkpoints", "absent folder", lambda tmp: ik.training.over_checkpoints(tmp / "nothing", {"loss": ik.repeat_loss}), ValueError, "nothing"),
    ("training.over_checkpoints", "a folder that is no run", lambda tmp: ik.training.over_checkpoints(tmp, {"loss": ik.repeat_loss}), ValueError, "has no training checkpoints"),
    ("training.over_checkpoints", "a name without checkpoints", lambda tmp: ik.training.over_checkpoints("gpt2", {"loss": ik.repeat_loss}), ValueError, '"gpt2" has no training checkpoints'),
    ("training.over_checkpoints", "an unknown name", lambda tmp: ik.training.over_checkpoints("gtp2-smal", {"loss": ik.repeat_loss}), ValueError, 'knows no training checkpoints of "gtp2-smal"'),
    ("training.over_checkpoints", "a measure instead of measures", lambda tmp: ik.training.over_checkpoints("tiny", ik.repeat_loss), TypeError, 'got Metric: pass a dict, as in {"benefit": repeat_loss}'),
    ("training.over_checkpoints", "no measures", lambda tmp: ik.training.over_checkpoints("tiny", {}), ValueError, "wanted at least one measure"),
    ("training.over_checkpoints", "a name netCDF cannot have", lambda tmp: ik.training.over_checkpoints("tiny", {"a/b": ik.repeat_loss}), ValueError, "named by a Python identifier"),
    ("training.over_checkpoints", "a measure that is no function", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": 3.0}), TypeError, "wanted measure 'loss' as a function"),
    ("training.over_checkpoints", "a measure that returns text", lambda tmp: ik.training.over_checkpoints("tiny", {"said": lambda model: "text"}), TypeError, "wanted a Dataset, a DataArray or a number, got str"),
    ("training.over_checkpoints", "a measure with the sweep's dimension", lambda tmp: ik.training.over_checkpoints("tiny", {"a": lambda model: xr.DataArray([1.0], dims="checkpoint")}), ValueError, "a sweep adds the dimensions"),
    ("training.over_checkpoints", "two variables of one name", lambda tmp: ik.training.over_checkpoints("tiny", {"a": ik.repeat_loss, "a_without": ik.repeat_loss}), ValueError, "two measures give a variable 'a_without'"),
    ("training.over_checkpoints", "an absent step", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, checkpoints=[7]), ValueError, "tiny has no checkpoint of step 7: there are 0, 100"),
    ("training.over_checkpoints", "one step", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, checkpoints=100), TypeError, "wanted checkpoints as training steps"),
    ("training.over_checkpoints", "steps that are no numbers", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, checkpoints=["last"]), ValueError, "each a whole number"),
    ("training.over_checkpoints", "no steps", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, checkpoints=[]), ValueError, "at least one training step"),
    ("training.over_checkpoints", "a client instead of its executor", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, executor=SimpleNamespace()), TypeError, "client.get_executor()"),
    ("training.over_checkpoints", "path without a parent", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, path=tmp / "a" / "b"), ValueError, "in an existing one"),
    ("training.over_checkpoints", "path with other files", lambda tmp: [(tmp / "mine.txt").touch(), ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, path=tmp)], ValueError, "holds other files"),
    ("training.over_checkpoints", "a measure without a fingerprint", lambda tmp: (lambda held: ik.training.over_checkpoints("tiny", {"loss": lambda model: held}, path=tmp / "s"))(model()), TypeError, "no fingerprint can be made of a"),
    ("training.over_checkpoints", "an unknown option of load", lambda tmp: ik.training.over_checkpoints("tiny", {"loss": ik.repeat_loss}, n_ctx=5), TypeError, "load() of an embedded model takes"),
]  # fmt: skip


def fault_of(number, folder):
    """What is wrong with the answer to a row, "" where it is as wanted."""
    _, _, call, error, message = ROWS[number]
    try:
        call(folder)
    except error as raised:
        return "" if message in str(raised) else f"{str(raised)!r} does not say {message!r}"
    except Exception:
        return f"wanted {error.__name__}, got\n{traceback.format_exc()}"
    return "nothing was raised"


def half_written(tmp):
    """A copy of the embedded model whose weights end in the middle."""
    import shutil
    from pathlib import Path

    source = Path(ik.__file__).parent / "assets" / "tiny"
    target = tmp / "half"
    shutil.copytree(source, target)
    weights = (target / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    return target


def unlike_stories(tmp):
    """A copy of the embedded model whose tokenizer has another word."""
    import shutil
    from pathlib import Path

    shutil.copytree(Path(ik.__file__).parent / "assets" / "tiny", tmp / "other")
    file = tmp / "other" / "tokenizer.json"
    file.write_text(file.read_text().replace('"rocket"', '"sprocket"'))
    return tmp / "other"


def nan_weights():
    weights = random_weights(BASE | SHAPES["GPT-2"])
    weights["blocks.1.mlp.W_in"][0, 0] = NAN
    return weights
