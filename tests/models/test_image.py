"""The image family: pictures of every kind to pixels, what is refused, the networks."""

import io
import struct
import time
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import Fault, InvalidRequest
from models.image import CLASSIFY
from models.image.codec import collate, cost, decode, encode
from models.image.container import UnreadablePicture, find_format
from models.image.picture import open_picture, to_pixels
from models.image.schema import Assets, Instance, example, from_file, validate
from models.image.train.net import ConvolutionConfig, ConvolutionNet
from models.image.train.recipe import move
from models.runtime.predictor import Predictor

ASSETS = Assets(classes=["cat", "dog"])
BLANK = [[0] * 28 for _ in range(28)]


def to_file(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(picture: Image.Image, kind: str = "PNG", **options: Any) -> np.ndarray:
    """Return what a grey 28 x 28 model reads of a picture that went through a file."""
    return to_pixels(open_picture(to_file(picture, kind, **options)), channels=1, height=28, width=28)[0]


def plain(mode: str, colour: Any, size: tuple[int, int] = (28, 28)) -> Image.Image:
    return Image.new(mode, size, colour)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def declared_png(width: int, height: int) -> bytes:
    """Return a one-bit PNG of a few dozen bytes that says it is this large."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# Colours and sizes


@pytest.mark.parametrize(
    ("picture", "kind", "value"),
    [
        (plain("1", 1), "PNG", 255),
        (plain("1", 0), "PNG", 0),
        (plain("L", 77), "PNG", 77),
        (plain("RGB", (255, 255, 255)), "PNG", 255),
        # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
        (plain("RGB", (255, 0, 0)), "PNG", 76),
        (plain("RGB", (0, 255, 0)), "PNG", 150),
        (plain("RGB", (0, 0, 255)), "PNG", 29),
        (plain("LA", (200, 255)), "PNG", 200),
        (plain("LA", (200, 0)), "PNG", 0),
        (plain("LA", (200, 51)), "PNG", 40),
        (plain("RGBA", (255, 255, 255, 255)), "PNG", 255),
        (plain("RGBA", (255, 255, 255, 0)), "PNG", 0),
        (plain("RGBA", (255, 255, 255, 51)), "PNG", 51),
        (plain("RGBA", (255, 0, 0, 0)), "WEBP", 0),
        (plain("RGB", (255, 255, 255)), "WEBP", 255),
        (plain("L", 128), "JPEG", 128),
        (plain("CMYK", (0, 0, 0, 0)), "JPEG", 255),
        (plain("CMYK", (0, 0, 0, 255)), "JPEG", 0),
    ],
)
def test_colours(picture: Image.Image, kind: str, value: int) -> None:
    """A plain picture of any mode and file becomes one plain grey; transparency lies on black."""
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.unique(grey(picture, kind, **options)).tolist() == [value]


def test_hidden_colour() -> None:
    """Control: under full transparency the file does hold white, which Pillow's own conversion would show."""
    hidden = open_picture(to_file(plain("RGBA", (255, 255, 255, 0))))
    assert hidden.getpixel((0, 0)) == (255, 255, 255, 0)
    assert hidden.convert("L").getpixel((0, 0)) == 255


@pytest.mark.parametrize("transparency", [0, b"\0\xff"], ids=["one index", "a table"])
def test_palette_with_transparency(transparency: Any) -> None:
    """A palette's transparent entry becomes black, its other entries their grey."""
    picture = Image.new("P", (28, 28), 0)
    picture.putpalette([255, 255, 255, 255, 0, 0])
    picture.paste(1, (0, 0, 14, 28))
    pixels = grey(picture, transparency=transparency)
    assert np.unique(pixels[:, :14]).tolist() == [76]
    assert np.unique(pixels[:, 14:]).tolist() == [0]
    assert np.unique(grey(picture)[:, 14:]).tolist() == [255]


@pytest.mark.parametrize(("deep", "value"), [(0, 0), (257, 1), (32768, 128), (65278, 254), (65535, 255)])
def test_sixteen_bits(deep: int, value: int) -> None:
    """Sixteen bits are scaled to eight, not cut off at 255 as Pillow does."""
    picture = Image.fromarray(np.full((28, 28), deep, np.uint16))
    assert np.unique(grey(picture)).tolist() == [value]


def test_sixteen_bits_control() -> None:
    """Control: Pillow's own conversion makes half-bright sixteen bits white."""
    picture = open_picture(to_file(Image.fromarray(np.full((28, 28), 32768, np.uint16))))
    assert picture.convert("L").getpixel((0, 0)) == 255


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (0, 27)), (3, (27, 27)), (4, (27, 0)), (5, (0, 0)), (6, (0, 27)), (7, (27, 27)), (8, (27, 0))],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_orientation(orientation: int, corner: tuple[int, int], kind: str) -> None:
    """A picture is turned upright as its EXIF says: where the stored top-left corner goes (row, column)."""
    picture, exif = plain("L", 0), Image.Exif()
    picture.paste(255, (0, 0, 8, 8))
    exif[0x0112] = orientation
    pixels = grey(picture, kind, exif=exif)
    assert pixels[corner] > 250
    assert sorted(pixels[::27, ::27].ravel().tolist())[2] < 5


