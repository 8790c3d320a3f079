"""Pages stand alone, and text from files and configuration cannot become markup."""

from browser import chromium

from aetherscan.plotting.html import definitions, heading, picture, table, write_html


def test_every_text_of_a_page_is_escaped(tmp_path):
    parts = [heading("<b>"), table(["<b>"], [["<b>"]]), definitions({"<b>": "<b>"})]
    write_html(tmp_path / "page.html", "<b>", parts)
    page = (tmp_path / "page.html").read_text()
    assert "<b>" not in page
    assert page.count("&lt;b&gt;") == 6


def test_a_figure_is_embedded_and_written_to_a_file_unless_there_is_nothing_to_draw(tmp_path):
    png = tmp_path / "figure.png"
    assert picture("empty", 1, lambda axes: False, png) == ""
    assert not png.exists()
    assert "data:image/png;base64," in picture("line", 2, lambda axes: bool(axes[1].plot([1, 2])), png)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_page_is_no_wider_than_a_telephone_and_wide_tables_scroll(tmp_path):
    parts = [table(["target", *"abcdefgh"], [["x" * 12] * 9]), picture("line", 2, lambda axes: None)]
    write_html(tmp_path / "page.html", "page", parts)
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 380, "height": 800}, is_mobile=True).new_page()
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [380, 380]
        assert page.evaluate("document.querySelector('.wide').scrollWidth") > 700
