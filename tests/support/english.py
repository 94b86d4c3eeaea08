"""A byte-pair encoding that reads English and the facts of `needles`, and small random models with it."""

import functools

from zoo import fresh

from induction_kernel.prompts._needle_words import KEYS, WORDS
from induction_kernel.prompts._prose import shipped


@functools.cache
def english_tokenizer(merges=700, **options):
    """Learnt from the prose that ships with the package, and from facts, whose words are then single tokens."""
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
    backend.train_from_iterator([*shipped("prose.txt"), *words], trainer)
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ends, **options)


def english_model(merges=700, **changes):
    tokenizer = english_tokenizer(merges)
    options = {"d_vocab": len(tokenizer), "n_ctx": 120} | changes
    return fresh("attention-only", tokenizer=tokenizer, **options)
