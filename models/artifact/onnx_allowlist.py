"""Check an ONNX file's operators byte by byte: serving has no ``onnx`` to do it. Standard library only.

Export checks the same and more. This is for a file that did not come from export: the engine would run whatever is in
it, follow its subgraphs for ever, and read files that its tensors name: even opened from bytes, those in the working
directory.
Source of the field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress

from models.errors import ArtifactMismatch

ALLOWED = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "AveragePool",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "CumSum",
        "Div",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "LSTM",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pad",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
# Fields, by message.
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25  # ModelProto
_NODE, _INITIALIZER, _SPARSE_INITIALIZER = 1, 5, 15  # GraphProto
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7  # NodeProto
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS, _SPARSE, _SPARSES = 5, 6, 10, 11, 22, 23  # AttributeProto
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # TensorProto
_OWN_DOMAINS = (b"", b"ai.onnx")


def find_operators(model: bytes) -> list[str]:
    """Return the sorted operator types of a model that may be opened.

    Raises:
        ArtifactMismatch: If it is no ONNX file, or holds an operator that is not on the list, a subgraph, a function,
            a sparse tensor, or a tensor whose numbers are elsewhere.
    """
    found: set[str] = set()
    try:
        for number, content in _fields(memoryview(model)):
            if number in (_TRAINING, _FUNCTIONS):
                raise ArtifactMismatch("functions and training graphs are not allowed")
            if number == _GRAPH:
                found |= _operators_of(_message(content))
    except (ValueError, IndexError) as error:
        raise ArtifactMismatch("it is no ONNX file") from error
    return sorted(found)


def _operators_of(graph: memoryview) -> set[str]:
    found = set()
    for number, content in _fields(graph):
        if number == _NODE:
            found.add(_operator_of(_message(content)))
        elif number == _INITIALIZER:
            _check_tensor(_message(content))
        elif number == _SPARSE_INITIALIZER:
            raise ArtifactMismatch("sparse tensors are not allowed")
    return found


def _operator_of(node: memoryview) -> str:
    name = ""
    for number, content in _fields(node):
        if number == _OPERATOR:
            name = bytes(_message(content)).decode()
            if name not in ALLOWED:
                raise ArtifactMismatch(f"operator {name!r} is not on the allow-list")
        elif number == _DOMAIN and bytes(_message(content)) not in _OWN_DOMAINS:
            raise ArtifactMismatch(f"operator domain {bytes(_message(content))!r} is not allowed")
        elif number == _ATTRIBUTE:
            _check_attribute(_message(content))
    return name


def find_size_nodes(model: bytes) -> frozenset[str]:
    """Names of the nodes that depend on the sizes of a request alone, not on its numbers.

    ONNX Runtime computes such things on the CPU beside a GPU by choice: there they are needed to lay out tensors.

    Raises:
        ArtifactMismatch: If it is no ONNX file.
    """
    try:
        graphs = [_message(content) for number, content in _fields(memoryview(model)) if number == _GRAPH]
        return frozenset(name for graph in graphs for name in _size_nodes(graph))
    except (ValueError, IndexError) as error:
        raise ArtifactMismatch("it is no ONNX file") from error


def _size_nodes(graph: memoryview) -> Iterator[str]:
    nodes, known = [], set[str]()  # values that no request can change but by its sizes
    for number, content in _fields(graph):
        if number == _NODE:
            nodes.append(_texts(_message(content)))
        elif number == _INITIALIZER:
            known |= _texts(_message(content))[_TENSOR_NAME]
    for node in nodes:  # in topological order, as the format demands
        if node[_OPERATOR] == {"Shape"} or node[_INPUT] <= known:
            known |= node[_OUTPUT]
            yield from node[_NAME]


def _texts(message: memoryview) -> defaultdict[int, set[str]]:
    """Return the texts in some fields of a node or a tensor; an input that is left out is none."""
    found = defaultdict[int, set[str]](set)
    for number, content in _fields(message):
        if number in (_INPUT, _OUTPUT, _NAME, _OPERATOR, _TENSOR_NAME) and isinstance(content, memoryview) and content:
            with suppress(UnicodeDecodeError):  # a tensor's numbers
                found[number].add(bytes(content).decode())
    return found


def _check_attribute(attribute: memoryview) -> None:
    for number, content in _fields(attribute):
        if number in (_SUBGRAPH, _SUBGRAPHS):
            raise ArtifactMismatch("subgraphs are not allowed")
        if number in (_SPARSE, _SPARSES):
            raise ArtifactMismatch("sparse tensors are not allowed")
        if number in (_TENSOR, _TENSORS):
            _check_tensor(_message(content))


def _check_tensor(tensor: memoryview) -> None:
    for number, content in _fields(tensor):
        if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and content != 0):
            raise ArtifactMismatch("a tensor's numbers lie outside the file")


def _message(content: "memoryview | int") -> memoryview:
    if isinstance(content, int):
        raise ValueError("a number where a message belongs")
    return content


def _fields(message: memoryview) -> Iterator[tuple[int, "memoryview | int"]]:
    """Number and content of each field of a protobuf message.

    Raises:
        ValueError: If it is none; an ``IndexError`` where it ends in a number.
    """
    offset = 0
    while offset < len(message):
        key, offset = _varint(message, offset)
        kind, length = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
        if kind == 0:
            number, offset = _varint(message, offset)
            yield key >> 3, number
            continue
        if kind == 2:
            length, offset = _varint(message, offset)
        elif not length:
            raise ValueError("an unknown kind of field")
        if length > len(message) - offset:
            raise ValueError("a field is cut off")
        yield key >> 3, message[offset : offset + length]
        offset += length


def _varint(message: memoryview, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("a number is too long")
