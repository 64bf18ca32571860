"""Which names of files are pictures: what training and scoring both go by."""

import pytest

from models.picture_names import is_picture


@pytest.mark.parametrize("name", ["a.png", "b/c.JPG", "./a.jpeg", "../a.jpe", "web.jfif", "x/y/z.WebP", "a.b.png"])
def test_pictures(name: str) -> None:
    """PNG, JPEG and WebP by any of their endings, in any case, at any depth."""
    assert is_picture(name)


@pytest.mark.parametrize(
    "name",
    ["._a.png", "b/._a.png", ".ipynb_checkpoints/a.png", "b/.git/c/a.png", "__MACOSX/a.png", "x/__MACOSX/b/a.png",
     ".png", "a", "a.gif", "a.bmp", "a.tiff", "a.txt", "a.png/b", ".#a.png"],
)  # fmt: skip
def test_passed_over(name: str) -> None:
    """Hidden files and folders, forks of macOS, other formats and names without an ending."""
    assert not is_picture(name)
