// The Markdown that models write, as elements. Text stays text: nothing of it becomes markup.

import { h } from "../dom.js";

const FENCE = /^```(.*)$/;
const HEADING = /^(#{1,4})\s+(.*)$/;
const BULLET = /^\s*[-*+]\s+(.*)$/;
const NUMBER = /^\s*\d+[.)]\s+(.*)$/;
const INLINE = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(\*[^*\s][^*\n]*\*)|!\[([^\]\n]*)\]\((data:image\/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+)\)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;

export function markdown(text) {
  const blocks = [];
  const lines = text.split("\n");
  let plain = [];
  const flush = () => {
    const joined = plain.join("\n").trim();
    if (joined) blocks.push(h("p", {}, ...inline(joined)));
    plain = [];
  };
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    if (FENCE.test(line)) {
      flush();
      const code = [];
      while (++i < lines.length && !lines[i].startsWith("```")) code.push(lines[i]);
      blocks.push(h("pre", { tabindex: "0" }, h("code", {}, code.join("\n"))));
    } else if (HEADING.test(line)) {
      flush();
      blocks.push(h(line.startsWith("###") ? "h4" : "h3", {}, ...inline(HEADING.exec(line)[2])));
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      flush();
      const pattern = BULLET.test(line) ? BULLET : NUMBER;
      const items = [];
      for (; i < lines.length && pattern.test(lines[i]); i++) items.push(h("li", {}, ...inline(pattern.exec(lines[i])[1])));
      i -= 1;
      blocks.push(h(pattern === BULLET ? "ul" : "ol", {}, ...items));
    } else if (line.trim() === "") flush();
    else plain.push(line);
  }
  flush();
  return blocks;
}

function inline(text) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > at) found.push(...broken(text.slice(at, match.index)));
    const [all, code, strong, soft, alt, picture, label, link] = match;
    if (code) found.push(h("code", {}, code.slice(1, -1)));
    else if (strong) found.push(h("strong", {}, strong.slice(2, -2)));
    else if (soft) found.push(h("em", {}, soft.slice(1, -1)));
    else if (picture) found.push(h("img", { src: picture, alt }));
    else if (link) found.push(h("a", { href: link, rel: "noreferrer noopener", target: "_blank" }, label));
    at = match.index + all.length;
  }
  if (at < text.length) found.push(...broken(text.slice(at)));
  return found;
}

function broken(text) {
  return text.split("\n").flatMap((line, i) => (i ? [h("br"), line] : [line]));
}
