"""Configuration of the site (Sphinx). `make docs` makes the sources in build/docs first (.ci/site_sources.py)."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / ".ci")]

import site_figures  # noqa: E402  # found by the line above
import site_sources  # noqa: E402

import induction_kernel  # noqa: E402

BUILD = site_sources.BUILD

project = "induction_kernel"
author = "induction_kernel maintainers"
project_copyright = author
version = release = induction_kernel.__version__

extensions = ["myst_nb", "sphinx_design"]
root_doc = "index"
exclude_patterns = ["_static", "conf.py"]
nitpicky = True
add_function_parentheses = False
toc_object_entries = True
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88

# Pages in Markdown; headings have the anchors that they have on GitHub.
myst_enable_extensions = ["deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4

# Notebooks are run once; their outputs are kept until their code or the package changes. Nothing runs behind a
# published page: figures are drawn by the page itself, and the explorer is the page that `.save` writes.
nb_execution_mode = "cache"
nb_execution_cache_path = str(site_sources.kept_outputs())
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", site_figures.PLOTLY, 0),
]
os.environ |= {
    "PLOTLY_RENDERER": "plotly_mimetype",
    "IPYTHONDIR": str(BUILD / "ipython"),  # its startup file hides anywidget
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}

html_theme = "pydata_sphinx_theme"
html_title = "induction_kernel"
html_static_path = [str(ROOT / "docs" / "_static"), str(BUILD / "static")]
html_extra_path = [str(BUILD / "extra")]
html_css_files = ["site.css"]
html_js_files = ["figures.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "logo": {"text": "induction_kernel"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
if site_sources.repository():
    html_theme_options["icon_links"] = [
        {"name": "Code", "url": site_sources.repository(), "icon": "fa-solid fa-code"}
    ]
html_context = {"default_mode": "auto"}
ALONE = "index start scores supported_models performance architecture glossary changelog contributing"
html_sidebars = {page: [] for page in ALONE.split()}  # pages that are no part of a section


def setup(app):
    """Draw the figures of notebooks."""
    site_figures.setup(app)
