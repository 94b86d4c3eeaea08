"""Models as files: tiny Hugging Face folders, their tokenizer, and the embedded format's own weights."""

from __future__ import annotations

import json

import torch

from induction_kernel.loading._build import has_hooked_transformer

WORDS = ["<bos>", "<unk>", "<pad>", *(f"word{index}" for index in range(29))]
ARCHITECTURE = {
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 4,
    "d_head": 4,
    "n_ctx": 12,
    "d_vocab": len(WORDS),
    "attn_only": True,
    "normalization_type": "LNPre",
    "positional_embedding_type": "standard",
}
TOKENS = torch.arange(24).view(2, 12)


BRIDGES = [False, True] if has_hooked_transformer() else [False]


def random_weights(seed=0, **changes):
    sizes = {**ARCHITECTURE, **changes}
    d, heads, d_head = (sizes[key] for key in ("d_model", "n_heads", "d_head"))
    shapes = {"embed.W_E": (sizes["d_vocab"], d), "unembed.W_U": (d, sizes["d_vocab"])}
    shapes["pos_embed.W_pos"] = (sizes["n_ctx"], d)
    for layer in range(sizes["n_layers"]):
        shapes |= {f"blocks.{layer}.attn.W_{key}": (heads, d, d_head) for key in "QKV"}
        shapes[f"blocks.{layer}.attn.W_O"] = (heads, d_head, d)
    generator = torch.Generator().manual_seed(seed)
    return {key: 0.5 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def write_tokenizer(folder):
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    added = [
        {"id": index, "content": WORDS[index], "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for index in range(3)
    ]
    tokenizer = {"version": "1.0", "added_tokens": added, "pre_tokenizer": {"type": "Whitespace"}}
    tokenizer["model"] = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    special = {"bos_token": "<bos>", "eos_token": "<bos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "right", **special})
    )


# By kind: the configuration's class, and the entries that make it tiny (2 layers, 4 heads, 64 positions).
LLAMA = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
GPT = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 64}
NEOX = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"} | {"hidden_size": 64}
LOCAL = {"attention_types": [[["global", "local"], 1]], "window_size": 8, "max_position_embeddings": 64}
KINDS = {
    "llama": ("LlamaConfig", LLAMA),
    "mistral": ("MistralConfig", LLAMA),
    "qwen2": ("Qwen2Config", LLAMA),
    "gemma": ("GemmaConfig", LLAMA | {"head_dim": 8}),
    "phi": ("PhiConfig", LLAMA | {"hidden_size": 32, "num_key_value_heads": 4}),
    "gpt2": ("GPT2Config", GPT),
    "gptj": ("GPTJConfig", GPT | {"n_embd": 48, "rotary_dim": 4}),
    "gpt_neox": ("GPTNeoXConfig", NEOX),
    "gpt_neo": ("GPTNeoConfig", LOCAL | {"hidden_size": 24, "num_layers": 2, "num_heads": 4}),
    "opt": ("OPTConfig", {**NEOX, "hidden_size": 24, "ffn_dim": 40, "word_embed_proj_dim": 24}),
    "bloom": ("BloomConfig", {"hidden_size": 24, "n_layer": 2, "n_head": 4}),
}


def write_hugging_face(folder, kind="llama", tokenizer=True, dtype=torch.float32, **changes):
    import transformers

    torch.manual_seed(0)
    name, sizes = KINDS[kind]
    ids = {"vocab_size": len(WORDS), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 2}
    config = getattr(transformers, name)(**{**ids, **sizes, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # biases and norms start at 0 and 1, where a swap would not show
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder)
    if tokenizer:
        write_tokenizer(folder)
    return model


def logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model(tokens, return_type="logits")


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
