"""Hostile arguments for every public function of the ideas: `make fuzz` tries them long, `make test` short.

A function that is given anything may do two things: answer what its definition gives in float64, or refuse with an
error that names the argument. `tests/test_fuzz.py` sees to both.

::

    cases      a function, its right arguments, its reference, and ways to make an argument wrong
    values     arrays of every type, size and extreme that are right
    <idea>     the cases of an idea
"""
