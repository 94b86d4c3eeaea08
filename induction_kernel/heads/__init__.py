"""Which heads? Naming them, summarising their scores over prompts, choosing the strongest and fair controls, comparing.

Everything here reads the labelled results of the scorers (or nothing at all); no model is run.
"""

from .choosing import head_table as head_table
from .choosing import random_heads as random_heads
from .choosing import random_sets as random_sets
from .choosing import top_heads as top_heads
from .comparing import compare as compare
from .naming import Head as Head
from .naming import HeadLike as HeadLike
from .naming import as_head as as_head
from .naming import as_heads as as_heads
from .summary import summarise as summarise
