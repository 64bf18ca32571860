"""The card of the tagging family: one part of speech per word. Torch-free."""

from models.budget import Budget
from models.card import Card, Family, TensorSpec, Tolerance, WordColumnarOps
from models.tagging import codec, schema
from models.tagging.profile import TRAITS
from models.tagging.tensors import TENSORS

TAG = Card(
    family="tagging",
    task="tag",
    assets=schema.Assets,
    instance=schema.Instance,
    prediction=schema.Prediction,
    example=schema.example,
    random_request=schema.random_request,
    validate=schema.validate,
    encode=codec.encode,
    collate=codec.collate,
    decode=codec.decode,
    inputs=(
        TensorSpec(name="features", dtype="int64", axes=("tokens", "features"), below=("rows",)),
        TensorSpec(name="grid", dtype="int64", axes=("sentences", "width"), below=("tokens",)),
        TensorSpec(name="keep", dtype="bool", axes=("sentences", "width")),
        TensorSpec(name="back", dtype="int64", axes=("tokens",), below=("sentences", "width")),
    ),
    outputs=(
        TensorSpec(name="scores", dtype="float32", axes=("tokens", "tags")),
        TensorSpec(
            name="attention",
            dtype="float32",
            axes=("sentences", "layers", "heads", "width", "width"),
            is_attention=True,
        ),
    ),
    tolerance=Tolerance(
        atol=1e-5,
        rtol=1e-4,
        reason="probabilities after two float32 attention layers; measured 1e-6",
    ),
    cost=codec.cost,
    budget=Budget(unit="tokens", batch=512, explained=128, is_padded=True),
    from_media={},
    traits=TRAITS,
    tensors=TENSORS,
    word_bulk=WordColumnarOps(
        field="tokens",
        most=schema.MAX_TOKENS,
        words=codec.words,
        accept=codec.accept,
        encode=codec.encode_words,
        costs=codec.costs,
        feeds=codec.feeds,
        answers=codec.answers,
        names=codec.names,
        # A sentence takes 125 us among 512 words, 114 us among 1,024; bit for bit the same answers.
        batch=1024,
    ),
    connect=codec.connect,
    narrow=schema.narrow,
)

FAMILY = Family(name="tagging", title="Tagging", cards=(TAG,))
