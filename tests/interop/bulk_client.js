// Switches, sends random bytes and ends its direction, reading all the while; reports
// what it sent and what came back up to the server's end.
// node bulk_client.js PORT BYTES
'use strict';
const crypto = require('node:crypto');
const http = require('node:http');

const payload = crypto.randomBytes(Number(process.argv[3]));
const request = http.request({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  headers: { Connection: 'Upgrade', Upgrade: 'echo' },
});
request.on('upgrade', (response, socket, head) => {
  const received = crypto.createHash('sha256').update(head);
  let bytes = head.length;
  socket.on('data', (piece) => {
    received.update(piece);
    bytes += piece.length;
  });
  socket.on('end', () => {
    console.log(JSON.stringify({
      sent: crypto.createHash('sha256').update(payload).digest('hex'),
      received: received.digest('hex'),
      bytes,
    }));
  });
  socket.write(payload);
  socket.end();
});
request.end();
