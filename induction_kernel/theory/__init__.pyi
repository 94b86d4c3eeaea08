from ._bayesian_kernel import kernel_theory as kernel_theory
from ._hidden_markov import hidden_markov_tasks as hidden_markov_tasks
