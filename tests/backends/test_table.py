"""The README's table of parameters is the one that the code goes by."""

from pathlib import Path

from backends.table import as_markdown

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_shows_the_table() -> None:
    """Made anew by `python -m backends.table`."""
    shown = README.read_text().partition("python -m backends.table -->\n")[2].partition("<!-- end -->")[0]
    assert shown == as_markdown()
