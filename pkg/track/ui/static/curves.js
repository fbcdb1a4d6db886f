// Tells the values of curves: at the step under the pointer, or at that of a slider, which the keyboard and a finger can move.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const chosen = new Map(); // the step that was looked at last, by the name of the picture

// enhance gives each chart of a part of the page its slider.
export function enhance(root) {
  for (const figure of root.querySelectorAll("figure[data-points]")) {
    const { area, series } = JSON.parse(figure.dataset.points);
    const steps = [...new Set(series.flatMap((s) => s.x))].sort((a, b) => a - b);
    if (steps.length > 0) {
      add(figure, area, series, steps);
    }
  }
}

function add(figure, area, series, steps) {
  const name = figure.getAttribute("aria-label");
  const picture = figure.querySelector("svg");
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 0;
  slider.max = steps.length - 1;
  slider.value = slider.max;
  slider.setAttribute("aria-label", `${name}, by step`);
  const output = document.createElement("p");
  output.className = "values";
  output.textContent = "Point at a curve, or move the slider, for its values.";
  slider.setAttribute("aria-valuetext", "no step chosen");
  const marks = document.createElementNS(SVG, "g");
  marks.setAttribute("class", "marks");
  picture.append(marks);
  figure.append(slider, output);

  const show = (at) => {
    const step = steps[at];
    chosen.set(name, step);
    slider.value = at;
    marks.replaceChildren();
    const x = place(step, area.X, area.Left, area.Right, area.LogX);
    mark(marks, "line", { x1: x, x2: x, y1: area.Top, y2: area.Bottom });
    const lines = [];
    for (const s of series) {
      const i = nearest(s.x, step);
      if (i < 0) {
        continue;
      }
      const elsewhere = s.x[i] === step ? "" : ` (step ${s.x[i]})`;
      lines.push(`${s.name} ${s.y[i] === null ? "no number" : short(s.y[i])}${elsewhere}`);
      const y = s.y[i] === null ? NaN : place(s.y[i], area.Y, area.Bottom, area.Top, area.LogY);
      if (Number.isFinite(y)) {
        mark(marks, "circle", { cx: place(s.x[i], area.X, area.Left, area.Right, area.LogX), cy: y, r: 3 });
      }
    }
    output.replaceChildren(`step ${step}`, ...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
    slider.setAttribute("aria-valuetext", `step ${step}: ${lines.join(", ")}`);
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  picture.addEventListener("pointermove", (event) => {
    const matrix = picture.getScreenCTM();
    if (matrix) {
      const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse()).x;
      show(nearest(steps.map((step) => place(step, area.X, area.Left, area.Right, area.LogX)), x));
    }
  });
  if (chosen.has(name)) {
    show(nearest(steps, chosen.get(name)));
  }
}

function mark(parent, kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  parent.append(element);
}

// place is where a value lies between two borders.
function place(value, [low, high], from, to, log) {
  const of = log ? Math.log : (v) => v;
  return from + ((of(value) - of(low)) / (of(high) - of(low))) * (to - from);
}

// nearest returns the place of the nearest number in a sorted list, -1 in an empty one.
function nearest(list, value) {
  let low = 0;
  let high = list.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low > 0 && value - list[low - 1] <= list[low] - value ? low - 1 : high;
}

function short(value) {
  return String(Number(value.toPrecision(5)));
}
