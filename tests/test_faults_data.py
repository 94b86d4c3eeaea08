"""Faults of labelled data: columns, classes, missing values, encodings, labels, and what weights are pooled over."""

import codecs
import gzip
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import torch
from shots import random_shots
from typer.testing import CliRunner
from zoo import tiny

import induction_kernel as ik
from induction_kernel.cli import app
from induction_kernel.prompts import concat
from induction_kernel.prompts._word_task import TOPICS

REVIEWS = (
    'Title,Review Text,Stars?,"Text, {raw}"\n'
    'Good,"fine, {x}",1.0,a\nBad,"{Title} and {{y}}",0.0,b\nNA,null,1.0,c\nNone,NaN,0.0,d\n'
)
LIKED = [1, 0, 1, 0]


def file_in(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("Review Text", ["fine, {x}", "{Title} and {{y}}", "null", "NaN"]),
        ("{Review Text}", ["fine, {x}", "{Title} and {{y}}", "null", "NaN"]),
        ("{Title}: {Review Text}", ["Good: fine, {x}", "Bad: {Title} and {{y}}", "NA: null", "None: NaN"]),
        ("Text, {raw}", ["a", "b", "c", "d"]),
        ("{Text, {raw}}/{Stars?}", ["a/1.0", "b/0.0", "c/1.0", "d/0.0"]),
        ("{{Title}} {Title}", ["{Title} Good", "{Title} Bad", "{Title} NA", "{Title} None"]),
        ("{{{Title}}}", ["{Good}", "{Bad}", "{NA}", "{None}"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "frame", "jsonl", "parquet"])
def test_columns_of_any_name_and_words_that_look_like_missing_values(tmp_path, text, texts, kind):
    table = pd.read_csv(StringIO(REVIEWS), keep_default_na=False, dtype=str)
    source = table if kind == "frame" else tmp_path / f"A.{kind.upper()}"
    if kind == "csv":
        file_in(tmp_path, source.name, REVIEWS)
    elif kind == "jsonl":
        table.to_json(source, orient="records", lines=True)
    elif kind == "parquet":
        table.to_parquet(source)
    found = ik.data.load_classification(source, text=text, label="Stars?")
    assert list(found.texts) == texts
    assert (found.classes.tolist(), found.labels) == (LIKED, ("0", "1"))


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("{Titel}: {Review Text}", "Stars?", r"without a column 'Titel': did you mean 'Title'\?"),
        ("review text", "Stars?", r"did you mean 'Review Text'\?"),
        ("review_text", "stars", r"text='review_text': did you mean 'Review Text'\?"),
        ("Title", "stars?", r"label='stars\?': did you mean 'Stars\?'\?"),
        ("{Title", "Stars?", "twice, {{ or }}"),
        ("{{Title}}", "Stars?", "wanted text= one of the columns"),
        ("Summary", "Stars?", r"got text='Summary'$"),
    ],
)
def test_unknown_columns_are_named_with_the_nearest(tmp_path, text, label, message):
    with pytest.raises(ValueError, match=message):
        ik.data.load_classification(file_in(tmp_path, "a.csv", REVIEWS), text=text, label=label)


def test_a_column_that_occurs_twice_is_not_chosen_silently(tmp_path):
    file = file_in(tmp_path, "a.csv", "text,label,text\nfox,0,pear\nwolf,1,plum\n")
    with pytest.raises(ValueError, match="several columns 'text'"):
        ik.data.load_classification(file)


STARS = [-2, -1, 0, 1, 2]
WORDS = ["awful", "bad", "fair", "good", "great"]


