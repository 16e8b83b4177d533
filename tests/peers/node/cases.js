'use strict';
// The cases of `cargo xtask conformance websocket` that the WebSocket interface of browsers can run: in a page, and in
// Node.js with libraries that have the same interface. What a case shows, and its right result, is in xtask.

const TEXT = 'grüße, 世界 🦀';
const REASON = 'bye ü';
const LARGE = 1024 * 1024;
const MANY = 200;

/** Pseudo-random bytes, so that compression does not make them few. */
function noise(length) {
  const bytes = new Uint8Array(length);
  let state = 1;
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[at] = state >>> 16;
  }
  return bytes;
}

/** Text of `length` bytes. */
function noisyText(length) {
  const letters = [];
  for (const byte of noise(length)) letters.push(String.fromCharCode(32 + (byte % 95)));
  return letters.join('');
}

function isSame(one, other) {
  if (typeof one === 'string' || typeof other === 'string') return one === other;
  const [a, b] = [new Uint8Array(one), new Uint8Array(other)];
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** A WebSocket whose messages, and end, can be awaited. */
class Peer {
  constructor(socket) {
    this.socket = socket;
    this.events = [];
    this.waiting = null;
    socket.binaryType = 'arraybuffer';
    socket.onmessage = (event) => this.push({ data: event.data });
    socket.onclose = (event) => this.push({ code: event.code, reason: event.reason });
    socket.onerror = () => {};
    this.opened = new Promise((resolve, reject) => {
      socket.onopen = () => resolve(this);
      socket.addEventListener('close', (event) => reject(new Error(`closed, code ${event.code}`)));
    });
    this.opened.catch(() => {});
  }

  push(event) {
    this.events.push(event);
    if (this.waiting) this.waiting();
  }

  async next() {
    while (this.events.length === 0) {
      await new Promise((resolve) => { this.waiting = resolve; });
    }
    return this.events.shift();
  }

  async message() {
    const event = await this.next();
    if (!('data' in event)) throw new Error(`closed, code ${event.code}`);
    return event.data;
  }

  /** Sends a message, and returns what comes back. */
  async echo(data) {
    this.socket.send(data);
    return this.message();
  }

  async end() {
    let event = await this.next();
    while ('data' in event) event = await this.next();
    return event;
  }
}

function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('no end within 10 s')), 10000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/**
 * Each case: it gets `open(path, options)`, which makes a WebSocket to the server, an id for the server's log, and the
 * server's name; it returns what it saw.
 */
const CASES = {
  'text': async (open) => (await open('/echo')).echo(TEXT),
  'binary': async (open) => {
    const sent = Uint8Array.from({ length: 256 }, (_, at) => at);
    const got = await (await open('/echo')).echo(sent);
    return isSame(sent, got) ? `${got.byteLength} bytes` : 'other bytes';
  },
  'empty': async (open) => `${(await (await open('/echo')).echo('')).length} bytes`,
  'large-text': async (open) => same(await open('/echo'), noisyText(LARGE)),
  'large-binary': async (open) => same(await open('/echo'), noise(LARGE)),
  'order': async (open) => {
    const peer = await open('/echo');
    for (let at = 0; at < MANY; at += 1) peer.socket.send(`${at}`);
    for (let at = 0; at < MANY; at += 1) {
      const got = await peer.message();
      if (got !== `${at}`) return `${got} in place of ${at}`;
    }
    return `${MANY} in order`;
  },
  'first': async (open) => (await open('/first')).message(),
  'subprotocol': async (open) => {
    const peer = await open('/echo', { protocols: ['one', 'two'] });
    return (await peer.echo('a')) === 'a' ? peer.socket.protocol : 'no echo';
  },
  'fragments-received': async (open) => (await open('/fragments', { plain: true })).echo(TEXT),
  'ping-received': async (open) => (await open('/ping')).message(),
  'deflate': async (open) => {
    const peer = await open('/echo', { twin: true });
    const negotiated = peer.socket.extensions.includes('permessage-deflate') ? 'negotiated' : 'not negotiated';
    const result = await same(peer, 'maesh '.repeat(LARGE / 6));
    peer.socket.close(1000);
    await peer.end();
    return `${negotiated}, ${result}`;
  },
  'dropped': async (open) => {
    const peer = await open('/drop');
    peer.socket.send('a');
    return `${(await peer.end()).code}`;
  },
};

for (const code of [1000, 3000, 4999]) CASES[`close-${code}-sent`] = closeSent(code);
for (const code of [1000, 1001, 3000, 4999]) {
  CASES[`close-${code}-received`] = async (open) => {
    const { code: got, reason } = await (await open(`/close?code=${code}&reason=${encodeURIComponent(REASON)}`)).end();
    return `${got} ${reason}`;
  };
}

function closeSent(code) {
  return async (open, id) => {
    const peer = await open(`/echo?id=${id}-${code}`);
    await peer.echo('a');
    peer.socket.close(code, REASON);
    return `${(await peer.end()).code}`;
  };
}

async function same(peer, sent) {
  return isSame(sent, await peer.echo(sent)) ? 'same' : 'not the same';
}

/**
 * Runs cases one after the other. `connect(host, path, options)` makes a WebSocket; `report(name, case, result)` gets
 * what came of a case.
 */
async function runCases(cases, client, names, connect, report) {
  for (const name of names) {
    for (const [title, run] of Object.entries(cases)) {
      const peers = [];
      const open = (path, options = {}) => {
        const peer = new Peer(connect(options.twin ? `${name}-from-${client}` : name, path, options));
        peers.push(peer);
        return peer.opened;
      };
      const result = await inTime(run(open, `${client}-${name}`, name)).catch((error) => `failed: ${error.message}`);
      report(name, title, result);
      for (const peer of peers) peer.socket.close();
    }
  }
}

if (typeof module !== 'undefined') module.exports = { CASES, TEXT, closeSent, inTime, runCases };