def test_proportions() -> None:
    """A tall picture stands in the middle between black sides, a wide one between black bars."""
    tall, wide = grey(plain("L", 255, (10, 20))), grey(plain("L", 255, (56, 28)))
    assert np.array_equal(tall, wide.T)
    assert (tall[:, 7:21] == 255).all()
    assert (tall[:, :7] == 0).all()
    assert (tall[:, 21:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1000, 1000)])
def test_sizes(size: tuple[int, int]) -> None:
    """A white square of any size is white all over, one pixel included."""
    assert np.unique(grey(plain("L", 255, size))).tolist() == [255]


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_slivers(size: tuple[int, int]) -> None:
    """A line a pixel wide keeps at least its middle."""
    assert grey(plain("L", 255, size)).shape == (28, 28)


def test_own_size_passes_unchanged() -> None:
    """A picture in the model's mode and size is read to the bit, as file and as ``pixels``."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (28, 28)).astype(np.uint8)
    by_file = encode(Instance(image=to_file(Image.fromarray(values))), ASSETS)
    by_pixels = encode(Instance(pixels=values.tolist()), ASSETS)
    assert np.array_equal(by_file[0], values)
    assert np.array_equal(by_pixels, by_file)
    assert by_file.shape == (1, 28, 28)
    assert by_file.dtype == by_pixels.dtype == np.uint8


def test_colour_models() -> None:
    """A colour model reads three channels, red first, and no bare pixels."""
    colour = Assets(classes=["a", "b"], channels=3, height=2, width=4)
    sample = encode(Instance(image=to_file(plain("RGB", (255, 128, 0), (4, 2)))), colour)
    assert sample.shape == (3, 2, 4)
    assert sample[:, 0, 0].tolist() == [255, 128, 0]
    assert list(validate(Instance(pixels=BLANK), colour)) == [
        Fault(("pixels",), "this model reads colour pictures; send 'image'")
    ]


# What is refused

PICTURE = plain("L", 9, (64, 64))
ANIMATION = {"save_all": True, "append_images": [plain("L", 200, (64, 64))], "duration": 100}
UNKNOWN = "expected a PNG, JPEG or WebP file"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"><rect width="28" height="28"/></svg>'
XML_DOCTYPE = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + SVG


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", UNKNOWN),
        (b"\x89PNG\r\n\x1a\n", "the PNG file is damaged or truncated"),
        (b"\xff\xd8\xff", "the JPEG file is damaged or truncated"),
        (b"hello", UNKNOWN),
        (to_file(PICTURE, "GIF"), UNKNOWN),
        (to_file(PICTURE, "TIFF"), UNKNOWN),
        (to_file(PICTURE, "BMP"), UNKNOWN),
        (to_file(PICTURE, "PDF"), UNKNOWN),
        (to_file(PICTURE, "EPS"), UNKNOWN),
        (SVG, UNKNOWN),
        (XML_DOCTYPE, UNKNOWN),
        (to_file(PICTURE)[:-30], "the PNG file is damaged or truncated"),
        (to_file(Image.effect_noise((64, 64), 50), "JPEG")[:-900], "the JPEG file is damaged or truncated"),
        (to_file(PICTURE, **ANIMATION), "expected one still picture, found an animation"),
        (to_file(PICTURE, "WEBP", **ANIMATION), "expected one still picture, found an animation"),
        (declared_png(5100, 5100), "expected at most 26,000,000 pixels, found 5100 x 5100"),
        (declared_png(10_000, 10_000), "expected at most 26,000,000 pixels, found 10000 x 10000"),
        (declared_png(20_000, 20_000), "expected at most 26,000,000 pixels, found 20000 x 20000"),
    ],
    ids=[
        "empty", "PNG magic", "JPEG magic", "text", "GIF", "TIFF", "BMP", "PDF", "EPS", "SVG", "SVG with entity",
        "cut PNG", "cut JPEG", "APNG", "animated WebP", "26 million", "100 million", "400 million",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unreadable(content: bytes, reason: str) -> None:
    """What is no still picture of bearable size is refused with its reason, as JSON and as a body alike."""
    for instance in (Instance(image=content), *from_file(content, find_format(content) or "PNG")):
        assert list(validate(instance, ASSETS)) == [Fault(("image",), reason)]
    with pytest.raises(UnreadablePicture):
        open_picture(content)


def test_bombs_are_refused_unread() -> None:
    """A PNG of 50 kB that would unpack to 20,000 x 20,000 pixels is refused at once, in little memory."""
    rows = zlib.compressobj(1)
    packed = b"".join(rows.compress(bytes(2501 * 1000)) for _ in range(20)) + rows.flush()
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert len(bomb) < 300_000
    tracemalloc.start()
    started = time.perf_counter()
    assert len(list(validate(Instance(image=bomb), ASSETS))) == 1
    assert time.perf_counter() - started < 0.5
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(6000, 4000), (5712, 4284), (6016, 4016), (6240, 4160)])
def test_largest_picture(size: tuple[int, int]) -> None:
    """What today's phones and cameras take by default is read."""
    assert open_picture(declared_like(*size)).size == size


