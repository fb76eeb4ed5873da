"""The list of mistakes that are put in on purpose fits the code and the tests that it speaks of."""

import ast

import pytest
from simulation import mutants


@pytest.mark.parametrize("mutant", mutants.read(), ids=lambda each: each.name)
def test_a_mutant_has_its_place_and_its_test(mutant: mutants.Mutant) -> None:
    assert (mutants.PACKAGE / mutant.file).read_text().count(mutant.old) == 1
    path, _, name = mutant.test.partition("::")
    if name:
        tree = ast.parse((mutants.ROOT / path).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name.partition("[")[0] in {each.name for each in tree.body if isinstance(each, functions)}
    elif path:
        assert (mutants.ROOT / path).is_file()


def test_no_two_mutants_have_one_name() -> None:
    names = [each.name for each in mutants.read()]
    assert len(set(names)) == len(names)
