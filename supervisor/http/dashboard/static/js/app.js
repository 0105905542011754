// The page: one stream of events into the store, and the store into the views.

import { toggleSession } from "./actions.js";
import { Chat } from "./chat/chat.js";
import { byId, mark, say } from "./dom.js";
import { follow } from "./feed.js";
import { rate } from "./format.js";
import { Store } from "./store.js";
import { Access } from "./views/access.js";
import { Alarms } from "./views/alarms.js";
import { Deaths } from "./views/deaths.js";
import { Devices } from "./views/devices.js";
import { Hero } from "./views/hero.js";
import { Logs } from "./views/logs.js";
import { Models } from "./views/models.js";
import { Network } from "./views/network.js";
import { Requests } from "./views/requests.js";
import { Tiles } from "./views/tiles.js";

const LINK = { live: "live", lost: "no connection", refused: "not signed in", asleep: "asleep" };
const BUILD = new URL(import.meta.url).pathname.split("/")[2];

const store = new Store();
const views = [new Alarms(), new Hero(), new Tiles(), new Models(), new Requests(), new Devices(), new Network(), new Deaths(), new Logs(store), new Access(), new Chat(store)];

let planned = false;

// All messages of one moment are drawn at once
function drawSoon() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    if (store.hello === null || store.tick === null) return;
    for (const view of views) view.update(store);
    const running = store.tick.point.running ?? 0;
    const title = running ? `${rate(store.rate("generated"))} tok/s · gpufc` : "gpufc";
    if (document.title !== title) document.title = title;
  });
}

function take(event, message) {
  if (event === "hello" && message.build !== BUILD) {
    location.reload(); // the service is of another version now
    return;
  }
  store.take(event, message);
  if (event === "hello") {
    const sign = byId("sign");
    sign.hidden = false;
    say(sign, message.is_anonymous ? "Sign in" : "Sign out");
    say(byId("version"), `gpufc ${message.version}`);
  }
  drawSoon();
}

function link(state) {
  const element = byId("link");
  mark(element, "class", `link ${state === "live" ? "live" : state === "asleep" ? "" : "lost"}`);
  say(element.lastChild, LINK[state] ?? state);
}

byId("sign").addEventListener("click", () => toggleSession(store));
follow(take, link);
