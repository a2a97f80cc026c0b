"""Figures: what all pictures share, their size in dots, their colours, their file.

In: inches. Out: an empty matplotlib figure, and later its file or its dots. matplotlib is imported
when the first figure is made, and its global drawing state is left alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color Universal Design": told apart with every common colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555")
# Domains beyond eight take the palette again, paler: these are the colour's own parts in the blend.
STRENGTHS = (1.0, 0.6, 0.35, 0.8)
DPI = 150
StrPath = str | os.PathLike[str]


def colour(k: int) -> tuple[float, float, float]:
    """Colour of the k-th domain or run: the palette, then the palette blended with white."""
    digits = PALETTE[k % len(PALETTE)]
    strength = STRENGTHS[k // len(PALETTE) % len(STRENGTHS)]
    red, green, blue = (1 - strength * (1 - int(digits[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return red, green, blue


def new_figure(*, width: float, height: float) -> Figure:
    """Make an empty figure, `width` by `height` inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib: pip install tikmix-hf[recipes]", name="matplotlib"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: StrPath) -> None:
    """Write the figure; the suffix of `path` says as what."""
    figure.savefig(path, dpi=DPI)


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw the figure into memory: (height, width, 3) red, green and blue, 0 to 255."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
