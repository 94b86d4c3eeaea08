"""What goes in: tokens, their lengths, which positions count, and where demonstrations lie.

`batch` has the noun itself, `reading` makes it of whatever users have, `repeats` random tokens repeated with their
matched control, `fewshot` labelled demonstrations in a template, `pairing` clean and corrupted prompts. Nothing here
runs a model; only its tokenizer and sizes are read.
"""

from .batch import Demonstrations as Demonstrations
from .batch import Prompts as Prompts
from .batch import concat as concat
from .fewshot import few_shot as few_shot
from .fewshot import word_episodes as word_episodes
from .pairing import Pairs as Pairs
from .pairing import pairs as pairs
from .pairing import with_answers as with_answers
from .reading import as_prompts as as_prompts
from .repeats import random_tokens as random_tokens
from .repeats import repeated_tokens as repeated_tokens
