"""What every figure must stand: being saved, and no text on another one or outside."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from sensorium_models.reporting import style


def saved(drawing: style.Drawing, folder: Path, name: str = "figure") -> tuple[bytes, bytes]:
    """Save a drawing, check its files, return the bytes of its PDF and PNG."""
    pdf, png = folder / f"{name}.pdf", folder / f"{name}.png"
    style.save(drawing, pdf, png)
    assert pdf.read_bytes().startswith(b"%PDF")
    with Image.open(png) as image:
        width, height = drawing.figure.get_size_inches()
        assert image.size == (round(width * 300), round(height * 300))
    record = style.read_record(png)
    assert record.caption == drawing.caption
    return pdf.read_bytes(), png.read_bytes()


def _texts_collide(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of visible texts whose boxes overlap by more than a hair, or that leave the figure."""
    with style.look():
        figure.draw_without_rendering()
    canvas = figure.bbox
    found: list[tuple[str, Bbox]] = []
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        if artist.get_visible() and artist.get_text().strip():
            found.append((artist.get_text(), artist.get_window_extent()))
    bad = [
        (text, "outside the figure")
        for text, box in found
        if box.x0 < canvas.x0 - 2 or box.x1 > canvas.x1 + 2 or box.y1 > canvas.y1 + 2
    ]
    for i, (text, box) in enumerate(found):
        for other, other_box in found[i + 1 :]:
            shared = Bbox.intersection(box, other_box)
            if shared is not None and shared.width > 1 and shared.height > 1:
                bad.append((text, other))
    return bad


def _visible_ticks_only(figure: Figure) -> None:
    # Axis objects keep labels of ticks beyond their limits, and axes that are off keep all of them;
    # these are never painted.
    for axes in figure.findobj(Axes):
        assert isinstance(axes, Axes)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            span = 1e-9 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                inside = low - span <= tick.get_loc() <= high + span
                for text in (tick.label1, tick.label2):
                    text.set_visible(text.get_visible() and inside and axes.axison)


def assert_tidy(figure: Figure) -> None:
    """No text leaves the figure or lies on another one."""
    with style.look():
        figure.draw_without_rendering()
    _visible_ticks_only(figure)
    collisions = _texts_collide(figure)
    assert collisions == [], collisions
