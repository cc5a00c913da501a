"""A release checks first, then writes its version wherever one reads it; the pages cite, report and compare."""

import datetime
import json
import re
import shutil
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from lib.press import citing, notebooks, release

ROOT = notebooks.ROOT
TODAY = datetime.date(2027, 1, 31)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with what a release writes, and with one chapter that is current."""
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- Something.\n")
    for folder in ("book", "data/claims", "data/measured/01-angles"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lib").symlink_to(ROOT / "lib")
    path = tmp_path / "book" / "01-angles.ipynb"
    path.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    record = {"fingerprint": notebooks.fingerprint(path, tmp_path)}
    (tmp_path / "data/measured/01-angles/execution.cpu.json").write_text(json.dumps(record))
    claim = {"id": "1.1", "statement": "A.", "verdict": "holds", "value": 1}
    (tmp_path / "data/claims/01-angles.json").write_text(json.dumps([claim]))
    for person in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{person}_NAME", "book")
        monkeypatch.setenv(f"GIT_{person}_EMAIL", "book@example.org")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_release_is_stamped_committed_and_tagged(repository):
    release.release("1.0.0", TODAY, repository)
    assert release.version(repository) == "1.0.0"
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf8"))
    assert (citation["version"], citation["date-released"]) == ("1.0.0", TODAY)
    assert "## Unreleased\n\n## 1.0.0, 2027-01-31\n\n- Something." in (repository / "CHANGELOG.md").read_text(
        "utf8"
    )
    assert release.editions(repository) == ["1.0.0"]
    kept = json.loads((repository / "data/editions/1.0.0.json").read_text(encoding="utf8"))
    assert kept == {"1.1": {"statement": "A.", "verdict": "holds"}}
    told = subprocess.run(["git", "describe"], cwd=repository, capture_output=True, text=True).stdout
    assert told == "v1.0.0\n"
    assert not release._git(repository, "status", "--porcelain")
    assert release.problems("1.0.1", repository) == ["CHANGELOG.md says nothing under Unreleased"]


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "1.0.0rc1"])
def test_what_is_no_version_is_refused(repository, version):
    (problem,) = release.problems(version, repository)
    assert problem.startswith("VERSION must be three numbers")


def test_whatever_stands_against_a_release_is_said_at_once_and_nothing_is_changed(repository):
    (repository / "book" / "01-angles.ipynb").write_text(
        json.dumps(
            {
                "cells": [{"cell_type": "code", "id": "a", "source": "2", "metadata": {}, "outputs": []}],
                "metadata": {},
                "nbformat": 4,
                "nbformat_minor": 5,
            }
        )
    )
    subprocess.run(["git", "checkout", "-q", "-b", "other"], cwd=repository, check=True)
    subprocess.run(["git", "tag", "v0.0.1"], cwd=repository, check=True)
    before = {path: path.read_bytes() for path in repository.glob("*.*") if path.is_file()}
    with pytest.raises(release.ReleaseError) as error:
        release.release("0.0.1", TODAY, repository)
    assert str(error.value).split("\n") == [
        f"0.0.1 is not newer than {release.version()}",
        "something is not committed",
        "this is the branch other, and main is released",
        "the tag v0.0.1 exists",
        "01-angles is stale: run `make execute`",
    ]
    assert {path: path.read_bytes() for path in before} == before


def test_without_git_nothing_is_released(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert release.problems("9.0.0", tmp_path) == ["this is no repository of git, so nothing can be tagged"]


def test_the_command_line_says_what_to_push_or_why_not(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["release", "9.0.0"])
    monkeypatch.setattr(release, "release", lambda *_: None)
    release.main()
    assert capsys.readouterr().out.endswith("To publish it: git push --follow-tags\n")

    def refuse(*_: object) -> None:
        raise release.ReleaseError("one thing")

    monkeypatch.setattr(release, "release", refuse)
    with pytest.raises(SystemExit, match=r"nothing was changed\.\none thing"):
        release.main()


# Citing ---------------------------------------------------------------------------------------------------


def test_the_citation_is_whole_and_of_this_version():
    citation = yaml.safe_load(citing.CITATION.read_text(encoding="utf8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version", "date-released", "license"} <= {*citation}
    assert citation["type"] == "software"
    assert str(citation["version"]) == release.version()
    assert isinstance(citation["date-released"], datetime.date)
    assert all({*author} <= {"name", "family-names", "given-names"} for author in citation["authors"])


def test_the_entry_for_a_bibliography_names_author_title_year_and_version():
    citation = {"authors": [{"name": "A and B"}], "title": "T", "date-released": TODAY, "version": "1.0.0"}
    lines = citing.bibtex(citation, "https://example.org").split("\n")
    assert lines == [
        "@misc{proof-by-running,",
        "  author = {{A and B}},",
        "  title  = {{T}},",
        "  year   = {2027},",
        "  note   = {Version 1.0.0},",
        "  url    = {https://example.org},",
        "}",
    ]
    assert "url" not in citing.bibtex(citation)


def test_a_report_names_the_chapter_and_there_is_none_without_a_place_for_it():
    url = citing.report("book/05-memm", "CRF & MEMM", "1.0.0", "https://github.com/org/repo")
    assert urlsplit(url).path == "/org/repo/issues/new"
    asked = parse_qs(urlsplit(url).query)
    assert asked["title"] == ["Chapter 5: "]
    assert asked["body"][0].startswith("Page: CRF & MEMM (book/05-memm)\nVersion: 1.0.0\nPlace: \n")
    assert "title=Claims%3A+" in citing.report("book/claims", "Claims", "1.0.0", "https://github.com/org/repo")
    assert citing.report("book/05-memm", "CRF", "1.0.0", "") == ""
    assert citing.report("book/05-memm", "CRF", "1.0.0", "https://example.org/repo") == ""


def markdown(directive) -> str:
    return "\n".join(directive.markdown(object.__new__(directive)))


def test_the_page_says_where_to_report_only_if_there_is_a_place(monkeypatch):
    monkeypatch.setattr(citing.address, "address", lambda: "")
    assert markdown(citing.Reporting).startswith("This copy of the book has no public address yet")
    monkeypatch.setattr(citing.address, "address", lambda: "https://github.com/org/repo")
    assert "(https://github.com/org/repo/issues)" in markdown(citing.Reporting)
    assert "url    = {https://github.com/org/repo}," in markdown(citing.Citation)


# Editions -------------------------------------------------------------------------------------------------


def test_what_has_become_of_claims_is_said_in_their_order():
    def claim(verdict: str, statement: str = "A.") -> dict[str, str]:
        return {"verdict": verdict, "statement": statement}

    before = {"2.10": claim("holds"), "2.2": claim("holds"), "2.3": claim("refuted"), "2.4": claim("holds")}
    now = {"2.10": claim("refuted"), "2.2": claim("holds", "B."), "2.4": claim("holds"), "2.11": claim("holds")}
    changed = [re.sub(r"\]\{[^}]+\}", "]", line) for line in citing.changed(before, now)]
    assert changed == [
        "- Claim 2.2 says something else, [holds]: B. Before, it said: A. ([holds])",
        "- Claim 2.3 is gone, it was [refuted]: A.",
        "- Claim 2.10, [holds] before, [refuted] now: A.",
        "- Claim 2.11 is new, [holds]: A.",
    ]


def test_a_reader_of_an_older_edition_finds_what_changed(tmp_path, monkeypatch):
    assert "No edition has been released yet" in markdown(citing.Editions) or release.editions()
    monkeypatch.setattr(release, "editions", lambda: ["1.0.0", "1.1.0"])
    monkeypatch.setattr(release, "version", lambda: "1.1.0")
    monkeypatch.setattr(release, "snapshot", lambda: {"1.1": {"statement": "A.", "verdict": "refuted"}})
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "data" / "editions").mkdir(parents=True)
    kept = tmp_path / "data" / "editions" / "1.0.0.json"
    kept.write_text(json.dumps({"1.1": {"statement": "A.", "verdict": "holds"}}))
    # Built at a release, the page compares with the edition before.
    assert "version 1.0.0" in markdown(citing.Editions)
    assert "before, [refuted]" in markdown(citing.Editions)
    kept.write_text(json.dumps({"1.1": {"statement": "A.", "verdict": "refuted"}}))
    assert markdown(citing.Editions).endswith("No claim of 1.0.0 has changed.")


def test_the_changelog_stands_on_the_page_without_its_title_and_empty_parts(tmp_path, monkeypatch):
    log = tmp_path / "CHANGELOG.md"
    log.write_text("# Changelog\n\n## Unreleased\n\n## 1.0.0, 2027-01-31\n\n- One.\n")
    monkeypatch.setattr(citing, "CHANGELOG", log)
    assert markdown(citing.Changes) == "**1.0.0, 2027-01-31**\n\n- One."
