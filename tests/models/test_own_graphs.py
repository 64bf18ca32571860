"""Own graphs in the TU format: names, a given test part, graphs that are too large, folds that are kept."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import DataError
from models.graph.molecule_schema import MAX_ATOMS, example, validate
from models.graph.train import recipe as graph_recipe
from models.graph.train.label_names import read_names
from models.graph.train.molecule_data import MoleculeOptions, load_molecules
from models.graph.train.recipe import MOLECULE, MoleculeLearner
from models.training.ending import TrainingEnd
from models.training.loop import fit, seed_everything

NAMES = """=== Introduction ===
(4) X_node_labels.txt (n lines)
\tclass labels for all graphs in the dataset,

Node labels were converted to integer values using this map:

Component 0:
\t0\tC
\t1\tN

Edge labels:
  0  aromatic
  1  single

Class labels:
  3  harmless
  7: harmful
"""


def write(folder: Path, count: int = 40, *, large: int | None = None, kinds: int = 2) -> Path:
    """Pairs of nodes, class 3 when alike and else 7; graph ``large`` has more nodes than a request may."""
    folder.mkdir(exist_ok=True)
    nodes, graphs, bonds, labels = [], [], [], []
    for graph in range(1, count + 1):
        first = len(nodes) + 1
        pair = [0, graph % kinds] if graph != large else [0] * (MAX_ATOMS + 1)
        nodes += pair
        graphs += [graph] * len(pair)
        bonds += [(first, first + 1), (first + 1, first)]
        labels.append(3 if pair[0] == pair[1] else 7)
    for part, lines in (
        ("A", [f"{u}, {v}" for u, v in bonds]),
        ("graph_indicator", graphs),
        ("graph_labels", labels),
        ("node_labels", nodes),
    ):
        (folder / f"X_{part}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def options(**said: str) -> MoleculeOptions:
    return MoleculeOptions(**said)  # type: ignore[arg-type]


def test_an_oversized_graph_is_skipped_and_counted(tmp_path: Path) -> None:
    """The one graph that no request could hold is passed over and told; the others keep their labels."""
    data = load_molecules(write(tmp_path / "x", large=5))
    (note,) = data.provenance.notes
    assert note.startswith("1 of 40 graphs passed over, the first is graph 5: not 1 to 256 atoms")
    assert len(data.molecules) == len(data.labels) == 39
    alike = [molecule.atoms[0] == molecule.atoms[1] for molecule in data.molecules]
    assert [data.assets.classes[label] == "3" for label in data.labels.tolist()] == alike
    assert sorted(np.concatenate(list(data.splits.values())).tolist()) == list(range(39))


@pytest.mark.parametrize("file", ["X_label_readme.txt", "README.txt"])
def test_names_beside_the_numbers(tmp_path: Path, file: str) -> None:
    """Atoms and classes are called as the data set's own page calls them, in answers, schema and example."""
    folder = write(tmp_path / "x")
    (folder / file).write_text(NAMES)
    data = load_molecules(folder)
    assert (data.assets.atoms, data.assets.classes) == (["C", "N"], ["harmless", "harmful"])
    assert data.provenance.notes == (
        f"atoms are named by {file}: C, N",
        f"classes are named by {file}: harmless, harmful",
    )
    assert list(validate(example(data.assets), data.assets)) == []


def test_given_names(tmp_path: Path) -> None:
    """A file of names may be given; names that do not cover the data are refused there, and passed over elsewhere."""
    folder = write(tmp_path / "x")
    (tmp_path / "names.txt").write_text(NAMES)
    said = options(names="../names.txt")
    assert load_molecules(folder, options=said).assets.atoms == ["C", "N"]
    (tmp_path / "names.txt").write_text("Node labels:\n0 C\n")
    with pytest.raises(DataError, match=r"names.txt: found no name for each atom or each class, expected below"):
        load_molecules(folder, options=said)
    (folder / "README.txt").write_text("Node labels:\n0 C\n")
    assert load_molecules(folder).assets.atoms == ["0", "1"]
    with pytest.raises(DataError, match=r"gone.txt: found a file that cannot be read \(No such file or directory\)"):
        load_molecules(folder, options=options(names="../gone.txt"))


def test_names_by_heart() -> None:
    """Prose and labels of edges are no names; a number with two names has none."""
    names = read_names(NAMES.encode(), "x")
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be"):
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        assert read_names(f"{mark}{NAMES}".encode(encoding), "x") == names
    assert (names.atoms, names.classes) == ({0: "C", 1: "N"}, {3: "harmless", 7: "harmful"})
    twice = read_names(b"Node labels:\nComponent 0:\n0 C\nComponent 1:\n0 N\n", "x")
    assert twice.of("atoms", [0]) is None


def test_a_given_test_folder(tmp_path: Path) -> None:
    """All graphs of the given folder test, and those of --data only learn and validate."""
    folder, apart = write(tmp_path / "x"), write(tmp_path / "y", 7)
    data = load_molecules(folder, options=options(test="../y"))
    assert data.splits["test"].tolist() == list(range(40, 47))
    assert sorted([*data.splits["train"], *data.splits["validation"]]) == list(range(40))
    assert len(data.provenance.sha256) == 8
    assert "test: X_A.txt" in data.provenance.sha256
    again = load_molecules(apart / ".." / "x", options=options(test="../y"))
    assert again.assets == data.assets
    write(tmp_path / "y", 7, kinds=3)
    with pytest.raises(DataError, match=r"X_node_labels.txt, row 4: found 2, expected labels that --data has, too"):
        load_molecules(folder, options=options(test="../y"))


