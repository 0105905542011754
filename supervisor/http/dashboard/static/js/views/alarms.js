// What an operator should look at.

import { byId, h, keyed, mark, say } from "../dom.js";
import { clock } from "../format.js";

export class Alarms {
  update({ tick }) {
    const alarms = tick.alarms ?? [];
    const element = byId("alarms");
    element.hidden = alarms.length === 0;
    keyed(element, alarms, (alarm) => `${alarm.subject} ${alarms.indexOf(alarm)}`,
      () => h("p", { class: "alarm" }, h("b", {}), h("span", {})),
      (row, alarm) => {
        mark(row, "class", alarm.is_grave ? "alarm grave" : "alarm");
        say(row.firstChild, alarm.subject);
        say(row.lastChild, `${alarm.text}${alarm.since ? `, since ${clock(alarm.since)}` : ""}`);
      });
  }
}
