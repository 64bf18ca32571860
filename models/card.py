"""The card: everything a family promises, as data. Torch-free.

A request's life is five verbs: ``validate``, ``encode``, ``collate``, infer, ``decode``. Four of them are on the
card; ``infer`` is the session's. Everything generic (endpoint, runner, export, parity, load, tests) is written once
over the card, so a fifth family is one new folder and one line in ``registry.py``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.budget import Budget
from models.errors import Fault
from models.files import FileBudget
from models.narrowing import Narrowing, narrow_nothing
from models.tensors import Tensors

Array: TypeAlias = NDArray[Any]
Feeds: TypeAlias = dict[str, Array]
Outputs: TypeAlias = Mapping[str, Array]
Prediction: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of the session.

    Attributes:
        name: Name in the ONNX graph.
        dtype: numpy name, e.g. ``"float32"``.
        axes: Axis names in order. An axis named in the assets' ``sizes`` is static with that size, any other is
            dynamic and carries its name into the ONNX file.
        is_attention: Present only in models that attend; read only when a request asks for an explanation.
        below: Of indices: each is at least 0 and less than the product of the sizes of these.
        indices: How many of its first rows are such indices; ``None``: all.
    """

    name: str
    dtype: str
    axes: tuple[str, ...]
    is_attention: bool = False
    below: tuple[str, ...] = ()
    indices: int | None = None

    def shape(self, sizes: Mapping[str, int]) -> list[str | int]:
        """Return the axes with the static ones replaced by their sizes."""
        return [sizes.get(axis, axis) for axis in self.axes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Describe how far ONNX Runtime may be from torch, ``|a - b| <= atol + rtol * |b|``, and why so far."""

    atol: float
    rtol: float
    reason: str


class Assets(Protocol):
    """Describe what the codec needs beside the weights: vocabulary, class names, window, resident graph."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Static axis sizes by axis name, and those of tables that indices look into."""
        ...


def holds_no_file(_: Any) -> bool:
    """For cards whose instances hold no files."""
    return False


AssetsT = TypeVar("AssetsT", bound=Assets)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnarOps(Generic[AssetsT]):
    """The verbs for a million instances at once, each of them one field with equally many numbers. numpy only.

    They say what ``validate``, ``encode``, ``collate`` and ``decode`` say of each instance, without an object per row.

    Attributes:
        field: The instance's field with the numbers; all others have their defaults.
        accept: Of ``(rows, values)`` float64, which rows surely have no fault, ``(rows,)`` bool. The others are left to
            the verbs for one.
        feeds: Rows that were accepted to the session's feeds.
        answers: Outputs to the prediction's fields, each with the rows as its first axis.
        batch: Rows in one micro-batch: nobody waits for the others in it, so it is what the engine likes best.
    """

    field: str
    accept: Callable[[Array, AssetsT], Array]
    feeds: Callable[[Array, AssetsT], Feeds]
    answers: Callable[[Outputs, AssetsT], dict[str, Array]]
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WordColumnarOps(Generic[AssetsT]):
    """The verbs for thousands of instances at once, each of them one field with a list of words. numpy only.

    A text has 200,000 words and 20,000 different ones: what a word is by itself is worked out once for all its places,
    and all else is said in places, without an object per word. The answers are those of the verbs for one.

    Attributes:
        field: The instance's field with the words, and the prediction's first, which repeats them.
        most: Most words of an instance that surely has no fault; longer ones are left to the verbs for one.
        words: The words of a sample.
        accept: Of words, which surely are no fault, ``(words,)`` bool; instances with others are left to the verbs for
            one.
        encode: Of words that were accepted, what the session is fed of each wherever it stands, ``(words, features)``.
        costs: Of the numbers of words of instances, the units of the budget each takes.
        feeds: The encoded words of a micro-batch end to end, ``(sum T_i, features)``, which may be written to, and
            ``(S,)`` how many each instance has, to the session's feeds.
        answers: Outputs to the prediction's further fields in order, one value per word, ``(sum T_i,)``.
        names: Of a field whose values are places in a list of names, the list.
        batch: Units of the budget in one micro-batch: nobody waits for the others in it, so it is what the engine likes
            best.
    """

    field: str
    most: int
    words: Callable[[Any], Sequence[str]]
    accept: Callable[[Sequence[str], AssetsT], Array]
    encode: Callable[[Sequence[str], AssetsT], Array]
    costs: Callable[[Array], Array]
    feeds: Callable[[Array, Array], Feeds]
    answers: Callable[[Outputs], dict[str, Array]]
    names: Callable[[AssetsT], Mapping[str, Sequence[str]]]
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReader:
    """Describe how a file that is one series becomes instances, each a window of it.

    Attributes:
        field: The instance's field with a window's values.
        window: How many values a window has.
        label: Name of what each value is of, e.g. ``"day"``.
        options: What may be said of a file that it does not say itself (a msgspec struct).
        asked: The options that are fields of each instance instead.
        recognise: Whether a file's beginning, with the file's name and the options, is that of a series.
        read: A whole file likewise to its values ``(N,)`` float64, what each is of, ``N`` texts, and what was passed
            over, put in order or filled in, a line each.
        most_bytes: A larger file is refused.
    """

    field: str
    window: int
    label: str
    options: type[msgspec.Struct]
    asked: tuple[str, ...]
    recognise: Callable[[bytes, str, Any], bool]
    read: Callable[[bytes, str, Any], tuple[Array, list[str], tuple[str, ...]]]
    most_bytes: int


InstanceT = TypeVar("InstanceT")
SampleT = TypeVar("SampleT")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFeature:
    """Something about an instance or its answer whose distribution is watched.

    Attributes:
        name: E.g. ``"brightness"``; unique on the card.
        unit: E.g. ``"grey value"``.
        is_learned: Whether training makes it look better on the training data than on any other: whatever the model
            says, and which words it knows. What is usual is then learned from the validation data.
        kinds: Names of the classes it is one of, by the model's assets; ``None`` for a number.
    """

    name: str
    unit: str
    is_learned: bool = False
    kinds: Callable[[Any], Sequence[str]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFeatures(Generic[AssetsT, SampleT]):
    """Describe what is watched of a task's requests and answers. numpy only.

    Attributes:
        features: All of them.
        of_samples: Those of ``B`` samples, by name: numbers ``(B,)``, NaN where there is none, or shares of the kinds
            ``(B, kinds)``, each row's sum 1 (or 0 where there is none).
        of_answers: Those of the samples' predictions, likewise.
    """

    features: tuple[DriftFeature, ...]
    of_samples: Callable[[Sequence[SampleT], AssetsT], dict[str, Array]]
    of_answers: Callable[[Sequence[SampleT], Sequence[Prediction], AssetsT], dict[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card(Generic[AssetsT, InstanceT, SampleT]):
    """Everything that models of one task promise.

    Attributes:
        family: The family's name.
        task: What is predicted, e.g. ``"label_nodes"``; unique in the family.
        assets: Type of the per-model constants (a msgspec struct).
        instance: Type of one thing to predict on (a msgspec struct); bounds on single fields live in its types.
        prediction: A ``TypedDict`` that documents one prediction.
        example: A valid instance for documentation.
        random_request: A valid instance drawn from a generator: load payload, export example, parity input, warm-up
            and property test at once.
        validate: Yields the faults no field type can express. ``encode`` is total on an instance without faults.
        encode: Instance to sample, numpy only.
        collate: Samples to the session's feeds.
        decode: Outputs and their samples to predictions, in order.
        inputs: Tensors the session takes.
        outputs: Tensors the session gives.
        tolerance: Parity bound of the certificate.
        cost: Units of the budget one sample takes.
        budget: Size of a micro-batch.
        from_media: Reader of a raw body per content type, e.g. ``{"image/png": ...}``, to its instances.
        holds_file: Whether validating an instance means decoding a file, which may take long whatever its size.
        file_budget: What decoding the files of one request may cost, for cards whose instances hold some.
        bulk: The verbs for many instances of numbers at once, where that is worth it.
        traits: What is watched, where anything is.
        word_bulk: The verbs for many lists of words at once, where that is worth it.
        spare_axes: Axes of which something must be filled in whenever anything is, for the rest to belong to.
        connect: Of feeds that were filled up with zeros, the sizes before and after: makes what was filled in hang
            together, in place, where zeros would not do.
        tensors: Its samples as tensors, for who sends those.
        series: Its instances as windows of a file that is one series, where people have such files.
        narrow: What a model's assets say of its own requests and answers: classes, sizes, fields it does not take.
    """

    family: str
    task: str
    assets: type[AssetsT]
    instance: type[InstanceT]
    prediction: type
    example: Callable[[AssetsT], InstanceT]
    random_request: Callable[[np.random.Generator, AssetsT], InstanceT]
    validate: Callable[[InstanceT, AssetsT], Iterator[Fault]]
    encode: Callable[[InstanceT, AssetsT], SampleT]
    collate: Callable[[Sequence[SampleT]], Feeds]
    decode: Callable[[Outputs, Sequence[SampleT], AssetsT], list[Prediction]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tolerance: Tolerance
    cost: Callable[[SampleT], int]
    budget: Budget
    from_media: Mapping[str, Callable[[bytes], list[InstanceT]]]
    holds_file: Callable[[InstanceT], bool] = holds_no_file
    file_budget: FileBudget[InstanceT] | None = None
    bulk: ColumnarOps[AssetsT] | None = None
    traits: DriftFeatures[AssetsT, SampleT] | None = None
    word_bulk: WordColumnarOps[AssetsT] | None = None
    spare_axes: frozenset[str] = frozenset()
    connect: Callable[[Feeds, Mapping[str, int], Mapping[str, int]], None] | None = None
    tensors: Tensors[AssetsT, SampleT] | None = None
    series: SeriesReader | None = None
    narrow: Callable[[AssetsT], Narrowing] = narrow_nothing


AnyCard: TypeAlias = Card[Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A folder of networks, data, codec and schema: one card per task.

    Attributes:
        name: The folder's name.
        title: For people and class names, e.g. ``"ViewCount"``.
        cards: What its models promise, one per task.
    """

    name: str
    title: str
    cards: tuple[AnyCard, ...]
