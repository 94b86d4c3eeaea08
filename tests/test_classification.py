"""Labelled data sets: every kind of file and the hub come in as the same texts, classes and label words."""

import builtins
import json
import sys

import datasets
import numpy as np
import pytest

import induction_kernel as ik
from induction_kernel.data._registry import KNOWN

TEXTS = ["a fine film", 'he said "no', "dull , long"]


def written(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def same(found, texts, classes, labels):
    assert list(found.texts) == texts
    assert found.classes.tolist() == classes
    assert found.classes.dtype == np.int64
    assert list(found.labels) == labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        # GLUE's own: no quoting, a blank at the end of texts
        ("a.tsv", 'sentence\tlabel\na fine film \t1\nhe said "no\t0\ndull , long\t0\n'),
        ("a.tsv", 'label\tid\ttext\r\n1\t7\ta fine film\r\n0\t8\the said "no\r\n0\t9\tdull , long\r\n'),
        ("a.csv", 'text,label\na fine film,1\n"he said ""no",0\n"dull , long",0\n'),
        ("a.jsonl", "\n".join(json.dumps({"text": x, "label": y}) for x, y in zip(TEXTS, (1, 0, 0), strict=True))),
        (
            "a.jsonl",
            "\ufeff"
            + "\n".join(json.dumps({"label": y, "text": x}) for x, y in zip(TEXTS, "100", strict=True)),
        ),
        ("a.txt", '1:x a fine film\n0:y he said "no\n0:z dull , long\n'),
        ("a.txt", '1 a fine film\n0 he said "no\n0 dull , long'),
    ],
    ids=["GLUE", "TSV", "CSV", "JSONL", "JSONL with a mark", "TREC", "class first"],
)  # fmt: skip
def test_every_kind_of_file_gives_the_same(tmp_path, no_network, name, content):
    same(ik.data.load_classification(written(tmp_path / name, content)), TEXTS, [1, 0, 0], ["0", "1"])


def test_columns_are_given_by_name_by_number_or_together(tmp_path):
    file = written(tmp_path / "a.csv", "3,Cats,They sleep\n1,Dogs,They bark\n3,Cows,They moo\n")
    same(
        ik.data.load_classification(file, text=2, label=0),
        ["They sleep", "They bark", "They moo"],
        [1, 0, 1],
        ["1", "3"],
    )
    together = ik.data.load_classification(file, text="{1}: {2}", label=0)
    assert together.texts[0] == "Cats: They sleep"
    named = written(
        tmp_path / "b.tsv", "premise\thypothesis\tgold\nit rains\tit is wet\tyes\nit rains\tit is dry\tno\n"
    )
    found = ik.data.load_classification(named, text="{premise} / {hypothesis}", label="gold")
    same(found, ["it rains / it is wet", "it rains / it is dry"], [1, 0], ["no", "yes"])


def test_braces_in_a_text_are_not_columns(tmp_path):
    file = written(tmp_path / "a.tsv", "text\tlabel\nthe {label} is\t0\n{x} and {y}\t1\n")
    assert list(ik.data.load_classification(file).texts) == ["the {label} is", "{x} and {y}"]


def test_label_words_come_in_the_order_of_classes_or_by_class(tmp_path):
    file = written(tmp_path / "a.tsv", "text\tlabel\nfox\t10\npear\t2\nwolf\t10\n")
    same(
        ik.data.load_classification(file, labels=["few", "many"]),
        ["fox", "pear", "wolf"],
        [1, 0, 1],
        ["few", "many"],
    )
    by_class = ik.data.load_classification(file, labels={10: "many", "7": "some", 2: "few"})
    same(by_class, ["fox", "pear", "wolf"], [0, 2, 0], ["many", "some", "few"])


def test_a_known_file_name_brings_words_and_template_but_what_is_given_wins(tmp_path):
    file = written(tmp_path / "sst2.some.tsv", "sentence\tlabel\ngood\t1\nbad\t0\n")
    found = ik.data.load_classification(file)
    same(found, ["good", "bad"], [1, 0], ["negative", "positive"])
    assert found.template == KNOWN["sst2"].template
    given = ik.data.load_classification(file, labels=["minus", "plus"], template="{x} = {y}")
    assert (given.labels, given.template) == (("minus", "plus"), "{x} = {y}")


