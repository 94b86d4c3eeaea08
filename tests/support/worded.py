"""Tokenizers of a few words, made in memory, with the special tokens of the families that users bring."""

import torch
from zoo import fresh

WORDS = "fox bear pear plum dax wug ; :".split()
# name -> special tokens by role, and what is put around a text
FAMILIES = {
    "GPT-2": ({"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}, "$A"),
    "Llama": ({"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, "<s> $A"),
    "Llama 3": ({"bos": "<s>", "eos": "</s>", "pad": "<pad>"}, "<s> $A"),
    "Qwen": ({"eos": "<|endoftext|>", "pad": "<|endoftext|>"}, "$A"),
    "OLMo": ({"bos": "<s>", "eos": "</s>", "pad": "<pad>"}, "$A </s>"),
    "BERT": ({"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]"}, "[CLS] $A [SEP]"),
}


def tokenizer_like(family):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special, around = FAMILIES[family]
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*special.values(), *WORDS]))}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=special.get("unk", WORDS[0])))
    # BERT's takes "<|endoftext|>", which TransformerLens declares its first token, to pieces.
    backend.pre_tokenizer = getattr(
        pre_tokenizers, "BertPreTokenizer" if family == "BERT" else "WhitespaceSplit"
    )()
    ids = [(token, vocab[token]) for token in special.values()]
    backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    roles = {f"{role}_token": token for role, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def worded_model(family, *, bridge=False, prepend_bos=True):
    """A tiny random model with that tokenizer; a new one each time."""
    tokenizer = tokenizer_like(family)
    model = fresh("GPT-2", tokenizer=tokenizer, d_vocab=len(tokenizer), bridge=bridge)
    model.cfg.default_prepend_bos = prepend_bos
    return model


def alone(model, text):
    """The loss of a text by the model itself: its own tokens, one pass, no batch."""
    with torch.no_grad():
        return float(model(model.to_tokens(text), return_type="loss"))
