// Writes a request and the first bytes of the other protocol at once, through a bare
// socket, and reports all that comes back.
// node early_client.js PORT
'use strict';
const net = require('node:net');

const HEAD = [
  'GET /early HTTP/1.1',
  'Host: 127.0.0.1',
  'Connection: Upgrade',
  'Upgrade: echo',
  '',
  '',
].join('\r\n');

const socket = net.connect(Number(process.argv[2]), '127.0.0.1', () => {
  socket.write(`${HEAD}early`);
});
let answer = '';
socket.setEncoding('latin1');
socket.on('data', (piece) => {
  answer += piece;
  if (answer.includes('\r\n\r\nearly')) {
    // Were it echoed twice, the second one would have to come before the end.
    socket.end();
  }
});
socket.on('end', () => console.log(JSON.stringify({ answer })));
