"""Rows of words run as arrays: the verbs are those for one, failures cost only their own row, and typed columns too."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import RunnerFailed
from models.registry import CARDS
from service.scoring.inputs.interfaces import RowError
from service.scoring.inputs.table_rows import TableRows

Run = Callable[..., Any]
WORD_CARDS = [card for card in CARDS if card.word_bulk]
REST = "\t_" * 8
FORMS = ("jsonl", "csv", "arrow", "parquet")


def conllu(sentences: list[list[str]]) -> bytes:
    """Without comments."""
    blocks = (
        "".join(f"{position}\t{word}{REST}\n" for position, word in enumerate(words, 1)) + "\n" for words in sentences
    )
    return "".join(blocks).encode()


def some_sentences(count: int) -> list[list[str]]:
    """Of one to nine words, of a few and of many."""
    rng = np.random.default_rng(0)
    return [[f"w{rng.integers(50)}" for _ in range(rng.integers(1, 10))] for _ in range(count)]


@pytest.mark.parametrize("card", WORD_CARDS, ids=lambda card: card.family)
def test_the_verbs_for_many_are_those_for_one(card: Any, shipped: Any, draw: Any) -> None:
    """Accepted words have no fault, and get the feeds and answers of the verbs for one, bit for bit."""
    predictor, bulk = shipped(card.family), card.word_bulk
    samples = predictor.encode([*draw(card.family, 40), card.instance(**{bulk.field: []})])
    lists = [bulk.words(sample) for sample in samples]
    distinct = sorted({word for words in lists for word in words})
    assert bulk.accept(distinct, predictor.assets).all()
    lengths = np.array([len(words) for words in lists])
    assert bulk.costs(lengths).tolist() == [card.cost(sample) for sample in samples]
    positions = np.array([distinct.index(word) for words in lists for word in words])
    feeds, expected = bulk.feeds(bulk.encode(distinct, predictor.assets)[positions], lengths), card.collate(samples)
    assert [*feeds] == [*expected]
    for name, feed in feeds.items():
        assert (feed.dtype, feed.shape, feed.tobytes()) == (
            expected[name].dtype, expected[name].shape, expected[name].tobytes()
        )  # fmt: skip
    outputs, start = predictor.run(feeds, predictor.wanted(explain=False)), 0
    answers, names = bulk.answers(outputs), bulk.names(predictor.assets)
    for words, prediction in zip(lists, predictor.decode(outputs, samples), strict=True):
        assert [*prediction] == [bulk.field, *answers]
        assert prediction[bulk.field] == words
        for name, values in answers.items():
            found = values[start : start + len(words)].tolist()
            found = [names[name][position] for position in found] if name in names else found
            assert found == [*prediction[name]]
        start += len(words)


@pytest.mark.parametrize("word", ["", " ", "\xa0", "\x07", "a\x85", "a" * 513])
def test_a_flawed_word_is_not_accepted(word: str, shipped: Any) -> None:
    """The words that an instance may not have."""
    card, assets = shipped("tagging").card, shipped("tagging").assets
    assert card.word_bulk.accept(["a", word, "a" * 512], assets).tolist() == [True, False, True]
    assert card.word_bulk.accept(["a", "a" * 512], assets).all()
    assert [*card.validate(card.instance(tokens=[word]), assets)]


@pytest.mark.parametrize("is_exception", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_failing_batch(form: str, is_exception: bool, run: Run, shipped: Any) -> None:
    """A sentence that the model fails on costs only itself, and its company runs as it does row by row."""
    predictor = shipped("tagging")
    widths: list[tuple[int, int]] = []

    def fail(feeds: Any, names: list[str]) -> Any:
        widths.append(feeds["grid"].shape)
        outputs = predictor.run(feeds, names)
        identity = feeds["features"][:, 0]
        is_hit = identity == predictor.card.word_bulk.encode(["the"], predictor.assets)[0, 0]
        if is_exception and is_hit.any():
            raise RunnerFailed("not this one")
        return {name: np.where(is_hit[:, None], np.nan, values) for name, values in outputs.items()}

    sentences = some_sentences(200)
    sentences[7], sentences[199], sentences[0] = ["the"], ["a", "the", "b"], ["the", "the"]
    # With micro-batches as large as those of rows read one by one, the very same are run.
    bulk = replace(predictor.card.word_bulk, batch=predictor.card.budget.batch)
    failing = replace(predictor, run=fail, card=replace(predictor.card, word_bulk=bulk))
    job = run("tagging", "in.conllu", conllu(sentences), to=form, predictor=failing, part_rows=150)
    many, widths[:] = [*widths], []
    slow = run("tagging", "in.conllu", conllu(sentences), to=form, predictor=failing, part_rows=150, one_by_one=True)
    assert (job.parts, job.errors, many) == (slow.parts, 3, widths)
    alone = run("tagging", "in.conllu", conllu([["the"], ["the", "a"]]), to=form, predictor=failing)
    assert alone.errors == 2


@pytest.mark.parametrize("batch", [1, 100, 512, 4096])
def test_answers_do_not_depend_on_the_company(batch: int, run: Run, draw: Any, shipped: Any) -> None:
    """Micro-batches may be of any size, bit for bit; ours are larger than those of rows read one by one."""
    predictor = shipped("tagging")
    assert predictor.card.word_bulk.batch > predictor.card.budget.batch
    content = conllu([one.cut(predictor.assets) for one in draw("tagging", 150)])
    other = replace(predictor, card=replace(predictor.card, word_bulk=replace(predictor.card.word_bulk, batch=batch)))
    found = run("tagging", "in.conllu", content, to="arrow").output
    assert run("tagging", "in.conllu", content, to="arrow", predictor=other).output == found
    assert run("tagging", "in.conllu", content, to="arrow", one_by_one=True).output == found
    assert run("tagging", "in.conllu", content, to="arrow", alone=True).output == found


def test_known_rows_are_not_run(run: Run) -> None:
    """A row that ended a worker is an error, and its company goes on without it."""
    job = run("tagging", "in.conllu", conllu(some_sentences(20)))
    (cut,) = job.scorer.source.cuts()
    known = {3: RowError(code="worker_lost", reason="twice")}
    fast = job.scorer.score(cut, known=known)
    job.scorer.predictor = replace(job.scorer.predictor, card=replace(job.scorer.predictor.card, word_bulk=None))
    slow = job.scorer.score(cut, known=known)
    assert fast.answers.lists is not None
    assert slow.answers.lists is None
    assert fast.table().equals(slow.table())
    assert fast.errors == 1


COLUMNS: dict[str, list[Any]] = {
    "plain": [["I", "saw"], ["a", "b", "c"], ["saw"]] * 9,
    "empty": [["I"], [], ["a", "b"]] * 9,
    "nulls": [["I"], None, ["a", None], [None], ["", "a"], ["b"]] * 5,
    "strange": [["I"], ["a\x07"], ["w"] * 513, ["w"] * 512, ["\xa0"], ["a" * 513], ["é\u0301", "👩‍🚀"]] * 3,
    "none": [None] * 20,
    "no words": [[]] * 20,
}


@pytest.mark.parametrize("to", ["jsonl", "arrow"])
@pytest.mark.parametrize("source", ["in.parquet", "in.arrow"])
@pytest.mark.parametrize("form", COLUMNS)
def test_typed_columns(form: str, source: str, to: str, run: Run, tmp_path: Path) -> None:
    """Lists of text, in pieces and from the middle of others."""
    rows = COLUMNS[form]
    table = pa.table({"id": range(len(rows)), "tokens": pa.array(rows, pa.list_(pa.string()))})
    path = tmp_path / source
    write(table, path)
    fast = run("tagging", path, part_rows=7, to=to)
    slow = run("tagging", path, part_rows=7, to=to, one_by_one=True)
    assert (fast.parts, fast.errors) == (slow.parts, slow.errors)


def write(table: pa.Table, path: Path) -> None:
    """In groups of five rows."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=5)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def test_typed_columns_are_read_at_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one only what is strange; all, if there is more than one column to read, or text of another type."""
    read: list[int] = []
    instance = TableRows.instance
    monkeypatch.setattr(TableRows, "instance", lambda self, row: (read.append(row), instance(self, row))[1])
    rows: list[Any] = [["I", "saw"], ["a"], None, ["b", ""], ["c"]]
    for name, table, expected in (
        ("plain", pa.table({"tokens": rows}), [2, 3]),
        ("renamed", pa.table({"forms": rows}), [2, 3]),
        ("two", pa.table({"tokens": rows, "text": [None, None, "d e", None, None]}), [0, 1, 2, 3, 4]),
        ("large", pa.table({"tokens": pa.array(rows, pa.large_list(pa.large_string()))}), [0, 1, 2, 3, 4]),
    ):
        pq.write_table(table, tmp_path / "in.parquet")
        read.clear()
        columns = {"tokens": "forms"} if name == "renamed" else {}
        fast = run("tagging", tmp_path / "in.parquet", columns=columns)
        assert sorted(read) == expected, name
        assert fast.output == run("tagging", tmp_path / "in.parquet", columns=columns, one_by_one=True).output
