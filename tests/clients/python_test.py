"""The Python examples: see contract.py."""

import unittest

from contract import ClientContract
from languages import Python


class PythonTest(ClientContract, unittest.TestCase):
    language = Python()


if __name__ == "__main__":
    unittest.main()
