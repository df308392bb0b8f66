"""The documentation's site: ``make docs`` builds it with Sphinx, MyST and the theme furo."""

import prod9

project = "prod9"
author = "The prod9 developers"
version = release = prod9.__version__
html_title = f"prod9 {version}"

extensions = ["myst_parser", "sphinx_copybutton"]
myst_heading_anchors = 4  # links to headings, as on GitHub
suppress_warnings = ["myst.header"]  # what is generated may skip a level
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["prod9.css"]
html_show_copyright = html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    # Dark and light, like prod9's report.
    "light_css_variables": {"color-brand-primary": "#0b57a4", "color-brand-content": "#0b57a4"},
    "dark_css_variables": {"color-brand-primary": "#7db7f5", "color-brand-content": "#7db7f5"},
}
