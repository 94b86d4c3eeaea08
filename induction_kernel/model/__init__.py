"""How is a TransformerLens model asked? The only door to it.

Works alike on `HookedTransformer` (TransformerLens 3.x) and `TransformerBridge` (3.x, 4.x). Work is done in z-space
(`z == pattern @ v` on both). It loads nothing: see `loading`.
"""

from .anatomy import Hook as Hook
from .anatomy import Model as Model
from .anatomy import Sizes as Sizes
from .anatomy import all_modules as all_modules
from .anatomy import bos_id as bos_id
from .anatomy import check_model as check_model
from .anatomy import describe as describe
from .anatomy import device_of as device_of
from .anatomy import full_precision as full_precision
from .anatomy import hook_name as hook_name
from .anatomy import kept_as_it_was as kept_as_it_was
from .anatomy import lock_of as lock_of
from .anatomy import per_query_head as per_query_head
from .anatomy import sizes as sizes
from .outputs import check_next_token as check_next_token
from .outputs import check_words as check_words
from .outputs import n_outputs as n_outputs
from .outputs import outputs_are_tokens as outputs_are_tokens
from .padding import hidden_padding as hidden_padding
from .running import batches as batches
from .running import is_out_of_memory as is_out_of_memory
from .running import progress_bar as progress_bar
from .running import run as run
from .running import stream as stream
from .selfcheck import foreign_hooks as foreign_hooks
from .selfcheck import is_causal as is_causal
from .selfcheck import made_of as made_of
from .weights import check_weights as check_weights
from .weights import check_writing as check_writing
from .weights import query_key_weights as query_key_weights
from .weights import read_dimensions as read_dimensions
from .weights import token_embedding as token_embedding
from .weights import unembedding as unembedding
from .weights import value_weights as value_weights
