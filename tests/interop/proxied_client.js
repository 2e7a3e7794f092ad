// Sends five bytes and prints what comes back: hints, body and trailers.
// node proxied_client.js URL
'use strict';
const http = require('node:http');

const hints = [];
const request = http.request(process.argv[2], { method: 'POST' }, (response) => {
  let body = '';
  response.setEncoding('latin1');
  response.on('data', (chunk) => { body += chunk; });
  response.on('end', () => {
    console.log(JSON.stringify({ hints, body, trailers: response.trailers }));
  });
});
request.on('information', (info) => hints.push([info.statusCode, info.headers.link]));
request.end('hello');
