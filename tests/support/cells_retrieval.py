"""Cells of tests/test_matrix.py: the retrieval scores on every family, against their slow twins."""

import numpy as np
import retrieval_naive as naive
from zoo import model_of

import induction_kernel as ik


def close(found, twin, within=1e-9):
    np.testing.assert_allclose(np.asarray(found), np.asarray(twin), rtol=within, atol=within)


def needles(model):
    prompts = ik.prompts.needles(model, prompts=3, length=(20, 24))
    assert len(set(prompts.lengths.tolist())) == 3
    return prompts


def answer_of(prompts, p):
    a, b = prompts.spans["answer"][p].tolist()
    return prompts.tokens[p, a:b].tolist()


def forced(name, kind):
    model = model_of(name, kind)
    prompts = needles(model)
    found = ik.head_census.retrieval_forced(model, prompts)
    for p in range(3):
        more = answer_of(prompts, p)
        close(found["score"][p], naive.copied(model, prompts, p, more))
        close(found["control"][p], naive.copied(model, prompts, p, more, control=True))
        for span in ("needle", "decoy"):
            close(found[f"in_{span}"][p], naive.looked_into(model, prompts, p, more, span))
        close(found["chance"][p], naive.chance(prompts, p, more))


def free(name, kind):
    model = model_of(name, kind)
    prompts = needles(model)
    found = ik.head_census.retrieval(model, prompts, max_new_tokens=9)
    for p in range(3):
        more = naive.written(model, naive.row_of(prompts, p, prompts.tokens), 9)
        assert str(found["written"].values[p]) == " ".join(map(str, more))
        recall = naive.recall(answer_of(prompts, p), more)
        close(found["recall"][p], recall)
        close(found["in_needle"][p], naive.looked_into(model, prompts, p, more, "needle"))
        twin = naive.copied(model, prompts, p, more) if recall > 0.5 else np.full((2, 4), np.nan)
        close(found["score"][p], twin)


def by_question(name, kind):
    model = model_of(name, kind)
    prompts = needles(model)
    found = ik.head_census.query_focused_retrieval(model, prompts, null=[7, 3, 9])
    for p in range(3):
        close(found["score"][p], naive.asked(model, prompts, p, "needle"))
        close(found["decoy"][p], naive.asked(model, prompts, p, "decoy"))
        close(found["empty"][p], naive.asked(model, prompts, p, "needle", [7, 3, 9]))
        close(found["control"][p], naive.asked(model, prompts, p, "needle", naive.other_query(prompts, p)))


CELLS = {"retrieval": free, "retrieval_forced": forced, "query_focused_retrieval": by_question}
REFUSED: dict[tuple[str, str], str] = {}
