#!/usr/bin/env node
// Prints what is published on a topic and remembers how far it got: subscriber.js TOPIC POSITION_FILE
//
// Started again with the same file it goes on behind the last message it printed: none is missed, and only what was
// printed but not yet noted (a crash between the two) comes again. Without the file it begins at the oldest message
// kept. It can be ended at any moment, also with kill -9.
'use strict';

const fs = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const { promisify } = require('node:util');
const connection = require('./connection.js');

const REOPEN_MS = 1_000;

const print = promisify(process.stdout.write.bind(process.stdout));

// The work on one message. Resolve only when it is done: a line that still waits in this program would be lost with it.
async function handle(message) {
  await print(`${message.message.body}\n`);
}

function readPosition(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, 'ascii').trim() : '';
}

// A crash leaves the old position or the new one, whole.
function writePosition(file, position) {
  const out = fs.openSync(`${file}.new`, 'w');
  fs.writeSync(out, `${position}\n`);
  fs.fsyncSync(out);
  fs.closeSync(out);
  fs.renameSync(`${file}.new`, file);
}

// One stream, until it breaks.
async function subscribe(client, topic, file) {
  let position = readPosition(file);
  const start = position ? { after: position } : { earliest: true };
  // No deadline: it lives as long as the subscriber. The client's pings notice a dead server.
  for await (const response of client.Subscribe({ topic, start, subscriber: 'node-subscriber' })) {
    for (const message of response.messages) await handle(message);
    if (response.position && response.position !== position) {
      position = response.position;
      writePosition(file, position);
    }
  }
}

async function run(topic, file) {
  const client = await connection.connect();
  for (;;) {
    try {
      await subscribe(client, topic, file);
    } catch (error) {
      if (!connection.isWorthRepeating(error)) throw error;
      console.error(`subscriber: opening a new stream; ${connection.explain(error)}`);
    }
    await sleep(REOPEN_MS);
  }
}

async function main() {
  const [topic, file] = process.argv.slice(2);
  if (file === undefined) {
    console.error('usage: subscriber.js TOPIC POSITION_FILE');
    process.exit(2);
  }
  try {
    await run(topic, file);
  } catch (error) {
    const { OUT_OF_RANGE, FAILED_PRECONDITION } = connection.status;
    const isPositionLost = [OUT_OF_RANGE, FAILED_PRECONDITION].includes(error.code);
    const hint = isPositionLost ? `. To begin again at the oldest message kept: rm ${file}` : '';
    console.error(`subscriber: ${connection.explain(error)}${hint}`);
    process.exit(1);
  }
}

main();