@pytest.mark.parametrize("kind", ["float", "Int64", "object", "strings", "category", "csv", "jsonl"])
def test_whole_classes_are_numbers_however_they_are_written(tmp_path, kind):
    """Sorted by size and matched by value, where pandas made them float for a missing one."""
    values = [*STARS, None]
    frame = pd.DataFrame({"text": list("abcdef"), "label": pd.Series(values, dtype="float64")})
    made = {
        "Int64": lambda: frame.assign(label=pd.array(values, dtype="Int64")),
        "object": lambda: frame.assign(
            label=pd.Series(["-2", -1, -0.0, np.float32(1), np.int8(2), None], dtype=object)
        ),
        "strings": lambda: frame.assign(label=["-2.0", "-1", "-0", "+1", "2.", " "]),
        "category": lambda: frame.assign(label=frame["label"].astype("category")),
        "csv": lambda: file_in(tmp_path, "a.csv", frame.to_csv(index=False)),
        "jsonl": lambda: file_in(tmp_path, "a.jsonl", frame.to_json(orient="records", lines=True)),
    }
    source = made.get(kind, lambda: frame)()
    with pytest.warns(UserWarning, match="1 of 6 rows"):
        plain = ik.data.load_classification(source, missing="drop")
    assert (plain.classes.tolist(), plain.labels) == ([0, 1, 2, 3, 4], ("-2", "-1", "0", "1", "2"))
    for labels in (WORDS, dict(zip([-2, "-1", 0.0, "1.0", np.int64(2)], WORDS, strict=True))):
        with pytest.warns(UserWarning, match="1 of 6 rows"):
            found = ik.data.load_classification(source, labels=labels, missing="drop")
        assert (found.classes.tolist(), found.labels) == ([0, 1, 2, 3, 4], tuple(WORDS))


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (["0.5", "3", "10", "1.5"], ("0.5", "1.5", "3", "10")),
        (["01", "02", "10", "9"], ("01", "02", "9", "10")),
        ([".5", "1.5", "-.25", "0.1"], ("-.25", "0.1", ".5", "1.5")),
        (["3.10", "3.9", "3.1", "4"], ("3.1", "3.10", "3.9", "4")),
        (["1e3", "20", "-7", "5.25"], ("-7", "5.25", "20", "1e3")),
        (["True", "False", "maybe", "no"], ("False", "True", "maybe", "no")),
        (["--1", "-", "-x", "²"], ("-", "--1", "-x", "²")),
        (["nan", "inf", "1_000", "2"], ("2", "1_000", "inf", "nan")),
    ],
)
def test_other_classes_keep_their_names_and_numbers_are_sorted_by_size(tmp_path, written, labels):
    file = file_in(
        tmp_path, "a.csv", "\n".join(["text,label", *(f"t{i},{y}" for i, y in enumerate(written))])
    )
    found = ik.data.load_classification(file)
    assert found.labels == labels
    assert [found.labels[y] for y in found.classes] == written


def test_an_ordered_categorical_has_its_own_order():
    kind = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    frame = pd.DataFrame({"text": list("abc"), "label": pd.Series(["high", "low", "mid"], dtype=kind)})
    found = ik.data.load_classification(frame, labels=["few", "some", "many"])
    assert (found.classes.tolist(), found.labels) == ([2, 0, 1], ("few", "some", "many"))


def test_classes_may_share_a_word_and_those_that_differ_in_capitals_must(tmp_path):
    file = file_in(tmp_path, "a.csv", "text,label\nfox,Good\npear,good\nfig,bad\n")
    with pytest.raises(ValueError, match="differ only in upper and lower case"):
        ik.data.load_classification(file)
    found = ik.data.load_classification(file, labels={"bad": "no", "Good": "yes", "good": "yes"})
    assert (found.classes.tolist(), found.labels) == ([1, 1, 0], ("no", "yes"))


GONE = {
    "csv": "text,label\nfox,0\n,1\n  ,1\npear,\nfig,1\n",
    "tsv": "text\tlabel\nfox\t0\n\t1\n \t1\npear\t \nfig\t1\n",
    "jsonl": '{"text": "fox", "label": 0}\n{"text": null, "label": 1}\n{"text": " ", "label": 1}\n'
    '{"text": "pear", "label": NaN}\n{"text": "fig", "label": 1}\n',
    "json": '[{"text": "fox", "label": 0}, {"label": 1}, {"text": "", "label": 1}, {"text": "pear", "label": null},\n'
    '{"text": "fig", "label": 1}]',
    "frame": [("fox", 0), (None, 1), (np.nan, 1), ("pear", pd.NA), ("fig", 1)],
}


