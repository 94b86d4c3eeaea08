"""What does each head look at, and what does it write? Scores of every head, with control and chance.

`streaming` runs a model once and reduces each pattern inside its hook; `masked` is the scorer itself, `attention`
has the package's own, `labels` those of demonstrations, `values` copying in context, `ov` copying by weights.
"""
