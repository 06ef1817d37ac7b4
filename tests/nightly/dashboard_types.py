#!/usr/bin/python3
"""TypeScript compares the chart's dashboards with Grafana's own types: a misspelt key or a value of the wrong kind is an error.
The packages are pinned in tools/grafana and come from npm's registry at the first run.
"""

import filecmp
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from expressions import DASHBOARDS, ROOT  # noqa: E402

PINNED = ROOT / "tools/grafana"
HOME = ROOT / "build/grafana"

# JSON has plain strings where the types have enumerations, and none of the functions.
TYPES = """
import type * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import type * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import type * as stat from '@grafana/grafana-foundation-sdk/stat';
import type * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

type Json<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends (infer Item)[] ? Json<Item>[] : T extends object ? {[Key in keyof T]: Json<T[Key]>} : T;
type Target = Omit<Json<prometheus.Dataquery>, '_implementsDataqueryVariant'>;
type Fields<Custom> = Omit<Json<dashboard.FieldConfigSource>, 'defaults'>
  & {defaults: Omit<Json<dashboard.FieldConfig>, 'custom'> & {custom?: Json<Custom>}};
type Panel<Type, Options, Custom> = Omit<Json<dashboard.Panel>, 'type' | 'targets' | 'options' | 'fieldConfig'>
  & {type: Type, targets: Target[], options: Json<Options>, fieldConfig: Fields<Custom>};
type Dashboard = Omit<Json<dashboard.Dashboard>, 'panels'> & {panels: (
  Panel<'timeseries', timeseries.Options, timeseries.FieldConfig> | Panel<'stat', stat.Options, never>
  | (Omit<Json<dashboard.RowPanel>, 'type'> & {type: 'row'}))[]};
"""


def install():
    """npm compares what it gets with the checksums in the lock file, and runs nothing of it."""
    names = ("package.json", "package-lock.json", ".npmrc")
    if (HOME / "node_modules/typescript").is_dir() and filecmp.cmp(PINNED / names[1], HOME / names[1]):
        return
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    for name in names:
        shutil.copy(PINNED / name, HOME)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HOME, check=True)


def complaints(dashboards):
    """What the compiler says of {name: dashboard}."""
    for old in HOME.glob("*.ts"):
        old.unlink()
    for name, dashboard in dashboards.items():
        text = f"{TYPES}\nexport const checked: Dashboard = {json.dumps(dashboard, indent=1)};\n"
        (HOME / f"{name}.ts").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["node_modules/.bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022",
         *(f"{name}.ts" for name in dashboards)], cwd=HOME, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def main():
    install()
    dashboards = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS}
    if said := complaints(dashboards):
        raise AssertionError(said)
    print(f"{', '.join(dashboards)}: as Grafana's types want them")
    # The compiler would find these.
    for spoil in (lambda panel: panel.update(descripton="x"), lambda panel: panel["options"].update(graphMode="aera"),
                  lambda panel: panel["targets"][0].update(expression="x"), lambda panel: panel.pop("type")):
        spoilt = json.loads(DASHBOARDS[0].read_text(encoding="utf-8"))
        spoil(spoilt["panels"][0])
        if not complaints({"spoilt": spoilt}):
            raise AssertionError("a spoilt dashboard was not found to be one")
    print("four spoilt ones are found")


if __name__ == "__main__":
    main()
