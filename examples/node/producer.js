#!/usr/bin/env node
// Puts each line of standard input into a queue: producer.js QUEUE [NAME]
//
// Lines travel in batches. Each batch has a request_id, so a batch whose answer got lost is sent again without being
// written twice. NAME names this input: if the program is killed and run again within ten minutes with the same input
// and the same NAME, what was already in is not written again.
'use strict';

const { randomUUID } = require('node:crypto');
const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');
const { promisify } = require('node:util');
const connection = require('./connection.js');

const BATCH_LINES = 500;
const BATCH_BYTES = 256 * 1024;
const DEADLINE_MS = 30_000;
const PAUSE_MS = 1_000;
// With a server that is gone or full; less than the ten minutes for which it knows a request_id.
const PATIENCE_MS = 300_000;

// The same lines make the same batches, which is what lets NAME work.
async function* batches(input) {
  let batch = [];
  let size = 0;
  // Latin-1 keeps every byte as it is.
  for await (const line of readline.createInterface({ input: input.setEncoding('latin1'), crlfDelay: Infinity })) {
    if (batch.length > 0 && (batch.length === BATCH_LINES || size + line.length > BATCH_BYTES)) {
      yield batch;
      batch = [];
      size = 0;
    }
    batch.push({ body: Buffer.from(line, 'latin1'), content_type: 'text/plain' });
    size += line.length;
  }
  if (batch.length > 0) yield batch;
}

// Sends the very same request until it is in. gRPC repeats a lost call by itself; this is for longer troubles.
async function enqueue(client, request) {
  const call = promisify(client.Enqueue).bind(client);
  const giveUpAt = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await call(request, { deadline: Date.now() + DEADLINE_MS });
    } catch (error) {
      if (!connection.isWorthRepeating(error) || Date.now() > giveUpAt) throw error;
      console.error(`producer: trying again; ${connection.explain(error)}`);
      await sleep(PAUSE_MS);
    }
  }
}

// Resolves to how many messages are durably in the queue.
async function produce(queue, name, input) {
  const client = await connection.connect();
  try {
    let count = 0;
    let number = 0;
    for await (const messages of batches(input)) {
      const response = await enqueue(client, { queue, messages, request_id: `${name}-${number++}` });
      count += response.message_ids.length;
    }
    return count;
  } finally {
    client.close();
  }
}

async function main() {
  const [queue, name = randomUUID()] = process.argv.slice(2);
  if (queue === undefined) {
    console.error('usage: producer.js QUEUE [NAME]');
    process.exit(2);
  }
  try {
    console.log(`${await produce(queue, name, process.stdin)} messages enqueued`);
  } catch (error) {
    console.error(`producer: ${connection.explain(error)}`);
    process.exit(1);
  }
}

main();
