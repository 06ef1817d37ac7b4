"""The Node examples: see contract.py."""

import unittest

from contract import ClientContract
from languages import Node


class NodeTest(ClientContract, unittest.TestCase):
    language = Node()


if __name__ == "__main__":
    unittest.main()
