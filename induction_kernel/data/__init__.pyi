from ._episodes import Episodes as Episodes
from ._episodes import draw_episodes as draw_episodes
from ._labelled import LabelledTexts as LabelledTexts
from ._labelled import load_classification as load_classification
from ._word_pairs import word_pairs as word_pairs
from ._zero_shot import zero_shot as zero_shot
