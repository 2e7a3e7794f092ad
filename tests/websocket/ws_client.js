// A client by Node's ws: node ws_client.js URL DEFLATE, the second "true" or "false".
// Prints one line of JSON with what it saw.
"use strict";
const { WebSocket } = require("ws");

const [url, deflate] = process.argv.slice(2);
const big = Buffer.alloc(1 << 20, "x");
const expected = ["Hello", big, "fragments"];
const seen = { deflate: false, subprotocol: "", messages: 0, pong: false, codes: [] };

const socket = new WebSocket(url + "/echo", ["b", "a"], {
  perMessageDeflate: deflate === "true",
});
socket.on("open", () => {
  seen.deflate = socket.extensions.startsWith("permessage-deflate");
  seen.subprotocol = socket.protocol;
  socket.ping("x");
  socket.send(expected[0]);
  socket.send(big);
  socket.send("frag", { fin: false });
  socket.send("ments", { fin: true });
});
socket.on("pong", (data) => (seen.pong = data.toString() === "x"));
socket.on("message", (data, isBinary) => {
  const wanted = expected[seen.messages++];
  const same = isBinary ? data.equals(wanted) : data.toString() === wanted;
  if (!same) throw new Error(`another message ${seen.messages}`);
  if (seen.messages === expected.length) socket.close(4000, "ours");
});
socket.on("close", (code, reason) => {
  seen.codes.push([code, reason.toString()]);
  // The server closes the second connection, after 50 messages right after its 101.
  let count = 0;
  const second = new WebSocket(url + "/burst", ["a"]);
  second.on("message", () => count++);
  second.on("close", (...end) => {
    seen.codes.push([end[0], end[1].toString()]);
    seen.burst = count;
    console.log(JSON.stringify(seen));
  });
});
