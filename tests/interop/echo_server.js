// Switches every offer of "echo"; the 101 and the first bytes of the other protocol
// leave in one write.  Then it echoes, and reports each connection's input at its end.
// node echo_server.js
'use strict';
const crypto = require('node:crypto');
const http = require('node:http');

const SWITCH = [
  'HTTP/1.1 101 Switching Protocols',
  'Connection: Upgrade',
  'Upgrade: echo',
  '',
  '',
].join('\r\n');

const server = http.createServer();
server.on('upgrade', (request, socket, head) => {
  const received = crypto.createHash('sha256');
  let bytes = 0;
  socket.on('data', (piece) => {
    received.update(piece);
    bytes += piece.length;
  });
  socket.on('end', () => {
    console.log(JSON.stringify({ received: received.digest('hex'), bytes }));
  });
  socket.unshift(head);
  socket.write(`${SWITCH}first `);
  socket.pipe(socket);
});
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