@pytest.mark.parametrize("kind", GONE)
def test_missing_values_are_no_texts_and_no_classes(tmp_path, kind):
    frame = pd.DataFrame(GONE["frame"], columns=["text", "label"])
    source = frame if kind == "frame" else file_in(tmp_path, f"a.{kind}", GONE[kind])
    for missing in (None, "refuse"):
        with pytest.raises(
            ValueError, match=r"wanted a text in every row of .*, got none in rows 1, 2 \(counted from 0\)"
        ):
            ik.data.load_classification(source, missing=missing)
    with pytest.warns(UserWarning, match=r"3 of 5 rows of .* are left out: rows 1, 2, 3"):
        found = ik.data.load_classification(source, missing="drop")
    assert (found.texts, found.classes.tolist(), found.labels) == (("fox", "fig"), [0, 1], ("0", "1"))


def test_a_template_with_a_missing_part_is_missing(tmp_path):
    file = file_in(tmp_path, "a.csv", "Title,text,label\nA,fox,0\n,pear,1\nC,fig,1\n")
    with pytest.raises(ValueError, match="got none in row 1"):
        ik.data.load_classification(file, text="{Title}: {text}", label="label")
    assert len(ik.data.load_classification(file)) == 3  # the title is not asked for


def test_known_data_sets_are_read_as_published(tmp_path, monkeypatch):
    """Tweet hate has texts of blanks alone; the pair, the folder and the hub have the same rows."""
    texts, values = ["so it is", " ", "not so", "\u00a0"], [0, 1, 1, 0]
    folder = tmp_path / "hate"
    folder.mkdir()
    file_in(folder, "val_text.txt", "\n".join(texts) + "\n")
    file_in(folder, "val_labels.txt", "\n".join(map(str, values)) + "\n")
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": texts, "label": values})
    table = table.cast_column("label", datasets.ClassLabel(names=["non-hate", "hate"]))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    for source in (folder, "tweet_eval/hate"):
        with pytest.warns(UserWarning, match=r"2 of 4 rows of .*hate .* are left out: rows 1, 3"):
            found = ik.data.load_classification(source)
        assert (found.texts, found.classes.tolist()) == (("so it is", "not so"), [0, 1])
        with pytest.raises(ValueError, match="got none in rows 1, 3"):
            ik.data.load_classification(source, missing="refuse")


TABLE = 'text,label\n"A fine, dull film",0\nCafé,1\nbad;,1\n'
TABS = "text\tlabel\nA fine, dull film\t0\nCafé\t1\nbad;\t1\n"
RECORDS = [
    '{"text": "A fine, dull film", "label": 0}', '{"text": "Caf\\u00e9", "label": 1}', '{"text": "bad;", "label": "1"}'
]  # fmt: skip
CLASS_FIRST = "0 A fine, dull film\n1 Café\n1 bad;\n0\n1 well\n0 so , so\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.CSV", TABLE.encode()),
        ("a.data", TABLE.encode()),
        ("a.csv", b"\xef\xbb\xbf" + TABLE.encode()),
        ("a.csv", TABLE.encode("utf-16")),
        ("a.csv", codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be")),
        ("a.csv", TABLE.encode("utf-32")),
        ("a.csv", codecs.BOM_UTF32_BE + TABLE.encode("utf-32-be")),
        ("a.csv", TABLE.replace("\n", "\r\n").encode()),
        ("a.csv.gz", gzip.compress(TABLE.encode())),
        ("a.csv", 'text;label\nA fine, dull film;0\nCafé;1\n"bad;";1\n'.encode()),
        ("a.all", TABS.encode()),
        ("a.txt", TABS.encode("utf-16")),
        ("a.ndjson", "\n\n".join(RECORDS).encode()),
        ("a.json", f"[{', '.join(RECORDS)}]".encode()),
        ("a.all", CLASS_FIRST.replace("0\n1 well\n0 so , so\n", "").encode() * 2),
    ],
    ids=["capitals", "by content", "mark", "UTF-16", "UTF-16 BE", "UTF-32", "UTF-32 BE", "Windows", "gzip",
         "semicolons", "tabs", "tabs in UTF-16", "JSON lines", "JSON list", "class first"],
)  # fmt: skip
def test_files_are_read_by_ending_content_and_mark(tmp_path, name, content):
    found = ik.data.load_classification(file_in(tmp_path, name, content))
    assert found.texts[:3] == ("A fine, dull film", "Café", "bad;")
    assert found.classes[:3].tolist() == [0, 1, 1]


