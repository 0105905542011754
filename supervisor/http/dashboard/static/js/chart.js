// A small chart: one course as a line with its area, a second one fainter, deaths as marks.

import { svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 50;

export class Chart {
  constructor(label, { most = null } = {}) {
    this.most = most;
    this.label = label;
    this.base = svg("path", { class: "base", d: `M0 ${HEIGHT}H${WIDTH}` });
    this.area = svg("path", { class: "area" });
    this.second = svg("path", { class: "second" });
    this.line = svg("path", { class: "line" });
    this.deaths = svg("path", { class: "death" });
    this.element = svg(
      "svg",
      { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      this.base, this.area, this.second, this.line, this.deaths,
    );
  }

  // The last `span` seconds. Courses are [[at, value], …]; `told` is the text for those who do not see it
  draw(now, span, course, { second = [], deaths = [], told = "" } = {}) {
    // a second course far above the first one would press it flat
    const first = Math.max(1e-9, ...course.map(([, value]) => value ?? 0));
    const above = Math.max(first, ...second.map(([, value]) => value ?? 0));
    const top = this.most ?? nice(Math.min(above, 4 * first));
    this.peak = first < 1e-6 ? 0 : first;
    const x = (at) => Math.max(0, WIDTH * (1 - (now - at) / span));
    const y = (value) => HEIGHT - 2 - (HEIGHT - 4) * Math.min(1, value / top);
    this.line.setAttribute("d", path(course, x, y, false));
    this.area.setAttribute("d", path(course, x, y, true));
    const within = second.map(([at, value]) => [at, value > top ? null : value]);
    this.second.setAttribute("d", path(within, x, y, false));
    const marks = deaths.filter((at) => now - at < span).map((at) => `M${x(at).toFixed(1)} 0V${HEIGHT}`);
    this.deaths.setAttribute("d", marks.join(""));
    if (told && this.element.getAttribute("aria-label") !== told) this.element.setAttribute("aria-label", told);
  }
}

function path(course, x, y, closed) {
  let text = "";
  let begun = null;
  let last = null;
  const close = () => {
    if (closed && begun !== null) text += `L${last} ${HEIGHT}L${begun} ${HEIGHT}Z`;
    begun = null;
  };
  for (const [at, value] of course) {
    if (value === null || value === undefined) {
      close();
      continue;
    }
    last = x(at).toFixed(1);
    text += `${begun === null ? "M" : "L"}${last} ${y(value).toFixed(1)}`;
    begun ??= last;
  }
  close();
  return text;
}

// The next of 1, 2, 5 × a power of ten
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => value <= step * power) ?? 10);
}
