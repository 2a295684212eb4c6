"""Relation datasets: the reader, labels, targets, splits and words."""

import gzip
import pickle
import random
import tracemalloc
import warnings

import numpy as np
import pytest
from conftest import real_file
from numpy.testing import assert_array_equal
from sklearn.model_selection import GroupShuffleSplit
from sklearn.preprocessing import MultiLabelBinarizer

from sklearn_p2l.datasets import (
    Bag,
    Context,
    build_vocabulary,
    read_bags,
    read_word_vectors,
    relation_labels,
    sample_target,
    subtask_labels,
    text_groups,
    tokenize,
)
from sklearn_p2l.exceptions import SkippedSamplesWarning
from sklearn_p2l.samples import (
    BAGS,
    FEATURES,
    as_samples,
    bag_batches,
    content_key,
    modality_of,
    random_part,
)

TEXT = "Paris lies in France."


def line(id_1="France", id_2="Paris", spans=("[14,20)", "[0,5)"), relations="<capital"):
    fields = [id_1, id_2, "GPE", "GPE", *spans, relations, TEXT, f"a.example/{id_1}"]
    return "\t".join(fields)


def write(path, lines):
    data = [x if isinstance(x, bytes) else x.encode() for x in lines]
    path.write_bytes(b"\n".join(data) + b"\n")
    return path


def bag(*relations, text=TEXT, url="", names=("France", "Paris")):
    return Bag(*names, [Context(text, (0, 5), (14, 20), url)], relations)


# -- the reader -------------------------------------------------------------------


def test_reads_what_is_written(tmp_path):
    lines = [
        line("A", "B", relations=""),
        line("A", "C", relations=">has,<capital"),
        line("A", "C", spans=("[0,5)", "[14,20)"), relations=">has,<capital"),
    ]
    path = write(tmp_path / "x.tsv", lines)
    first, second = read_bags(path)
    assert first == Bag(
        "A", "B", [Context(TEXT, (14, 20), (0, 5), "a.example/A")], (), "GPE", "GPE"
    )
    assert first.contexts[0].text[slice(*first.contexts[0].span_2)] == "Paris"
    assert second.relations == (">has", "<capital") and len(second.contexts) == 2
    assert second.contexts[1].span_1 == (0, 5)
    zipped = tmp_path / "anything"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_bags(zipped)) == [first, second]
    windows = tmp_path / "crlf.tsv"
    windows.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert list(read_bags(windows)) == [first, second]
    unended = tmp_path / "unended.tsv"
    unended.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert list(read_bags(str(unended))) == [first, second]


def test_spans_count_characters_not_bytes(tmp_path):
    text = "Zürich 🏔 liegt in der Schweiz\u2028."
    fields = ["CH", "ZH", "", "", "[22,29)", "[0,6)", "", text, ""]
    (bag,) = read_bags(write(tmp_path / "x.tsv", ["\t".join(fields)]))
    context = bag.contexts[0]
    assert text[slice(*context.span_1)] == "Schweiz"
    assert text[slice(*context.span_2)] == "Zürich"


