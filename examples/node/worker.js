#!/usr/bin/env node
// Works on the messages of a queue until SIGTERM or Ctrl-C: worker.js QUEUE
//
// Shows a Consume stream: credit bounds what is held at a time, the server keeps the leases while the stream lives,
// acks travel on the stream. A broken stream is opened again and what had no answer is settled again. At SIGTERM the
// worker takes no more, finishes the message in hand, settles it and exits with 0; what it held besides is given back
// uncounted. Killed with -9, its messages go to other workers when their leases lapse.
'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const { promisify } = require('node:util');
const connection = require('./connection.js');

const HELD_MESSAGES = 10;
const REOPEN_MS = 1_000;
const DRAIN_MS = 20_000; // below the 30 s after which Kubernetes kills

const print = promisify(process.stdout.write.bind(process.stdout));

// The work. Reject, and the message is tried again later. Resolve only when it is done: a line that still waits in this
// program would be lost with it.
async function handle(delivery) {
  if (delivery.message.body.length === 0) throw new Error('an empty message');
  await print(`attempt ${delivery.attempt}: ${delivery.message.body}\n`);
}

class Worker {
  constructor(source) {
    this.source = source;
    this.stream = null; // the open one
    this.unanswered = new Map(); // sequence -> settling frame without a Settled
    this.sequence = 0;
    this.isBusy = false;
    this.isStopping = false;
  }

  // At a signal. Each is handled once: a second one ends the program at once.
  stop() {
    this.isStopping = true;
    setTimeout(() => {
      console.error(`worker: not drained within ${DRAIN_MS / 1000} s; what it held comes again`);
      process.exit(1);
    }, DRAIN_MS).unref();
    this.drain();
  }

  drain() {
    this.send({ drain: true });
    if (!this.isBusy) this.stream?.end();
  }

  send(frame) {
    if (this.stream?.writable) this.stream.write(frame);
  }

  async run() {
    const client = await connection.connect();
    for (;;) {
      try {
        await this.consume(client);
      } catch (error) {
        if (!connection.isWorthRepeating(error)) throw error;
        console.error(`worker: opening a new stream; ${connection.explain(error)}`);
      }
      if (this.isStopping && this.unanswered.size === 0) break;
      await sleep(REOPEN_MS);
    }
    client.close();
  }

  // One stream: who we are, what the last stream left unanswered, then what comes.
  async consume(client) {
    // No deadline: it lives as long as the worker. The client's pings notice a dead server.
    this.stream = client.Consume();
    const credit = { messages: HELD_MESSAGES };
    this.send({ open: { source: this.source, consumer: 'node-worker', keep_leases: true, credit } });
    for (const frame of this.unanswered.values()) this.send(frame);
    if (this.isStopping) this.drain();
    for await (const response of this.stream) {
      switch (response.frame) {
        case 'deliveries':
          await this.workOn(response.deliveries.deliveries);
          break;
        case 'settled':
          this.unanswered.delete(response.settled.sequence);
          for (const failure of response.settled.failures) {
            if (failure.error === 'SETTLE_ERROR_ALREADY_SETTLED') continue;
            console.error(`worker: not settled, may be done twice: ${failure.error}`);
          }
          break;
        case 'draining':
          this.drain(); // the server goes away, or wants the stream to move; a new stream goes on
          break;
      }
    }
  }

  async workOn(deliveries) {
    this.isBusy = true;
    for (const delivery of deliveries) {
      if (this.isStopping) break;
      const lease_tokens = [delivery.lease_token];
      try {
        await handle(delivery);
        this.settle({ ack_tokens: lease_tokens });
      } catch (error) {
        // Whatever it is, the message must not be lost.
        this.settle({ nacks: [{ lease_tokens, reason: String(error.message).slice(0, 250) }] });
      }
    }
    this.isBusy = false;
    if (this.isStopping) this.stream.end();
  }

  settle(what) {
    const frame = { sequence: ++this.sequence, ...what };
    this.unanswered.set(this.sequence, frame);
    this.send(frame);
  }
}

async function main() {
  const [source] = process.argv.slice(2);
  if (source === undefined) {
    console.error('usage: worker.js QUEUE');
    process.exit(2);
  }
  const worker = new Worker(source);
  process.once('SIGTERM', () => worker.stop());
  process.once('SIGINT', () => worker.stop());
  try {
    await worker.run();
  } catch (error) {
    console.error(`worker: ${connection.explain(error)}`);
    process.exit(1);
  }
}

main();
