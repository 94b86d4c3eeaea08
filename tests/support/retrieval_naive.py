"""The obvious slow twins of the retrieval scores: one prompt, one written token, one head at a time."""

import numpy as np
import torch


def written(model, start, most, ends=lambda token: False):
    """What the model writes after `start`, a token at a time, each in a run of the whole text."""
    text = list(start)
    while len(text) < len(start) + most:
        with torch.no_grad():
            logits = model(torch.tensor([text]), return_type="logits")[0, -1]
        text.append(max(range(len(logits)), key=lambda token: float(logits[token])))
        if ends(text[-1]):
            break
    return text[len(start) :]


def row_of(prompts, p, tokens):
    return tokens[p, : int(prompts.lengths[p])].tolist()


def patterns_of(model, text):
    """`[layer][head, query, key]` of one text without padding."""
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([text]))
    return [cache["pattern", layer][0] for layer in range(model.cfg.n_layers)]


def top(row):
    """The first of the largest weights."""
    return max(range(len(row)), key=lambda key: (float(row[key]), -key))


def copied(model, prompts, p, more, *, control=False):
    """`[layer, head]`: share of the answer's positions that hold a written token where attention is largest then.

    Which token a position holds is read off the prompt itself, also if the model reads its control.
    """
    own = row_of(prompts, p, prompts.tokens)
    text = (row_of(prompts, p, prompts.control) if control else own) + more
    a, b = prompts.spans["answer"][p].tolist()
    out = np.zeros((model.cfg.n_layers, model.cfg.n_heads))
    for layer, heads in enumerate(patterns_of(model, text)):
        for head, pattern in enumerate(heads):
            found = set()
            for i, token in enumerate(more):
                key = top(pattern[len(own) + i - 1, : len(own) + i])
                if a <= key < b and own[key] == token:
                    found.add(key)
            out[layer, head] = len(found) / (b - a)
    return out


def looked_into(model, prompts, p, more, name):
    """`[layer, head]`: share of the written tokens at which attention is largest inside a span."""
    own = row_of(prompts, p, prompts.tokens)
    a, b = prompts.spans[name][p].tolist()
    patterns = patterns_of(model, own + more)
    return np.array(
        [
            [np.mean([a <= top(rows[len(own) + i - 1]) < b for i in range(len(more))]) for rows in heads]
            for heads in patterns
        ]
    )


def chance(prompts, p, more):
    """One minus the probability that no draw of a key hits a position, averaged over the answer's positions."""
    own = row_of(prompts, p, prompts.tokens)
    a, b = prompts.spans["answer"][p].tolist()
    never = []
    for key in range(a, b):
        missed = [1 - 1 / (len(own) + i) for i, token in enumerate(more) if own[key] == token]
        never.append(np.prod(missed))
    return 1 - np.mean(never)


def recall(answer, more):
    """Share of the answer's tokens that are written, each written one used up once."""
    left, found = list(more), 0
    for token in answer:
        if token in left:
            left.remove(token)
            found += 1
    return found / len(answer)


def asked(model, prompts, p, name, null=None):
    """`[layer, head]`: attention from the query, or from the tokens `null` in its place, to a span."""
    own = row_of(prompts, p, prompts.tokens)
    begin, stop = prompts.spans["query"][p].tolist()
    asked = own[begin:stop] if null is None else null
    text = own[:begin] + asked + own[stop:]
    a, b = prompts.spans[name][p].tolist()
    out = np.zeros((model.cfg.n_layers, model.cfg.n_heads))
    for layer, heads in enumerate(patterns_of(model, text)):
        for head, pattern in enumerate(heads):
            rows = [sum(float(pattern[q, k]) for k in range(a, b)) for q in range(begin, begin + len(asked))]
            out[layer, head] = np.mean(rows)
    return out


def other_query(prompts, p):
    """Of the other prompts' queries of as many tokens without a token of this needle, the next in order of tokens."""
    texts = {}
    for name in ("query", "needle"):
        texts[name] = [
            row_of(prompts, i, prompts.tokens)[slice(*prompts.spans[name][i])] for i in range(len(prompts))
        ]
    own, fit = texts["query"][p], []
    for query in texts["query"]:
        shared = [token for token in query if token in texts["needle"][p] and token not in own]
        if query != own and len(query) == len(own) and not shared:
            fit.append(query)
    after = [query for query in fit if query > own]
    return min(after or fit)