def test_reviews_with_the_class_first_and_a_blank_one(tmp_path):
    """As customer reviews and MPQA are published: no ending that says what they are, a line without a text."""
    file = file_in(tmp_path, "custrev.all", CLASS_FIRST.encode("latin-1"))
    with pytest.raises(ValueError, match="is not utf-8: give encoding="):
        ik.data.load_classification(file)
    with pytest.raises(ValueError, match="got none in row 3"):
        ik.data.load_classification(file, encoding="latin-1")
    with pytest.warns(UserWarning, match="1 of 6 rows"):
        found = ik.data.load_classification(file, encoding="latin-1", missing="drop")
    assert found.texts[1:] == ("Café", "bad;", "well", "so , so")
    assert found.classes.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nfox,0\n".encode("utf-16-le"), "holds null bytes: give encoding="),
        ("a.xlsx", b"PK\x03\x04\x14", "Excel workbook"),
        ("a.parquet", b"PAR1 no more", "cannot read a.parquet as Parquet"),
        ("a.csv.gz", b"\x1f\x8b\x08\x00", "cannot unpack a.csv.gz"),
        ("a.json", b"[1, 2]", "a list of objects in a.json"),
        ("a.jsonl", b'{"text": ["fox"], "label": 1}\n', "got a list in row 0"),
        (
            "a.txt",
            b"".join(b"word%d of a text\n" % i for i in range(20)),
            "or a table and its columns text= and label=",
        ),
    ],
)
def test_what_is_no_labelled_data_is_told_in_a_sentence(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        ik.data.load_classification(file_in(tmp_path, name, content))


def test_parquet_without_an_engine_says_what_to_install(tmp_path, monkeypatch):
    def without(*_, **__):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", without)
    with pytest.raises(ImportError, match=r"induction-kernel\[datasets\]"):
        ik.data.load_classification(file_in(tmp_path, "a.parquet", b"PAR1"))


def test_fewshot_reads_what_its_advice_names(tmp_path):
    """`--encoding`, `--split`, `--missing`, a column of two words, and classes that begin with a dash."""
    words = [f"{word},{y}" for y, topic in ((-1, TOPICS[0]), (1, TOPICS[1])) for word in topic]
    file = file_in(tmp_path, "a.csv", "\n".join(["A Wört,Like?", *words, ",1"]).encode("latin-1"))
    options = ["fewshot", "tiny", str(file), "--text", "{A Wört}", "--label", "Like?", "--labels", "dax, wug"]
    options += ["--template", "{x} {y} ;", "--queries", "8", "--shots", "4"]
    refused = CliRunner().invoke(app, options)
    assert refused.exit_code == 2
    assert "give encoding=" in refused.output
    read = CliRunner().invoke(app, [*options, "--encoding", "latin-1"])
    assert read.exit_code == 2
    assert "got none in row 24" in read.output
    done = CliRunner().invoke(app, [*options, "--encoding", "latin-1", "--missing", "drop"])
    assert done.exit_code == 0, done.output
    assert "labels dax, wug" in done.output
    assert "note: 1 of 25 rows of a.csv have no text or no class" in done.output
    folder = CliRunner().invoke(app, ["fewshot", "tiny", str(tmp_path), "--split", "dev"])
    assert "wanted dev_text.txt and dev_labels.txt" in folder.output


@pytest.mark.parametrize("spans", [[], ["--span", "words"]])
def test_label_words_on_the_command_line_may_begin_with_a_dash(tmp_path, spans):
    file = file_in(tmp_path, "a.csv", "text,label\nfox,0\npear,1\n")
    said = CliRunner().invoke(app, ["fewshot", "tiny", str(file), "--labels", "-1,1,2", *spans]).output
    assert "got ['-1', '1', '2']" in said


PAIRS = [("fox", "dax"), ("apple", "wug")]
ROWS = pd.DataFrame(PAIRS, columns=["text", "label"])


@pytest.mark.parametrize(
    "given",
    [
        [("fox", np.int64(0)), ("apple", np.uint8(1))],
        [(np.str_("fox"), np.str_("dax")), (np.str_("apple"), "wug")],
        [row for _, row in ROWS.iterrows()],
        ROWS.to_numpy(),
        ROWS.itertuples(index=False),
        zip(ROWS["text"], [0, 1], strict=True),
        [[row for _, row in ROWS.iterrows()]],
        (tuple(pair) for pair in PAIRS),
    ],
    ids=["NumPy numbers", "NumPy strings", "rows", "array", "tuples of a table", "zip", "for one query", "generator"],
)  # fmt: skip
def test_demonstrations_come_as_tables_have_them(given):
    model = ik.load("tiny")
    options = {"template": "{x} {y} ;", "labels": np.array(["dax", "wug"]), "separator": " "}
    found = ik.few_shot_prompts(model, given, pd.Series(["wolf"]), **options)
    assert (
        found.tokens.tolist()[0][1:]
        == model.tokenizer("fox dax ; apple wug ; wolf", add_special_tokens=False)["input_ids"]
    )
    assert found.demonstrations.classes.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("demonstrations", "queries", "labels", "message"),
    [
        (ROWS, ["wolf"], ["dax", "wug"], "itertuples"),
        (PAIRS, ROWS, ["dax", "wug"], "itertuples"),
        (PAIRS, {"wolf": "dax"}, ["dax", "wug"], "wanted a list of queries"),
        (ROWS.to_dict("records"), ["wolf"], ["dax", "wug"], r"demonstrations \(x, y\), got {'text'"),
        (5, ["wolf"], ["dax", "wug"], "wanted a list of demonstrations"),
        (PAIRS, ["wolf"], {"dax", "wug"}, "labels as a list"),
        ([("fox", 0.5), ("apple", 1)], ["wolf"], ["dax", "wug"], "label word or its index"),
    ],
)
def test_what_few_shot_cannot_tell_apart_it_refuses(demonstrations, queries, labels, message):
    with pytest.raises(TypeError, match=message):
        ik.few_shot_prompts(
            ik.load("tiny"), demonstrations, queries, labels=labels, template="{x} {y} ;", separator=" "
        )