def test_pixels_of_a_request_are_bounded() -> None:
    """A request of few bytes cannot have pictures decoded for minutes: behind the fifth large one none is looked at."""
    predictor = Predictor(card=CLASSIFY, assets=ASSETS, outputs=frozenset(), run=lambda feeds, names: {})
    large = declared_like(5000, 5000)
    assert len(predictor.encode([Instance(image=large) for _ in range(4)])) == 4
    reason = "expected at most 104,000,000 pixels in one request, found 125,000,000 up to here"
    untouched = Instance(image=large)
    with pytest.raises(InvalidRequest) as caught:
        predictor.encode([*(Instance(image=large) for _ in range(5)), untouched])
    assert list(caught.value.faults) == [Fault(("instances", 4, "image"), reason)]
    assert vars(untouched) == {}
    with pytest.raises(InvalidRequest) as stepwise:
        [*predictor.encode_stepwise([*(Instance(image=large) for _ in range(5)), untouched], [])]
    assert stepwise.value.faults == caught.value.faults
    assert vars(untouched) == {}


def test_damaged_pictures_count() -> None:
    """What was decoded in vain counts as well."""
    budget = replace(CLASSIFY.file_budget, request=2000)
    predictor = Predictor(
        card=replace(CLASSIFY, file_budget=budget), assets=ASSETS, outputs=frozenset(), run=lambda feeds, names: {}
    )
    torn = to_file(Image.effect_noise((32, 32), 50), "JPEG")[:-300]
    with pytest.raises(InvalidRequest) as caught:
        predictor.encode([Instance(image=torn) for _ in range(9)])
    assert [fault.loc[1] for fault in caught.value.faults] == [0, 1, 1]
    assert caught.value.faults[-1].reason.endswith("pixels in one request, found 2,048 up to here")


