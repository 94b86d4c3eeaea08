"""Few-shot predictions, and how they change when attention to the demonstrations' labels is changed.

`predict` runs the model on labelled data. `label_knock_out`, `fit_label_weights`, `label_flow` and
`function_vector_effect` show which heads carry the labels; `function_vector` and `apply_function_vector` carry a task
to other prompts, `writers_and_cancellers` and `which_heads` say which heads it depends on; `retrieval_effect`,
`label_format_effect`, `input_shift_effect` and `order_effect` are the phenomena of Han et al. 2025, section 4.2;
`few_shot_study` makes the measurements of the few-shot page. Prompts are not made here: `prompts/_few_shot` makes
few-shot prompts and finds their label positions.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