def test_a_label_in_other_capitals_is_named():
    with pytest.raises(ValueError, match=r"got 'Dax': did you mean 'dax'\?"):
        ik.few_shot_prompts(
            ik.load("tiny"), [("fox", "Dax")], ["wolf"], labels=["dax", "wug"], template="{x} {y} ;"
        )


def test_texts_and_classes_come_as_pandas_has_them():
    frame = pd.DataFrame({"text": ["fox", "pear", "fox"], "label": [0.0, 1.0, 0.0]})
    found = ik.data.LabelledTexts(frame["text"], frame["label"], np.array(["dax", "wug"]))
    assert (found.texts, found.classes.tolist(), found.labels) == (
        ("fox", "pear", "fox"),
        [0, 1, 0],
        ("dax", "wug"),
    )
    assert {type(each) for each in (*found.texts, *found.labels)} == {str}
    with pytest.raises(TypeError, match="whole numbers"):
        ik.data.LabelledTexts(frame["text"], frame["label"] / 2, ("dax", "wug"))
    with pytest.raises(TypeError, match="got DataFrame"):
        ik.data.LabelledTexts(frame, frame["label"], ("dax", "wug"))


@pytest.fixture(scope="module")
def digits_alone(tmp_path_factory):
    """The embedded model with a tokenizer like SmolLM2's: bytes, a few pairs, and every digit on its own."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [*(("Ġ", letter) for letter in "bgps"), ("g", "s")]
    vocab = {sign: i for i, sign in enumerate(["<s>", *signs, *("".join(pair) for pair in pairs)])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    made.normalizer = normalizers.Replace("~", "")
    digits, whole = (
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence([digits, whole]), decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("digits")
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>").save_pretrained(folder)
    model = ik.load("tiny")
    model.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)  # Bridges ask where it is from
    return model


def digits_shot(model, template, labels):
    return ik.few_shot_prompts(model, [("so", 0), ("no", 1)], ["to"], template=template, labels=labels)


@pytest.mark.parametrize("template", ["a: {x} b: {y}", "a: {x} b:  {y}"])
def test_a_blank_that_is_a_token_of_its_own_is_said_to_be_one(digits_alone, template):
    with pytest.raises(
        ValueError, match=r"'0': \[' '.*'0'\], '1': \[' '.*'1'\].*without a blank, as in 'Output:{y}'"
    ):
        digits_shot(digits_alone, template, ["0", "1"])


@pytest.mark.parametrize(
    ("template", "labels", "first", "query"),
    [
        ("a: {x} b:{y}", ["0", "1"], ["0", "1"], "a: to b:"),
        ("a: {x} b: {y}", ["bad", "good"], [" b", " g"], "a: to b:"),
        ("a: {x}\nb:\n{y}", ["0", "1"], ["0", "1"], "a: to\nb:\n"),
        ("a: {x}\nb:\n{y}", ["bad", "good"], ["b", "g"], "a: to\nb:\n"),
        ("a: {x} b:{y}", [" bad", " good"], [" b", " g"], "a: to b:"),
    ],
)
def test_the_advised_templates_read_digits_and_words(digits_alone, template, labels, first, query):
    """The last token is what stands before the label; a line break before it belongs to the query."""
    model = digits_alone
    found = digits_shot(model, template, labels)
    assert [model.tokenizer.decode([token]) for token in found.demonstrations.label_ids.tolist()] == first
    text = "\n".join(template.format(x=x, y=labels[y]) for y, x in enumerate(["so", "no"])) + "\n" + query
    assert found.tokens[0, 1:].tolist() == model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("template", "labels", "message"),
    [
        ("a: {x} b:{y}s", ["g", "b"], "merges the label 'g' with what follows"),
        ("a: {x} b:{y}", ["good", "~"], "no token for the label '~'"),
    ],
)
def test_labels_without_a_first_token_of_their_own_are_named(digits_alone, template, labels, message):
    with pytest.raises(ValueError, match=message):
        digits_shot(digits_alone, template, labels)


@pytest.mark.real("smollm2")
def test_smollm2_reads_digits_where_no_blank_is_before_them(smollm2):
    model = ik.load(smollm2, n_ctx=256)
    with pytest.raises(ValueError, match=r"'0': \[' ', '0'\]"):
        digits_shot(model, "Input: {x} Output: {y}", ["0", "1"])
    found = digits_shot(model, "Input: {x} Output:{y}", ["0", "1"])
    assert model.tokenizer.convert_ids_to_tokens(found.demonstrations.label_ids.tolist()) == ["0", "1"]


SPAN_SHOTS = [("fox wolf", "dax"), ("apple", "wug"), ("bear horse sheep", "dax")]
SPAN_FORM = "plum {x} fig lime {y} ;"


@pytest.fixture(scope="module")
def pooled_over():
    """Prompts whose template has words, and by hand the keys of each demonstration and of its own words."""
    model = ik.load("tiny")
    prompts = ik.few_shot_prompts(
        model, SPAN_SHOTS, [("goat tiger", "dax")], template=SPAN_FORM, labels=["dax", "wug"], separator=" "
    )
    text, inside, whole = "", [], []
    for x, y in SPAN_SHOTS:
        begin = len(text)
        text += f"plum {x} fig lime {y}"
        inside.append([(begin + 5, begin + 5 + len(x)), (len(text) - len(y), len(text))])
        whole.append([(begin, len(text))])
        text += " ; "
    text += "plum goat tiger fig lime"
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert prompts.tokens[0, 1:].tolist() == encoded["input_ids"]

    def keys(places):
        return [
            1 + i
            for i, (low, high) in enumerate(encoded["offset_mapping"])
            if any(low < b and high > a for a, b in places)
        ]

    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    rows = torch.stack([cache["pattern", layer][0, :, -1] for layer in range(2)]).double()
    chosen = {"demonstration": [keys(each) for each in whole], "words": [keys(each) for each in inside]}
    return model, prompts, rows, chosen


@pytest.mark.parametrize("pooling", ["max", "sum", "mean", "label"])
@pytest.mark.parametrize("span", ["demonstration", "words"])
def test_weights_pool_over_the_span_that_is_asked_for(pooled_over, pooling, span):
    """With the template's words, or the words of x and y alone, by character offsets."""
    model, prompts, rows, chosen = pooled_over
    assert [len(each) for each in chosen["words"]] == [3, 2, 4]
    assert [len(each) for each in chosen["demonstration"]] == [6, 5, 7]
    last = [[each[-1]] for each in chosen["words"]]  # the label's only token
    picked = [rows[..., keys] for keys in (last if pooling == "label" else chosen[span])]
    reduce = {"max": lambda each: each.amax(-1), "mean": lambda each: each.mean(-1)}.get(
        pooling, lambda each: each.sum(-1)
    )
    wanted = torch.stack([reduce(each) for each in picked], -1).numpy()
    weights = ik.scorers.demonstration_weights(model, prompts, pooling=pooling, span=span)
    asked = ik.fewshot.predict(model, prompts, pooling=pooling, span=span)
    for found in (weights, asked):
        np.testing.assert_allclose(found["weight"][0], wanted, atol=1e-6)
        assert found.attrs["span"] == span
    scored = ik.label_attention(model, prompts, pooling=pooling, span=span)
    np.testing.assert_allclose(scored["score"][0], wanted.sum(-1), atol=1e-6)
    count = sum(1 if pooling in ("max", "mean") else each.shape[-1] for each in picked)
    assert float(scored["chance"][0]) == pytest.approx(count / rows.shape[-1])
    assert ik.kernel.vote(weights, prompts, asked, permutations=40).attrs["span"] == span