MALFORMED = {
    "fields": (line() + "\tmore", "must have 9 fields, got 10"),
    "fewer": ("a\tb", "must have 9 fields, got 2"),
    "empty": ("", "must have 9 fields, got 1"),
    "range": (line(spans=("[14,22)", "[0,5)")), "span 1 must lie within"),
    "nothing": (line(spans=("[14,14)", "[0,5)")), "span 1 must lie within"),
    "backwards": (line(spans=("[14,20)", "[5,0)")), "span 2 must lie within"),
    "crossing": (line(spans=("[0,7)", "[5,9)")), "must not cross"),
    "blank": (line(spans=("[0,5)", "[5,6)")), "span 2 must hold a word"),
    "form": (line(spans=("14-20", "[0,5)")), "must look like"),
    "negative": (line(spans=("[-4,20)", "[0,5)")), "must look like"),
    "bytes": (line().encode()[:-3] + b"\xff\xfe", "must be UTF-8"),
    "order": (line("Paris", "France"), "ID 1 must come before ID 2"),
    "direction": (line(relations="capital"), "must begin with its direction"),
    "relations": (line("A", "B", relations=">other"), "those of the lines before"),
    "apart": (line("A", "A1"), "must follow one another"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_lines(tmp_path, name):
    bad, told = MALFORMED[name]
    good = [line("A", "A1"), line("A", "B"), line("A", "B")]
    path = write(tmp_path / "x.tsv", [*good[:2], bad, good[2], line("C", "D")])
    with pytest.raises(ValueError, match=rf"line 3 of {path}: .*{told}"):
        list(read_bags(path))
    skipped = rf"Skipped 1 line\(s\).*line 3 .*{told}"
    with pytest.warns(SkippedSamplesWarning, match=skipped):
        bags = list(read_bags(path, on_error="skip"))
    sizes = {b.id_2: len(b.contexts) for b in bags}
    assert sizes == {"A1": 1, "B": 2, "D": 1}


def test_damaged_and_missing_files(tmp_path):
    lines = [line(f"A{i:04}", "B", relations="") for i in range(2000)]
    whole = gzip.compress(write(tmp_path / "x.tsv", lines).read_bytes())
    for number, data in enumerate([whole[:-500], whole[:200] + b"?" + whole[201:]]):
        path = tmp_path / f"{number}.tsv.gz"
        path.write_bytes(data)
        for on_error in ("raise", "skip"):
            with pytest.raises(ValueError, match="damaged after line|line .* must"):
                list(read_bags(path, on_error=on_error))
                pytest.fail("a damaged file was read as if it were whole")
    with pytest.raises(FileNotFoundError):
        list(read_bags(tmp_path / "absent.tsv"))
    with pytest.raises(ValueError, match="on_error must be"):
        list(read_bags(path, on_error="ignore"))


def test_fuzzed_lines_are_read_or_named(tmp_path):
    """Whatever the bytes: bags that keep their contract, or an error with a line."""
    rng = random.Random(0)
    base = [line(f"A{i}", "B", relations="").encode() for i in range(10)]
    n_errors = 0
    for _ in range(300):
        lines = list(base)
        for _ in range(rng.randint(1, 3)):
            i = rng.randrange(10)
            data = bytearray(lines[i])
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(data))
                kind = rng.randrange(3)
                if kind == 0:
                    data[at] = rng.randrange(256)
                elif kind == 1:
                    del data[at]
                else:
                    data.insert(at, rng.choice(b"\t[]),0\xc3\n9"))
            lines[i] = bytes(data)
        path = write(tmp_path / "x.tsv", lines)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for read in read_bags(path, on_error="skip"):
                assert read.contexts and read.id_1 < read.id_2
                for context in read.contexts:
                    for span in (context.span_1, context.span_2):
                        assert context.text[slice(*span)].strip()
        try:
            list(read_bags(path))
        except ValueError as error:
            assert f" of {path}: " in str(error) and str(error).startswith("line ")
            n_errors += 1
    assert n_errors > 100


def test_reading_streams(tmp_path):
    """Ten times the file needs no more memory."""

    def peak(n):
        lines = (line(f"{i:07}", "B") for i in range(n))
        path = write(tmp_path / "x.tsv", lines)
        tracemalloc.start()
        for _ in read_bags(path):
            pass
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    assert peak(20_000) < 1.5 * peak(2_000)


def test_files_that_are_not_in_order(tmp_path):
    order = np.random.default_rng(0).permutation(50)
    lines = [line(f"{i:02}", "B") for i in order]
    path = write(tmp_path / "x.tsv", lines)
    assert [int(b.id_1) for b in read_bags(path)] == order.tolist()
    for again in (0, 25, 48):
        path = write(tmp_path / "y.tsv", [*lines, lines[again]])
        with pytest.raises(ValueError, match="line 51 .* must follow one another"):
            list(read_bags(path))


def test_values_are_checked():
    with pytest.raises(ValueError, match="at least one context"):
        Bag("a", "b", [])
    with pytest.raises(ValueError, match=r"got one str; pass \['>r'\]"):
        Bag("a", "b", [Context(TEXT, (0, 5), (14, 20))], ">r")
    with pytest.raises(ValueError, match="must not cross"):
        Context(TEXT, (0, 10), (6, 13))
    Context(TEXT, (0, 20), (14, 20))  # one within the other is fine
    assert Context(TEXT, [0, np.int64(5)], (14, 20)) == Context(TEXT, (0, 5), (14, 20))
    for wrong in ((0, 2.5), (0,), None, "05"):
        with pytest.raises(ValueError, match="span_1 must be two integers"):
            Context(TEXT, wrong, (14, 20))
    with pytest.raises(ValueError, match="text must be a str, got bytes"):
        Context(b"Paris", (0, 1), (2, 3))
    for wrong in (None, ["text"], Context(TEXT, (0, 5), (14, 20))):
        with pytest.raises(ValueError, match=r"contexts must be .*; pass \[Context"):
            Bag("a", "b", wrong)
    one = bag("<r")
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.slow
def test_real_file():
    path = real_file("data", "relations", "contexts.tsv.gz")
    bags = list(read_bags(path))
    assert len(bags) == 74_518
    assert sum(len(b.contexts) for b in bags) == 76_874
    assert sum(bool(b.relations) for b in bags) == 48_673
    more = [len(b.contexts) for b in bags if b.relations and len(b.contexts) > 1]
    assert len(more) == 1_142 and sum(n >= 4 for n in more) == 51
    labels = relation_labels(bags, ["wd:P131", "wd:P17"])
    assert labels.y.sum(axis=0).tolist() == [3438, 2094]


# -- datasets ---------------------------------------------------------------------


def test_what_is_a_dataset_of_bags(tmp_path):
    pd = pytest.importorskip("pandas")
    bags = [bag(), bag(">r")]
    path = write(tmp_path / "x.tsv", [line("A", "B"), line("A", "C"), line("B", "C")])
    for dataset in (bags, path, "x.TSV.gz", bag()):
        assert modality_of(dataset) is BAGS and not FEATURES.recognises(dataset)
    for other in ([], np.zeros((2, 2)), "folder", iter(bags)):
        assert modality_of(other) is not BAGS
    array = np.empty(2, object)
    array[:] = bags
    for form in (array, pd.Series(bags), tuple(bags)):
        assert modality_of(form) is BAGS and content_key(form) == content_key(bags)
        assert list(bag_batches(form, 5)) == [bags]
    assert [len(b) for b in bag_batches(path, 2)] == [2, 1]
    assert [b for batch in bag_batches(bags, 1) for b in batch] == bags
    for wrong, told in [
        ([], "at least one bag"),
        ([bag(), "text"], "relation bags only, got str"),
        (np.zeros((3, 8, 8)), "must be a sequence of Bag"),
        ("folder", r"\.tsv or \.tsv\.gz file, got 'folder'"),
        (3, "must be a sequence of Bag"),
    ]:
        with pytest.raises(ValueError, match=told):
            list(bag_batches(wrong, 2))


def test_samples_of_text(tmp_path):
    bags = [bag(), bag(">r")]
    path = write(tmp_path / "x.tsv", [line("A", "B"), line("A", "C")])
    assert as_samples(bags) is bags
    assert as_samples(bag()) == [bag()]
    assert as_samples(path) == as_samples(str(path)) == list(read_bags(path))
    with pytest.raises(FileNotFoundError):
        as_samples(tmp_path / "absent.tsv")


def test_random_parts(tmp_path):
    pd = pytest.importorskip("pandas")
    bags = [bag(f">{i}") for i in range(20)]
    drawn = np.random.RandomState(3).permutation(20)
    for form in (bags, tuple(bags), pd.Series(bags, index=range(5, 25))):
        part, n_total = random_part(form, 8, 3)
        assert part == [bags[i] for i in drawn[:8]] and n_total == 20
        assert random_part(form, None, 3)[0] == [bags[i] for i in drawn]
    assert random_part(bag(), 8, 3) == ([bag()], 1)
    lines = [line(f"A{i:02}", "B", relations="") for i in range(20)]
    path = write(tmp_path / "x.tsv", [*lines, "not a line"])
    with pytest.raises(ValueError, match="line 21"):
        random_part(path, 8, 3)
    with pytest.warns(SkippedSamplesWarning, match="line 21"):
        part, n_total = random_part(path, 8, 3, on_error="skip")
    assert len({b.id_1 for b in part}) == 8 and n_total is None
    assert random_part(path, None, 3) == (path, None)  # streamed, in its order


def test_content_key(tmp_path):
    one = content_key([bag(">r"), bag()])
    assert one == content_key((bag(">r"), bag())) and isinstance(one, str)
    for other in ([bag(), bag(">r")], [bag(">r")], [bag(">s"), bag()]):
        assert content_key(other) != one
    assert content_key(bag(">r")) == content_key([bag(">r")])
    assert content_key(tmp_path / "absent.tsv") is None
    path = write(tmp_path / "x.tsv", [line("A", "B")])
    key = content_key(path)
    assert key == content_key(str(path))
    write(path, [line("A", "B"), line("A", "C")])
    assert content_key(path) != key


# -- labels, subtasks, targets ----------------------------------------------------


def test_labels_against_scikit_learn():
    rng = np.random.default_rng(0)
    names = ["<a", ">a", ">b", "<c"]
    bags = [bag(*rng.choice(names, rng.integers(4), replace=False)) for _ in range(50)]
    labels = relation_labels(bags, directed=True)
    oracle = MultiLabelBinarizer(classes=sorted(names))
    assert_array_equal(labels.y, oracle.fit_transform([b.relations for b in bags]))
    assert labels.relations == sorted(names)
    undirected = relation_labels(bags)
    assert undirected.relations == ["a", "b", "c"]
    assert_array_equal(undirected.y[:, 0], labels.y[:, [0, 2]].max(axis=1))
    assert_array_equal(relation_labels(bags, ["c", "a"]).y, undirected.y[:, [2, 0]])
    with pytest.raises(ValueError, match="got twice: "):
        relation_labels(bags, ["a", "a"])
    with pytest.raises(ValueError, match="without their direction"):
        relation_labels(bags, ["<a"])
    with pytest.raises(ValueError, match="with their direction"):
        relation_labels(bags, ["a"], directed=True)


def test_subtasks():
    bags = [bag("<capital", ">has"), bag(">kin"), bag()]
    subtasks = {"capital": "place", "in": "place", "has": "part"}
    labels = subtask_labels(bags, subtasks)
    assert list(labels) == ["part", "place"]
    assert labels["place"].relations == ["capital", "in"]
    assert labels["place"].y.tolist() == [[1, 0], [0, 0], [0, 0]]
    directed = subtask_labels(bags, subtasks, directed=True)["place"]
    assert directed.relations == ["<capital", "<in", ">capital", ">in"]
    with pytest.raises(ValueError, match="map names of relations"):
        subtask_labels(bags, {"place": ["capital"]})


def test_target_follows_the_paper():
    rng = np.random.default_rng(0)
    y = (rng.random((5000, 3)) < [0.02, 0.01, 0.001]).astype(int)
    counts = y.sum(axis=0)
    assert counts[2] < 20 < counts[1]
    rows = sample_target(y, random_state=0)
    assert len(set(rows)) == len(rows) and (np.diff(rows) > 0).all()
    drawn = y[rows]
    n_positive = drawn.any(axis=1).sum()
    assert (drawn.sum(axis=0) >= np.minimum(20, counts)).all()
    assert n_positive <= 40 + counts[2]
    assert len(rows) == 11 * n_positive
    assert_array_equal(rows, sample_target(y, random_state=0))
    assert len(np.setdiff1d(rows, sample_target(y, random_state=1)))
    with pytest.warns(UserWarning, match="only .* negatives in place of"):
        few = sample_target(y[:300], negatives_per_positive=1000, random_state=0)
    assert len(few) <= 300
    none = sample_target(y, negatives_per_positive=0, random_state=0)
    assert y[none].any(axis=1).all()
    for arguments, told in [
        (dict(y=y[:, 0]), "multilabel indicator"),
        (dict(y=y + 1), "multilabel indicator"),
        (dict(y=0 * y), "at least one positive"),
        (dict(y=y, n_positives=0), "n_positives must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=told):
            sample_target(**arguments)


def test_negatives_have_the_kinds_of_the_positives():
    y = np.zeros((4000, 1), dtype=int)
    y[:20] = 1
    kind = np.array(["web", "news"])[np.arange(4000) % 4 // 3]  # 3 of 4 are web
    kind[:20] = np.repeat(["web", "news"], [5, 15])
    rows = sample_target(y, strata=kind, random_state=0)
    negatives = rows[~y[rows].any(axis=1)]
    assert len(negatives) == 200
    assert (kind[negatives] == "news").mean() == pytest.approx(0.75, abs=0.01)
    # where one kind runs out, others take its place
    kind[20:] = "web"
    assert len(sample_target(y, strata=kind, random_state=0)) == 220


def test_groups_never_share_text():
    def url_of(context):
        return context.url.split("/")[0]

    bags = [
        bag(text="Paris lies in France.", url="a/1"),
        bag(text="PARIS  lies in -- france 12", url="b/1"),  # the text of the first
        bag(text="Rome! and the Italy.", url="a/2"),  # the document of the first
        bag(text="Bern! and the Schweiz", url="c/1"),
        Bag(
            "a",
            "b",
            [
                Context("Oslo! and the Norway", (0, 4), (14, 20), "d/1"),
                Context("Bern! and the Schweiz", (0, 4), (14, 20), "e/1"),
            ],
        ),
        bag(text="Lima! and the Peru's", url="d/3"),  # by way of the one before
        bag(text="Riga! and the Latvia", url=""),
        bag(text="Kiev! and the Ukraine", url=""),
    ]
    groups = text_groups(bags, document=url_of)
    assert groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 3]
    assert text_groups(bags).tolist() == [0, 0, 1, 2, 2, 3, 4, 5]
    assert text_groups(iter(bags)).shape == (8,) and text_groups([]).shape == (0,)


def test_split_by_groups_is_disjoint():
    rng = np.random.default_rng(0)
    bags = [
        Bag(
            f"a{i}",
            f"b{i}",
            [
                Context(
                    f"Paris {chr(97 + j % 26) * (1 + j // 26)}", (0, 5), (6, 7), f"{j}"
                )
                for j in rng.integers(1, 900, size=rng.integers(1, 3))
            ],
        )
        for i in range(300)
    ]
    groups = text_groups(bags)
    train, test = next(GroupShuffleSplit(random_state=0).split(bags, groups=groups))
    for part in ("url", "text"):
        sides = [
            {getattr(c, part) for i in side for c in bags[i].contexts}
            for side in (train, test)
        ]
        assert not sides[0] & sides[1] and min(map(len, sides)) > 10


# -- words ------------------------------------------------------------------------


def test_tokens_keep_their_places():
    text = "İstanbul's 2nd — Zürich\u200b, 🏔️!"
    words, spans = tokenize(text)
    assert words[0] == "İ".lower() + "stanbul" and "0nd" in words and "," in words
    assert len(words) == len(spans)
    for word, (start, end) in zip(words, spans):
        original = text[start:end].lower()
        assert len(original) == len(word) and original.strip()
    covered = {i for start, end in spans for i in range(start, end)}
    assert all(i in covered or c.isspace() for i, c in enumerate(text))
    assert tokenize("")[0] == [] and tokenize("")[1].shape == (0, 2)


def test_vocabulary_is_ordered_by_frequency():
    bags = [bag(text="Paris paris loved paris and loved the Zebra, and", url="")]
    bags = [Bag("a", "b", [Context(b.contexts[0].text, (0, 5), (6, 11))]) for b in bags]
    assert build_vocabulary(bags) == ["paris", "and", "loved"]
    assert build_vocabulary(bags, min_count=3) == ["paris"]
    assert build_vocabulary(bags, max_words=2) == ["paris", "and"]
    assert "zebra" in build_vocabulary(bags, min_count=1)


def test_word_vectors(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("3 2\nThe 1 2\n1984 3 4\nthe 5 6\nzoo 7e-1 -8\n")
    words, vectors = read_word_vectors(path)
    assert words == ["the", "0000", "zoo"] and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, 2], [3, 4], [0.7, -8]])
    assert read_word_vectors(path, words={"zoo", "absent"})[0] == ["zoo"]
    assert read_word_vectors(path, max_words=1)[0] == ["the"]
    packed = tmp_path / "glove.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_word_vectors(packed)[0] == words
    path.write_text("the 1 2\nzoo 3\n")
    with pytest.raises(ValueError, match="line 2 of .* expected 2 finite numbers"):
        read_word_vectors(path)
    path.write_text("the 1 x\n")
    with pytest.raises(ValueError, match="line 1 of"):
        read_word_vectors(path)
    path.write_text("the 1 2\n")
    with pytest.raises(ValueError, match="vectors of the words asked for"):
        read_word_vectors(path, words=["zoo"])
