"""`load` of a name on the hub: which door of TransformerLens, with what, and what is said when it fails.

No hub can be reached: TransformerLens' own loaders read a hub's cache that is written here.
"""

from __future__ import annotations

import inspect
import json
import shutil
import socket

import httpx
import numpy as np
import pytest
import torch
from folders import ARCHITECTURE, TOKENS, logits, random_weights, write_hugging_face, write_tokenizer
from huggingface_hub import errors

from induction_kernel.errors import Refused
from induction_kernel.loading import _hub as hub
from induction_kernel.loading import build, load, training_history
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.training._checkpoints import over_checkpoints

HOOKED = has_hooked_transformer()
EARLY = "NeelNanda/Attn_Only_2L512W_C4_Code"


# TransformerLens 3.9 leaves the settings' file for the garbage collector to close.
leaky = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]


def own_loader(test):
    for mark in leaky:
        test = mark(test)
    return test


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Writes a folder into an empty hub cache, as if it had been fetched at this revision."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def add(name, folder, revision="main"):
        place = cache / f"models--{name.replace('/', '--')}"
        commit = revision.encode().hex().ljust(40, "0")
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)

    add.path = cache
    return add


@pytest.fixture
def pythia(tmp_path, hub_cache):
    """Two checkpoints of one Pythia in the cache, of other weights each, and what transformers makes of them."""
    models = {}
    for revision, seed in {"main": 0, "step1000": 1}.items():
        folder = tmp_path / revision
        models[revision] = write_hugging_face(folder, "gpt_neox", hidden_size=64 + 32 * seed)
        for name in ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m-elsewhere"):
            hub_cache(name, folder, revision)
    return models


@pytest.mark.parametrize("bridge", [False, True])
def test_pythia_and_its_checkpoints(pythia, bridge):
    options = {"bridge": bridge, "device": "cpu"}
    if HOOKED and not bridge:  # TransformerLens centres and folds unless it is told not to
        options |= dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed"), False)
    last = load("pythia-70m", **options)
    early = load("EleutherAI/PYTHIA-70m", revision="step1000", **options)
    assert type(last).__name__ == ("HookedTransformer" if HOOKED and not bridge else "TransformerBridge")
    for model, revision in ((last, "main"), (early, "step1000")):
        with torch.no_grad():
            wanted = pythia[revision](TOKENS).logits
        torch.testing.assert_close(logits(model), wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "chosen", [{"checkpoint": 1000}, {"checkpoint_index": 11}, {"checkpoint_index": -143}]
)
def test_a_checkpoint_is_a_revision(pythia, chosen, tmp_path, hub_cache):
    # TransformerLens 3.x reads the configuration of the trained model for every checkpoint.
    model = load("EleutherAI/pythia-70m", bridge=True, **chosen)
    assert model.cfg.checkpoint_value == 1000
    with torch.no_grad():
        torch.testing.assert_close(logits(model), pythia["step1000"](TOKENS).logits, atol=2e-4, rtol=1e-4)


def test_a_checkpoint_of_a_pythia_that_is_not_listed(pythia):
    model = load("EleutherAI/pythia-70m-elsewhere", checkpoint=1000)
    assert model.cfg.checkpoint_value == 1000
    with torch.no_grad():
        torch.testing.assert_close(logits(model), pythia["step1000"](TOKENS).logits, atol=2e-4, rtol=1e-4)


def norm(model):
    return float(model.W_E.detach().norm())


def test_a_sweep_over_a_pythia_names_the_checkpoint_it_cannot_get(pythia, tmp_path):
    with pytest.warns(
        UserWarning, match=r"1 of 2 checkpoints are left out: EleutherAI/pythia-70m at 2000: .*hub"
    ):
        found = over_checkpoints(
            "PYTHIA-70m", {"norm": norm}, checkpoints=[1000, 2000], path=tmp_path / "s", skip_failed=True, bridge=True
        )  # fmt: skip
    assert found["checkpoint"].values.tolist() == [1000]
    assert found["tokens"].values.tolist() == [1000 * 2**21]
    wanted = pythia["step1000"].get_input_embeddings().weight.detach().norm()
    torch.testing.assert_close(float(found["norm"][0]), float(wanted))