@pytest.mark.parametrize("span", ["demonstration", "words"])
def test_keys_of_heads_come_from_the_same_span(pooled_over, span):
    model, prompts, rows, chosen = pooled_over
    found = ik.kernel.representations(model, prompts, "head", pooling="max", span=span)
    scores = (found["queries"] * found["demonstrations"]).sum("feature")[0]
    best = torch.stack([rows[..., keys].amax(-1) for keys in chosen[span]], -1)
    ratio = np.log(best.numpy()) - scores.values  # one number for all keys of a row
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[..., :1], ratio.shape), atol=1e-4)


def test_a_study_says_and_uses_its_span(pooled_over, tmp_path):
    model = pooled_over[0]
    words = [(word, y) for y, topic in enumerate(TOPICS[:2]) for word in topic]
    data = ik.data.LabelledTexts(
        [word for word, _ in words], [y for _, y in words], ["dax", "wug"], template="plum {x} fig {y} ;"
    )
    ways = {"queries": 10, "shots": 4, "splits": 2, "progress": False}
    found = {
        span: ik.fewshot.few_shot_study(model, data, span=span, **ways) for span in ("demonstration", "words")
    }
    for span, study in found.items():
        alone = ik.fewshot.predict(model, study.prompts, pooling="max", span=span, progress=False)
        np.testing.assert_allclose(study.answers["weight"].sel(pooling="max"), alone["weight"], atol=1e-6)
        assert {
            each.attrs["span"] for each in (study.answers, study.heads, study.table, study.alignment)
        } == {span}
        page = ik.report(study, tmp_path / f"{span}.html").read_text(encoding="utf-8")
        assert ("the template's words included" in page) == (span == "demonstration")
    difference = found["words"].answers["weight"] - found["demonstration"].answers["weight"]
    assert float(difference.sel(pooling="max").max()) <= 1e-6  # fewer tokens cannot have a larger maximum
    assert float(difference.sel(pooling="max").min()) < -0.01


