"""The card of the image family: one class per picture. Torch-free."""

from functools import partial

from models.budget import Budget
from models.card import Card, Family, TensorSpec, Tolerance
from models.files import FileBudget
from models.image import codec, schema
from models.image.profile import TRAITS
from models.image.tensors import TENSORS
from models.payload.npy import MEDIA_TYPE

CLASSIFY = Card(
    family="image",
    task="classify",
    assets=schema.Assets,
    instance=schema.Instance,
    prediction=schema.Prediction,
    example=schema.example,
    random_request=schema.random_request,
    validate=schema.validate,
    encode=codec.encode,
    collate=codec.collate,
    decode=codec.decode,
    inputs=(TensorSpec(name="pixels", dtype="uint8", axes=("batch", "channels", "height", "width")),),
    outputs=(
        TensorSpec(name="scores", dtype="float32", axes=("batch", "classes")),
        TensorSpec(name="attention", dtype="float32", axes=("batch", "heads", "patches"), is_attention=True),
    ),
    tolerance=Tolerance(
        atol=1e-5,
        rtol=1e-4,
        reason="probabilities after a few dozen float32 layers; measured 3e-8 (CNN) to 1e-6 (attention)",
    ),
    cost=codec.cost,
    # On a CPU a picture takes as long alone as among 64: larger batches would only make the others wait.
    budget=Budget(unit="rows", batch=16, explained=1),
    from_media={f"image/{kind.lower()}": partial(schema.from_file, expected=kind) for kind in ("PNG", "JPEG", "WEBP")}
    | {MEDIA_TYPE: schema.from_array},
    holds_file=schema.holds_file,
    # Four of the largest, or 1,024 of 312 x 312; a second of a core. As JPEGs of ordinary quality 16 MB hold fewer.
    file_budget=FileBudget(unit="pixels", request=104_000_000, field="image", cost=schema.decoded_pixels),
    traits=TRAITS,
    tensors=TENSORS,
    narrow=schema.narrow,
)

FAMILY = Family(name="image", title="Image", cards=(CLASSIFY,))
