// Follows runs that go on: when the server says that something has changed, the parts of the page that are marked
// data-live are taken from a fresh copy of it. What was chosen, scrolled to or focused stays so.
import { enhance } from "./curves.js";

const state = document.getElementById("state");
let version = "";
let busy = false;
let again = false;

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        replace(part, fresh.getElementById(part.id));
      }
    }
  } finally {
    busy = false;
  }
  if (again) {
    again = false;
    refresh();
  }
}

function replace(part, fresh) {
  if (!fresh || served.get(part) === fresh.innerHTML) {
    return;
  }
  served.set(part, fresh.innerHTML);
  const chosen = new Set([...part.querySelectorAll("input:checked")].map((box) => box.value));
  const focused = part.contains(document.activeElement) && part !== document.activeElement ? place(part, document.activeElement) : -1;
  const left = part.scrollLeft;
  const inner = [...part.querySelectorAll(".wide")].map((box) => box.scrollLeft);
  part.replaceChildren(...fresh.childNodes);
  enhance(part);
  for (const box of part.querySelectorAll("input[type=checkbox]")) {
    box.checked = chosen.has(box.value);
  }
  [...part.querySelectorAll(".wide")].forEach((box, i) => { box.scrollLeft = inner[i] ?? 0; });
  part.scrollLeft = left;
  if (focused >= 0) {
    reachable(part)[focused]?.focus({ preventScroll: true });
  }
}

function reachable(part) {
  return [...part.querySelectorAll("a, input, [tabindex]")];
}

function place(part, element) {
  return reachable(part).indexOf(element);
}

const served = new Map(); // what the server sent last, by part: scripts add to it
for (const part of document.querySelectorAll("[data-live]")) {
  served.set(part, part.innerHTML);
}
enhance(document);

const source = new EventSource("/events");
source.addEventListener("version", (event) => {
  state.textContent = "live";
  if (version !== "" && version !== event.data) {
    refresh();
  }
  version = event.data;
});
source.addEventListener("error", () => { state.textContent = "the server does not answer; what you see may be old"; });
