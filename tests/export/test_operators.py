"""Planted defects in graphs: each is refused with its reason, and the same graph without it is accepted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.operators import ALLOWED, RANDOM, check_operators, training_nodes, walk
from models.artifact.manifest import read_artifact
from models.errors import CertificateError
from models.paths import REPOSITORY

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
OPSETS = [helper.make_opsetid("", 20)]


def constant(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[TensorProto] = (),
    *,
    functions: Sequence[onnx.FunctionProto] = (),
    opsets: Sequence[Any] = OPSETS,
) -> onnx.ModelProto:
    """Return a graph from ``x`` ``(batch, 2)`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", FLOAT, ["rows", "columns"])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def run(proto: onnx.ModelProto, x: Any) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    engine = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = engine.run(["y"], {"x": np.asarray(x, np.float32)})[0]
    return found


def refusal(proto: onnx.ModelProto, threads: int = 1) -> str:
    with pytest.raises(CertificateError) as caught:
        check_operators(proto, threads)
    return str(caught.value)


NORM = [
    constant(name, np.asarray(v, np.float32))
    for name, v in (("s", [1, 1]), ("b", [0, 0]), ("m", [0, 0]), ("v", [1, 1]))
]
TRAINED = helper.make_node(
    "BatchNormalization", [*"xsbmv"], ["y", "m2", "v2"], name="norm", training_mode=1, epsilon=0.0
)
FROZEN = helper.make_node("BatchNormalization", [*"xsbmv"], ["y"], name="norm", epsilon=0.0)
FOLDED = [helper.make_node("Mul", ["x", "s"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]


def test_unfrozen_batch_norm() -> None:
    """A batch norm in training mode is refused by name; folded into multiply and add, as export does it, accepted."""
    assert refusal(model([TRAINED], NORM)) == (
        "batch statistics are not frozen: BatchNormalization 'norm' in training mode"
    )
    assert check_operators(model(FOLDED, NORM), 1) == ["Add", "Mul"]


def test_unfrozen_batch_norm_is_a_defect() -> None:
    """Control: the refused node does answer by its batch-mates, the accepted ones do not."""
    company, stranger = [[1.0, 1.0], [3.0, 5.0]], [[1.0, 1.0], [-3.0, -5.0]]
    planted, sound = model([TRAINED], NORM), model(FOLDED, NORM)
    assert run(planted, company)[0].max() < 0 < run(planted, stranger)[0].min()
    assert run(sound, company)[0].tolist() == run(sound, stranger)[0].tolist() == [1.0, 1.0]


def test_frozen_batch_norm_is_no_training_node() -> None:
    """A batch norm with running statistics is not called unfrozen."""
    assert training_nodes(model([FROZEN], NORM)) == []
    assert "training" not in refusal(model([FROZEN], NORM))


DROPOUT_SWITCH = [constant("ratio", np.float32(0.5)), constant("on", True)]


@pytest.mark.parametrize(
    ("nodes", "initializers", "reason"),
    [
        (
            [helper.make_node("Dropout", ["x", "ratio", "on"], ["y"], name="drop")],
            DROPOUT_SWITCH,
            "batch statistics are not frozen: Dropout 'drop' with a training switch",
        ),
        (
            [helper.make_node("RandomNormalLike", ["x"], ["y"], name="noise")],
            [],
            "batch statistics are not frozen: RandomNormalLike 'noise'",
        ),
        (
            [
                helper.make_node("RandomNormal", [], ["r"], name="noise", shape=[2]),
                helper.make_node("Add", ["x", "r"], ["y"]),
            ],
            [],
            "batch statistics are not frozen: RandomNormal 'noise'",
        ),
        ([helper.make_node("Bernoulli", ["x"], ["y"])], [], "batch statistics are not frozen: Bernoulli ''"),
    ],
)
def test_chance(nodes: list[onnx.NodeProto], initializers: list[TensorProto], reason: str) -> None:
    """Whatever draws by chance is refused as training behaviour."""
    assert refusal(model(nodes, initializers)) == reason
    assert check_operators(model([helper.make_node("Identity", ["x"], ["y"])]), 1) == ["Identity"]


def test_dynamic_quantisation() -> None:
    """Dynamic quantisation, whose scale is the whole batch's, is refused; the float product is accepted."""
    weights = constant("w", np.eye(2, dtype=np.float32))
    whole = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    quantised = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    assert refusal(model(quantised)) == "operator ai.onnx.DynamicQuantizeLinear is not on the allow-list"
    assert check_operators(model(whole, [weights]), 1) == ["MatMul"]
    # Control: the same row answers otherwise beside a large one.
    alone, together = run(model(quantised), [[0.3, 0.1]]), run(model(quantised), [[0.3, 0.1], [100, 0]])
    assert not np.array_equal(alone[0], together[0])
    whole_alone = run(model(whole, [weights]), [[0.3, 0.1]])
    assert np.array_equal(whole_alone[0], run(model(whole, [weights]), [[0.3, 0.1], [100, 0]])[0])


@pytest.mark.parametrize("name", ["MatMulInteger", "ConvInteger", "QuantizeLinear", "GRU", "Loop", "Scan", "If"])
def test_not_on_the_list(name: str) -> None:
    """What nobody has looked at is refused."""
    assert name not in ALLOWED
    node = helper.make_node(name, ["x"], ["y"])
    assert refusal(model([node])) == f"operator ai.onnx.{name} is not on the allow-list"


def scatter(**attributes: Any) -> onnx.ModelProto:
    return model(
        [helper.make_node("ScatterND", ["zero", "places", "x"], ["y"], name="sum", **attributes)],
        [constant("zero", np.zeros((1, 2), np.float32)), constant("places", np.zeros((3, 1), np.int64))],
    )


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
def test_racing_scatter(reduction: str) -> None:
    """A scatter that sums is refused on two threads, accepted on one; without a reduction it is always accepted."""
    planted = scatter(reduction=reduction)
    for threads in (0, 2, 8):
        message = f"ScatterND 'sum' sums on {threads} threads and would lose updates"
        assert refusal(planted, threads) == message
    assert check_operators(planted, 1) == ["ScatterND"]
    for harmless in (scatter(), scatter(reduction="none")):
        assert check_operators(harmless, 2) == ["ScatterND"]


def test_scatter_sums() -> None:
    """Control: the accepted scatter adds up all rows that go to one place."""
    assert run(scatter(reduction="add"), [[1, 2], [10, 20], [100, 200]]).tolist() == [[111, 222]]


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "org.example"])
def test_custom_domain(domain: str) -> None:
    """An operator of a foreign domain is refused with it, whatever its name."""
    opsets = [*OPSETS, helper.make_opsetid(domain, 1)]
    proto = model([helper.make_node("Gelu", ["x"], ["y"], domain=domain)], opsets=opsets)
    assert refusal(proto) == f"operator {domain}.Gelu is not on the allow-list"
    for own in ("", "ai.onnx"):
        assert check_operators(model([helper.make_node("Gelu", ["x"], ["y"], domain=own)]), 1) == ["Gelu"]


def branch(node: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(
        [node], "branch", [], [helper.make_tensor_value_info(node.output[0], FLOAT, ["rows", "columns"])]
    )


def test_hidden_in_a_branch() -> None:
    """What an If hides in a branch, and that branch's own If, is looked at."""
    inner = helper.make_node(
        "If", ["on"], ["y1"],
        then_branch=branch(helper.make_node("RandomNormalLike", ["x"], ["r"], name="deep")),
        else_branch=branch(helper.make_node("Relu", ["x"], ["s"])),
    )  # fmt: skip
    outer = helper.make_node(
        "If", ["on"], ["y"], then_branch=branch(helper.make_node("Abs", ["x"], ["t"])), else_branch=branch(inner)
    )
    proto = model([outer], [constant("on", True)])
    onnx.checker.check_model(proto)
    assert sorted(node.op_type for node in walk(proto)) == ["Abs", "If", "If", "RandomNormalLike", "Relu"]
    assert refusal(proto) == "batch statistics are not frozen: RandomNormalLike 'deep'"


def local(node: onnx.NodeProto, domain: str = "local") -> onnx.ModelProto:
    """Return a graph that calls a function of the file's own, of which the node is the body."""
    function = helper.make_function(domain, "Own", ["x"], ["y"], [node], OPSETS)
    call = helper.make_node("Own", ["x"], ["y"], domain=domain)
    return model([call], functions=[function], opsets=[*OPSETS, helper.make_opsetid(domain, 1)])


def test_hidden_in_a_function() -> None:
    """What a function of the file's own hides is looked at, and the call itself is foreign."""
    planted = local(helper.make_node("RandomUniformLike", ["x"], ["y"], name="deep"))
    onnx.checker.check_model(planted)
    assert [node.op_type for node in walk(planted)] == ["Own", "RandomUniformLike"]
    assert refusal(planted) == "batch statistics are not frozen: RandomUniformLike 'deep'"
    assert refusal(local(helper.make_node("Relu", ["x"], ["y"]))) == "operator local.Own is not on the allow-list"


def external(name: str) -> TensorProto:
    tensor = constant(name, np.zeros(2, np.float32))
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return tensor


def test_external_weights() -> None:
    """Weights in another file, which no digest guards, are refused."""
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    assert refusal(model(nodes, [external("w")])) == "weights lie outside the file"
    assert check_operators(model(nodes, [constant("w", np.zeros(2, np.float32))]), 1) == ["Add"]


def test_external_constants() -> None:
    """A Constant node's tensor in another file is no better than a weight's."""
    nodes = [helper.make_node("Constant", [], ["w"], value=external("w")), helper.make_node("Add", ["x", "w"], ["y"])]
    assert refusal(model(nodes)) == "weights lie outside the file"
    nodes[0] = helper.make_node("Constant", [], ["w"], value=constant("w", np.zeros(2, np.float32)))
    assert check_operators(model(nodes), 1) == ["Add", "Constant"]


def test_list_is_clean() -> None:
    """Nothing that learns, draws or branches is on the allow-list."""
    assert not ALLOWED & (RANDOM | {"BatchNormalization", "Dropout", "DynamicQuantizeLinear", "If", "Loop", "Scan"})


@pytest.mark.parametrize("name", ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"])
def test_shipped_graphs(name: str) -> None:
    """Every shipped graph passes, with the operators its certificate lists."""
    manifest, content = read_artifact(next((REPOSITORY / "models").glob(f"*/trained/{name}")))
    found = check_operators(onnx.load_model_from_string(content), manifest.intra_op_num_threads)
    assert found == manifest.certificate.operators
