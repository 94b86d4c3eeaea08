"""The six arguments of Olsson et al. 2022, each a file: do induction heads make in-context learning?

Every argument returns a Dataset with its verdict ("holds", "contradicted", "inconclusive" or "not defined on this
model"), the checks it rests on, each a number with its interval beside a stated threshold (`verdicts`), and what they
were computed from.
"""