def test_a_given_list_of_graphs(tmp_path: Path) -> None:
    """The graphs in a list of numbers test; numbers from 0 on are refused, as are repeats and none."""
    folder = write(tmp_path / "x", large=2)
    listed = tmp_path / "test.txt"
    listed.write_text("1\n4\n40\n")
    data = load_molecules(folder, options=options(test="../test.txt"))
    assert data.splits["test"].tolist() == [0, 2, 38]  # the second graph is too large
    for text, message in (
        ("0\n4\n", "test.txt, row 1: found 0, expected graph numbers from 1 to 40, each once"),
        ("41\n", "test.txt, row 1: found 41, expected graph numbers from 1 to 40, each once"),
        ("4\n4\n", "test.txt: found a number twice, expected graph numbers from 1 to 40, each once"),
        ("", "test.txt: found no number, expected graph numbers from 1 to 40, each once"),
    ):
        listed.write_text(text)
        with pytest.raises(DataError, match=re.escape(message)):
            load_molecules(folder, options=options(test="../test.txt"))
    listed.write_text("0\n39\n")
    data = load_molecules(folder, options=options(test="../test.txt", test_from="0"))
    assert data.splits["test"].tolist() == [0, 38]
    listed.write_text("40\n")
    with pytest.raises(DataError, match="found 40, expected graph numbers from 0 to 39, each once; --test-from 1"):
        load_molecules(folder, options=options(test="../test.txt", test_from="0"))


def learner(folder: Path, **reading: str) -> MoleculeLearner:
    recipe = replace(MOLECULE, plan=replace(MOLECULE.plan, epochs=1), reading=reading)
    seed_everything(0)
    return MoleculeLearner(recipe, folder, 0)


def test_folds_of_many_graphs_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few graphs are cross-validated by ten folds, many by none, unless it is said how many."""
    folder = write(tmp_path / "x")
    (tmp_path / "test.txt").write_text("1\n")
    assert learner(folder).fold_count() == 10
    assert learner(folder, folds="3").fold_count() == 3
    assert learner(folder, test="../test.txt").fold_count() == 0
    monkeypatch.setattr(graph_recipe, "MOST_UNASKED", 39)
    assert learner(folder).fold_count() == 0
    assert learner(folder, folds="10").fold_count() == 10
    with pytest.raises(DataError, match="--folds: found 3 beside --test, expected one of the two"):
        learner(folder, test="../test.txt", folds="3")


def test_finished_folds_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Folds are announced with the time they take; stopped and begun again, no finished fold is trained again."""
    folder, run = write(tmp_path / "x"), tmp_path / "run"
    began = learner(folder, folds="3")
    trained: list[Path] = []
    real = graph_recipe.fit

    def stopping(*args: Any, directory: Path, **named: Any) -> Any:
        trained.append(directory)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(*args, directory=directory, **named)

    monkeypatch.setattr(graph_recipe, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(began, began.recipe, seed=0, directory=run, quiet=True)
    kept = [(run / "folds" / fold / "final.pt").read_bytes() for fold in "01"]
    stamps = [(run / "folds" / fold / "checkpoint.pt").stat().st_mtime_ns for fold in "01"]
    monkeypatch.setattr(graph_recipe, "fit", real)
    again = learner(folder, folds="3")
    report = fit(again, again.recipe, seed=0, directory=run, quiet=True)
    assert len(report["cross_validation"]["folds"]) == 3
    assert [(run / "folds" / fold / "checkpoint.pt").stat().st_mtime_ns for fold in "01"] == stamps
    assert [(run / "folds" / fold / "final.pt").read_bytes() for fold in "01"] == kept
    told = capsys.readouterr().out
    assert "cross-validation: 3 folds, each about as long as the whole training" in told
    assert re.search(r"fold 3/3  test accuracy [\d.]+ %  about 0 s left", told)


def test_folds_that_are_not_trained(tmp_path: Path) -> None:
    """Ended before all folds are trained, a run is done at once, without a cross-validation, and says so."""
    folder, run = write(tmp_path / "x"), tmp_path / "run"
    began = learner(folder, folds="2")
    fit(began, began.recipe, seed=0, directory=run, quiet=True)
    whole = (run / "result.json").read_bytes()
    (run / "folds" / "1" / "final.pt").unlink()
    again = learner(folder, folds="2")
    report = fit(again, again.recipe, seed=0, directory=run, quiet=True, ending=TrainingEnd(is_finish=True))
    assert report["not_done"] == "cross-validation, of which 1 of 2 folds are trained"
    assert "cross_validation" not in report
    assert not (run / "folds" / "1" / "final.pt").exists()
    assert not again.answers
    further = learner(folder, folds="2")
    report = fit(further, further.recipe, seed=0, directory=run, quiet=True)
    assert report["cross_validation"] == json.loads(whole)["cross_validation"]
    last = learner(folder, folds="2")
    report = fit(last, last.recipe, seed=0, directory=run, quiet=True, ending=TrainingEnd(is_finish=True))
    assert "not_done" not in report
