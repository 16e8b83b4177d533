'use strict';
// WebSocket over HTTP/2 (RFC 8441) with `undici`: all cases to a Service on one connection. Used as websocket.js is.
//
//   node websocket_h2.js call IP:PORT NAME...

const crypto = require('crypto');
const { DecoratorHandler, H2CClient, WebSocket } = require('undici');
const { CASES, runCases } = require('./cases.js');

/** What undici asks for over HTTP/2, and RFC 8441 does not have: the answer to its key. */
class WithAccept extends DecoratorHandler {
  constructor(handler, key) {
    super(handler);
    this.key = key;
  }

  onRequestUpgrade(controller, status, headers, stream) {
    const digest = crypto.createHash('sha1').update(`${this.key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    // The end of the server's side does not end its own: it waits for 3 s, which would be long for all cases.
    stream.on('end', () => stream.end());
    return super.onRequestUpgrade(controller, status, { ...headers, 'sec-websocket-accept': digest }, stream);
  }
}

const [, address, ...names] = process.argv.slice(2);
const [ip, port] = address.split(':');
const clients = new Map();

function client(name) {
  if (!clients.has(name)) {
    const lookup = (_, options, done) => (options.all ? done(null, [{ address: ip, family: 4 }]) : done(null, ip, 4));
    const connection = new H2CClient(`http://${name}.shop.maesh:${port}`, { connect: { lookup } });
    clients.set(name, connection.compose((dispatch) => (options, handler) => (
      dispatch(options, new WithAccept(handler, options.headers['sec-websocket-key'])))));
  }
  return clients.get(name);
}

function connect(name, path, { protocols = [] } = {}) {
  return new WebSocket(`ws://${name}.shop.maesh:${port}${path}`, { protocols, dispatcher: client(name) });
}

runCases(CASES, 'undici', names, connect, (...result) => process.stdout.write(`${['result', ...result].join('\t')}\n`))
  .then(() => process.exit(0));
