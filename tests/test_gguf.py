"""`load` of a GGUF file: what it computes, what it refuses, and that the file is parsed once."""

from __future__ import annotations

import threading

import pytest
import torch
from folders import BRIDGES, TOKENS, logits

from induction_kernel.loading import _names as names
from induction_kernel.loading import load
from induction_kernel.loading._gguf import parsed_once


def write_gguf(path):
    """A small Llama as llama.cpp writes it: rotary pairs interleaved, tokens and merges inside."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Small")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(32)
    letters = ["<|bos|>", "<|eos|>", "<|pad|>", *(chr(97 + index) for index in range(26)), "ab", "bc", "cd"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(letters)
    writer.add_token_types([3, 3, 3, *([1] * 29)])
    writer.add_token_merges(["a b", "b c", "c d"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    draw = np.random.default_rng(0)
    shapes = {"token_embd": (32, 32), "output": (32, 32), "output_norm": (32,)}
    block = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    block |= {
        "ffn_gate": (64, 32),
        "ffn_up": (64, 32),
        "ffn_down": (32, 64),
        "attn_norm": (32,),
        "ffn_norm": (32,),
    }
    shapes |= {f"blk.0.{name}": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(0.0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_file(tmp_path):
    pytest.importorskip("gguf", reason='needs the extra "gguf"')
    write_gguf(tmp_path / "Small.gguf")
    return tmp_path / "Small.gguf"


def test_the_file_is_parsed_once_and_its_names_mapped_once(gguf_file, monkeypatch):
    import gguf

    calls, parse, name_map = [], gguf.GGUFReader.__init__, gguf.get_tensor_name_map
    monkeypatch.setattr(
        gguf.GGUFReader, "__init__", lambda *a, **k: (calls.append("parse"), parse(*a, **k))[1]
    )
    mapped = lambda *a, **k: (calls.append("map"), name_map(*a, **k))[1]  # noqa: E731
    monkeypatch.setattr(gguf, "get_tensor_name_map", mapped)
    reader = gguf.GGUFReader
    load(gguf_file)
    assert sorted(calls) == ["map", "parse"]
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (reader, mapped)
    gguf_file.write_bytes(gguf_file.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"Small\.gguf cannot be read"):
        load(gguf_file)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (reader, mapped)


def test_other_threads_have_gguf_as_it_is(gguf_file):
    import gguf

    reader, theirs = gguf.GGUFReader, []

    def elsewhere():
        theirs.extend([gguf.GGUFReader(gguf_file), gguf.GGUFReader(gguf_file)])

    with parsed_once():
        assert gguf.GGUFReader(gguf_file) is gguf.GGUFReader(gguf_file)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert [type(each) for each in theirs] == [reader, reader]
    assert theirs[0] is not theirs[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_gguf_is_as_it_was_after_an_error_also_for_who_kept_a_name(gguf_file, error):
    import gguf

    theirs = gguf.GGUFReader, gguf.get_tensor_name_map
    kept: list = []

    def stopped():
        with parsed_once():
            kept.append(gguf.GGUFReader)
            assert kept[0](gguf_file) is kept[0](gguf_file)
            raise error

    with pytest.raises(error):
        stopped()
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == theirs
    assert type(kept[0](gguf_file)) is theirs[0]
    assert kept[0](gguf_file) is not kept[0](gguf_file)


def same_weights(folder, name):
    """The weights as transformers reads them from a GGUF file, asserted to be the same inside `parsed_once`."""
    from transformers import AutoModelForCausalLM

    read = AutoModelForCausalLM.from_pretrained
    theirs = read(folder, gguf_file=name, dtype=torch.float32).eval()
    with parsed_once():
        ours = read(folder, gguf_file=name, dtype=torch.float32).state_dict()
    assert theirs.state_dict().keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in theirs.state_dict().items())
    return theirs


@pytest.mark.parametrize("bridge", BRIDGES)
def test_gguf_file(gguf_file, no_network, bridge):
    path = gguf_file.rename(gguf_file.with_stem("Small.Q8"))
    model = load(str(path), bridge=bridge)
    theirs = same_weights(path.parent, path.name)
    with torch.no_grad():
        torch.testing.assert_close(logits(model), theirs(TOKENS).logits, atol=2e-4, rtol=1e-4)
    assert model.cfg.model_name == "Small.Q8"
    assert (model.cfg.n_heads, model.cfg.n_key_value_heads, model.cfg.n_ctx) == (4, 2, 64)
    assert model.to_tokens("abe").tolist() == [[0, 29, 7]]
    assert model.to_tokens("abe", prepend_bos=False).tolist() == [[29, 7]]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"Small\.Q8\.gguf cannot be read"):
        load(path)


@pytest.mark.real
def test_smollm2_agrees_with_hugging_face(smollm2, no_network):
    model = load(smollm2)
    theirs = same_weights(smollm2.parent, smollm2.name)
    tokens = torch.randint(model.cfg.d_vocab, (2, 100), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(logits(model, tokens), theirs(tokens).logits, atol=4.5e-4, rtol=0)
    assert model.to_tokens("The cat sat").tolist() == [[1, 504, 2644, 2643]]
    assert model.cfg.model_name == smollm2.stem


def test_gguf_errors(tmp_path, monkeypatch):
    (tmp_path / "odd.gguf").write_bytes(b"something else")
    monkeypatch.setattr(names, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match=r"odd\.gguf is not a GGUF file"):
        load(tmp_path / "odd.gguf")
    with pytest.raises(ValueError, match=r"no config\.json.*it holds odd\.gguf"):
        load(tmp_path)
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "induction-kernel\[gguf\]"'):
        load(tmp_path / "odd.gguf")
