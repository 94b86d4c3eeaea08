from ._episodes import Episodes as Episodes
from ._episodes import draw_episodes as draw_episodes
from ._labelled import LabelledTexts as LabelledTexts
from ._labelled import load_classification as load_classification
