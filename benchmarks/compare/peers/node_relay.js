// Copies both ways between its clients and another port.  node node_relay.js PORT UPSTREAM
'use strict';
const net = require('node:net');
const [port, upstream] = process.argv.slice(2).map(Number);
const options = { allowHalfOpen: true, noDelay: true };

const server = net.createServer(options, (left) => {
  const right = net.connect({ ...options, host: '127.0.0.1', port: upstream });
  left.on('error', () => right.destroy());
  right.on('error', () => left.destroy());
  left.pipe(right).pipe(left);
});
server.listen({ host: '127.0.0.1', port, backlog: 1024 });
