"""The explorer live, without a browser: what it syncs, what it answers, what a notebook keeps of it."""

import json
import zlib

import numpy as np
import pytest
import torch
import zoo
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
from unpacked import ReadPage

import induction_kernel as ik
from induction_kernel.attention_explorer import _explorer, _widget

pytest.importorskip("anywidget")
TEXTS = ["fox dax ; apple wug ; fox", "apple wug"]
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def explorer(model):
    return ik.explore(model, TEXTS)


def asked(widget, message):
    """What the widget sends when a page sends this."""
    sent = []
    widget.send = lambda content, buffers=(): sent.append((content, *buffers))
    widget._handle_custom_msg(message, [])
    (one,) = sent
    return one


def shown(explorer, monkeypatch):
    """The outputs that a cell gets whose last line is the explorer: data and metadata of each."""
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    outputs = []
    monkeypatch.setattr(
        shell.display_pub, "publish", lambda data, metadata=None, **_: outputs.append((data, metadata))
    )
    explorer._ipython_display_()
    InteractiveShell.clear_instance()
    return outputs


@pytest.mark.parametrize("prompt", [0, 1])
@pytest.mark.parametrize("index", [0, 9, 15])
def test_a_head_is_sent_as_float16_with_the_norms_of_its_values(model, explorer, prompt, index):
    answer, data = asked(explorer.widget(), {"kind": "head", "id": 7, "prompt": prompt, "index": index})
    assert answer == {"kind": "bytes", "id": 7}
    seen = ik.patterns(model, TEXTS[prompt])
    pattern = seen["pattern"].values[0, index].astype(np.float32)
    expected = [pattern[np.tri(len(pattern), dtype=bool)], seen["value_norm"].values[0, index]]
    found = np.frombuffer(data, "<f2").astype(np.float32)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-3, atol=1e-6)


def test_a_pattern_of_queries_that_look_ahead_is_sent_whole():
    patterns = np.random.default_rng(0).dirichlet(np.ones(5), (3, 5)).astype(np.float32)
    _, data = asked(
        ik.explore(patterns=patterns).widget(), {"kind": "head", "id": 0, "prompt": 0, "index": 2}
    )
    np.testing.assert_allclose(np.frombuffer(data, "<f2").reshape(5, 5), patterns[2], rtol=1e-3)


def test_thumbnails_of_a_prompt_are_sent_as_they_are(explorer):
    answer, data = asked(explorer.widget(), {"kind": "thumbnails", "id": 3, "prompt": 1})
    assert answer == {"kind": "bytes", "id": 3}
    assert data == explorer.explored.shown[1].thumbnails.tobytes()


def test_what_is_synced_is_contents_and_the_first_thumbnails(explorer):
    state = explorer.widget().get_state()
    own = {name for name in state if not name.startswith("_")} - {"layout", "tabbable", "tooltip"}
    assert own == {"contents", "thumbnails"}
    assert zlib.decompress(state["thumbnails"]) == explorer.explored.shown[0].thumbnails.tobytes()
    contents = json.loads(json.dumps(state["contents"], allow_nan=False))
    page = ReadPage(explorer._page).contents
    differ = {key for key in page if page[key] != contents[key]}
    assert differ == {"live", "precision", "notes"}
    assert contents["live"]
    assert contents["precision"] == "half"


def test_what_is_synced_grows_with_the_length_not_with_its_square():
    sizes = []
    for length in (100, 200, 400):
        pattern = np.tri(length, dtype=np.float32) / np.arange(1, length + 1)[:, None]
        state = ik.explore(patterns=np.stack([pattern] * 4)).widget().get_state()
        sizes.append(len(json.dumps(state["contents"])) + len(state["thumbnails"]))
    assert sizes[-1] < 8_000  # a pattern of 400 tokens takes 160 kB
    assert sizes[2] - sizes[1] < 2.5 * (sizes[1] - sizes[0])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: ik.explore(zoo.fresh_of("GPT-2", "bridge"), zoo_tokens()), "takes another run of the model"),
        (lambda: ik.explore(patterns=np.full((2, 300, 300), 1 / 300)), "keeps 1 MB to compute"),
        (lambda: ik.explore(patterns=np.full((9, 300, 300), 1 / 300)), "keeps 4 MB to compute"),
    ],
)
def test_the_kernels_memory_is_said(made, said):
    first, second = made().widget().contents["notes"]
    assert said in first
    assert second == "Weights are float16."


