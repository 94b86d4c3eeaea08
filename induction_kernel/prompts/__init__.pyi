# `_few_shot.py` makes few-shot prompts and finds the position of every label in their tokens.
from ._conversion import as_few_shot as as_few_shot
from ._conversion import as_prompts as as_prompts
from ._demonstrations import Demonstrations as Demonstrations
from ._few_shot import few_shot_prompts as few_shot_prompts
from ._marking import mark as mark
from ._needles import needles as needles
from ._pairs import Pairs as Pairs
from ._pairs import pairs as pairs
from ._pairs import with_answers as with_answers
from ._prompts import FewShotPrompts as FewShotPrompts
from ._prompts import Prompts as Prompts
from ._prompts import concat as concat
from ._prose import ordinary_text as ordinary_text
from ._repeated import random_tokens as random_tokens
from ._repeated import repeated_tokens as repeated_tokens
from ._word_task import word_episodes as word_episodes
