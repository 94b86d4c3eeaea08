"""What is done and waited for on the page of each library, as JavaScript conditions and places to point at.

A head is drawn when its picture has been drawn anew, not when the click has been answered. circuitsvis chooses a head
when the pointer enters its small map; BertViz shows a layer at a time and one head of it after a double click. Where
circuitsvis draws on canvases, `clearRect` and `fillText` are counted on each.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTED = """
for (const name of ["clearRect", "fillText"]) {
  const plain = CanvasRenderingContext2D.prototype[name];
  CanvasRenderingContext2D.prototype[name] = function (...given) {
    this.canvas[name] = (this.canvas[name] ?? 0) + 1;
    if (name === "fillText") this.canvas.last = given[0];
    return plain.apply(this, given);
  };
}
window.canvases = () => [...document.querySelectorAll("canvas")];
window.large = () => canvases().reduce((a, b) => (a.width < b.width ? b : a));
"""


@dataclass(frozen=True)
class Way:
    """How one library's page is used; NUMBER in a place is put in."""

    ready: str  # everything is drawn
    state: str  # read before an act
    head: str  # where a head is chosen
    act: str  # the event that chooses it
    drawn: str  # of `was`, the state before: the head is drawn
    over: str  # where the pointer reads
    offset: tuple[float, float] | None  # as shares of that place, moving on with the number; None: its middle
    said: str  # of `was`: what it reads is shown
    prepare: str = ""  # run before the page's own scripts


WAYS = {
    "ours": Way(
        ready="document.querySelector('.ik-explorer[data-ready=head]')",
        state="[document.querySelector('.ik-explorer').dataset.head,"
        " document.querySelector('.ik-readout').textContent]",
        head=".ik-thumb[data-index='NUMBER']",
        act="click",
        drawn="document.querySelector('.ik-explorer[data-ready=head]')"
        " && document.querySelector('.ik-explorer').dataset.head !== was[0]",
        over=".ik-pattern",
        offset=(0.2, 0.6),
        said="document.querySelector('.ik-readout').textContent !== was[1]",
    ),
    "circuitsvis": Way(
        prepare=COUNTED,
        ready="canvases().length > HEADS && canvases().every(each => each.clearRect > 0)",
        state="[document.querySelector('h2').textContent, large().clearRect, large().fillText]",
        head="h4 >> nth=NUMBER",
        act="mouseover",
        drawn="document.querySelector('h2').textContent !== was[0] && large().clearRect > was[1]",
        over="canvas >> nth=-1",
        offset=(0.2, 0.6),
        said="large().fillText > was[2] && /\\d/.test(large().last)",
    ),
    "bertviz": Way(
        ready="document.querySelectorAll('#vis > svg > g:last-child:not([id]) > rect').length > 0",
        state="[document.querySelector('#attention').getAttribute('visibility'), shown()]",
        head="#vis > svg > g:last-child > rect >> nth=NUMBER",
        act="dblclick",
        drawn="shown() !== was[1]",
        over="#left rect.background >> nth=NUMBER",
        offset=None,
        said="document.querySelector('#attention').getAttribute('visibility') === 'hidden'"
        " && document.querySelector('#attention line[visibility]')",
        prepare="""window.shown = () => [...document.querySelectorAll(".headAttention")].map(
            each => +each.querySelector("line").getAttribute("stroke-opacity") > 0).join();""",
    ),
}