def declared_like(width: int, height: int) -> bytes:
    return to_file(Image.new("1", (width, height)))


def test_fuzzed_files() -> None:
    """Whatever is damaged in a file, the answer is a picture or a located fault, never another error."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    readable = 0
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = to_file(picture, kind)
        for _ in range(150):
            damaged = bytearray(whole)
            for position in rng.integers(0, len(whole), rng.integers(1, 6)):
                damaged[position] = rng.integers(256)
            instance = Instance(image=bytes(damaged))
            faults = list(validate(instance, ASSETS))
            assert len(faults) <= 1
            if not faults:
                readable += 1
                assert encode(instance, ASSETS).shape == (1, 28, 28)
    assert 0 < readable < 450


def test_exactly_one_of_image_and_pixels() -> None:
    """None and both are refused, each alone is fine."""
    expected = [Fault((), "expected exactly one of 'image' and 'pixels'")]
    image = to_file(PICTURE)
    assert list(validate(Instance(), ASSETS)) == expected
    assert list(validate(Instance(image=image, pixels=BLANK), ASSETS)) == expected
    assert list(validate(Instance(image=image), ASSETS)) == []
    assert list(validate(Instance(pixels=BLANK), ASSETS)) == []


@pytest.mark.parametrize(
    ("pixels", "fault"),
    [
        ([], Fault(("pixels",), "expected 28 rows, found 0")),
        (BLANK[:27], Fault(("pixels",), "expected 28 rows, found 27")),
        ([*BLANK, BLANK[0]], Fault(("pixels",), "expected 28 rows, found 29")),
        ([*BLANK[:27], [0] * 29], Fault(("pixels", 27), "expected 28 values, found 29")),
        ([BLANK[0], [], *BLANK[2:]], Fault(("pixels", 1), "expected 28 values, found 0")),
    ],
)
def test_wrong_number_of_pixels(pixels: list[list[int]], fault: Fault) -> None:
    """Rows and values that are missing or too many are told with their place."""
    assert list(validate(Instance(pixels=pixels), ASSETS)) == [fault]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"pixels": [[256]]}', "Expected `int` <= 255 - at `$.pixels[...][...]`"),
        ('{"pixels": [[-1]]}', "Expected `int` >= 0 - at `$.pixels[...][...]`"),
        ('{"pixels": [[0.5]]}', "Expected `int`, got `float` - at `$.pixels[...][...]`"),
        ('{"pixels": [[true]]}', "Expected `int`, got `bool` - at `$.pixels[...][...]`"),
        ('{"pixels": [0]}', "Expected `array`, got `int` - at `$.pixels[...]`"),
        ('{"pixels": null}', "Expected `array`, got `null` - at `$.pixels`"),
        ('{"image": "not base64!"}', "Invalid base64 encoded string - at `$.image`"),
        ('{"image": 5}', "Expected `bytes`, got `int` - at `$.image`"),
        ('{"picture": ""}', "Object contains unknown field `picture`"),
    ],
)
def test_types_and_bounds(body: str, message: str) -> None:
    """What the types forbid is refused by the decoder."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=Instance)
    found = str(caught.value).replace("[0]", "[...]")
    assert found == message


# Codec and networks


def test_codec_by_heart() -> None:
    """Pictures are stacked in order; each answer is its row's largest score, the first of equals."""
    samples = [np.full((1, 28, 28), value, np.uint8) for value in (3, 5)]
    assert collate(samples)["pixels"][:, 0, 0, 0].tolist() == [3, 5]
    assert [cost(sample) for sample in samples] == [1, 1]
    scores = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    attention = np.arange(8.0).reshape(2, 1, 4)
    first, second = decode({"scores": scores, "attention": attention}, samples, ASSETS)
    assert (first["label"], first["class_id"], first["score"]) == ("dog", 1, 0.75)
    assert (second["label"], second["class_id"], second["score"]) == ("cat", 0, 0.5)
    assert second["attention"].tolist() == [[4, 5, 6, 7]]
    assert "attention" not in decode({"scores": scores}, samples, ASSETS)[0]


