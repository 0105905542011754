// Elements, made and changed without markup in strings: the page's policy allows no other way.

const SVG = "http://www.w3.org/2000/svg";

// h("p", {class: "muted", onclick: go, "aria-label": "…"}, "text", element, …)
export function h(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

// Sets a text only if it differs: an equal one would be read out again, and drop a selection.
export function say(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// One element for each item, kept by its key, so that focus and selections survive an update.
export function keyed(container, items, keyOf, make, update) {
  const known = container.keyed ?? (container.keyed = new Map());
  const wanted = new Set();
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let element = known.get(key);
    if (element === undefined) {
      element = make(item);
      known.set(key, element);
    }
    update(element, item);
    const place = before === null ? container.firstChild : before.nextSibling;
    if (place !== element) container.insertBefore(element, place);
    before = element;
  }
  for (const [key, element] of known) {
    if (!wanted.has(key)) {
      element.remove();
      known.delete(key);
    }
  }
}

// Named places within an element that was made once: parts(element).rate
export function parts(element) {
  if (element.named === undefined) {
    element.named = {};
    for (const each of element.querySelectorAll("[data-part]")) {
      element.named[each.dataset.part] = each;
    }
  }
  return element.named;
}
