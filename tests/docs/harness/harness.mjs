import { readFileSync } from "node:fs";
import { isGenuine } from "./snippet.mjs";

for (const line of readFileSync(0, "utf8").split("\n").slice(0, -1)) {
  const [secret, webhookId, timestamp, signatures, body] = line.split("\t");
  const genuine = isGenuine(secret, webhookId, timestamp, signatures, Buffer.from(body, "base64"));
  console.log(genuine === true ? "yes" : "no");
}
