"""In-context learning as kernel regression over the demonstrations (Han et al. 2025).

Weights of demonstrations are a head's attention (`demonstration_weights`, `fewshot.predict`), a layer's (`sum_heads`),
those of explicit kernels (`kernel_regression`) or of controls (`control_weights`), all in one format.

| measurement | functions |
|---|---|
| agreement of the weighted vote with the model's predictions | `vote`, `vote_view`, `permuted_run` |
| the same for the best head, on held-out prompts, beside controls | `held_out`, `reconstruction_table` |
| correlation of weights with similarity to the query | `kernel_alignment` |
| similarities for it | `next_token_similarity`, `explicit_similarity` |
| vectors for explicit kernels; the kernel that fits a head | `representations`, `fitted_bandwidth` |
| what keys and values hold; what heads write about labels | `probe`, `label_logits` |
| the last token's attention along the prompt | `demonstration_attention` |
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
