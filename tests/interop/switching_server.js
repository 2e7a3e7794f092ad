// A broken server: it answers every request with a 101, asked or not.
// node switching_server.js
'use strict';
const http = require('node:http');

const server = http.createServer((request, response) => {
  response.writeHead(101, { Connection: 'Upgrade', Upgrade: 'echo' });
  response.end();
});
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
