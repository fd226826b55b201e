"""How the documentation is built: Markdown by MyST, the Furo theme, nothing loaded from elsewhere."""

from hypervigil import __version__

project = "Hypervigil"
author = "The Hypervigil authors"
project_copyright = "The Hypervigil authors, Apache-2.0"
release = version = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
nitpicky = True
suppress_warnings: list[str] = []

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Hypervigil"
html_logo = "_static/mark.svg"
html_favicon = "_static/mark.svg"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_extra_path = ["reference/report-schema-1.json"]
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1c55a4", "color-brand-content": "#1c55a4"},
    "dark_css_variables": {"color-brand-primary": "#8fbaff", "color-brand-content": "#8fbaff"},
}
