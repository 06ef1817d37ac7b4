// The way to postkeeperd, as every example takes it: a client made from the protos, with the service's manners.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

// Of the source tree or, where there is none around, of the installed package.
const PROTOS = [path.join(__dirname, '../../protos'), '/usr/share/postkeeper/protos'].find(fs.existsSync);
const SERVICE_CONFIG = path.join(PROTOS, 'postkeeper/v1/service_config.json');
const DEFAULT_ADDRESS = '127.0.0.1:7411';
const CONNECT_MS = 10_000;

const api = grpc.loadPackageDefinition(
  protoLoader.loadSync('postkeeper/v1/message.proto', {
    includeDirs: [PROTOS],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
).postkeeper.v1;

// A client that retries what may be retried, balances over replicas, and notices when the other side is gone. Rejects
// if nobody answers within CONNECT_MS; calls would wait in silence until their deadline.
function connect() {
  const address = process.env.POSTKEEPER_ADDRESS || DEFAULT_ADDRESS;
  const client = new api.MessageService(address, grpc.credentials.createInsecure(), {
    'grpc.service_config': fs.readFileSync(SERVICE_CONFIG, 'utf8'),
    // postkeeperd allows a ping every 10 s, also without calls.
    'grpc.keepalive_time_ms': 20_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.keepalive_permit_without_calls': 1,
    // A server that restarts is found again soon.
    'grpc.initial_reconnect_backoff_ms': 200,
    'grpc.max_reconnect_backoff_ms': 2_000,
    'grpc.dns_min_time_between_resolutions_ms': 200,
    // postkeeperd is a neighbour; a web proxy in the environment is not the way to it.
    'grpc.enable_http_proxy': 0,
  });
  return new Promise((resolve, reject) => {
    client.waitForReady(Date.now() + CONNECT_MS, (error) => {
      if (!error) return resolve(client);
      client.close();
      reject(new Error(`cannot reach postkeeperd at ${address}. Is it running? Start it: postkeeperd`));
    });
  });
}

// Whether a call or stream that ended with this may go well the next time: the way broke, or the service is full. For
// calls that are safe to repeat only, as those with a request_id are.
function isWorthRepeating(error) {
  const { UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, CANCELLED, INTERNAL, UNKNOWN } = grpc.status;
  if ([UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED].includes(error.code)) return true;
  // What gRPC itself says of a broken connection or a server that ends. The service gives details with what it says.
  const isOfService = error.metadata !== undefined && error.metadata.get('grpc-status-details-bin').length > 0;
  return [CANCELLED, INTERNAL, UNKNOWN].includes(error.code) && !isOfService;
}

// One line about a call that failed, or about a server that isn't there.
function explain(error) {
  return error.code in grpc.status ? `${grpc.status[error.code]}: ${error.details}` : error.message;
}

module.exports = { connect, isWorthRepeating, explain, status: grpc.status };
