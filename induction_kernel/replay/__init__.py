"""Part of a run done again: `capture` keeps one run, `blocks` and `decoder` do a layer again, `rows` reads one.

A lane is a way of doing layers again on a widened batch, `[cell, prompt, position, d_model]`: the model's own blocks
(any architecture) or the same step from its live parameters (standard decoders, faster). It knows nothing of edits
or metrics. Which lane a result took, and why no faster one, is a `way`.
"""
