"""The cards of the graph family: labels of single nodes, and of whole molecules. Torch-free."""

from models.budget import Budget
from models.card import Card, Family, TensorSpec, Tolerance
from models.graph import (
    citation_codec,
    citation_profile,
    citation_schema,
    molecule_codec,
    molecule_profile,
    molecule_schema,
    tensors,
)
from models.graph.edges import repair_padding

# Sessions run with one thread: with two, ONNX Runtime's ScatterND lost updates in 23 of 100 runs over Cora.
_GRAPH = (
    TensorSpec(name="features", dtype="int64", axes=("features",), below=("rows",)),
    TensorSpec(name="node_of_feature", dtype="int64", axes=("features",), below=("nodes",)),
    TensorSpec(name="features_of_node", dtype="int64", axes=("nodes",)),
    TensorSpec(name="edges", dtype="int64", axes=("ends", "edges"), below=("nodes",), indices=2),
)
_ATTENTION = TensorSpec(name="attention", dtype="float32", axes=("edges", "heads"), is_attention=True)
_TOLERANCE = Tolerance(
    atol=1e-5,
    rtol=1e-4,
    reason="probabilities and attention weights after two or three float32 layers; measured 2e-7 and 1e-6",
)
# Above 1,024 throughput is level; 64 molecules (4,926) together take a third of the time of one by one.
_BUDGET = Budget(unit="nodes + edges", batch=4096, explained=4096)

LABEL_NODES = Card(
    family="graph",
    task="label_nodes",
    assets=citation_schema.Assets,
    instance=citation_schema.Instance,
    prediction=citation_schema.Prediction,
    example=citation_schema.example,
    random_request=citation_schema.random_request,
    validate=citation_schema.validate,
    encode=citation_codec.encode,
    collate=citation_codec.collate,
    decode=citation_codec.decode,
    inputs=_GRAPH,
    outputs=(TensorSpec(name="scores", dtype="float32", axes=("nodes", "classes")), _ATTENTION),
    tolerance=_TOLERANCE,
    cost=citation_codec.cost,
    budget=_BUDGET,
    from_media={},
    traits=citation_profile.TRAITS,
    spare_axes=frozenset(("nodes",)),
    connect=repair_padding,
    tensors=tensors.OF_PAPERS,
    narrow=citation_schema.narrow,
)

LABEL_GRAPH = Card(
    family="graph",
    task="label_graph",
    assets=molecule_schema.Assets,
    instance=molecule_schema.Instance,
    prediction=molecule_schema.Prediction,
    example=molecule_schema.example,
    random_request=molecule_schema.random_request,
    validate=molecule_schema.validate,
    encode=molecule_codec.encode,
    collate=molecule_codec.collate,
    decode=molecule_codec.decode,
    inputs=(
        *_GRAPH,
        TensorSpec(name="graph_of_node", dtype="int64", axes=("nodes",), below=("graphs",)),
        TensorSpec(name="nodes_of_graph", dtype="int64", axes=("graphs",)),
    ),
    outputs=(TensorSpec(name="scores", dtype="float32", axes=("graphs", "classes")), _ATTENTION),
    tolerance=_TOLERANCE,
    cost=molecule_codec.cost,
    budget=_BUDGET,
    from_media={},
    traits=molecule_profile.TRAITS,
    spare_axes=frozenset(("nodes", "graphs")),
    connect=repair_padding,
    tensors=tensors.OF_MOLECULES,
    narrow=molecule_schema.narrow,
)

FAMILY = Family(name="graph", title="Graph", cards=(LABEL_NODES, LABEL_GRAPH))