@pytest.mark.parametrize(
    "name", ["pythia-70m", "EleutherAI/pythia-70m-elsewhere", "stanford-crfm/alias-gpt2-small-x21"]
)
def test_checkpoints_on_the_hub_say_how_many_tokens_were_seen(name, no_network):
    tokens = training_history(name).tokens
    step = max(tokens)
    assert {143000: 143000 * 2**21, 400000: 400000 * 2**19}[step] == tokens[step]


@pytest.fixture
def early_model(tmp_path, hub_cache, monkeypatch):
    """One of TransformerLens' own early models, as its repository holds it: settings, weights, checkpoints."""
    folder = tmp_path / "early"
    (folder / "checkpoints").mkdir(parents=True)
    write_tokenizer(folder)
    settings = {
        key: ARCHITECTURE[key] for key in ("n_layers", "d_model", "n_heads", "d_head", "n_ctx", "d_vocab")
    }
    settings |= {"d_mlp": 64, "act_fn": "gelu_new", "attn_only": True, "normalization": "LNPre"}
    (folder / "config.json").write_text(json.dumps({**settings, "tokenizer_name": str(folder)}))
    biases = {
        f"blocks.{layer}.attn.b_{part}": torch.zeros(4, 4) if part != "O" else torch.zeros(16)
        for layer in range(2)
        for part in "QKVO"
    }
    for seed, path in {
        0: "model_final.pth",
        1: "checkpoints/model_000500.pth",
        2: "checkpoints/model_001000.pth",
    }.items():
        torch.save(random_weights(seed) | biases, folder / path)
    hub_cache(EARLY, folder)
    files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.*"))]
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda self, name, **options: files)
    return {"cache_dir": hub_cache.path} if HOOKED else {}  # 3.x reads its own constant of the cache's place


@own_loader
@pytest.mark.parametrize(
    ("chosen", "seed"),
    [({}, 0), ({"checkpoint": 500}, 1), ({"checkpoint_index": 1}, 2), ({"checkpoint_index": -2}, 1)],
)
def test_an_early_model_and_its_checkpoints(early_model, chosen, seed):
    plain = {"fold_value_biases": False} if HOOKED else {}
    plain |= dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed"), False) if HOOKED else {}
    model = load("attn-only-2l", device="cpu", **chosen, **plain, **early_model)
    wanted = build(ARCHITECTURE, random_weights(seed))
    torch.testing.assert_close(logits(model), logits(wanted), atol=1e-5, rtol=1e-5)
    assert type(model) is type(wanted)
    assert model.cfg.checkpoint_value == {0: None, 1: 500, 2: 1000}[seed]
    assert model.to_tokens("word3 word0").tolist() == [[0, 6, 3]]
    assert not any(module.training for module in model.modules())
    half = load("attn-only-2l", device="cpu", dtype="bfloat16", **early_model)
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}


@own_loader
def test_a_sweep_over_an_early_models_own_checkpoints(early_model, monkeypatch):
    processing = (
        ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases") if HOOKED else ()
    )
    plain = early_model | dict.fromkeys(processing, False)
    found = over_checkpoints("attn-only-2l", {"norm": norm}, device="cpu", **plain)
    assert found["checkpoint"].values.tolist() == [500, 1000]
    wanted = [float(random_weights(seed)["embed.W_E"].norm()) for seed in (1, 2)]
    np.testing.assert_allclose(found["norm"], wanted, rtol=1e-6)
    assert np.isnan(found["tokens"]).all(), "nobody says how many tokens a step of theirs has"
    files = [f"checkpoints/model_{label * 2**22}.pth" for label in (500, 1000)]  # large labels are tokens
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda self, name, **options: files)
    assert training_history("attn-only-2l").tokens == {
        500 * 2**22: 500.0 * 2**22,
        1000 * 2**22: 1000.0 * 2**22,
    }


