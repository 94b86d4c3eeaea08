from ._build import build as build
from ._embedded import checkpoint_steps as checkpoint_steps
from ._embedded import read_recipe as read_recipe
from ._histories import History as History
from ._histories import training_history as training_history
from ._sources import load as load
