// Prints the field Passed of each request that it sees, as JSON, after its port.
// node seen_server.js
'use strict';
const http = require('node:http');

function see(request) {
  console.log(JSON.stringify({ passed: request.headers.passed ?? null, url: request.url }));
}

const server = http.createServer((request, response) => {
  see(request);
  request.on('error', () => {});
  request.resume();
  request.on('end', () => response.end('okay'));
});
server.on('upgrade', (request, socket) => {
  see(request);
  socket.on('error', () => {});
  socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n');
});
server.on('clientError', (error, socket) => {
  console.log(JSON.stringify({ error: error.code, raw: error.rawPacket?.toString('latin1') }));
  socket.destroy();
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
