// A server by Node's ws: node ws_server.js DEFLATE, "true" or "false".
// Prints its port, then one line of JSON for each connection that was closed.  It echoes;
// the text "close" makes it close with 4001.
"use strict";
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: process.argv[2] === "true",
  handleProtocols: (offered) => (offered.has("a") ? "a" : false),
});
server.on("listening", () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
server.on("connection", (socket) => {
  for (let number = 0; number < 50; number++) socket.send(String(number));
  socket.on("message", (data, isBinary) => {
    if (!isBinary && data.toString() === "close") socket.close(4001, "theirs");
    else socket.send(data, { binary: isBinary });
  });
  socket.on("close", (code, reason) => {
    console.log(JSON.stringify({ code, reason: reason.toString() }));
  });
});
