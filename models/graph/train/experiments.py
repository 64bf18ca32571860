"""The ladder of the graph family: what edges, attention, its heads and a second hop are each worth."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from models.graph.train import baselines, plots
from models.graph.train.citation_data import CITESEER, CORA
from models.graph.train.recipe import CITATION, MOLECULE, CitationMethod, MoleculeMethod
from models.training.datasets import ACCURACY
from models.training.experiment import Experiment, ExperimentPlan, Plot, Reference
from models.training.loop import Recipe

# What differs from the shipped nets. One head is as wide as their eight, or four, together.
_ALONE: dict[str, Any] = {"hearing": "itself", "heads": (1, 1), "units": (64,)}
_MEAN: dict[str, Any] = {**_ALONE, "hearing": "mean"}
_ONE_HEAD: dict[str, Any] = {"heads": (1, 1), "units": (64,)}
_FAR: dict[str, Any] = {"hops": 2}
_ONE_HEAD_DEEP: dict[str, Any] = {"heads": (1, 1, 1), "units": (64, 64, 64)}


def _vary(recipe: Recipe, name: str, summary: str, **network: Any) -> Recipe:
    """Return the same training of another configuration of the same network."""
    return replace(recipe, name=name, summary=summary, network=replace(recipe.network, **network))


def _citation_rungs(section: str, first: Recipe) -> tuple[Experiment, ...]:
    """From words alone to attention by distance, on one graph; ``first`` is eight heads of attention."""
    name = first.name
    vary = partial(_vary, first)
    rung = partial(Experiment, section=section)
    return (
        rung(
            label="features only",
            recipe=vary(f"{name}-features", "two layers over the words of each paper; no citations", **_ALONE),
            seeds=5,
        ),
        rung(
            label="mean over neighbours",
            recipe=vary(f"{name}-mean", "two layers of means over neighbours", **_MEAN),
            seeds=5,
        ),
        rung(
            label="attention, 1 head",
            recipe=vary(f"{name}-gat-1", "graph attention, one head of 64 units and one of the classes", **_ONE_HEAD),
            seeds=5,
        ),
        rung(label="attention, 8 heads", recipe=first, seeds=10),
        rung(
            label="attention by distance, 2 hops",
            recipe=vary(f"{name}-hops", "as with eight heads, and an attention matrix for each of two hops", **_FAR),
            seeds=3,
        ),
    )


CITESEER_RECIPE = replace(
    CITATION,
    name="citeseer",
    # Decay of 5e-4, 1e-3 and 2e-3: 73.75, 74.60 and 74.30 % on validation, mean of four seeds; smoothed labels
    # (a tenth) gave 74.65. The best epoch was the 175th.
    plan=replace(CITATION.plan, epochs=250, weight_decay=1e-3),
    method=CitationMethod(dataset="citeseer"),
)
_molecule = partial(_vary, MOLECULE)
_molecule_rung = partial(Experiment, section="MUTAG", seeds=2)  # of ten folds, each time drawn anew
MOLECULE_RUNGS = (
    _molecule_rung(
        label="atoms only",
        recipe=replace(
            _molecule(
                "molecule-atoms",
                "three layers over the symbol of each atom; no bonds",
                **_ONE_HEAD_DEEP,
                hearing="itself",
            ),
            method=MoleculeMethod(is_degree_known=False),
        ),
    ),
    _molecule_rung(
        label="atoms and their numbers of bonds",
        recipe=_molecule(
            "molecule-degrees",
            "three layers over the symbol and the number of bonds of each atom",
            **_ONE_HEAD_DEEP,
            hearing="itself",
        ),
    ),
    _molecule_rung(
        label="mean over neighbours",
        recipe=_molecule("molecule-mean", "three layers of means over neighbours", **_ONE_HEAD_DEEP, hearing="mean"),
    ),
    _molecule_rung(
        label="attention, 1 head",
        recipe=_molecule("molecule-gat-1", "graph attention, three layers of one head of 64 units", **_ONE_HEAD_DEEP),
    ),
    _molecule_rung(label="attention, 4 heads", recipe=MOLECULE, seeds=3),
    _molecule_rung(
        label="attention by distance, 2 hops",
        recipe=_molecule("molecule-hops", "as with four heads, and an attention matrix for each of two hops", **_FAR),
    ),
)


def _references() -> tuple[Reference, ...]:
    measures: list[tuple[str, str, str, Callable[[], dict[str, float]]]] = []
    for section, name, dataset in (("Cora", "citation", CORA), ("Citeseer", "citeseer", CITESEER)):
        measures += [
            (section, f"{name}-majority", "most frequent class", partial(baselines.majority_of_nodes, dataset)),
            (section, f"{name}-ridge", "ridge on words", partial(baselines.ridge, dataset, 0)),
            (section, f"{name}-sgc", "ridge on words averaged over 3 hops", partial(baselines.ridge, dataset, 3)),
        ]
    measures.append(("MUTAG", "molecule-majority", "most frequent class", baselines.majority_of_molecules))
    return tuple(
        Reference(section=section, name=name, label=label, measure=measure)
        for section, name, label, measure in measures
    )


LADDER = ExperimentPlan(
    family="graph",
    metric=ACCURACY,
    rungs=(*_citation_rungs("Cora", CITATION), *_citation_rungs("Citeseer", CITESEER_RECIPE), *MOLECULE_RUNGS),
    references=_references(),
    pictures=(
        Plot(
            file="ladder-graph-citations.png",
            caption="Test accuracy on Cora and Citeseer: citations are worth far more than how they are weighed",
            draw=plots.citations,
        ),
        Plot(
            file="ladder-graph-folds.png",
            caption="MUTAG: each dot a fold of ten, tested by a net that has not seen it; its height jittered",
            draw=plots.folds,
        ),
    ),
)
