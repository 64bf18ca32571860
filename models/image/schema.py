"""Define image requests and answers."""

from collections.abc import Iterator
from io import BytesIO
from typing import Annotated, Any, NotRequired, TypedDict, cast

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray
from PIL import Image

from models.card import Array
from models.errors import Fault, InvalidRequest
from models.image.container import UnreadablePicture, find_format
from models.image.picture import open_picture, to_pixels
from models.narrowing import Narrowing
from models.payload.npy import read_array

_GREY = {"minimum": 0, "maximum": 255}
Pixels = Annotated[
    list[list[Annotated[int, Meta(ge=0, le=255)]]],
    Meta(max_length=4096, description="Rows of grey values, 0 black to 255 white, in the model's own size."),
]


class Instance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """One picture: either a whole image file or the grey values themselves."""

    image: Annotated[bytes, Meta(description="A PNG, JPEG or WebP file in base64.")] | UnsetType = UNSET
    pixels: Pixels | UnsetType = UNSET

    def fit(self, assets: "Assets") -> NDArray[np.uint8]:
        """The decoded ``image`` as the model reads it, ``(channels, height, width)``; decoded once, in ``validate``.

        Only this is kept: 130 files of 90 kB in one request would take 12 GB as they are decoded.

        Raises:
            UnreadablePicture: If the bytes are not one still PNG, JPEG or WebP picture of bearable size.
        """
        memory = vars(self)
        if "fitted" not in memory:
            try:
                picture = open_picture(self.image if isinstance(self.image, bytes) else b"")
            except UnreadablePicture as error:
                memory["decoded_pixels"] = error.pixels
                raise
            memory["decoded_pixels"] = picture.width * picture.height
            memory["fitted"] = to_pixels(picture, channels=assets.channels, height=assets.height, width=assets.width)
        fitted: NDArray[np.uint8] = memory["fitted"]
        return fitted


class Prediction(TypedDict):
    """The likeliest class and the probability of each, in the model's class order.

    ``attention`` (models that attend) has one row per head: the weights of the patches, row by row of the picture,
    by which the answer was averaged. Each row sums to 1.
    """

    label: str
    class_id: int
    score: float
    scores: Array
    attention: NotRequired[Array]


