from ._concept_ablation import list_ablation as list_ablation
from ._concept_copying import concept_copying as concept_copying
from ._concept_copying import token_copying as token_copying
