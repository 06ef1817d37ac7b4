"""docs/CLIENTS.md and the pages of the examples tell what is there."""

import pathlib
import re
import textwrap
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/CLIENTS.md"
LANGUAGES = ("python", "node", "go", "java", "cpp")
CODE = re.compile(r"\bFrom\s+\[[^]]+\]\(([^)]+)\):\n\n```(\w+)\n(.*?)```\n", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")
# What the four lines of a README's block are for, and how each program is called there.
STARTED_AS = {
    "python": "/usr/bin/python3 examples/python/{}.py",
    "node": "node examples/node/{}.js",
    "go": "build/examples/go/bin/{}",
    "java": "java @build/examples/java/path {}",
    "cpp": "build/examples/cpp/{}",
}


def contains(text, code):
    """Whether the lines of `code` stand in `text` one after the other, indented by the same more or less."""
    wanted, lines = textwrap.dedent(code), text.splitlines()
    count = len(wanted.splitlines())
    return any(textwrap.dedent("\n".join(lines[i:i + count]) + "\n") == wanted for i in range(len(lines) - count + 1))


class DocumentsTest(unittest.TestCase):
    # Every piece of code on the page stands in the file that is named before it, and every language has one.
    def test_code_is_that_of_the_examples(self):
        text = PAGE.read_text(encoding="utf-8")
        pieces = CODE.findall(text)
        self.assertEqual(len(pieces), text.count("```") // 2)
        for file, _, code in pieces:
            with self.subTest(file=file, code=code):
                self.assertTrue(contains((PAGE.parent / file).read_text(encoding="utf-8"), code))
        for language in LANGUAGES:
            self.assertTrue(any(f"/examples/{language}/" in file for file, _, _ in pieces), language)

    # The comparison itself finds a changed, a missing and a moved line.
    def test_comparison(self):
        self.assertTrue(contains("a\n  b\n    c\nd\n", "b\n  c\n"))
        self.assertFalse(contains("a\n  b\n    c\nd\n", "b\nc\n"))
        self.assertFalse(contains("a\nb\nc\n", "a\nc\n"))
        self.assertFalse(contains("a\nb\n", "a\nB\n"))

    # What is linked is there.
    def test_links(self):
        for page in (PAGE, ROOT / "examples/README.md", *(ROOT / f"examples/{name}/README.md" for name in LANGUAGES)):
            links = LINK.findall(page.read_text(encoding="utf-8"))
            self.assertGreater(len(links), 1, page)
            self.assertEqual([link for link in links if not (page.parent / link).exists()], [], page)

    # Each language's page says what to type for each of the three programs.
    def test_commands(self):
        for language in LANGUAGES:
            text = (ROOT / f"examples/{language}/README.md").read_text(encoding="utf-8")
            block = re.search(r"```\n(.*?)```", text, re.DOTALL)[1]
            for program, arguments in (("producer", "jobs"), ("worker", "jobs"), ("subscriber", "news /")):
                name = program.capitalize() if language == "java" else program
                self.assertIn(f"{STARTED_AS[language].format(name)} {arguments}", block)


if __name__ == "__main__":
    unittest.main()
