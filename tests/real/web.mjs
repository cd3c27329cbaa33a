// SPDX-License-Identifier: Apache-2.0
// An HTTP client and server with Node.
//
//   node web.mjs get URL COUNT     COUNT at once, each on a connection of its own: by fetch() and by node:http in turns
//   node web.mjs serve PORT        answers every request with the address of who asks
import { createHash } from "node:crypto";
import http from "node:http";

const sum = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function byFetch(url) {
  const answer = await fetch(url, { headers: { connection: "close" } });
  return `${answer.status} ${sum(Buffer.from(await answer.arrayBuffer()))}`;
}

function byHttp(url) {
  return new Promise((resolve, reject) => {
    http.get(url, { agent: false }, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () => resolve(`${answer.statusCode} ${sum(Buffer.concat(pieces))}`));
      answer.on("error", reject);
    }).on("error", reject);
  });
}

const [how, where, count] = process.argv.slice(2);
if (how === "get") {
  const all = Array.from({ length: Number(count) }, (_, i) => (i % 2 ? byHttp(where) : byFetch(where)));
  for (const line of await Promise.all(all)) console.log(line);
  process.exit(0);
} else if (how === "serve") {
  http.createServer((request, answer) => answer.end(`${request.socket.remoteAddress}\n`)).listen(Number(where));
}
