"""Figures as files, with the sizes they have in print, and the pictures that notebooks keep of them."""

import base64
import io
import re
import sys

import nbformat
import plotly.graph_objects as go
import plotly.io
import pytest
from drawn import FIGURES
from nbconvert import HTMLExporter
from PIL import Image
from typer.testing import CliRunner

import induction_kernel as ik
from induction_kernel.cli import app
from induction_kernel.errors import Refused
from induction_kernel.plots import _figure, _offline
from induction_kernel.plots._figure import Figure, inches

INTERACTIVE = "application/vnd.plotly.v1+json"
NOTES = (
    "mean over 16 prompts; hovering shows 95% intervals; dotted: what heads have by chance in prompts so long"
)
TITLE = f"a model with a name: induction<br><span style='font-size:12px;color:#555'>{NOTES}</span>"


class Drawer:
    """In the browser's place: keeps what it was asked for, and returns a white picture of that size."""

    def __init__(self):
        self.figures, self.asked = [], []

    def drawn(self, figure, asked):
        self.figures.append(figure)
        self.asked.append(asked)
        if asked["format"] != "png":
            return asked["format"].encode()
        size = [round(asked[side] * asked["scale"]) for side in ("width", "height")]
        out = io.BytesIO()
        Image.new("RGB", size, "white").save(out, "PNG")
        return out.getvalue()


@pytest.fixture
def drawer(monkeypatch):
    one = Drawer()
    monkeypatch.setattr(_offline, "browser", lambda: one)
    monkeypatch.setattr(_figure, "browser", lambda: one)
    return one


