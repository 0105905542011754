// Clients of npm, as their documentation shows: a whole answer, a stream, a demanded call.
import { readFileSync } from "node:fs";

const [url, prompt, toolPrompt, client] = process.argv.slice(2);
const schema = {
  type: "object",
  properties: { word: { type: "string", maxLength: 20 } },
  required: ["word"],
  additionalProperties: false,
};
const version = (name) =>
  JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8")).version;
const user = (content) => [{ role: "user", content }];

const clients = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const api = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
    const asked = { model: "default", messages: user(prompt) };
    const whole = (await api.chat.completions.create(asked)).choices[0].message.content;
    const streamed = await api.chat.completions.stream(asked).finalContent();
    const tools = [{ type: "function", function: { name: "lookup", parameters: schema } }];
    const stream = api.chat.completions.stream({
      model: "default", messages: user(toolPrompt), tools, tool_choice: "required",
    });
    const message = await stream.finalMessage();
    return { whole, streamed, called: JSON.parse(message.tool_calls[0].function.arguments) };
  },
  async "openai-responses"() {
    const { default: OpenAI } = await import("openai");
    const api = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
    const whole = (await api.responses.create({ model: "default", input: prompt })).output_text;
    const stream = api.responses.stream({ model: "default", input: prompt });
    const streamed = (await stream.finalResponse()).output_text;
    const answer = await api.responses.create({
      model: "default", input: toolPrompt, tool_choice: "required",
      tools: [{ type: "function", name: "lookup", parameters: schema, strict: true }],
    });
    const call = answer.output.find((item) => item.type === "function_call");
    return { whole, streamed, called: JSON.parse(call.arguments) };
  },
  async "@anthropic-ai/sdk"() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const api = new Anthropic({ baseURL: url, apiKey: "none" });
    const asked = { model: "claude-x", max_tokens: 200, messages: user(prompt) };
    const whole = (await api.messages.create(asked)).content[0].text;
    const streamed = await api.messages.stream(asked).finalText();
    const message = await api.messages
      .stream({
        ...asked, messages: user(toolPrompt), tool_choice: { type: "tool", name: "lookup" },
        tools: [{ name: "lookup", input_schema: schema }],
      })
      .finalMessage();
    return { whole, streamed, called: message.content[0].input };
  },
  async ollama() {
    const { Ollama } = await import("ollama");
    const api = new Ollama({ host: url });
    const asked = { model: "default", messages: user(prompt) };
    const whole = (await api.chat(asked)).message.content;
    let streamed = "";
    for await (const part of await api.chat({ ...asked, stream: true })) {
      streamed += part.message.content;
    }
    const typed = await api.chat({ ...asked, messages: user(toolPrompt), format: schema });
    return { whole, streamed, called: JSON.parse(typed.message.content) };
  },
};
for (const [name, make] of Object.entries({
  "@ai-sdk/openai": (m) => m.createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" })("default"),
  "@ai-sdk/anthropic": (m) =>
    m.createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" })("claude-x"),
  "@ai-sdk/openai-compatible": (m) =>
    m.createOpenAICompatible({ baseURL: `${url}/v1`, name: "gpufc" })("default"),
})) {
  clients[name] = async () => {
    const { generateText, streamText, tool, jsonSchema } = await import("ai");
    const model = make(await import(name));
    const whole = (await generateText({ model, prompt })).text;
    const streamed = await streamText({ model, prompt }).text;
    const tools = { lookup: tool({ inputSchema: jsonSchema(schema) }) };
    const answer = await generateText({
      model, prompt: toolPrompt, tools, toolChoice: { type: "tool", toolName: "lookup" },
    });
    return { whole, streamed, called: answer.toolCalls[0].input };
  };
}

const found = await clients[client]();
const packages = client.startsWith("@ai-sdk/")
  ? ["ai", client]
  : [client.startsWith("openai") ? "openai" : client];
const versions = Object.fromEntries(packages.map((name) => [name, version(name)]));
console.log(JSON.stringify({ versions, ...found, called: [found.called.word] }));
