"""Ridge classifiers on many sets of vectors at once, cross-validated.

A ridge classifier regresses +1 (this class) or -1 (another class) on the vectors, with one column for each class,

    w = (X^T X + penalty I)^-1 X^T y,     X and y centred on the training rows,

and predicts the class with the largest column. This is what scikit-learn's `RidgeClassifier(alpha=penalty)` computes
for one set of vectors and labels; here X^T X is used for several sets of labels at once, and many sets of vectors are
solved together. Vectors of models are read in `_probes`.
"""

import numpy as np

__all__ = ["chance", "cross_validated", "folds_of"]


def cross_validated(
    vectors: np.ndarray, labels: list[np.ndarray], folds: np.ndarray, penalty: float
) -> list[np.ndarray]:
    """The class of each row, as predicted by a classifier that is trained on the other folds.

    Args:
        vectors: `[cell, row, d]`, float64.
        labels: one or more sets of labels, each `[row]`, integers from 0.
        folds: `[row]`, the fold that each row is held out in.
        penalty: of the squared weights, above 0; the intercept is not penalised.

    Returns:
        Predicted classes `[cell, row]` for each set of labels. A class that no training row has is never predicted.
    """
    out = [np.zeros(vectors.shape[:2], dtype=np.int64) for _ in labels]
    for fold in np.unique(folds):
        test = folds == fold
        marks = [np.where(_one_hot(each)[~test], 1.0, -1.0) for each in labels]
        decisions = _decisions(vectors[:, ~test], np.concatenate(marks, 1), vectors[:, test], penalty)
        ends = np.cumsum([mark.shape[1] for mark in marks])[:-1]
        for found, mark, decision in zip(out, marks, np.split(decisions, ends, axis=2), strict=True):
            seen = (mark > 0).any(0)
            found[:, test] = np.where(seen, decision, -np.inf).argmax(2)
    return out


def chance(labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Whether each row's class is the most frequent class of the other folds, bool `[row]`."""
    counts = _one_hot(labels)
    most = {fold: counts[folds != fold].sum(0).argmax() for fold in np.unique(folds)}
    return labels == np.array([most[fold] for fold in folds])


def folds_of(groups: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The fold of every row, `[row]`: whole groups of rows are assigned to folds at random."""
    names, group = np.unique(groups, return_inverse=True)
    return (rng.permutation(len(names)) % folds)[group]


def _one_hot(labels: np.ndarray) -> np.ndarray:
    """Labels `[row]` as bool `[row, class]`."""
    return np.eye(int(labels.max()) + 1, dtype=bool)[labels]


def _decisions(train: np.ndarray, marks: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
    """Decision values `[cell, test row, column]` from training rows `[cell, row, d]` with targets `[row, column]`."""
    middle = train.mean(1, keepdims=True)
    train = train - middle
    gram = train.transpose(0, 2, 1) @ train + penalty * np.eye(train.shape[2])
    weights = np.linalg.solve(gram, train.transpose(0, 2, 1) @ (marks - marks.mean(0)))
    return (test - middle) @ weights + marks.mean(0)
