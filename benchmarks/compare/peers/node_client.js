// Makes handshakes and prints how many.  node node_client.js PORT PROTOCOL SECONDS TASKS
'use strict';
const http = require('node:http');
const [, , port, protocol, seconds, tasks] = process.argv;
const sixteen = Buffer.from('sixteen bytes it');
const now = () => performance.now() / 1000;
// The same time again before it, to get warm, does not count.
const start = now() + Number(seconds);
let began = 0;
let cpu;
let operations = 0;
let running = Number(tasks);

function next() {
  if (now() < start + Number(seconds)) return dial();
  if (--running === 0) {
    const { user, system } = process.cpuUsage(cpu);
    console.log(JSON.stringify([operations, now() - began, (user + system) / 1e6]));
  }
}

function dial() {
  if (now() >= start) {
    if (!began) [began, cpu] = [now(), process.cpuUsage()];
    operations += 1;
  }
  const headers = { Connection: 'Upgrade', Upgrade: protocol };
  if (protocol === 'websocket') headers['Sec-WebSocket-Key'] = 'dGhlIHNhbXBsZSBub25jZQ==';
  const request = http.request({ host: '127.0.0.1', port, headers });
  request.on('error', (error) => { throw error; });
  request.on('upgrade', (response, socket, head) => {
    let got = head.length;
    socket.setNoDelay(true);
    socket.on('data', (chunk) => {
      got += chunk.length;
      if (got === sixteen.length) socket.end();
    });
    socket.on('close', next);
    if (protocol === 'websocket') socket.end();
    else socket.write(sixteen);
  });
  request.end();
}

for (let i = 0; i < Number(tasks); i++) dial();
