"""A tokenizer that reads English, learnt in memory from the package's passages and facts; a random model with it."""

import functools

from zoo import fresh

from induction_kernel.prompts._needle_words import KEYS, WORDS
from induction_kernel.prompts._passages import PASSAGES


@functools.cache
def english_tokenizer(merges=1000):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 1 + merges,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    words = [f" {word}" * 20 for words in (KEYS, *WORDS) for word in words]
    backend.train_from_iterator([*PASSAGES, *words], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def english_model(**changes):
    tokenizer = english_tokenizer()
    return fresh(
        "attention-only", tokenizer=tokenizer, **({"d_vocab": len(tokenizer), "n_ctx": 300} | changes)
    )
