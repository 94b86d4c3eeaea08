# `prompts/_few_shot.py`, not this folder, makes few-shot prompts and finds the position of every label.
from ._anchors import label_auc as label_auc
from ._anchors import label_flow as label_flow
from ._function_vectors import function_vector_effect as function_vector_effect
from ._label_knockout import label_knock_out as label_knock_out
from ._phenomena import input_shift_effect as input_shift_effect
from ._phenomena import label_format_effect as label_format_effect
from ._phenomena import order_effect as order_effect
from ._phenomena import retrieval_effect as retrieval_effect
from ._predictions import predict as predict
from ._reweighting import fit_label_weights as fit_label_weights
from ._reweighting import reweighted as reweighted
from ._study import FewShotStudy as FewShotStudy
from ._study import few_shot_study as few_shot_study
from ._vector_applied import apply_function_vector as apply_function_vector
from ._vector_writers import writers_and_cancellers as writers_and_cancellers
from ._vectors import function_vector as function_vector
from ._which_heads import which_heads as which_heads
