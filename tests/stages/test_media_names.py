from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.pipeline.errors import FramefoldError
from framefold.stages.media_names import beneath, name_problem, picture_names


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "Ä é 写真.png", "..a.png", "a..png", "12:30.png", ".hidden"])
def test_harmless_names_are_allowed(tmp_path: Path, name: str) -> None:
    assert beneath(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "..",
            ".",
            "../a.png",
            "a/../../b.png",
            "a/./b",
            "/etc/passwd",
            "//a",
            "a//b",
            "a/",
            "C:/a.png",
            "c:a.png",
        ),
        *(
            "a\\b.png",
            "..\\a.png",
            "a\0.png",
            "a\nb.png",
            "CON",
            "nul.txt",
            "x/Com1.png",
            "LPT9",
            "a.",
            "a ",
            "\udc80.png",
        ),
        "x" * 256,
        "é" * 128,
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FramefoldError, match="is not written to disk"):
        beneath(tmp_path, name)


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "a", "", "CON", "/"])).map("/".join))
def test_what_is_allowed_stays_beneath_the_folder(name: str) -> None:
    if name_problem(name) is None:
        assert Path("/base/x").joinpath(name).resolve().is_relative_to("/base/x")
        assert beneath(Path("/base/x"), name) != Path("/base/x")


def test_picture_names() -> None:
    assert picture_names(["b/a.png", "x.jpg", "y.tar.webp", "z", "A.PNG"]) == [
        "b/a.png", "x.png", "y.tar.png", "z.png", "A.PNG",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "result"),
    [
        (["a.jpg", "a.webp"], ["a.jpg.png", "a.webp.png"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png"]),
        (["a.png", "A.jpg"], ["a.png", "A.jpg.png"]),
        (["a.jpg", "a.webp", "a.jpg.png"], ["a.jpg-2.png", "a.webp.png", "a.jpg.png"]),
        (["a.png", "a.png", "a.png"], ["a.png", "a-2.png", "a-3.png"]),
    ],
)
def test_pictures_that_would_meet_get_names_of_their_own(names: list[str], result: list[str]) -> None:
    assert picture_names(names) == result


@given(st.lists(st.from_regex(r"[aA](-2)?(\.(png|PNG|jpg|jpg\.png|webp))?", fullmatch=True), max_size=12))
def test_picture_names_are_all_different_even_without_case(names: list[str]) -> None:
    result = picture_names(names)
    assert len({name.casefold() for name in result}) == len(names)
    folded = [name.casefold() for name in names]
    alone = {name for name in names if name.casefold().endswith(".png") and folded.count(name.casefold()) == 1}
    if len(alone) == sum(name.endswith(".png") for name in folded):  # no PNG name comes twice
        assert alone <= set(result)
