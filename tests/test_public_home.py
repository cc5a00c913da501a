"""The public home: what continuous integration and the dev container call exists, and says nothing of its own."""

import json
import re
import shlex
import tomllib

import pytest
import yaml

from lib.press import colab, notebooks, portability

ROOT = notebooks.ROOT
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def workflow(name: str) -> dict:
    # YAML 1.1 reads the key "on" as True.
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf8"))


def expanded(job: dict) -> list[str]:
    """The commands of a job, once for each target of its matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    targets = [*matrix.get("target", []), *(more["target"] for more in matrix.get("include", []))]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    return [c.replace("${{ matrix.target }}", target) for c in commands for target in (targets or [""])]


def made(command: str) -> tuple[list[str], dict[str, str]]:
    """The targets and variables of a call of make."""
    words = shlex.split(command)[1:]
    return [word for word in words if "=" not in word], dict(word.split("=", 1) for word in words if "=" in word)


@every_workflow
def test_a_workflow_calls_targets_of_the_makefile_with_variables_that_these_read(path):
    calls = [c for job in workflow(path.stem)["jobs"].values() for c in expanded(job) if c.startswith("make ")]
    assert calls
    for call in calls:
        targets, variables = made(call)
        assert targets
        for target in targets:
            assert re.search(rf"^{target}:", MAKEFILE, re.M), call
        assert all(f"$({name})" in MAKEFILE for name in variables), call


@every_workflow
def test_a_workflow_asks_for_no_more_rights_than_it_uses_and_names_no_host(path):
    text = path.read_text(encoding="utf8")
    assert workflow(path.stem)["permissions"]["contents"] == "read"
    assert "://" not in text
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", use) for use in re.findall(r"uses: (\S+)", text))


def test_every_push_is_tested_on_every_python_that_the_book_promises_and_main_is_published_after():
    jobs = workflow("book")["jobs"]
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]["requires-python"]
    low, end = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", promised).groups())
    assert jobs["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(low, end)]
    assert [made(call)[0] for call in expanded(jobs["test"])] == [["book"], ["test"], ["test-backends"]]
    assert jobs["publish"]["needs"] == "test"
    assert "refs/heads/main" in jobs["publish"]["if"]
    assert "make pdf" in expanded(jobs["publish"])  # builds the site too
    assert {"with": {"path": "_build/html"}, "uses": "actions/upload-pages-artifact@v5"} in jobs["publish"]["steps"]


def test_every_week_the_newest_packages_the_links_colab_and_every_machine_are_tried():
    job = workflow("weekly")["jobs"]["make"]
    calls = [made(call) for call in expanded(job) if call.startswith("make ")]
    assert {"newest", "links", "fuzz"} <= {target for (target,), _ in calls}
    machines = {variables["ONLY"] for targets, variables in calls if targets == ["portability"]}
    assert machines == {machine.name for machine in portability.MACHINES}
    runs = [variables for targets, variables in calls if targets == ["colab"]]
    known = colab.releases()
    assert runs == [{"RELEASE": name} for name in sorted(known, reverse=True)]
    # Every release runs under its own Python.
    matrix = job["strategy"]["matrix"]
    for release in known.values():
        own = [more["python"] for more in matrix["include"] if release.name in more["target"]]
        assert (own or matrix["python"]) == [release.python]


def test_a_weekly_job_that_fails_opens_one_issue():
    (report,) = [step for step in workflow("weekly")["jobs"]["make"]["steps"] if step.get("if") == "failure()"]
    assert "gh issue list" in report["run"]
    assert "gh issue create" in report["run"]
    assert workflow("weekly")["permissions"]["issues"] == "write"


def test_torch_comes_from_the_registry_in_the_version_of_the_makefile():
    pinned = re.search(r"^TORCH \?= (torch==[\d.]+)\+cpu$", MAKEFILE, re.M)[1]
    for path in WORKFLOWS:
        assert {*re.findall(r"TORCH=(\S+)", path.read_text(encoding="utf8"))} == {pinned}


def test_the_dev_container_opens_lab_at_the_first_chapter():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf8"))
    *_, install = container["onCreateCommand"].split(" && ")
    assert re.search(rf"^{re.escape(install.removeprefix('make '))}:", MAKEFILE, re.M)
    targets, variables = made(container["postAttachCommand"])
    assert targets == ["lab"]
    assert ROOT / variables["AT"] == notebooks.chapters()[0]


def test_every_command_is_listed_and_no_file_of_its_name_stands_in_its_way():
    listed = {*re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.M)}
    phony = MAKEFILE.partition(".PHONY:")[2].partition("\n\n")[0].replace("\\", "").split()
    assert {*phony} == listed


def test_the_newest_releases_are_those_of_what_is_pinned_but_for_the_builder():
    recipe = MAKEFILE.partition("\nnewest:")[2].partition("\n\n")[0]
    pattern = re.search(r"sed -E '([^']+)'", recipe)[1].replace("$$", "$")
    delete, cut, bound = pattern.split("; ")
    assert (delete, cut, bound) == ("/^-r|^#/d", "s/[=]=.*//", "s/^jupyter-book$/jupyter-book<2/")
