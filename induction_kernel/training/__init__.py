"""Small models trained and measured as they learn: recipes, checkpoints, training curves, the phase change.

`train` follows a `Recipe`; `over_checkpoints` measures anything at every checkpoint of any run; `training_curves` are
the standard measures, and `phase_window` and `onset_coupling` test when they change.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