def test_news_titles_and_descriptions_are_joined_and_their_classes_count_from_one(tmp_path):
    rows = [f'"{y}","Title {y}","Text, ""{y}""."' for y in (3, 1, 4, 2)]
    found = ik.data.load_classification(written(tmp_path / "ag_news.csv", "\n".join(rows)))
    assert found.texts[0] == 'Title 3. Text, "3".'
    assert found.classes.tolist() == [2, 0, 3, 1]
    assert found.labels == ("world", "sports", "business", "technology")


def test_some_classes_of_a_known_file_are_not_guessed(tmp_path):
    """1 to 3 may count from 0 or from 1: nobody knows which are missing."""
    file = written(tmp_path / "ag_news.csv", '"1","a","b"\n"2","c","d"\n"3","e","f"\n')
    with pytest.raises(ValueError, match="give label words by class"):
        ik.data.load_classification(file)


def test_a_folder_and_a_pair_are_read_line_by_line(tmp_path):
    texts = written(tmp_path / "val_text.txt", "one\u2028line \nanother\n")
    classes = written(tmp_path / "val_labels.txt", "1\n0\n")
    for source in (tmp_path, (texts, classes), [str(texts), str(classes)]):
        same(ik.data.load_classification(source), ["one\u2028line", "another"], [1, 0], ["0", "1"])
    with pytest.raises(ValueError, match=r"wanted test_text\.txt"):
        ik.data.load_classification(tmp_path, split="test")


def test_other_encodings_are_read_when_they_are_said(tmp_path):
    file = written(tmp_path / "a.txt", "LOC:city sister\u00f0city\nNUM:date when\n", "latin-1")
    assert ik.data.load_classification(file, encoding="latin-1").texts[0] == "sister\u00f0city"


HUB = {
    "sst2": ({"sentence": ["good", "bad"], "label": [1, 0]}, ["negative", "positive"], [1, 0]),
    "rotten_tomatoes": ({"text": ["good", "bad"], "label": [1, 0]}, ["neg", "pos"], [1, 0]),
    "tweet_eval/hate": ({"text": ["x", "y"], "label": [1, 0]}, ["non-hate", "hate"], [1, 0]),
    "tweet_eval/irony": ({"text": ["x", "y"], "label": [1, 0]}, ["non_irony", "irony"], [1, 0]),
    "tweet_eval/offensive": ({"text": ["x", "y"], "label": [1, 0]}, ["non-offensive", "offensive"], [1, 0]),
    "mnli": ({"premise": ["p"], "hypothesis": ["h"], "label": [2]}, ["entailment", "neutral", "contradiction"], [2]),
    # the order of the names on the hub is not that of the table: names count, not numbers
    "trec": ({"text": ["q"], "coarse_label": [0]}, ["DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC"], [2]),
    "ag_news": ({"text": ["n", "m"], "label": [0, 3]}, ["World", "Sports", "Business", "Sci/Tech"], [0, 3]),
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    """`datasets.load_dataset` of this table, and what was asked of it."""
    asked = []

    def load_dataset(*where, split, revision):
        asked.append((where, split, revision))
        columns, names, _ = next(HUB[key] for key, known in KNOWN.items() if known.hub == where)
        label = "coarse_label" if "coarse_label" in columns else "label"
        return datasets.Dataset.from_dict(columns).cast_column(label, datasets.ClassLabel(names=names))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("name", KNOWN)
def test_names_come_from_the_hub_with_words_of_their_own(hub, name):
    found, known = ik.data.load_classification(name), KNOWN[name]
    assert found.classes.tolist() == HUB[name][2]
    assert (found.labels, found.template, found.name) == (known.words, known.template, name)
    assert hub == [(known.hub, known.split, known.revision)]
    assert len(ik.data.load_classification(name, split="train")) == len(found)
    assert hub[1][1] == "train"
    if name == "mnli":
        assert found.texts == ("p\nHypothesis: h",)


def test_a_split_without_public_labels_is_refused(monkeypatch):
    table = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [-1, -1]})
    table = table.cast_column("label", datasets.ClassLabel(names=["negative", "positive"]))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    with pytest.raises(ValueError, match="no public labels"):
        ik.data.load_classification("sst2", split="test")


