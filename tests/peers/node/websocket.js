'use strict';
// WebSocket with `ws`, server and client. `cargo xtask conformance websocket` runs it; cases.js says what each path is for.
//
//   node websocket.js serve IP:PORT            lines on standard output: `close ID CODE REASON`, `result NAME CASE RESULT`
//   node websocket.js call IP:PORT NAME...     asks the Service NAME of namespace shop; lines: `result NAME CASE RESULT`

const fs = require('fs');
const http = require('http');
const path = require('path');
const { WebSocket, WebSocketServer } = require('ws');
const { CASES, TEXT, closeSent, runCases } = require('./cases.js');

function say(...words) {
  process.stdout.write(`${words.join('\t')}\n`);
}

/** Sends a text in fragments of three bytes, which end within characters. */
function sendFragments(socket, text) {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 3) {
    socket.send(bytes.subarray(at, at + 3), { binary: false, compress: false, fin: at + 3 >= bytes.length });
  }
}

const ANSWERS = {
  '/first': (socket) => socket.send('first'),
  '/close': (socket, query) => socket.close(Number(query.get('code')), query.get('reason')),
  '/ping': (socket) => {
    socket.on('pong', (data) => socket.send(`pong ${data}`));
    socket.ping('are you there');
  },
  '/fragments': (socket) => socket.on('message', (data) => sendFragments(socket, data)),
  '/drop': (socket) => socket.on('message', () => socket.terminate()),
  '/echo': (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })),
};

function serve(address) {
  const [host, port] = address.split(':');
  const server = http.createServer(page);
  const sockets = new WebSocketServer({
    server,
    perMessageDeflate: true,
    verifyClient: (info, decide) => decide(!info.req.url.startsWith('/refuse'), 403, 'no entry\n'),
    handleProtocols: (offered) => ['two', 'three'].find((name) => offered.has(name)) ?? false,
  });
  sockets.on('connection', (socket, request) => {
    const url = new URL(request.url, 'http://peer');
    socket.on('error', () => {});
    socket.on('close', (code, reason) => say('close', url.searchParams.get('id'), code, reason));
    ANSWERS[url.pathname](socket, url.searchParams);
  });
  server.listen(Number(port), host);
}

/** The page that a browser opens, its script, and where it sends what came of the cases. */
function page(request, response) {
  if (request.method === 'POST') {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      process.stdout.write(Buffer.concat(parts));
      response.end();
    });
    return;
  }
  const isScript = request.url.endsWith('.js');
  const file = path.join(__dirname, isScript ? 'cases.js' : 'page.html');
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
  response.end(fs.readFileSync(file));
}

function call(address, names) {
  const [ip, port] = address.split(':');
  const lookup = (_, options, done) => (options.all ? done(null, [{ address: ip, family: 4 }]) : done(null, ip, 4));
  const connect = (name, target, { protocols = [], plain = false } = {}) => (
    new WebSocket(`ws://${name}.shop.maesh:${port}${target}`, protocols, { perMessageDeflate: !plain, lookup }));
  const more = {
    'close-1001-sent': closeSent(1001),
    'fragments-sent': async (open) => {
      const peer = await open('/echo', { plain: true });
      sendFragments(peer.socket, TEXT);
      return peer.message();
    },
    'ping-sent': async (open) => {
      const { socket } = await open('/echo');
      const pong = new Promise((resolve) => { socket.once('pong', resolve); });
      socket.ping('are you there');
      return `pong ${await pong}`;
    },
    'refused': (open, id, name) => refusal(connect(name, '/refuse')),
  };
  return runCases({ ...CASES, ...more }, 'ws', names, connect, (...result) => say('result', ...result));
}

/** The status and the body of a refused handshake. */
function refusal(socket) {
  return new Promise((resolve) => {
    socket.on('open', () => resolve('accepted'));
    socket.on('unexpected-response', async (_, response) => {
      let body = '';
      for await (const part of response) body += part;
      resolve(`${response.statusCode} ${body.trim()}`);
    });
  });
}

const [mode, address, ...names] = process.argv.slice(2);
if (mode === 'serve') serve(address);
else call(address, names).then(() => process.exit(0));