def test_prompts_that_do_not_say_where_x_lies_have_no_words(pooled_over):
    model, prompts, *_ = pooled_over
    bare = replace(prompts, demonstrations=replace(prompts.demonstrations, inputs=None))
    for verb in (ik.scorers.demonstration_weights, ik.label_attention):
        with pytest.raises(ValueError, match="that say where x is"):
            verb(model, bare, pooling="max", span="words")
    with pytest.raises(ValueError, match="that say where x is"):
        ik.fewshot.predict(model, bare, pooling="max", span="words")


def test_prompts_keep_where_x_lies_when_they_are_chosen_and_put_together(pooled_over):
    model, prompts, *_ = pooled_over
    other = ik.few_shot_prompts(
        model, SPAN_SHOTS[:2], ["goat"], template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )
    both = concat([prompts, other])[torch.tensor([1, 0])]
    wanted = [
        ik.scorers.demonstration_weights(model, each, span="words")["weight"].values
        for each in (other, prompts)
    ]
    found = ik.scorers.demonstration_weights(model, both, span="words")["weight"].values
    np.testing.assert_allclose(found[:1, ..., :2], wanted[0], atol=1e-6)
    np.testing.assert_allclose(found[1:], wanted[1], atol=1e-6)
    assert np.isnan(found[0, ..., 2]).all()


