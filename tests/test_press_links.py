"""Links: the checker is called with the whole site; where it is installed, it finds what leads nowhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from lib.press import links, notebooks, site


def test_the_whole_site_and_the_texts_beside_it_are_read(tmp_path):
    page = tmp_path / site.SITE / "book" / "page.html"
    page.parent.mkdir(parents=True)
    page.touch()
    command = links.command([], root=tmp_path)
    assert command[0].endswith("/lychee")
    assert command[-5:] == [str(page), *(str(tmp_path / name) for name in links.TEXTS)]
    assert "--offline" not in command
    assert "--offline" in links.command([page], offline=True)
    assert links.command([page])[-1] == str(page)
    assert all((notebooks.ROOT / name).exists() for name in links.TEXTS)


def test_the_command_line_fails_where_a_link_leads_nowhere(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["links", "--offline", "page.html"])
    monkeypatch.setattr(links.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 0))
    links.main()
    assert capsys.readouterr().out == "Every link leads somewhere.\n"
    monkeypatch.setattr(links.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 2))
    with pytest.raises(SystemExit, match="a link leads nowhere"):
        links.main()


def test_files_and_places_within_them_are_found_and_missed(tmp_path):
    lychee = Path(sys.executable).parent / "lychee"
    if not lychee.exists():
        pytest.skip("lychee is installed by `make links`")
    (tmp_path / "there.html").write_text('<h1 id="place">There</h1>')
    page = tmp_path / "page.html"
    for link, found in (("there.html#place", True), ("there.html#nowhere", False), ("gone.html", False)):
        page.write_text(f'<a href="{link}">there</a>')
        assert (subprocess.run(links.command([page], offline=True)).returncode == 0) is found