@own_loader
def test_what_an_early_model_refuses(early_model):
    with pytest.raises(
        ValueError, match=r'"NeelNanda/.*" has no checkpoint of step 7: there are 2 from 500 to 1000'
    ):
        load("attn-only-2l", checkpoint=7, **early_model)
    if HOOKED:
        with pytest.raises(ValueError, match="only as HookedTransformers: leave bridge out"):
            load("attn-only-2l", bridge=True)
    else:
        with pytest.raises(
            TypeError, match=r"takes no n_ctx; TransformerLens takes device, dtype, tokenizer"
        ):
            load("attn-only-2l", n_ctx=5)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("gpt2", {"checkpoint": 3}, ValueError, '"gpt2" has no training checkpoints'),
        ("gpt2", {"checkpoint_index": 0}, ValueError, '"gpt2" has no training checkpoints'),
        ("pythia-70m", {"checkpoint": 1001}, ValueError, "step 1001: .*the nearest are 128, 256, 512, 1000"),
        ("pythia-70m", {"checkpoint_index": 154}, ValueError, "checkpoint_index must be from 0 to 153"),
        ("someone/else", {"checkpoint": 3}, ValueError, 'knows no training checkpoints.*pass revision="'),
        ("someone/else", {"fold_ln": True}, TypeError, "fold_ln: only a HookedTransformer is processed"),
        ("someone/else", {"nonsense": 1}, TypeError, "takes no nonsense; TransformerLens takes .*revision"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_fetched(name, options, error, message, no_network):
    with pytest.raises(error, match=message):
        load(name, **options)


def record(monkeypatch):
    """TransformerLens' doors, replaced by a note of what each was asked."""
    from transformer_lens.model_bridge import TransformerBridge

    calls = []

    def replace(owner, door):
        def noted(name, **options):
            calls.append((door, name, options))
            return build(ARCHITECTURE, random_weights())

        noted.__signature__ = inspect.signature(getattr(owner, door))
        monkeypatch.setattr(owner, door, noted)

    replace(TransformerBridge, "boot_transformers")
    if HOOKED:
        from transformer_lens import HookedTransformer

        replace(HookedTransformer, "from_pretrained")
    return calls


def test_which_door_with_what(monkeypatch):
    calls = record(monkeypatch)
    load("GPT2", device="cpu", dtype="torch.bfloat16", n_devices=1)
    load("someone/something", dtype=torch.float16, revision="x")
    load("gpt2-medium", bridge=True, device_map={"": "cpu"})
    load("pythia-160m", checkpoint=512)
    load("bert-base-cased", device=torch.device("cpu"))
    load("qwen/qwen3-0.6B-base", bridge=True)
    known = "from_pretrained" if HOOKED else "boot_transformers"
    said = {"trust_remote_code": False} if HOOKED else {}  # a Bridge does not trust unless told to
    assert calls == [
        (known, "gpt2", {"device": "cpu", "dtype": torch.bfloat16, "n_devices": 1, **said}),
        ("boot_transformers", "someone/something", {"dtype": torch.float16, "revision": "x"}),
        ("boot_transformers", "gpt2-medium", {"device_map": {"": "cpu"}}),
        (known, "EleutherAI/pythia-160m", {"checkpoint_value": 512, **said}),
        ("boot_transformers", "google-bert/bert-base-cased", {"device": "cpu"}),
        ("boot_transformers", "Qwen/Qwen3-0.6B-Base", {}),
    ]
    if HOOKED:
        with pytest.raises(ValueError, match="device_map is for a TransformerBridge: pass bridge=True"):
            load("gpt2", device_map="auto")


def answer(status):
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co"))


def wrapped(cause):
    """As transformers raises it: its own OSError, from the hub's."""
    try:
        raise OSError("something went wrong") from cause
    except OSError as error:
        return error


UNREACHABLE = [
    httpx.ConnectError("no route"),
    httpx.ConnectTimeout("slow"),
    httpx.ReadTimeout("slow"),
    httpx.PoolTimeout("slow"),
    httpx.ProxyError("no proxy"),
    httpx.RemoteProtocolError("cut off"),
    errors.OfflineModeIsEnabled("offline"),
    errors.LocalEntryNotFoundError("not in the cache"),
    errors.HfHubHTTPError("503", response=answer(503)),
    errors.HfHubHTTPError("429", response=answer(429)),
    ConnectionResetError("reset"),
    TimeoutError("slow"),
    socket.gaierror("no such host"),
    OSError("We couldn't connect to 'https://huggingface.co' to load the files"),
]
OTHER = [
    (errors.GatedRepoError("gated", response=answer(403)), PermissionError, "accept it on https://huggingface.co/gpt2"),
    (errors.RepositoryNotFoundError("404", response=answer(404)), ValueError, 'no model "GPT2".*hf auth login'),
    (errors.RevisionNotFoundError("404", response=answer(404)), ValueError, "no such revision"),
    (errors.RemoteEntryNotFoundError("404", response=answer(404)), ValueError, "is not a Hugging Face model folder"),
    (errors.HFValidationError("no name"), ValueError, "did you mean"),
    (ValueError("Could not determine supported architecture from config."), Refused, '"GPT2" has an architecture'),
    (ValueError("operands could not be broadcast together"), ValueError, "^operands"),
    (KeyError("other"), KeyError, "other"),
]  # fmt: skip


def failing(monkeypatch, error):
    def fail(name, **options):
        raise error

    monkeypatch.setattr(hub, "_door", lambda *args: fail)


@pytest.mark.parametrize("outer", [lambda error: error, wrapped], ids=["bare", "wrapped"])
@pytest.mark.parametrize("error", UNREACHABLE, ids=lambda error: type(error).__name__)
def test_a_hub_that_cannot_be_reached(error, outer, monkeypatch):
    failing(monkeypatch, outer(error))
    with pytest.raises(ConnectionError, match=r'"gpt2-small" is loaded from the .* hub, .*load\("tiny"\)'):
        load("gpt2-small")


@pytest.mark.parametrize(("error", "kind", "message"), OTHER, ids=lambda value: type(value).__name__)
def test_other_failures_of_the_hub(error, kind, message, monkeypatch):
    failing(monkeypatch, error)
    with pytest.raises(kind, match=message):
        load("GPT2")


@pytest.mark.parametrize("name", ["gpt2", "attn-only-2l", "EleutherAI/pythia-70mm"])
@pytest.mark.parametrize("offline", [True, False])
def test_transformer_lens_own_failure_without_a_hub(name, offline, hub_cache, monkeypatch):
    """Nothing is replaced but the socket: offline mode, and a host that cannot be found."""

    def refuse(*args, **kwargs):
        raise socket.gaierror("no such host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
    with pytest.raises(ConnectionError, match="which cannot be reached from here") as caught:
        load(name)
    unsure = "does not list this name (did you mean EleutherAI/pythia-70m"
    assert (unsure in str(caught.value)) == (name == "EleutherAI/pythia-70mm")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gtp2", "did you mean .*gpt2"),
        ("Pythia-70", "did you mean .*EleutherAI/pythia-70m"),
        ("smollm2-135m", "did you mean HuggingFaceTB/SmolLM2-135M"),
        ("Tiny", "did you mean tiny"),
        ("zzzzqqqq", 'for example "gpt2"'),
    ],
)
def test_a_name_that_means_nothing_brings_near_ones(name, hint, no_network):
    with pytest.raises(ValueError, match=f'no model "{name}": .*{hint}'):
        load(name)
