// The client half of Node's well-known example.  It does not call process.exit(): it
// ends when the server has ended the connection, too.
// node handshake_client.js PORT
'use strict';
const http = require('node:http');

const request = http.request({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  headers: { Connection: 'Upgrade', Upgrade: 'websocket' },
});
request.end();
request.on('upgrade', (response, socket) => {
  console.log('got upgraded!');
  socket.end();
});
