// Offers a switch and reports what the server says first: what came with the 101 and
// what came after it.
// node greeted_client.js PORT
'use strict';
const http = require('node:http');

const request = http.request({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  headers: { Connection: 'Upgrade', Upgrade: 'echo' },
});
request.on('upgrade', (response, socket, head) => {
  const pieces = [head];
  socket.on('data', (piece) => pieces.push(piece));
  socket.on('end', () => {
    console.log(JSON.stringify({
      status: response.statusCode,
      reason: response.statusMessage,
      upgrade: response.headers.upgrade,
      received: Buffer.concat(pieces).toString('latin1'),
    }));
  });
  socket.end('from Node');
});
request.end();
