#!/usr/bin/python3
"""What is made from the Helm chart's values: chart_values.py [--fix] [--help-markdown FILE] [CHART].

- the table of values in the chart's README.md, made from values.yaml: each value needs a comment above it
- that values.schema.json describes each value of values.yaml, and no other
- with FILE, the output of `postkeeperd --help-markdown`: the schema of `config`, made from the flags

Tells what doesn't fit, with exit code 1; --fix writes it.
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- values: made by tools/chart_values.py -->", "<!-- end of values -->"
# What the chart itself tells postkeeperd, and what is for the embedded ZooKeeper only.
NOT_FOR_USERS = ("listen", "metrics-listen", "advertise", "zookeeper", "data-dir", "zookeeper-heap",
                 "embedded-zookeeper-port")
PATTERNS = {"number": "[0-9]+", "bytes (KiB, MiB, GiB)": "[0-9]+(KiB|MiB|GiB)?", "time (ms, s, m, h)": "[0-9]+(ms|s|m|h)"}
COLUMNS_MAX = 118


class Value:
    def __init__(self, path, text, comment):
        self.path = path
        self.text = text  # None: there are values below it
        self.comment = comment


def values(text):
    """The values of values.yaml with their comments, in order. What has no comment belongs to the commented map above it."""
    found, above, comment = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            comment = []
            continue
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("#"):
            comment.append(line.strip()[1:].strip())
            continue
        match = re.fullmatch(r"\s*([\w.-]+):\s*(.*)", line)
        if match is None:
            raise ValueError(f"values.yaml:{number}: neither a comment nor a value")
        path = above[:indent // 2] + [match[1]]
        above = path
        found.append(Value(path, match[2] or None, " ".join(comment)))
        comment = []
    return found


def at(data, path):
    for key in path:
        data = data[key]
    return data


def table(text):
    """One row for each value with a comment; a map whose members have none is shown as a whole."""
    data, listed = yaml.safe_load(text), values(text)
    lines = ["| value | default | what it is |", "| --- | --- | --- |"]
    for value in listed:
        members = [other for other in listed if other.path[:-1] == value.path]
        is_covered = any(other.comment and other.path == value.path[:length]
                         for length in range(1, len(value.path)) for other in listed)
        if not value.comment:
            if not members and not is_covered:
                raise ValueError(f"values.yaml: {'.'.join(value.path)} has no comment")
            continue
        default = json.dumps(at(data, value.path))
        if members and all(member.comment for member in members):
            default = " "
        shown = f"`{default}`" if default.strip() else ""
        lines.append(f"| `{'.'.join(value.path)}` | {shown} | {value.comment.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def schema_of_config(help_markdown):
    """For each flag that is the user's: what postkeeperd takes, as far as a pattern can say it."""
    properties = {}
    for flag, unit, default, bounds in re.findall(r"^\| `--([\w-]+)`[^|]*\| ([^|]*) \| ([^|]*) \| ([^|]*) \|",
                                                  help_markdown, re.MULTILINE):
        if flag in NOT_FOR_USERS:
            continue
        if unit.strip() == "choice":
            properties[flag] = {"enum": [choice.strip() for choice in bounds.split(",")]}
        elif unit.strip() in PATTERNS:
            auto = "auto|" if default.strip() == "auto" else ""
            properties[flag] = {"type": "string", "pattern": f"^({auto}{PATTERNS[unit.strip()]})$"}
        else:
            properties[flag] = {"type": "string", "minLength": 1}
    if not properties:
        raise ValueError("there are no flags on this page")
    return {"type": "object", "properties": properties, "additionalProperties": False}


def compact(value, indent=0):
    """JSON, each object on one line if it fits."""
    line = json.dumps(value)
    if not isinstance(value, dict) or len(line) + indent <= COLUMNS_MAX - 30:
        return line
    inside = ",\n".join(f"{' ' * (indent + 2)}{json.dumps(key)}: {compact(part, indent + 2)}" for key, part in value.items())
    return "{\n" + inside + "\n" + " " * indent + "}"


def differences(schema, data, path=()):
    """What only one of them has, or what the schema leaves open although it knows the members."""
    properties = schema.get("properties")
    if properties is None:
        return
    if schema.get("additionalProperties") is not False:
        yield f"values.schema.json lets anything stand in {'.'.join(path) or 'it'}"
    for key in sorted(set(properties) | set(data)):
        name = ".".join(path + (key,))
        if key not in properties:
            yield f"values.schema.json doesn't describe {name}"
        elif key not in data:
            if path[:1] != ("config",):  # the server has the defaults of the rest
                yield f"values.schema.json describes {name}, which values.yaml doesn't have"
        elif isinstance(data[key], dict):
            yield from differences(properties[key], data[key], path + (key,))


def with_table(page, text):
    before, found_begin, rest = page.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found_begin or not found_end:
        raise ValueError(f"README.md: no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{table(text)}\n{END}{after}"


def main():
    arguments = sys.argv[1:]
    is_fixing = "--fix" in arguments
    help_markdown = None
    if "--help-markdown" in arguments:
        at_flag = arguments.index("--help-markdown")
        help_markdown = pathlib.Path(arguments[at_flag + 1]).read_text(encoding="utf-8")
        del arguments[at_flag:at_flag + 2]
    folders = [argument for argument in arguments if argument != "--fix"]
    chart = pathlib.Path(folders[0]) if folders else ROOT / "helm/postkeeper"
    text = (chart / "values.yaml").read_text(encoding="utf-8")
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    page = (chart / "README.md").read_text(encoding="utf-8")
    if help_markdown is not None:
        schema["properties"]["config"] = schema_of_config(help_markdown)
    complaints = list(differences(schema, yaml.safe_load(text)))
    for name, wanted in (("README.md", with_table(page, text)), ("values.schema.json", compact(schema) + "\n")):
        if (chart / name).read_text(encoding="utf-8") == wanted:
            continue
        if is_fixing:
            (chart / name).write_text(wanted, encoding="utf-8")
            print(f"fixed {chart / name}")
        else:
            complaints.append(f"{chart / name} isn't what tools/chart_values.py makes; ./dev fix writes it")
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as problem:
        sys.exit(str(problem))