def zoo_tokens():
    return torch.arange(5, 14)[None]


def test_a_model_that_changed_since_says_so():
    model = zoo.fresh_of("GPT-2", "bridge")
    widget = ik.explore(model, zoo_tokens()).widget()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    (answer,) = asked(widget, {"kind": "head", "id": 5, "prompt": 0, "index": 6})
    assert (answer["kind"], answer["id"]) == ("error", 5)
    assert "the model has changed since, call explore again" in answer["text"]
    assert "Traceback" not in answer["text"]


MALFORMED = {
    "no kind": {"id": 1, "prompt": 0},
    "unknown kind": {"id": 1, "kind": "heads", "prompt": 0, "index": 0},
    "no head": {"id": 1, "kind": "head", "prompt": 0},
    "a head's name": {"id": 1, "kind": "head", "prompt": 0, "index": "L0H1"},
    "a head beyond": {"id": 1, "kind": "head", "prompt": 0, "index": 16},
    "a head before": {"id": 1, "kind": "head", "prompt": 0, "index": -1},
    "a prompt beyond": {"id": 1, "kind": "thumbnails", "prompt": 2},
    "a prompt before": {"id": 1, "kind": "head", "prompt": -1, "index": 0},
    "nothing": {},
    "no object": [1],
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_message_is_answered_by_what_is_wanted(explorer, case):
    message = MALFORMED[case]
    (answer,) = asked(explorer.widget(), message)
    assert answer["kind"] == "error"
    assert answer["id"] == (1 if isinstance(message, dict) and message else None)
    assert "of 2 prompts and 16 heads, got" in answer["text"]
    assert "Traceback" not in answer["text"]


def test_a_head_that_is_not_there_is_refused(model):
    widget = ik.explore(patterns=ik.patterns(model, TEXTS[0], heads=["L0H1", "L1H3"])).widget()
    assert asked(widget, {"kind": "head", "id": 0, "prompt": 0, "index": 1})[0]["kind"] == "bytes"
    assert asked(widget, {"kind": "head", "id": 0, "prompt": 0, "index": 2})[0]["kind"] == "error"


def test_a_bug_is_shown_with_its_traceback_and_raised(explorer, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(_widget, "flat_pattern", broken)
    sent, widget = [], explorer.widget()
    widget.send = sent.append
    with pytest.raises(ZeroDivisionError):
        _widget._answer(widget, explorer.explored, {"kind": "head", "id": 4, "prompt": 0, "index": 0})
    (answer,) = sent
    assert (answer["kind"], answer["id"]) == ("error", 4)
    assert answer["text"].startswith("Traceback")
    assert "in broken" in answer["text"]
    assert "ZeroDivisionError: a bug" in answer["text"]


def test_a_cell_shows_a_picture_then_the_widget_and_no_copy_of_the_page(explorer, monkeypatch):
    (picture, metadata), (widget, _) = shown(explorer, monkeypatch)
    assert set(picture) == {"image/png", "text/plain"}
    assert picture["image/png"] == explorer.picture()
    assert metadata["image/png"]["alt"] == picture["text/plain"] == "Attention in tiny, thumbnails"
    assert set(widget) == {VIEW, "text/plain"}
    assert widget["text/plain"] == "Attention in tiny, to explore in a running notebook: run the cell."


@pytest.fixture
def no_anywidget(monkeypatch):
    monkeypatch.setattr(_explorer, "find_spec", lambda _: None)


@pytest.mark.usefixtures("no_anywidget")
def test_without_anywidget_a_cell_shows_a_picture_then_the_page_in_a_frame(explorer, monkeypatch):
    (picture, _), (frame, _) = shown(explorer, monkeypatch)
    assert set(picture) == {"image/png", "text/plain"}
    assert set(frame) == {"text/html", "text/plain"}
    assert frame["text/html"].startswith("<iframe srcdoc=")
    assert frame["text/plain"] == repr(explorer)
    with pytest.raises(ImportError, match=r"pip install 'induction-kernel\[widget\]'"):
        explorer.widget()


@pytest.mark.usefixtures("no_anywidget")
def test_a_page_too_large_for_a_notebook_says_what_to_do(explorer, monkeypatch):
    monkeypatch.setattr(_explorer, "FRAMED", explorer.n_bytes - 1)
    _, (frame, _) = shown(explorer, monkeypatch)
    assert "<iframe" not in frame["text/html"]
    for way in (".save(path)", "heads=", "pip install"):
        assert way in frame["text/html"]
