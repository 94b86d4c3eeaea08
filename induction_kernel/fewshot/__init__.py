"""The model's few-shot predictions, and how they move when attention to the demonstrations' labels is changed.

`predict` runs the model on labelled data; `label_knock_out`, `fit_label_weights`, `label_flow` and
`function_vector_effect` ask which heads carry the labels; `retrieval_effect` and its neighbours are the
phenomena of Han et al. 2025, section 4.2; `few_shot_study` measures all that the few-shot page shows. Prompts are not
made here: `prompts/_few_shot` writes few-shot prompts and finds their label positions.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
