// OpenAI's agents for JavaScript hold a turn at each url: `agents_client.mjs FOLDER KEY URL...`.
const [folder, apiKey, ...urls] = process.argv.slice(2);
const { RealtimeAgent, RealtimeSession } = await import(
  `${folder}/node_modules/@openai/agents-realtime/dist/index.mjs`
);

async function turn(url) {
  const session = new RealtimeSession(new RealtimeAgent({ name: "a", instructions: "Be brief." }), {
    transport: "websocket",
    model: new URL(url).searchParams.get("model"),
  });
  const result = { heard: 0, said: "", problem: null };
  const done = new Promise((resolve) => {
    session.on("error", (error) => ((result.problem = JSON.stringify(error)), resolve()));
    session.transport.on("audio", (event) => (result.heard += event.data.byteLength));
    session.transport.on("audio_transcript_delta", (event) => (result.said += event.delta));
    session.transport.on("response.done", resolve);
  });
  await session.connect({ apiKey, url });
  session.sendMessage("Hello?");
  await done;
  session.close();
  return result;
}

const results = [];
for (const url of urls) results.push(await turn(url));
console.log(JSON.stringify(results));
process.exit(0);
