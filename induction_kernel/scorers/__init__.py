"""What does each head look at, and what does it write? Scores of every head, with control and chance.

`streaming` scores in one pass what `reading` gives of a pattern's entries; `masked` is the scorer itself, `attention`
has the package's own, `labels` those of demonstrations, `values` copying in context, `ov` copying by weights.
"""
