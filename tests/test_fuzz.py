"""Every public function answers what its definition gives, or names what is wrong; hostile arguments."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from fuzzing.cases import assert_agrees
from hypothesis import HealthCheck, given, settings
from search import examples

# Hypothesis marks a test whose decorator it is; these call it within, and `make fuzz` asks for the mark.
pytestmark = [pytest.mark.backends, pytest.mark.hypothesis]

IDEAS = sorted(path.stem for path in (Path(__file__).parent / "fuzzing").glob("*.py"))
IDEAS = {name: import_module(f"fuzzing.{name}") for name in IDEAS if name not in ("__init__", "cases", "values")}
NAMES = [f"{idea}.{case}" for idea, module in IDEAS.items() for case in module.CASES]
CASES = dict(zip(NAMES, (case for module in IDEAS.values() for case in module.CASES), strict=True))
SETTINGS = {"suppress_health_check": list(HealthCheck)}

#: What is no idea for others to use.
NO_IDEAS = ("experiments", "press", "workbench")


@pytest.mark.parametrize("name", CASES)
def test_right_arguments_give_what_the_definition_gives(name):
    case = CASES[name]

    @settings(examples(case.examples), **SETTINGS)
    @given(case.right)
    def agrees(arguments):
        tolerance = case.tolerance(arguments) if callable(case.tolerance) else case.tolerance
        assert_agrees(case.function(**arguments), case.reference(**arguments), tolerance)

    agrees()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.wrong])
def test_a_wrong_argument_is_refused_by_name(name):
    case = CASES[name]
    untried = [(argument, way) for argument, ways in case.wrong.items() for way in ways]

    # Also where few are drawn: a way waits for arguments that it can spoil, and is tried once.
    @settings(max_examples=max(60, examples(60).max_examples), **SETTINGS)
    @given(case.spoilt or case.right)
    def refuses(arguments):
        for argument, way in list(untried):
            right = arguments.get(argument)
            if right is None and not hasattr(way, "constant"):
                continue
            with pytest.raises(ValueError, match=rf"\b{re.escape(argument)}\b"):
                pytest.fail(
                    f"{argument} {way.__name__} gave {case.function(**{**arguments, argument: way(right)})}"
                )
            untried.remove((argument, way))

    refuses()
    assert not untried, "a way to be wrong was never tried"


def test_no_two_cases_have_one_name():
    assert len(CASES) == len(NAMES)


def test_every_idea_is_tried():
    lib = Path(__file__).parents[1] / "lib"
    paths = [path for path in lib.iterdir() if path.is_dir() or path.suffix == ".py"]
    assert {*IDEAS} == {path.stem for path in paths if path.stem[0] != "_" and path.stem not in NO_IDEAS}


@pytest.mark.parametrize("idea", IDEAS)
def test_no_public_name_is_left_out(idea):
    public, module = {*import_module(f"lib.{idea}").__all__}, IDEAS[idea]
    tried = {name for case in module.CASES for name in case.tried}
    assert public - tried == {*module.EXEMPT}, "a name is in no case and in no exemption, or in both, or is no name"
    assert all(len(reason) > 10 for reason in module.EXEMPT.values()), "an exemption has a reason"
