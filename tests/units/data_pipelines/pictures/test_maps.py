"""Maps of one variable are comparable: one colour map and one range at all leads; titles stay within their figure."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.pictures.figures import explain, figure_style, new_figure
from data_pipelines.pictures.maps import field_maps, map_scales
from data_pipelines.verification.score_rows import Row
from emulators.grid import gaussian_grid

GRID = gaussian_grid(8, 16)
ROW = Row("temperature", 850, "temperature 850 hPa", 2.0, "K")


def leads() -> list[dict[str, np.ndarray]]:
    """Forecast and truth that are positive at the first lead and change sign at the second; a growing difference."""
    wave = np.sin(np.linspace(0, 6, 128)).reshape(8, 16)
    return [{"forecast": base + wave, "truth": base + wave, "gap": size * wave} for base, size in ((3, 0.1), (0, 1.0))]


def test_all_leads_share_a_scale() -> None:
    pictures = leads()
    scales = map_scales(pictures, ROW, "gap")
    assert scales["forecast"] == scales["truth"]
    assert scales["forecast"].high == pytest.approx(8.0, abs=0.05), "in the units that are shown, of both leads"
    assert scales["gap"].low == -scales["gap"].high == pytest.approx(-2.0, abs=0.05)
    assert [map_scales(pictures[:1], ROW, "gap")[name].colours for name in ("forecast", "gap")] == ["viridis", "RdBu_r"]


def test_titles_and_sentences_stay_within_the_figure() -> None:
    with figure_style():
        figure = new_figure(3.5, 2.6, "a run with a long name: mean absolute error by lead time, northern hemisphere")
        figure.subplots()
        explain(figure, ["persistence: of 300 differences 44 are significant alone at 95 %; 256 more have too few."])
        figure.draw_without_rendering()
        width, height = figure.bbox.width, figure.bbox.height
        boxes = [text.get_window_extent() for text in (figure._suptitle, figure._supxlabel)]
        axis = figure.axes[0].get_window_extent()
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    assert boxes[1].y1 < axis.y0
    assert axis.y1 < boxes[0].y0


def test_maps_are_drawn_on_white(tmp_path) -> None:
    [first, _] = pictures = leads()
    path = field_maps(tmp_path / "map.png", GRID, first, ROW, map_scales(pictures, ROW, "gap"), "a title")
    with Image.open(path) as image:
        assert image.convert("RGBA").getpixel((2, image.height - 2)) == (255, 255, 255, 255)