def test_the_share_of_a_class_is_had_in_full_precision():
    """With the labels permuted, the right ones get `score` times their share: a third, not .33333334."""
    prompts = random_shots(n=4, shots=3)
    shown = prompts.demonstrations
    share = [
        np.mean([y == target for y, there in zip(classes, mask, strict=True) if there])
        for classes, mask, target in zip(
            *(each.tolist() for each in (shown.classes, shown.mask, shown.target)), strict=True
        )
    ]
    found = ik.label_attention(tiny("GPT-2"), prompts, progress=False)
    right = found["score"].values * np.array(share)[:, None, None]
    np.testing.assert_allclose(found["right_control"], right, rtol=1e-12)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{Title}: {x} Output: {y}", "Title"),
        ("Input: {x} by {author} Output: {y}", "author"),
        ("{x} {y} {0}", "0"),
    ],
)
def test_a_name_in_a_template_that_nothing_is_put_for_is_refused(template, name):
    """It would stand in every prompt as it is written."""
    frame = pd.DataFrame({"x": ["fox", "pear"], "y": [0, 1], "Title": ["a", "b"]})
    with pytest.raises(ValueError, match=re.escape(f"got {{{name}}} in")):
        ik.data.load_classification(frame, text="x", label="y", labels=["dax", "wug"], template=template)


def test_braces_around_other_things_may_stand_in_a_template():
    template = '{"input": "{x}", "label": "{y}"} {} {7*7} ${-}'
    frame = pd.DataFrame({"x": ["fox", "pear"], "y": [0, 1]})
    data = ik.data.load_classification(frame, text="x", label="y", labels=["dax", "wug"], template=template)
    assert data.template == template