class Assets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of an image model.

    Attributes:
        classes: Class names in the order of the scores.
        channels: 1 for grey, 3 for RGB.
        height: Rows of the model's input.
        width: Columns of the model's input.
        patch: Side of a patch in pixels, for models that attend over patches.
        heads: Attention heads, likewise.
    """

    classes: list[str]
    channels: int = 1
    height: int = 28
    width: int = 28
    patch: int | None = None
    heads: int | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Static axes."""
        sizes = {
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "classes": len(self.classes),
        }
        if self.patch is not None and self.heads is not None:
            sizes |= {"heads": self.heads, "patches": self.height // self.patch * (self.width // self.patch)}
        return sizes


def validate(instance: Instance, assets: Assets) -> Iterator[Fault]:
    """Yield faults: not exactly one of ``image`` and ``pixels``, an unreadable file, the wrong number of pixels."""
    if isinstance(instance.image, UnsetType) == isinstance(instance.pixels, UnsetType):
        yield Fault((), "expected exactly one of 'image' and 'pixels'")
    elif isinstance(instance.pixels, UnsetType):
        try:
            instance.fit(assets)
        except UnreadablePicture as error:
            yield Fault(("image",), str(error))
    elif isinstance(instance.pixels, np.ndarray):
        yield from _validate_array(instance.pixels, assets)
    elif assets.channels != 1:
        yield Fault(("pixels",), "this model reads colour pictures; send 'image'")
    else:
        yield from _validate_pixels(instance.pixels, assets)


def _validate_pixels(pixels: list[list[int]], assets: Assets) -> Iterator[Fault]:
    if len(pixels) != assets.height:
        yield Fault(("pixels",), f"expected {assets.height} rows, found {len(pixels)}")
        return
    for number, row in enumerate(pixels):
        if len(row) != assets.width:
            yield Fault(("pixels", number), f"expected {assets.width} values, found {len(row)}")
            return


def _validate_array(pixels: NDArray[np.uint8], assets: Assets) -> Iterator[Fault]:
    expected = (assets.height, assets.width, *((assets.channels,) if assets.channels > 1 else ()))
    if pixels.shape != expected:
        yield Fault(("pixels",), f"expected an array of shape {expected}, found {pixels.shape}")


def _file_bytes(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def narrow(assets: Assets) -> Narrowing:
    """Return its classes and its size; a model of colour pictures takes no ``pixels`` in JSON."""
    height, width = assets.height, assets.width
    row = {"type": "array", "minItems": width, "maxItems": width, "items": {"type": "integer"} | _GREY}
    size = f"{height} rows of {width} grey values each, 0 black to 255 white."
    pixels = {"description": size, "minItems": height, "maxItems": height, "items": row}
    ids = {"minimum": 0, "maximum": len(assets.classes) - 1}
    answer: dict[str, dict[str, Any]] = {"label": {"enum": assets.classes}, "class_id": ids}
    return Narrowing({"pixels": pixels if assets.channels == 1 else None}, answer)


def example(assets: Assets) -> Instance:
    """Return a grey T-shirt, drawn by hand, as a PNG file; of a model that knows none, a ramp of its own size."""
    if "T-shirt/top" not in assets.classes:
        ramp = np.linspace(0, 255, assets.height * assets.width).reshape(assets.height, assets.width)
        return Instance(image=_file_bytes(ramp.astype(np.uint8)))
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 9:19] = 180
    pixels[5:12, 4:24] = 180
    pixels[3:6, 12:16] = 0
    return Instance(image=_file_bytes(pixels))


def random_request(rng: np.random.Generator, assets: Assets) -> Instance:
    """Smooth noise: as ``pixels`` when the model is grey and the coin says so, else as a PNG of any size."""
    if assets.channels == 1 and rng.random() < 0.5:
        pixels = rng.integers(0, 256, (assets.height, assets.width))
        return Instance(pixels=pixels.tolist())
    shape: Any = (*rng.integers(8, 64, 2), *((3,) if rng.random() < 0.5 else ()))
    return Instance(image=_file_bytes(rng.integers(0, 256, shape).astype(np.uint8)))


def from_file(body: bytes, expected: str) -> list[Instance]:
    """Return the one instance a raw image body stands for.

    Args:
        body: The file.
        expected: The format its content type says, e.g. ``"PNG"``.

    Raises:
        InvalidRequest: If it is a picture of another format.
    """
    found = find_format(body)
    if found is not None and found != expected:
        reason = f"expected a {expected} file, as the content type says, found {found}"
        raise InvalidRequest(faults=[Fault(("instances", 0, "image"), reason)])
    return [Instance(image=body)]


def from_array(body: bytes) -> list[Instance]:
    """One instance per picture of a uint8 array ``(pictures, height, width)``, with a last axis of 3 for colours.

    An array ``(height, width)`` is one picture. The sizes are checked by ``validate``, which knows the model's.

    Raises:
        MalformedRequest: If the body is no array.
        InvalidRequest: If its type or its number of axes is another.
    """
    pixels = read_array(body)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3, 4):
        reason = f"expected uint8 (pictures, height, width), found {pixels.dtype} with {pixels.ndim} axes"
        raise InvalidRequest(faults=[Fault(("instances",), reason)])
    return [Instance(pixels=cast("Any", picture)) for picture in (pixels[None] if pixels.ndim == 2 else pixels)]


def decoded_pixels(instance: Instance) -> int:
    """Return how many pixels were decoded to validate it."""
    pixels: int = vars(instance).get("decoded_pixels", 0)
    return pixels


def holds_file(instance: Instance) -> bool:
    """Return whether there is a file to decode."""
    return not isinstance(instance.image, UnsetType)
