// ws on Node. node rooms_ws.js PORT; NODE_PATH names the folder that has `ws`.
// Best setting found: one Buffer per message, `binary: false`, no compression, no UTF-8 check of what we broadcast.
"use strict";
const { WebSocketServer } = require("ws");

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false, backlog: 4096 });

server.on("connection", (socket) => {
  const mine = [];
  socket.on("message", (data) => {
    const text = data.toString();
    if (text[0] === "s") {
      for (const room of text.slice(1).split(",")) {
        if (!rooms.has(room)) rooms.set(room, new Set());
        rooms.get(room).add(socket);
        mine.push(room);
      }
      socket.send("ok");
      return;
    }
    const colon = text.indexOf(":");
    const body = Buffer.from(text.slice(colon + 1));
    for (const member of rooms.get(text.slice(1, colon)) || []) member.send(body, { binary: false });
  });
  socket.on("close", () => mine.forEach((room) => rooms.get(room).delete(socket)));
  socket.on("error", () => socket.terminate());
});
