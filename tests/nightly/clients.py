#!/usr/bin/python3
"""The examples of every language, with what takes too long for every change: clients.py [-v] [GoTest JavaTest ...]

Python, Node.js and C++ run at every change, too: tests/clients/.
"""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))

from contract import SlowClientContract  # noqa: E402
from languages import Cpp, Go, Java, Node, Python  # noqa: E402


class PythonTest(SlowClientContract, unittest.TestCase):
    language = Python()


class NodeTest(SlowClientContract, unittest.TestCase):
    language = Node()


class CppTest(SlowClientContract, unittest.TestCase):
    language = Cpp()


class GoTest(SlowClientContract, unittest.TestCase):
    language = Go()


class JavaTest(SlowClientContract, unittest.TestCase):
    language = Java()


if __name__ == "__main__":
    unittest.main()