@pytest.fixture
def no_kaleido(monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    monkeypatch.setattr(_offline, "_STARTED", {})


@pytest.fixture(autouse=True)
def as_in_jupyter(monkeypatch):
    """Plotly asks at its import whether it runs in a notebook."""
    before = plotly.io.renderers.default
    plotly.io.renderers.default = "plotly_mimetype"
    monkeypatch.setattr(plotly.io.renderers, "render_on_display", True)
    yield
    plotly.io.renderers.default = before


def drawn():
    figure = FIGURES["head_map"]()
    return figure.update_layout(title_text=TITLE)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_the_template_and_keeps_pictures(name):
    figure = FIGURES[name]()
    assert type(figure) is Figure
    assert figure.layout.template == ik.plots.TEMPLATE
    assert figure.layout.height > 0  # else a file would have plotly's 450 pixels


@pytest.mark.parametrize(
    ("width", "points", "expected"),
    [
        ("single column", None, 3.25 * 72 / 8 * 13),
        (3.25, 8, 3.25 * 72 / 8 * 13),
        ("85 mm", 9, 85 / 25.4 * 72 / 9 * 13),
        ("900 px", None, 900),
        (None, None, 640),
    ],
)
def test_the_layout_has_the_pixels_that_make_the_text_so_large(drawer, tmp_path, width, points, expected):
    path = ik.plots.save_figure(drawn(), tmp_path / "a.pdf", width=width, points=points)
    (asked,) = drawer.asked
    assert asked["format"] == "pdf"
    assert asked["width"] == round(expected)
    in_print = inches(width or "640 px", "width")
    assert asked["width"] * asked["scale"] / 96 == pytest.approx(in_print, rel=2e-3)
    assert path.read_bytes() == b"pdf"


def test_a_png_has_its_dots_and_says_how_large_it_is(drawer, tmp_path):
    path = ik.plots.save_figure(drawn(), tmp_path / "a.png", width=2.5, dpi=200, points=6)
    with Image.open(path) as image:
        assert image.size[0] == pytest.approx(500, abs=1)
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_a_narrow_title_takes_more_lines_and_leaves_the_axes_as_large(drawer, tmp_path):
    figure = drawn()
    before = figure.to_json()
    ik.plots.save_figure(figure, tmp_path / "a.svg", width="single column")
    assert figure.to_json() == before
    (shown,), (asked,) = drawer.figures, drawer.asked
    lines = shown["layout"]["title"]["text"].split("<br>")
    assert len(lines) == 3  # of the notes two, without what only hovering shows
    assert "hovering" not in " ".join(lines)
    assert all(len(re.sub("<[^>]*>", "", line)) <= 100 * 380 / 640 for line in lines)
    old, new = figure.layout, shown["layout"]
    assert asked["height"] - new["margin"]["t"] == old.height - old.margin.t
    assert new["margin"]["t"] > old.margin.t
    assert new["font"]["family"].startswith("Arial")


def test_without_its_title_a_figure_is_lower(drawer, tmp_path):
    figure = drawn()
    ik.plots.save_figure(figure, tmp_path / "a.svg", width="text", title=False, font="Georgia")
    (shown,) = drawer.figures
    assert shown["layout"]["title"]["text"] == ""
    assert shown["layout"]["height"] < figure.layout.height
    assert shown["layout"]["font"]["family"] == "Georgia"


def test_markup_of_ones_own_in_a_title_stays(drawer, tmp_path):
    ik.plots.save_figure(drawn().update_layout(title_text="<b>so</b> it is"), tmp_path / "a.svg", width=3)
    assert drawer.figures[0]["layout"]["title"]["text"] == "<b>so</b> it is"


@pytest.mark.parametrize(
    ("script", "smallest", "largest"),
    [("inside", 4_000_000, 6_000_000), ("beside", 1000, 60_000), ("cdn", 1000, 60_000)],
)
def test_a_page_has_its_script_inside_beside_or_from_the_network(tmp_path, script, smallest, largest):
    path = ik.plots.save_figure(drawn(), tmp_path / "a.html", script=script)
    text = path.read_text()
    assert smallest < len(text) < largest
    assert (tmp_path / "plotly.min.js").exists() == (script == "beside")
    sources = re.findall(r'<script[^>]* src="([^"]+)"', text)
    assert len(sources) == (script != "inside")
    assert [source.startswith("http") for source in sources] == [script == "cdn"] * len(sources)


def test_without_kaleido_it_says_what_to_install_before_anything_is_drawn(no_kaleido, tmp_path):
    with pytest.raises(Refused, match=r"pip install 'induction-kernel\[export\]'"):
        ik.plots.save_figure(drawn(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    assert ik.plots.save_figure(drawn(), tmp_path / "a.html").exists()


def test_the_command_line_refuses_a_picture_before_it_loads_a_model(no_kaleido, tmp_path):
    out = tmp_path / "a.pdf"
    result = CliRunner().invoke(app, ["ablate", "no/such/model", "--out", str(out)])
    assert result.exit_code == 2
    assert "induction-kernel[export]" in result.output
    assert not out.exists()


def test_the_command_line_writes_a_picture(drawer, tmp_path):
    out = tmp_path / "a.svg"
    result = CliRunner().invoke(app, ["ablate", "--prompts", "4", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == b"svg"
    assert "effect of mean ablation" in drawer.figures[0]["layout"]["title"]["text"]


def test_pages_are_no_pictures(tmp_path):
    result = CliRunner().invoke(app, ["fewshot", "--out", str(tmp_path / "a.pdf")])
    assert result.exit_code == 2
    assert ".html (page)" in result.output


def bundle(figure):
    return figure._repr_mimebundle_()


def test_a_notebook_keeps_a_picture_beside_the_figure(drawer):
    found = bundle(drawn())
    assert set(found) == {INTERACTIVE, "image/png"}
    with Image.open(io.BytesIO(base64.b64decode(found["image/png"]))) as image:
        assert image.size[0] == 1440
        assert image.mode == "P"
    assert "hovering" in found[INTERACTIVE]["layout"]["title"]["text"]
    assert "hovering" not in drawer.figures[0]["layout"]["title"]["text"]


def test_without_kaleido_a_notebook_keeps_a_sentence(no_kaleido):
    found = bundle(drawn())
    assert set(found) == {INTERACTIVE, "text/plain"}
    assert found["text/plain"].startswith("Figure: a model with a name: induction mean over 16 prompts")
    assert "pip install 'induction-kernel[export]'" in found["text/plain"]


def test_other_renderers_are_left_alone(drawer):
    plotly.io.renderers.default = "json"
    assert set(bundle(drawn())) == {"application/json"}
    assert not drawer.asked


@pytest.mark.parametrize("shown", [lambda figure: figure._ipython_display_(), lambda figure: figure.show()])
def test_a_cell_shows_it_with_its_size_and_its_title_as_text(drawer, monkeypatch, shown):
    said = []
    monkeypatch.setattr("IPython.display.display", lambda *data, **options: said.append((data, options)))
    shown(drawn())
    ((data,), options) = said[0]
    assert set(data) == {INTERACTIVE, "image/png"}
    assert options["metadata"]["image/png"]["width"] == 720
    assert options["metadata"]["image/png"]["alt"].startswith("a model with a name: induction")


def converted(data, metadata=None):
    output = nbformat.v4.new_output("display_data", data, metadata=metadata or {})
    cell = nbformat.v4.new_code_cell("figure", outputs=[output])
    return HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_converted_notebook_shows_the_picture_and_what_plotly_gives_it_does_not(drawer):
    figure = drawn()
    found = bundle(figure)
    assert found["image/png"][:60] in converted(found)
    plain = bundle(go.Figure(figure))
    assert set(plain) == {INTERACTIVE}  # why notebooks lost their figures
    with pytest.warns(UserWarning, match="not able to be represented"):
        assert "induction" not in converted(plain).partition("<body")[2]


@pytest.mark.browser
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_browser_draws_it(tmp_path, no_network, ending):
    pytest.importorskip("kaleido", reason="kaleido is absent: it is in the extra export")
    path = ik.plots.save_figure(drawn(), tmp_path / f"a.{ending}", width="single column", dpi=200)
    content = path.read_bytes()
    if ending == "png":
        with Image.open(path) as image:
            assert image.size[0] == pytest.approx(650, abs=2)
            assert len(image.getcolors(1 << 24)) > 10
    elif ending == "svg":
        assert float(re.search(rb'width="([\d.]+)"', content)[1]) == pytest.approx(312, abs=1)
        assert b"induction" in content
    else:
        right = re.search(rb"/MediaBox \[0 0 ([\d.]+)", content)[1]
        assert float(right) == pytest.approx(234, abs=1.5)
        assert b"FontFile" in content


@pytest.mark.browser
def test_a_browser_that_is_not_there_is_named(tmp_path, monkeypatch):
    pytest.importorskip("kaleido", reason="kaleido is absent: it is in the extra export")
    monkeypatch.setattr(_offline, "_STARTED", {})
    monkeypatch.setenv("BROWSER_PATH", "no/such/browser")
    with pytest.raises(Refused, match="'no/such/browser', which BROWSER_PATH names"):
        ik.plots.save_figure(drawn(), tmp_path / "a.png")
