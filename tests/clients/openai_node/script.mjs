// OpenAI's client for Node. It speaks as probe.py does: what to ask on stdin, one JSON object of results on stdout.

import { readFileSync } from "node:fs";
import OpenAI from "openai";

const given = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({
  baseURL: `${given.url}/v1`,
  apiKey: "none",
  maxRetries: 0,
  defaultHeaders: { "x-pointsman-engine": given.engine },
});

const chatBody = { model: given.model, messages: given.messages, max_tokens: given.max_tokens };
const greedy = { ...chatBody, temperature: 0 };
const text = { model: given.model, prompt: given.prompt, max_tokens: given.max_tokens, temperature: 0 };
const stream = { stream: true, stream_options: { include_usage: true } };
const tools = { ...chatBody, tools: [given.tool], temperature: 1, max_tokens: 200 };
const named = { type: "function", function: { name: "set_light" } };
const schema = { type: "json_schema", json_schema: { name: "light", strict: true, schema: given.schema } };

const answer = (said, reason, usage) => ({
  text: said,
  reason,
  prompt_tokens: usage.prompt_tokens,
  completion_tokens: usage.completion_tokens,
});

const chat = async (more = {}) => {
  const completion = await client.chat.completions.create({ ...greedy, ...more });
  const [choice] = completion.choices;
  return answer(choice.message.content, choice.finish_reason, completion.usage);
};

const gathered = async (chunks) => {
  let [said, reason, usage] = ["", null, null];
  for await (const chunk of chunks) {
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      said += (choice.delta ? choice.delta.content : choice.text) ?? "";
      reason = choice.finish_reason ?? reason;
    }
  }
  return answer(said, reason, usage);
};

// What the first seed brings that ends by itself: see by_seed in probe.py.
const bySeed = async (ask) => {
  for (const seed of given.seeds) {
    try {
      const said = await ask(seed);
      if (said !== null) return said;
    } catch (error) {
      const cut = error.constructor.name === "LengthFinishReasonError" || error.status === 502;
      if (seed === given.seeds.at(-1) || !cut) throw error;
    }
  }
  return null;
};

const called = ({ message, finish_reason: reason }) =>
  reason === "length"
    ? null
    : { calls: message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]), reason };

const call = (more) =>
  bySeed(async (seed) => called((await client.chat.completions.create({ ...tools, ...more, seed })).choices[0]));

const probes = {
  models: async () => {
    if ((await client.models.retrieve(given.model)).id !== given.model) throw new Error("another model");
    return (await client.models.list()).data.map((model) => model.id);
  },
  whole: () => chat(),
  streamed: async () => gathered(await client.chat.completions.create({ ...greedy, ...stream })),
  // The client's own accumulator, which is stricter than a loop over the chunks.
  streamed_by_helper: async () => {
    const { stream_options } = stream;
    const completion = await client.chat.completions.stream({ ...greedy, stream_options }).finalChatCompletion();
    const [choice] = completion.choices;
    return answer(choice.message.content, choice.finish_reason, completion.usage);
  },
  several: async () => {
    const completion = await client.chat.completions.create({ ...chatBody, temperature: 1, n: 2, seed: 7 });
    return completion.choices.map((choice) => choice.message.content);
  },
  stop: async () => {
    const whole = (await chat()).text;
    const stop = whole.slice(10, 13);
    return { whole, stop, ...(await chat({ stop })) };
  },
  seed: async () => {
    const texts = [];
    for (const seed of [11, 11, 12]) texts.push((await chat({ temperature: 1, seed })).text);
    return texts;
  },
  logprob: async () => {
    const completion = await client.chat.completions.create({ ...greedy, logprobs: true, top_logprobs: 2 });
    const entries = completion.choices[0].logprobs.content;
    return entries.map((one) => [one.token, one.logprob, one.top_logprobs.map((top) => top.token)]);
  },
  tool_required: () => call({ tool_choice: "required" }),
  tool_named: () => call({ tool_choice: named }),
  tool_streamed: () =>
    bySeed(async (seed) => {
      const request = { ...tools, tool_choice: "required", seed };
      return called((await client.chat.completions.stream(request).finalChatCompletion()).choices[0]);
    }),
  structured: () =>
    bySeed(async (seed) => {
      const request = { ...chatBody, temperature: 1, max_tokens: 200, response_format: schema, seed };
      return (await client.chat.completions.parse(request)).choices[0].message.parsed;
    }),
  completion: async () => {
    const completion = await client.completions.create(text);
    return answer(completion.choices[0].text, completion.choices[0].finish_reason, completion.usage);
  },
  completion_streamed: async () => gathered(await client.completions.create({ ...text, ...stream })),
  presence_penalty: () => chat({ presence_penalty: 0.5 }),
  unknown_model: () => chat({ model: "nope" }),
  temperature_3: () => chat({ temperature: 3 }),
  temperature_3_streamed: async () =>
    gathered(await client.chat.completions.create({ ...greedy, temperature: 3, ...stream })),
  too_long: () => chat({ messages: [{ role: "user", content: given.too_long }] }),
  embeddings: () => client.embeddings.create({ model: given.model, input: "hello" }),
};

const kinds = (error) => {
  const names = [];
  for (let kind = error.constructor; kind.name; kind = Object.getPrototypeOf(kind)) names.push(`openai.${kind.name}`);
  return names;
};

const results = {};
for (const [name, probe] of Object.entries(probes)) {
  try {
    results[name] = { value: await probe() };
  } catch (error) {
    const { message, status, param, code } = error;
    results[name] = {
      raised: { kinds: kinds(error), message, status_code: status ?? null, param: param ?? null, code: code ?? null },
    };
  }
}
process.stdout.write(JSON.stringify(results));
