// Node's tls module as a client: sends, ends its direction, reports what came and how.
// node tls_client.js PORT AUTHORITY ALLOW_HALF_OPEN BYTES
'use strict';
const fs = require('node:fs');
const tls = require('node:tls');

const [port, authority, allowHalfOpen, bytes] = process.argv.slice(2);
const socket = tls.connect({
  port: Number(port),
  host: '127.0.0.1',
  servername: 'localhost',
  ca: fs.readFileSync(authority),
  allowHalfOpen: allowHalfOpen === 'true',
});
let received = 0;
socket.on('data', (piece) => { received += piece.length; });
socket.on('end', () => { console.log(JSON.stringify({ received })); });
socket.on('error', (error) => { console.log(JSON.stringify({ error: error.code })); });
socket.on('secureConnect', () => { socket.end(Buffer.alloc(Number(bytes), 'x')); });
