// Thresholds: a slider over the histogram of what the rule looks at. `changed(rules, focus)` is called as they move.

const NS = "http://www.w3.org/2000/svg";
const STEPS = 400;

export function short(value) {
  if (value === 0 || value === null || value === undefined) return value === 0 ? "0" : "off";
  const size = Math.abs(value);
  if (size >= 10000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

export class Sliders {
  constructor(place, described, changed) {
    this.changed = changed;
    this.saved = Object.fromEntries(described.map((s) => [s.rule, s.value]));
    this.now = { ...this.saved };
    this.parts = described.map((slider) => this.build(place, slider));
  }

  // Thresholds that differ from those the table was decided with.
  moved() {
    return Object.fromEntries(Object.entries(this.now).filter(([rule, value]) => value !== this.saved[rule]));
  }

  reset() {
    this.now = { ...this.saved };
    for (const part of this.parts) part.draw();
    this.changed("");
  }

  build(place, slider) {
    const root = document.createElement("div");
    root.className = "slider";
    root.title = `${slider.text}\n${slider.column}: ${slider.about}`;
    root.dataset.rule = slider.rule;
    const name = document.createElement("div");
    name.className = "name";
    const label = document.createElement("label");
    const on = document.createElement("input");
    on.type = "checkbox";
    const text = document.createElement("span");
    text.className = "label";
    text.textContent = slider.rule;
    label.append(on, text);
    const number = document.createElement("input");
    number.className = "number";
    number.inputMode = "decimal";
    number.setAttribute("aria-label", `${slider.rule}, number`);
    name.append(label, number);
    const chart = document.createElementNS(NS, "svg");
    const bars = slider.histogram;
    chart.setAttribute("viewBox", `0 0 ${bars.length} 26`);
    chart.setAttribute("preserveAspectRatio", "none");
    const most = Math.max(1, ...bars);
    const rects = bars.map((count, i) => {
      const rect = document.createElementNS(NS, "rect");
      // The square root, so that few clips are seen beside many.
      const height = count ? Math.max(1.5, 26 * Math.sqrt(count / most)) : 0;
      rect.setAttribute("x", i + 0.08);
      rect.setAttribute("width", 0.84);
      rect.setAttribute("y", 26 - height);
      rect.setAttribute("height", height);
      chart.append(rect);
      return rect;
    });
    const range = document.createElement("input");
    range.type = "range";
    range.min = 0;
    range.max = STEPS;
    range.setAttribute("aria-label", slider.rule);
    root.append(name, chart, range);
    place.append(root);

    const { low, high, log } = slider;
    const placeOf = (v) => (log ? Math.log(Math.max(v, 1e-12) / low) / Math.log(high / low) : (v - low) / (high - low));
    const valueOf = (p) => {
      const v = log ? low * Math.pow(high / low, p) : low + p * (high - low);
      return slider.whole ? Math.round(v) : Number(v.toPrecision(4));
    };
    const draw = () => {
      const value = this.now[slider.rule];
      const off = value === null;
      on.checked = !off;
      range.disabled = off;
      number.value = off ? "off" : short(value);
      root.classList.toggle("off", off);
      root.classList.toggle("moved", value !== this.saved[slider.rule]);
      const at = off ? null : placeOf(value);
      if (!off) range.value = Math.round(STEPS * Math.min(1, Math.max(0, at)));
      const below = slider.rule.startsWith("min_");
      rects.forEach((rect, i) => {
        const middle = (i + 0.5) / rects.length;
        rect.classList.toggle("out", !off && (below ? middle < at : i / rects.length > at));
      });
    };
    const set = (value) => {
      this.now[slider.rule] = value;
      draw();
      this.changed(value === null ? "" : slider.rule);
    };
    range.addEventListener("input", () => set(valueOf(range.value / STEPS)));
    on.addEventListener("change", () => set(on.checked ? (this.saved[slider.rule] ?? valueOf(0.5)) : null));
    number.addEventListener("change", () => {
      const value = Number(number.value);
      if (number.value.trim() && Number.isFinite(value)) set(value);
      else draw();
    });
    draw();
    return { draw };
  }
}
