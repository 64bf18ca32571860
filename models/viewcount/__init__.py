"""The card of the view-count family: the next days' views from the last 56. Torch-free."""

from models.budget import Budget
from models.card import Card, ColumnarOps, Family, TensorSpec, Tolerance
from models.payload.npy import MEDIA_TYPE
from models.viewcount import codec, schema
from models.viewcount.profile import TRAITS
from models.viewcount.table import READER
from models.viewcount.tensors import TENSORS

FORECAST = Card(
    family="viewcount",
    task="forecast",
    assets=schema.Assets,
    instance=schema.Instance,
    prediction=schema.Prediction,
    example=schema.example,
    random_request=schema.random_request,
    validate=schema.validate,
    encode=codec.encode,
    collate=codec.collate,
    decode=codec.decode,
    inputs=(TensorSpec(name="views", dtype="float32", axes=("batch", "days")),),
    outputs=tuple(
        TensorSpec(name=name, dtype="float32", axes=("batch", "horizon")) for name in ("forecast", "lower", "upper")
    ),
    tolerance=Tolerance(
        atol=1e-3,
        rtol=1e-5,
        reason="views per day in float32: a thousandth of a view, or the fifth digit of a large channel",
    ),
    cost=codec.cost,
    budget=Budget(unit="rows", batch=64, explained=0),
    from_media={MEDIA_TYPE: schema.from_array},
    # 64 rows take 1.44 us each, 256 and more 1.05 us; bit for bit the same answers.
    bulk=ColumnarOps(field="views", accept=schema.accept, feeds=codec.feeds, answers=codec.answers, batch=256),
    traits=TRAITS,
    tensors=TENSORS,
    series=READER,
)

FAMILY = Family(name="viewcount", title="ViewCount", cards=(FORECAST,))