def test_example_is_a_file() -> None:
    """The example is a PNG a person can open, the same each time."""
    picture = open_picture(example(ASSETS).image)  # type: ignore[arg-type]
    assert (picture.format or "PNG", picture.size, picture.mode) == ("PNG", (28, 28), "L")
    assert example(ASSETS) == example(ASSETS)


def test_move_by_heart() -> None:
    """A bright pixel stays one, at most two away from its place or its mirror image, and goes everywhere there."""
    pictures = np.zeros((2000, 1, 28, 28), np.uint8)
    pictures[:, 0, 10, 4] = 99
    found = move(pictures, np.random.default_rng(0))
    assert (found.shape, found.dtype) == (pictures.shape, pictures.dtype)
    assert (np.count_nonzero(found, axis=(1, 2, 3)) == 1).all()
    assert found.max() == 99
    positions = set(zip(*(position.tolist() for position in found.nonzero()[2:]), strict=True))
    down = range(8, 13)
    assert positions == {(row, column + shift) for row in down for column in (4, 23) for shift in range(-2, 3)}
    assert (pictures[:, 0, 10, 4] == 99).all()


def test_move_can_do_nothing() -> None:
    """Without mirror and shift a picture is itself, pixel for pixel; what is shifted out does not come back."""

    class Still:
        def random(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.ones(shape)

        def integers(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
            return np.full(shape, (low + high) // 2)

    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 7)).astype(np.uint8)
    assert np.array_equal(move(pictures, Still()), pictures)  # type: ignore[arg-type]
    white = np.full((500, 1, 6, 6), 255, np.uint8)
    sums = set(np.count_nonzero(move(white, np.random.default_rng(1)), axis=(1, 2, 3)).tolist())
    assert sums == {rows * columns for rows in (4, 5, 6) for columns in (4, 5, 6)}


def seen_net() -> ConvolutionNet:
    """Return a small net whose batch norms have seen a few batches."""
    torch.manual_seed(0)
    net = ConvolutionNet(ConvolutionConfig(widths=(4, 8)), ASSETS, 128.0, 64.0)
    for _ in range(3):
        net.logits(random_pixels(16))
    return net


def random_pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8)


def test_convolution_ignores_batch_mates() -> None:
    """In evaluation a picture's scores do not depend on its batch-mates; in training they do."""
    net, pictures = seen_net(), random_pixels(8)
    with torch.inference_mode():
        net.eval()
        together = net(pictures)["scores"]
        alone = torch.cat([net(picture[None])["scores"] for picture in pictures])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
        torch.testing.assert_close(together.sum(1), torch.ones(8))
        net.dropout.p = 0.0
        net.train()
        moved = net(pictures)["scores"] - torch.cat([net(picture[None])["scores"] for picture in pictures])
    assert moved.abs().max() > 1e-3


def test_standardise_by_heart() -> None:
    """Grey values are measured in the training set's deviations from its mean."""
    net = ConvolutionNet(ConvolutionConfig(widths=(4,)), ASSETS, 100.0, 50.0)
    assert net.standardise(torch.tensor([0, 100, 250], dtype=torch.uint8)).tolist() == [-2.0, 0.0, 3.0]


def test_multi_picture_jpeg() -> None:
    """A phone's JPEG with a second view inside (MPO) is its first picture, not an animation."""
    first, second = Image.new("L", (28, 28), 200), Image.new("L", (28, 28), 20)
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    pixels = to_pixels(open_picture(buffer.getvalue()), channels=1, height=28, width=28)
    assert abs(int(pixels.mean()) - 200) <= 2
