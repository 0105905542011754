// Tools that the page itself offers to a model: harmless ones, run in the browser.

import { clock, rate, span } from "../format.js";

const nothing = { type: "object", properties: {}, additionalProperties: false };

export function tools(store) {
  return {
    current_time: {
      description: "The date and the time of the user.",
      parameters: nothing,
      run: () => ({ time: new Date().toString() }),
    },
    service_status: {
      description: "What the inference service that runs you is doing now: model, speed, streams, deaths of workers.",
      parameters: nothing,
      run: () => status(store),
    },
    roll_dice: {
      description: "Rolls dice and returns their numbers.",
      parameters: {
        type: "object",
        properties: {
          count: { type: "integer", minimum: 1, maximum: 20, description: "how many dice" },
          sides: { type: "integer", minimum: 2, maximum: 1000, description: "sides of each die" },
        },
        required: ["count", "sides"],
        additionalProperties: false,
      },
      run: ({ count, sides }) => ({ rolled: Array.from({ length: Math.min(20, count) }, () => 1 + Math.floor(Math.random() * sides)) }),
    },
  };
}

function status({ tick, hello, deaths, now, ...store }) {
  const last = deaths.find((death) => !death.was_asked);
  return {
    models: tick.models.map((model) => ({ name: model.name, state: model.state })),
    workers: tick.workers.map((worker) => ({ name: worker.name, state: worker.state, epoch: worker.epoch })),
    running: tick.point.running ?? 0,
    waiting: tick.point.waiting ?? 0,
    up: span(Date.now() / 1000 - hello.started_at),
    last_death: last ? { at: clock(last.at), reason: last.reason, streams_that_went_on: last.n_went_on ?? 0 } : null,
  };
}

export function declared(all) {
  return Object.entries(all).map(([name, { description, parameters }]) => ({ type: "function", function: { name, description, parameters } }));
}

// The result of a call as text; a fault is told to the model, which may try again
export function run(all, call) {
  const tool = all[call.name];
  if (tool === undefined) return JSON.stringify({ error: `there is no tool ${call.name}` });
  try {
    return JSON.stringify(tool.run(JSON.parse(call.arguments || "{}")));
  } catch (fault) {
    return JSON.stringify({ error: String(fault) });
  }
}
