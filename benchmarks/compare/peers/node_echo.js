// Node's server, written as in its documentation.  node node_echo.js PORT
'use strict';
const http = require('node:http');

const server = http.createServer((request, response) => {
  const body = 'okay\n';
  response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
  response.end(body);
});
server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => socket.destroy());
  socket.setNoDelay(true);
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n' +
    `Upgrade: ${request.headers.upgrade}\r\n\r\n`);
  if (head.length) socket.unshift(head);
  socket.pipe(socket);
});
server.keepAliveTimeout = 60_000;
server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 1024 });
