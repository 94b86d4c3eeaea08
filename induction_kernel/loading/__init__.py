"""Where does the model come from? The embedded one, a folder, a GGUF file, or a name on the hub.

`load` decides which (`sources`) and gives a TransformerLens object; `build` makes one of plain tensors.
"""

from .building import build as build
from .embedded import checkpoint_steps as checkpoint_steps
from .embedded import read_recipe as read_recipe
from .histories import History as History
from .histories import training_history as training_history
from .sources import load as load

__all__ = ["History", "build", "checkpoint_steps", "load", "read_recipe", "training_history"]