def test_any_other_data_set_of_the_hub_is_read_by_its_columns(monkeypatch, tmp_path):
    """One that was written to disk by `datasets` itself."""
    datasets.Dataset.from_dict({"question": ["who", "when"], "kind": ["person", "date"]}).save_to_disk(
        tmp_path / "d"
    )
    table = datasets.load_from_disk(tmp_path / "d")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    found = ik.data.load_classification("some/one", text="question", label="kind", split="test")
    same(found, ["who", "when"], [1, 0], ["date", "person"])


def test_a_name_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "datasets")
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"induction-kernel\[datasets\]"):
        ik.data.load_classification("sst2")


def test_the_known_label_words_differ_in_their_first_letters():
    """Tokenizers differ; words that differ at once have a first token of their own in most."""
    for name, known in KNOWN.items():
        assert len({word[:3] for word in known.words}) == len(known.words), name
        assert all(len(each) == len(known.words) for each in known.values), name


def texts_of(n=6):
    return ik.data.LabelledTexts([f"text {i}" for i in range(n)], np.arange(n) % 3, ["a", "b", "c"], "some")


def test_texts_are_sliced_split_and_relabelled():
    data = texts_of()
    same(data[1:3], ["text 1", "text 2"], [1, 2], ["a", "b", "c"])
    same(data[[5, 0]], ["text 5", "text 0"], [2, 0], ["a", "b", "c"])
    same(data[data.classes == 1], ["text 1", "text 4"], [1, 1], ["a", "b", "c"])
    same(data[data.classes == 1][0:1], ["text 1"], [1], ["a", "b", "c"])
    few, rest = data.split(2, seed=3)
    assert sorted(few.texts + rest.texts) == sorted(data.texts)
    assert len(few) == 2
    assert few.texts == data.split(2, seed=3)[0].texts != data.split(2, seed=4)[0].texts
    assert data.relabelled(["x", "y", "z"]).labels == ("x", "y", "z")
    assert repr(data).startswith("LabelledTexts(some: 6 texts, 2 'a', 2 'b', 2 'c'; first: 'text 0'")


@pytest.mark.real("shared")
@pytest.mark.parametrize(
    ("names", "counts", "labels"),
    [
        (["sst2.validation.tsv"], [428, 444], ["negative", "positive"]),
        (["trec.train.txt"], [86, 1250, 1162, 1223, 835, 896], KNOWN["trec"].words),
        (["trec.test.txt"], [9, 94, 138, 65, 81, 113], KNOWN["trec"].words),
        (["ag_news.test1500.csv"], [362, 393, 358, 387], KNOWN["ag_news"].words),
        (["tweet_irony.val_text.txt", "tweet_irony.val_labels.txt"], [499, 456], KNOWN["tweet_eval/irony"].words),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and isinstance(value[0], str) else None,
)  # fmt: skip
def test_the_papers_data_sets_are_read_whole(shared, names, counts, labels):
    paths = [shared / "data" / name for name in names]
    found = ik.data.load_classification(paths[0] if len(paths) == 1 else tuple(paths))
    assert np.bincount(found.classes).tolist() == counts
    assert list(found.labels) == list(labels)


@pytest.mark.parametrize("name", ["empty.txt", "empty"])
@pytest.mark.parametrize("columns", [{}, {"text": "a", "label": "b"}], ids=["no columns", "columns"])
def test_a_file_of_empty_lines_has_no_labelled_text(name, columns, tmp_path):
    (tmp_path / name).write_text(" \n\n")
    with pytest.raises(ValueError, match=f"wanted at least one labelled text in {name}, got none"):
        ik.data.load_classification(tmp_path / name, **columns)
