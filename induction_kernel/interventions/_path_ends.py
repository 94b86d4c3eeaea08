"""The ends of a patched path: the receivers, and the senders, heads that come before a receiver.

`path_patch` in `_paths` lists the sites at which a receiver may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Refused
from ..heads._names import Head, as_heads
from ..model._anatomy import Model, sizes
from ..prompts._prompts import Prompts
from ._activations import site_meant
from ._intervention import Intervention
from ._plan import planned

__all__ = ["Touched", "check_receiving", "is_before", "receivers_of", "senders_of"]

Touched = Mapping[int, tuple[int, ...] | None]
"""Layer -> heads; None for an MLP or the residual stream."""

_SITES = ("q", "k", "v", "mlp_out", "resid_post")


def check_receiving(site: str) -> None:
    """Raise Refused unless receivers may change at this site."""
    if site not in _SITES:
        meant = site_meant(site, _SITES)
        raise Refused(f"wanted site out of {', '.join(_SITES)}, where receivers change, got {site!r}{meant}")


def receivers_of(model: Model, intervention: Intervention, receivers: Any, prompts: Prompts) -> Touched:
    """The receivers, by layer: heads, or None for an MLP or the residual stream.

    Raises:
        TypeError: receivers of another type.
        Refused: no receivers, receivers the model does not have, receivers at "resid_post".
    """
    site = intervention.site
    options: dict[str, Any]
    if site == "resid_post":
        if receivers is not None:
            raise Refused(
                "at resid_post the receiver is the final stream: leave out receivers=, or choose site 'q', 'k', 'v' "
                f"(heads) or 'mlp_out' (layers), got {receivers!r}"
            )
        options = {"layers": [sizes(model).n_layers - 1]}
    elif receivers is None or (not isinstance(receivers, int) and not len(list(receivers))):
        what = "layers" if site == "mlp_out" else 'heads like "L5H1"'
        raise Refused(f"wanted receivers at {site}: {what}, got none")
    else:
        options = {"layers" if site == "mlp_out" else "heads": receivers}
    plan = planned(model, intervention, by=(), length=prompts.tokens.shape[1], **options)
    return plan.cells[0].touched


def is_before(model: Model, site: str, sender: int, receiver: int) -> bool:
    """Whether what a head of the sender's layer writes is read by the receiver's layer."""
    serial = not getattr(model.cfg, "parallel_attn_mlp", False)
    return sender < receiver or (
        sender == receiver and (site == "resid_post" or (site == "mlp_out" and serial))
    )


def senders_of(model: Model, site: str, touched: Touched, senders: Any) -> dict[int, list[int]]:
    """The senders, by layer: heads that come before a receiver; all of them if None are given.

    Raises:
        Refused: no senders, or one that comes before no receiver.
    """
    size = sizes(model)
    last = max(touched)
    if senders is None:
        heads = [
            Head(layer, head)
            for layer in range(size.n_layers)
            for head in range(size.n_heads)
            if is_before(model, site, layer, last)
        ]
    else:
        heads = as_heads(senders, n_layers=size.n_layers, n_heads=size.n_heads)
    late = [str(head) for head in heads if not is_before(model, site, head.layer, last)]
    if late or not heads:
        raise Refused(
            f"wanted senders that come before a receiver (the last at {site} is in layer {last}), got "
            f"{', '.join(late) or 'none'}: leave out senders= for all that do"
        )
    layers = sorted({head.layer for head in heads})
    return {layer: sorted({head.head for head in heads if head.layer == layer}) for layer in layers}
