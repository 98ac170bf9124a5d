"""
Fuzzing: any bytes at all, for everything that reads what strangers send.

L{tests.fuzz.targets} has a target for each decoder, and what must hold whatever
it reads.  C{python -m tests.fuzz} looks for bytes for which it does not, guided
by coverage (atheris); C{corpus/} keeps those that were found once, and
L{tests.fuzz.test_corpus} tries them each time.
"""
