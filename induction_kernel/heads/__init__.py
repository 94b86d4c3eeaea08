"""Heads by name; summaries of what was measured of them, over prompts; the strongest and random others; comparisons.

Everything here reads labelled results (or nothing at all); no model is run.
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
