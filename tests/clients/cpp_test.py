"""The C++ examples: see contract.py."""

import unittest

from contract import ClientContract
from languages import Cpp


class CppTest(ClientContract, unittest.TestCase):
    language = Cpp()


if __name__ == "__main__":
    unittest.main()
