// A server that has never heard of Upgrade: without a listener for it, Node passes an
// offer on as an ordinary request.
// node plain_server.js
'use strict';
const http = require('node:http');

const server = http.createServer((request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/plain' });
  response.end(`no switch for ${request.headers.upgrade}`);
});
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
