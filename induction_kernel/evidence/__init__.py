"""Do the six arguments of Olsson et al. 2022 hold for this model, or this family of models? One file for each.

Every argument returns a Dataset with its verdict ("holds", "fails" or "not defined on this model"), the checks it
rests on, each a number with its interval beside a stated threshold (`verdicts`), and what they were computed from.
"""
