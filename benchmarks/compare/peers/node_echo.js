// Node's server, written as in its documentation.  node node_echo.js PORT [CERTIFICATE]
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const [, , port, certificate] = process.argv;

function answer(request, response) {
  const body = 'okay\n';
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
  response.end(body);
}
const pem = certificate && fs.readFileSync(certificate);
const server = pem
  ? https.createServer({ key: pem, cert: pem }, answer) : http.createServer(answer);
server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => socket.destroy());
  socket.setNoDelay(true);
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n' +
    `Upgrade: ${request.headers.upgrade}\r\n\r\n`);
  if (head.length) socket.unshift(head);
  socket.pipe(socket);
});
server.keepAliveTimeout = 60_000;
server.listen({ host: '127.0.0.1', port: Number(port), backlog: 1024 });
