"""The alpha channel of a picture: taken off it as a grey PNG, and put back."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from PIL import Image

KIND = "alpha"
MEDIA_TYPE = "image/png"
_OPAQUE = (255, 255)


class Unusable(ValueError):
    """An attachment that cannot be the alpha channel of its picture."""


def alpha_of(image: Image.Image) -> bytes | None:
    """Return the straight alpha channel of a picture, without loss; None if it is opaque everywhere.

    A palette with alpha and a transparent colour count too. One bit for each pixel is enough where none is between.
    """
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    if alpha.getextrema() == _OPAQUE:
        return None
    levels = np.flatnonzero(alpha.histogram())
    if set(levels.tolist()) <= {0, 255}:
        alpha = alpha.convert("1", dither=Image.Dither.NONE)
    png = BytesIO()
    alpha.save(png, "PNG", optimize=True)
    return png.getvalue()


def with_alpha(colors: Image.Image, png: bytes) -> Image.Image:
    """Return RGBA of RGB, or LA of grey, and what `alpha_of` gave.

    Unusable says why it does not fit, for it may be a stranger's.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _merged(colors, png)
    except Unusable:
        raise
    except Exception as error:  # over damaged files, Pillow's readers raise whatever comes up in them
        raise Unusable(f"it is damaged: {error}") from error


def _merged(colors: Image.Image, png: bytes) -> Image.Image:
    with Image.open(BytesIO(png), formats=["PNG"]) as alpha:
        if alpha.size != colors.size or alpha.mode not in ("1", "L"):
            raise Unusable(f"it is {alpha.mode} of {alpha.width}x{alpha.height} pixels, not grey of the picture's size")
        merged = colors.copy()
        merged.putalpha(alpha.convert("L"))
        return merged
