// Checks manifests against Kubernetes' own types: node check_manifests.mjs FILE...; exit code 1 if anything is wrong.
//
// Two packages see different things: the models of Kubernetes' client know every field (so an unknown one is found) and its
// type; kubernetes-models has the schemas, with what is required and what values may be. For what the Prometheus operator
// adds there are only schemas, which let unknown fields pass.
//
// Run in the folder where the packages are installed.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.cwd(), 'package.json'));
const client = require('@kubernetes/client-node');
const yaml = require('js-yaml');

const OPERATOR = 'monitoring.coreos.com/v1';
const SIMPLE = { string: 'string', number: 'number', boolean: 'boolean' };
// Of these the models say no more.
const ANYTHING = new Set(['any', 'object', 'Date', 'V1MicroTime', 'IntOrString']);
const complaints = [];

function checkFields(type, value, where) {
  if (value === null || value === undefined) {
    complaints.push(`${where}: is null`);
    return;
  }
  const ofArray = /^Array<(.*)>$/.exec(type)?.[1];
  const ofMap = /^\{ \[key: string\]: (.*); \}$/.exec(type)?.[1];
  const isObject = typeof value === 'object' && !Array.isArray(value);
  if (type in SIMPLE) {
    if (typeof value !== SIMPLE[type]) complaints.push(`${where}: has to be a ${type}, is ${JSON.stringify(value)}`);
  } else if (ofArray) {
    if (!Array.isArray(value)) complaints.push(`${where}: has to be a list`);
    else value.forEach((member, i) => checkFields(ofArray, member, `${where}[${i}]`));
  } else if (ANYTHING.has(type)) {
    return;
  } else if (!isObject) {
    complaints.push(`${where}: has to be a map`);
  } else if (ofMap) {
    Object.entries(value).forEach(([key, member]) => checkFields(ofMap, member, `${where}.${key}`));
  } else {
    checkModel(client[type], value, where);
  }
}

function checkModel(model, value, where) {
  const types = new Map(model.getAttributeTypeMap().map((field) => [field.baseName, field.type]));
  for (const [key, member] of Object.entries(value)) {
    if (types.has(key)) checkFields(types.get(key), member, `${where}.${key}`);
    else complaints.push(`${where}: no field "${key}"`);
  }
}

// apps/v1 Deployment is V1Deployment to the client.
function checkWithClient(manifest, where) {
  const version = manifest.apiVersion.split('/').pop();
  const name = version[0].toUpperCase() + version.slice(1) + manifest.kind;
  if (client[name] === undefined) complaints.push(`${where}: Kubernetes knows no ${manifest.apiVersion} ${manifest.kind}`);
  else checkFields(name, manifest, where);
}

function checkWithSchema(manifest, where) {
  const home = manifest.apiVersion === OPERATOR ? '@kubernetes-models/prometheus-operator' : 'kubernetes-models';
  const { [manifest.kind]: Model } = require(`${home}/${manifest.apiVersion}/${manifest.kind}`);
  try {
    new Model(manifest).validate();
  } catch (error) {
    complaints.push(`${where}: ${error.message}`);
  }
}

let count = 0;
for (const file of process.argv.slice(2)) {
  for (const manifest of yaml.loadAll(fs.readFileSync(file, 'utf8'))) {
    const where = `${path.basename(file)}: ${manifest.kind} ${manifest.metadata?.name}`;
    count += 1;
    if (manifest.apiVersion !== OPERATOR) checkWithClient(manifest, where);
    checkWithSchema(manifest, where);
  }
}
complaints.forEach((complaint) => console.log(complaint));
console.log(`${count} manifests, ${complaints.length} complaints`);
process.exit(complaints.length === 0 && count > 0 ? 0 : 1);
