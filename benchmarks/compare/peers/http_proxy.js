// Forwards requests and upgrades by http-proxy.  node http_proxy.js PORT UPSTREAM
'use strict';
const http = require('node:http');
const httpProxy = require('http-proxy');
const [port, upstream] = process.argv.slice(2).map(Number);

const proxy = httpProxy.createProxyServer({
  target: { host: '127.0.0.1', port: upstream },
  // By default it connects anew for each request.
  agent: new http.Agent({ keepAlive: true }),
  xfwd: true,
});
proxy.on('error', (error, request, answer) => {
  if (answer.writeHead) answer.writeHead(502).end();
  else answer.destroy();
});
const server = http.createServer((request, response) => proxy.web(request, response));
server.on('upgrade', (request, socket, head) => proxy.ws(request, socket, head));
server.keepAliveTimeout = 60_000;
server.listen({ host: '127.0.0.1', port, backlog: 1024 });
