// Node's tls module as a server: answers each input once its end has come; or, with
// "late", once it reads a line itself.
// node tls_server.js KEY_AND_CERTIFICATE ALLOW_HALF_OPEN [late]
'use strict';
const fs = require('node:fs');
const tls = require('node:tls');

const pem = fs.readFileSync(process.argv[2]);
const allowHalfOpen = process.argv[3] === 'true';
const server = tls.createServer({ key: pem, cert: pem, allowHalfOpen }, (socket) => {
  let bytes = 0;
  socket.on('data', (piece) => { bytes += piece.length; });
  if (process.argv[4] === 'late') {
    process.stdin.once('data', () => { socket.end(`got ${bytes}`); });
  } else {
    socket.on('end', () => { socket.end(`got ${bytes}`); });
  }
  socket.on('error', (error) => { console.log(JSON.stringify({ error: error.code })); });
  socket.on('close', () => { console.log(JSON.stringify({ bytes })); });
});
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
