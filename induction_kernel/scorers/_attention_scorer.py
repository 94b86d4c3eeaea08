"""`AttentionScorer`: a mask over the attention pattern as a score, alone or several in one pass.

The score is the attention summed over the mask's entries, averaged over queries.
A new scorer needs only a mask function. The package's own scorers are in `_attention`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Signature, cleandoc, signature
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from .._given import refused_arguments
from ..errors import Refused
from ..model._anatomy import Hook, Model, check_model, hook_name
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ..replay._lane_record import Way
from ._pattern_entries import Entries, Reads
from ._streaming import Board, Run, averaged, observed

__all__ = ["AttentionScorer", "observe"]

_MASKED = 2**26  # entries of masks alive at once


def _default_prompts(model: Model) -> Prompts:
    return repeated_tokens(model)


@dataclass(frozen=True, repr=False)
class AttentionScorer:
    """Mean attention of every head to the entries of a mask; call it as `scorer(model, prompts)`.

    The score of a prompt is the attention summed over a query's entries in the mask, averaged over the scored queries
    that have any: a probability in [0, 1]. `chance` is the score of uniform attention over the past (all of it, even in
    layers with a sliding window; over the whole prompt in a bidirectional model). If the prompts have a matched
    control, `control` is the same mask read on the control's patterns: `score - control` is zero for a head whose
    attention depends on positions alone.

    Attributes:
        name: the result's `method`.
        mask: `(tokens [prompt, position], lengths [prompt]) -> bool [prompt, query, key]`; keys after the query do not
            count where it cannot attend to them, in a causal model.
        prompts: what to run on by default, from the model.
        matched: whether the matched control is a null for this score (it is not if the score is one of position).
        tested: whether the score has a credible null, so that heads can be tested on it.
        every_query: count all queries instead of the prompts' scored ones.
        skip_first: leave out the query right after the BOS token, which has nothing else to look at.
        title: one line for figures.
        paper: source of the definition.
        compat: other definitions by name, for comparison with published values.
    """

    name: str
    mask: Callable[[Tensor, Tensor], Tensor]
    prompts: Callable[[Model], Prompts] = _default_prompts
    matched: bool = True
    every_query: bool = False
    tested: bool = True
    skip_first: bool = False
    title: str = ""
    paper: str = ""
    compat: "Mapping[str, AttentionScorer]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.mask):
            raise TypeError(
                f"wanted the mask as a function of tokens and lengths, got {type(self.mask).__name__}"
            )
        if taken := refused_arguments(self.mask, 2):
            raise TypeError(
                f"wanted a mask function of two arguments, tokens and lengths, got one of {taken}"
            )
        object.__setattr__(self, "__doc__", self._help())

    def _help(self) -> str:
        """What `help(induction)` shows: how to call it, what is scored, then the arguments."""
        _, *parameters = signature(type(self).__call__).parameters.values()
        called = str(Signature([each.replace(annotation=Signature.empty) for each in parameters]))
        said = (
            f"{self.title or 'attention to the entries of a mask'}{f' ({self.paper})' if self.paper else ''}"
        )
        texts = (cleandoc(text or "") for text in (type(self).__call__.__doc__, type(self).__doc__))
        return "\n\n".join([f"{self.name}{called}", f"Attention of every head: {said}.", *texts])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}: {self.title or 'attention to the entries of a mask'})"

    def __call__(
        self,
        model: Model,
        prompts: Any = None,
        *,
        compat: str | None = None,
        layers: Iterable[int] | None = None,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> xr.Dataset:
        """Score every head.

        Args:
            model: any TransformerLens model.
            prompts: anything `as_prompts` takes; None for the scorer's own.
            compat: another definition by its name in the attribute `compat`; `induction` has "diagonal".
            layers: only these (the pass ends after the last).
            batch_size: prompts per forward pass; None to fit the memory.
            progress: a bar if it takes longer than two seconds.

        Returns:
            Dataset with `score[prompt, layer, head]` in [0, 1], `control` likewise if there is one,
            `chance[prompt]`. The attribute `lane` is "patterns" (read off the model's own patterns) or, for long
            prompts, "entries" (single entries, in memory that grows with the length); `lane_reason` says why it is not
            "entries".

        Raises:
            Refused: a prompt without any entry to read, patterns that are not finite, an unknown `compat`.
        """
        if compat is not None and compat not in self.compat:
            raise Refused(f"wanted compat in {sorted(self.compat)}, got {compat!r}")
        scorer = self if compat is None else self.compat[compat]
        options = {"layers": layers, "batch_size": batch_size, "progress": progress}
        found = observed(model, scorer.ready(model, prompts), [scorer], **options).isel(scorer=0)
        return found.assign_attrs(scorer.said(model, prompts))

    def ready(self, model: Model, prompts: Any) -> Prompts:
        """The prompts to score on: the user's, or the scorer's own."""
        check_model(model)
        return self.prompts(model) if prompts is None else as_prompts(model, prompts)

    def said(self, model: Model, prompts: Any) -> dict[str, str]:
        """Further attributes of a result: none; `TextScorer` says what was read."""
        return {}

    def entries(self, prompts: Prompts, *, causal: bool = True) -> Entries:
        """Prompt, query and key index `[entry]` of every entry that is read.

        Args:
            prompts: whose patterns are read.
            causal: whether the model's attention is causal.

        Raises:
            Refused: a mask of another shape, or a prompt without an entry.
        """
        n, length = prompts.tokens.shape
        at_once = max(1, _MASKED // length**2)
        found = [
            self._entries(prompts[begin : begin + at_once], begin, causal) for begin in range(0, n, at_once)
        ]
        entries = Entries(*(torch.cat(indices) for indices in zip(*found, strict=True)))
        without = sorted(set(range(n)) - set(entries.prompt.unique().tolist()))
        if without:
            raise Refused(
                f"{self.name} has nothing to read in prompt {without[0]} ({len(without)} of {n} prompts): "
                "no scored query has an entry in its mask; pass prompts that have, e.g. repeated_tokens(model)"
            )
        return entries

    def _entries(self, prompts: Prompts, begin: int, causal: bool) -> Entries:
        tokens, lengths = prompts.tokens, prompts.lengths
        mask = self.mask(tokens, lengths)
        wanted = (*tokens.shape, tokens.shape[1])
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != wanted:
            got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise Refused(
                f"wanted the mask of {self.name} as bool [prompt, query, key] = {list(wanted)}, got {got}"
            )
        queries = torch.arange(tokens.shape[1]) < lengths[:, None]
        if not self.every_query:
            queries = queries & prompts.scored
        if self.skip_first:
            queries = queries & ~(prompts.with_bos()[:, None] & (torch.arange(tokens.shape[1]) == 1))
        real = (torch.arange(tokens.shape[1]) < lengths[:, None])[:, None]
        seen = mask.tril() if causal else mask & real
        prompt, query, key = (seen & queries[:, :, None]).nonzero(as_tuple=True)
        return Entries(prompt + begin, query, key)

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """The pattern entries read on these prompts, and the variables computed from them."""
        entries = self.entries(prompts, causal=causal)
        weight = 1.0 / self._queries(prompts, entries)

        def score(values: Tensor) -> Tensor:
            return averaged(values, entries.prompt, weight, len(prompts))

        return Reads(entries, {"score": score})

    def chance(self, prompts: Prompts, *, causal: bool = True) -> Tensor:
        """`[prompt]`: the score of uniform attention over the past, or over all of the prompt."""
        entries = self.entries(prompts, causal=causal)
        seen = entries.query + 1 if causal else prompts.lengths[entries.prompt]
        uniform, weight = 1.0 / seen.double(), 1.0 / self._queries(prompts, entries)
        return averaged(uniform[:, None], entries.prompt, weight, len(prompts))[:, 0]

    def _queries(self, prompts: Prompts, entries: Entries) -> Tensor:
        """`[prompt]`: how many queries count."""
        counted = torch.zeros(len(prompts), prompts.tokens.shape[1], dtype=torch.bool)
        counted[entries.prompt, entries.query] = True
        return counted.sum(1).double()

    def from_cache(self, cache: Any, prompts: Any) -> xr.Dataset:
        """The score from an `ActivationCache` of `prompts` that holds every layer's pattern; no control.

        Raises:
            Refused: a layer's pattern is missing, or its shape does not fit the prompts.
        """
        hooks, result = self.fwd_hooks(cache.model, prompts)
        for name, hook in hooks:
            if name not in cache:
                raise Refused(
                    f"the cache has no {name}: call run_with_cache with a names_filter that keeps every pattern"
                )
            hook(cache[name], None)
        return result()

    def fwd_hooks(self, model: Model, prompts: Any) -> tuple[list[Hook], Callable[[], xr.Dataset]]:
        """The score from the caller's own run: hooks for `run_with_hooks`, and a function that gives the result.

        The hooks change nothing. There is no control, which would need a second run.

        Returns:
            `(hooks, result)`; `result()` raises RuntimeError before all hooks have fired.
        """
        ready = self.ready(model, prompts)
        board = Board(model, ready, [self])
        (part,) = board.parts(slice(0, len(ready)), [Run("score", [0], ready.tokens)])

        def hook_of(layer: int) -> Callable[..., None]:
            return lambda pattern, hook: board.read(part, layer, pattern)

        def result() -> xr.Dataset:
            if board.seen != set(board.layers):
                raise RuntimeError(
                    "the hooks have not fired in every layer yet: run the model with them first"
                )
            return board.dataset(Way("patterns")).isel(scorer=0)

        return [(hook_name("pattern", layer), hook_of(layer)) for layer in board.layers], result


def observe(
    model: Model,
    prompts: Any,
    scorers: Sequence[AttentionScorer],
    *,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Several attention scorers on the same prompts in one pass (and one over their matched control).

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes; None for repeated tokens.
        scorers: e.g. `[induction, prefix_matching]`; names must differ.
        layers: only these (the pass ends after the last).
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        As a scorer's own result, with a leading dimension `scorer`; `control` is NaN for scorers without one.

    Raises:
        TypeError: anything but attention scorers.
        Refused: no scorers, two with the same name, or what a scorer refuses.
    """
    if isinstance(scorers, AttentionScorer) or not all(isinstance(each, AttentionScorer) for each in scorers):
        raise TypeError(
            f"wanted a list of attention scorers, such as [ik.induction, ik.previous_token], got {scorers!r}"
        )
    names = [scorer.name for scorer in scorers]
    if not names or len(set(names)) < len(names):
        raise Refused(f"wanted at least one scorer, each name once, got {names}")
    options = {"layers": layers, "batch_size": batch_size, "progress": progress}
    found = observed(model, scorers[0].ready(model, prompts), scorers, **options)
    return found.assign_attrs(scorers[0].said(model, prompts))
