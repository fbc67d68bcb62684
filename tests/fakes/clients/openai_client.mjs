// OpenAI's SDK for JavaScript holds a turn at each url: `openai_client.mjs FOLDER KEY URL...`.
import { createRequire } from "node:module";
import net from "node:net";
import { pathToFileURL } from "node:url";
const [folder, key, ...urls] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${folder}/`));
const { OpenAI } = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");

function turn(address) {
  const url = new URL(address);
  const client = new OpenAI({ apiKey: key, baseURL: `http://${url.host}/v1` });
  // The SDK always wants TLS, which a server on this machine does not speak.
  const options = { createConnection: ({ port, host }) => net.connect(port, host) };
  const rt = new OpenAIRealtimeWS({ model: url.searchParams.get("model"), options }, client);
  const result = { heard: 0, said: "", problem: null };
  return new Promise((resolve) => {
    const end = () => (rt.close(), resolve(result));
    rt.on("error", (error) => ((result.problem = error.message), end()));
    rt.on("response.output_audio.delta", (e) => (result.heard += Buffer.from(e.delta, "base64").length));
    rt.on("response.output_audio_transcript.delta", (e) => (result.said += e.delta));
    rt.on("response.done", end);
    rt.on("session.created", () => {
      const content = [{ type: "input_text", text: "Hello?" }];
      rt.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
      rt.send({ type: "response.create" });
    });
  });
}

const results = [];
for (const url of urls) results.push(await turn(url.replace("ws://", "http://")));
console.log(JSON.stringify(results));
