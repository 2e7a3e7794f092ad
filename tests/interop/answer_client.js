// One request; prints what came before the answer, the answer and its trailers.
// node answer_client.js PORT
'use strict';
const http = require('node:http');

const informational = [];
const request = http.request({ host: '127.0.0.1', port: Number(process.argv[2]) });
request.on('information', (info) => {
  informational.push([info.statusCode, info.statusMessage, info.headers]);
});
request.on('response', (response) => {
  const chunks = [];
  response.on('data', (chunk) => chunks.push(chunk));
  response.on('end', () => {
    console.log(JSON.stringify({
      informational,
      status: response.statusCode,
      content: Buffer.concat(chunks).toString(),
      complete: response.complete,
      trailers: response.trailers,
    }));
  });
});
request.end();
