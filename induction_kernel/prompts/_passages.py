"""Sixteen short passages of plain English as prompts, for scores that are defined on natural text.

Models whose tokenizer does not read English get none.
"""

from __future__ import annotations

from ..model._anatomy import Model, sizes
from ._conversion import as_prompts
from ._prompts import Prompts
from ._text import encode_whole, knows, start_token

__all__ = ["english_passages"]

LETTERS = (2, 8)  # fewest and most characters per token, on average, of a tokenizer that reads English

PASSAGES = (
    "The harbour was quiet that morning. A few boats had come in before dawn, and their owners were mending nets "
    "on the wall while gulls waited above them for whatever might fall.",
    "Most bridges fail slowly. Water enters a small crack, freezes in winter and widens it, and after some years "
    "the steel inside begins to rust, long before anyone driving over it could notice.",
    "She had promised to write every week, but the letters grew shorter as the summer went on. By August there "
    "were only postcards, with a line about the weather and a name.",
    "To make the soup, fry the onions in butter until they are soft, add the leeks and potatoes, and cover "
    "everything with stock. It should cook gently for half an hour.",
    "The council will meet on Thursday to decide whether the old library can be sold. Residents who want to speak "
    "have been asked to give their names at the door.",
    "Bees find their way home by the sun. When clouds hide it, they read the pattern of light in the rest of the "
    "sky, which people cannot see without a filter.",
    "He counted the money twice, put it back into the tin and pushed the tin under the bed. Then he sat down by "
    "the window and waited for his brother to return.",
    "Prices rose again last month, though less than in spring. Bread and milk cost more than a year ago, while "
    "fuel, which had driven the increase, became slightly cheaper.",
    "The first train left at six. It carried mostly nurses and bakers, who slept against the glass, and one old "
    "man who travelled to the end of the line and back.",
    "A good map leaves things out. It shows the roads to a driver and the depths to a sailor, and a map that "
    "tried to show both would soon be of use to neither.",
    "The team scored twice in the last ten minutes and went home with a draw that nobody had expected. Their "
    "coach said afterwards that luck had played a large part.",
    "In the garden behind the school the children grew beans, carrots and some very small tomatoes. Each class "
    "had a bed of its own, and there were arguments about snails.",
    "Glass is made from sand, soda and lime, heated until they melt together. Colour comes from metals: a little "
    "cobalt turns it blue, and gold, in tiny amounts, turns it red.",
    "My grandmother kept a list of every book she had read since the war. There were more than three thousand of "
    "them, each with a date and one word of judgement.",
    "The river changes its course a little every year. Farmers on the north bank lose land that farmers on the "
    "south bank gain, and the lawyers of the town do well from both.",
    "Nobody knows who built the tower. It has no door, and its only window faces the sea, so that travellers have "
    "always taken it for a lighthouse, although no lamp was ever found.",
)


def english_passages(model: Model) -> Prompts | None:
    """The passages as prompts, one each; None if the model's tokenizer does not read English.

    None too without a tokenizer, or if a passage is longer than the context or has ids outside the vocabulary.
    """
    if getattr(model, "tokenizer", None) is None or not all(knows(model, text) for text in PASSAGES):
        return None
    start, size = start_token(model, None).tolist(), sizes(model)
    rows = [encode_whole(model, text, start) for text in PASSAGES]
    n_tokens = sum(map(len, rows))
    read = n_tokens > 0 and LETTERS[0] <= sum(map(len, PASSAGES)) / n_tokens <= LETTERS[1]
    if not read or max(map(len, rows)) > size.n_ctx or max(map(max, rows)) >= size.d_vocab:
        return None
    return as_prompts(model, list(PASSAGES))
