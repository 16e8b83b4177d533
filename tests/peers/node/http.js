'use strict';
// An HTTP server that says what it was sent, for `cargo xtask conformance smuggling`.
//
//   node http.js IP:PORT          one line on standard output for each request, `METHOD TARGET X-FORWARDED-FOR`

const http = require('http');

const [host, port] = process.argv[2].split(':');
const server = http.createServer((request, response) => {
  const seen = `${request.method} ${request.url}`;
  const answer = () => {
    process.stdout.write(`${seen} ${request.headers['x-forwarded-for'] ?? ''}\n`);
    response.end(`seen: ${seen}\n`);
  };
  // `/early` is answered before its body was read.
  if (request.url === '/early') answer();
  else request.resume().on('end', answer);
});
// What the parser refuses never becomes a request. A request that is cut off is not one that it refuses.
server.on('clientError', (error, socket) => {
  if (!['ECONNRESET', 'HPE_INVALID_EOF_STATE'].includes(error.code)) process.stdout.write(`malformed: ${error.code}\n`);
  socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
});
server.keepAliveTimeout = 0;
server.listen(Number(port), host);
