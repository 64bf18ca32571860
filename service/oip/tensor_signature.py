"""List the tensors a model takes and gives, as the protocol names them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from models.card import TensorSpec
from models.runtime.predictor import Predictor
from service.oip.datatypes import BYTES, DATATYPES, Datatype

# What every model takes and gives beside its tensors: an instance and a prediction, as `/v1` has them.
INSTANCE, PREDICTION = "instance", "prediction"
ANY = -1


class Port(NamedTuple):
    """One tensor that a model takes or gives.

    Attributes:
        name: Its name.
        datatype: The protocol's type.
        shape: Its axes, -1 for any length.
        axes: Their names, where tensors of one request must agree.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    axes: tuple[str, ...]

    @property
    def metadata(self) -> dict[str, Any]:
        """As a model's metadata has it."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": list(self.shape)}

    def config(self, *, is_batched: bool) -> dict[str, Any]:
        """As a model's configuration has it: without the axis of the batch."""
        dims = list(self.shape[1:] if is_batched else self.shape)
        return {"name": self.name, "data_type": self.datatype.config, "dims": dims}


class Signature:
    """The tensors of one model.

    Attributes:
        is_batched: Whether the first axis of all of them counts instances.
        tensors: What the session takes; all of them together.
        payloads: What a user has instead; one of them alone.
        inputs: Those that are listed.
        outputs: What the model gives when nothing is said.
        attention: What it gives only when it is named.
        classes: Names of the places on the last axis of ``scores``.
    """

    def __init__(self, predictor: Predictor) -> None:
        card, tensors = predictor.card, predictor.card.tensors
        sizes = predictor.assets.sizes
        specs = [spec for spec in card.outputs if spec.name in predictor.outputs] if tensors is not None else []
        self.tensors = tuple(_port(spec, sizes) for spec in card.inputs) if tensors is not None else ()
        self.is_batched = all(spec.axes[0] == "batch" for spec in (*card.inputs, *specs))
        absent = {name for name, told in card.narrow(predictor.assets).instance.items() if told is None}
        names = [*({*tensors.payloads} - absent if tensors is not None else ()), INSTANCE]
        self.payloads = {name: self._string(name) for name in names}
        listed = tensors.listed if tensors is not None else INSTANCE
        if listed in absent:
            listed = INSTANCE
        self.inputs = self.tensors if listed is None else (self.payloads[listed],)
        self.attention = tuple(_port(spec, sizes) for spec in specs if spec.is_attention)
        plain = [_port(spec, sizes) for spec in specs if not spec.is_attention]
        self.outputs = (*plain, self._string(PREDICTION))
        self.by_name = {port.name: port for port in (*self.outputs, *self.attention)}
        self.classes = [*tensors.classes(predictor.assets)] if tensors is not None and tensors.classes else []

    @property
    def alternatives(self) -> list[tuple[Port, ...]]:
        """Return the sets of inputs that are taken as well, though not listed."""
        sets = [self.tensors, *((port,) for port in self.payloads.values())]
        return [ports for ports in sets if ports and ports != self.inputs]

    def _string(self, name: str) -> Port:
        shape, axes = ((ANY, 1), ("batch", "")) if self.is_batched else ((ANY,), ("",))
        return Port(name, DATATYPES["object"], shape, axes)


def _port(spec: TensorSpec, sizes: Mapping[str, int]) -> Port:
    shape = tuple(sizes.get(axis, ANY) for axis in spec.axes)
    return Port(spec.name, DATATYPES[spec.dtype], shape, spec.axes)


def is_strings(port: Port) -> bool:
    """Return whether its elements are byte strings."""
    return port.datatype.name == BYTES
