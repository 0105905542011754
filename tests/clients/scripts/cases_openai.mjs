// Cases of openai's JavaScript package, as its documentation shows them.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [base, ...wanted] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });

const short = z.string().max(16);
const Event = z.object({ name: short, participants: z.array(short).max(3), at: short.nullable() });
const Weather = z.object({ city: short, unit: z.enum(["c", "f"]) });
const asked = (content, more = {}) => ({
  model: "default",
  messages: [{ role: "user", content }],
  seed: 3,
  max_tokens: 300,
  ...more,
});
const typed = asked("Ann and Bob go to a fair.", {
  response_format: zodResponseFormat(Event, "event"),
});
const tools = [zodFunction({ name: "weather", parameters: Weather })];
const named = { type: "function", function: { name: "weather" } };
const calling = asked("The weather in Lima?", { tools, tool_choice: named });

const CASES = {
  "tools, round trip": async () => {
    const { choices } = await client.chat.completions.create(calling);
    const [{ message, finish_reason }] = choices;
    assert.equal(finish_reason, "tool_calls");
    const [call] = message.tool_calls;
    Weather.parse(JSON.parse(call.function.arguments));
    const result = { role: "tool", tool_call_id: call.id, content: "19 degrees" };
    const body = { ...calling, tool_choice: "none", max_tokens: 40 };
    body.messages = [...calling.messages, message, result];
    const final = await client.chat.completions.create(body);
    assert.ok(final.choices[0].message.content);
  },
  "tools, streamed": async () => {
    const stream = client.chat.completions.stream({
      ...calling,
      stream_options: { include_usage: true },
    });
    let joined = "";
    stream.on("tool_calls.function.arguments.delta", (one) => (joined += one.arguments_delta));
    const final = await stream.finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    assert.equal(joined, call.function.arguments);
    assert.deepEqual(call.function.parsed_arguments, JSON.parse(joined));
    assert.ok(final.usage.total_tokens > 0);
  },
  runTools: async () => {
    const seen = [];
    const runner = client.chat.completions.runTools(
      {
        ...calling,
        tools: [
          {
            type: "function",
            function: {
              name: "weather",
              parse: JSON.parse,
              function: (given) => (seen.push(given), "19 degrees"),
              parameters: z.toJSONSchema(Weather),
            },
          },
        ],
      },
      { maxChatCompletions: 1 },
    );
    await runner.done();
    Weather.parse(seen[0]);
  },
  parse: async () => {
    const found = await client.chat.completions.parse(typed);
    Event.parse(found.choices[0].message.parsed);
  },
  "parse, streamed": async () => {
    const stream = client.chat.completions.stream({ ...typed, logprobs: true, top_logprobs: 1 });
    let text = "";
    stream.on("content.delta", ({ delta }) => (text += delta));
    const final = await stream.finalChatCompletion();
    assert.equal(text, final.choices[0].message.content);
    Event.parse(final.choices[0].message.parsed);
  },
  "parse of a call": async () => {
    const found = await client.chat.completions.parse(calling);
    Weather.parse(found.choices[0].message.tool_calls[0].function.parsed_arguments);
  },
  "parse of a cut answer": async () => {
    await assert.rejects(
      client.chat.completions.parse({ ...typed, max_tokens: 4 }),
      OpenAI.LengthFinishReasonError ?? /length/,
    );
  },
  "log probabilities": async () => {
    const body = asked("Hi", { max_tokens: 6, logprobs: true, top_logprobs: 3 });
    const { choices } = await client.chat.completions.create(body);
    const { content } = choices[0].logprobs;
    assert.deepEqual(content.map((one) => one.top_logprobs.length), Array(6).fill(3));
  },
  "responses, parse": async () => {
    const found = await client.responses.parse({
      model: "default",
      input: "Ann and Bob go to a fair.",
      max_output_tokens: 300,
      text: { format: zodTextFormat(Event, "event") },
    });
    Event.parse(found.output_parsed);
  },
  "typed refusals": async () => {
    const long = "many words ".repeat(9000);
    const schema = { name: "x", schema: { type: "array", uniqueItems: true } };
    const bound = { type: "json_schema", json_schema: schema };
    const rows = [
      [OpenAI.BadRequestError, "invalid_value", { temperature: -1 }],
      [OpenAI.BadRequestError, "context_length_exceeded", { messages: asked(long).messages }],
      [OpenAI.BadRequestError, "invalid_grammar", { response_format: bound }],
      [OpenAI.NotFoundError, "model_not_found", { model: "none-such" }],
    ];
    for (const [kind, code, fields] of rows) {
      for (const stream of [false, true]) {
        const given = { ...asked("Hi", fields), stream };
        const raised = await client.chat.completions.create(given).catch((err) => err);
        assert.ok(raised instanceof kind, String(raised));
        assert.equal(raised.code, code);
        assert.ok(raised.requestID);
      }
    }
  },
};

const cases = {};
for (const name of wanted.length ? wanted : Object.keys(CASES)) {
  const began = Date.now() / 1000;
  cases[name] = await CASES[name]().then(
    () => "",
    (err) => `${err.name}: ${err.message}`.slice(0, 2000),
  );
  console.error(JSON.stringify([name, began, Date.now() / 1000, cases[name]]));
}
const { version } = JSON.parse(readFileSync("node_modules/openai/package.json", "utf8"));
console.log(JSON.stringify({ versions: { "openai (npm)": version }, cases }));
