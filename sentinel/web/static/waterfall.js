// The waterfall of a candidate on a canvas: zoom, pan, measure in a box, track overlay, de-drifted view with spectra.
//
// A stamp is 4 bytes (length of the header, little-endian), the header as JSON, then one byte a pixel: panel after panel
// in time order, row after row, channel after channel. 0 was not measured; 1 to 255 are asinh(sigma) from `lo` to `hi`.
import { listenTo } from "/static/desk.js";

const MASKED = "#b9bcc4", TRACK = "#39a9e6", LEFT = 118, RIGHT = 58, AXIS = 34, GAP = 4, SPECTRA = 150, BARS = 14;
const ANCHORS = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100],
  [251, 135, 97], [254, 194, 135], [252, 253, 191]]; // magma
const WIDTHS = [1, 2, 4, 8, 16, 32];
const stamps = new Map();

function load(url) {
  if (!stamps.has(url)) {
    stamps.set(url, fetch(url).then((reply) => (reply.ok ? reply.arrayBuffer() : null)).then((all) => all && decode(all)));
    stamps.get(url).catch(() => stamps.delete(url));
    if (stamps.size > 8) stamps.delete(stamps.keys().next().value);
  }
  return stamps.get(url);
}

function decode(all) {
  const size = new DataView(all).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(all, 4, size)));
  const sigma = new Float32Array(256).fill(NaN);
  for (let v = 1; v < 256; v += 1) sigma[v] = Math.sinh(head.lo + ((head.hi - head.lo) * (v - 1)) / 254);
  let at = 4 + size;
  for (const panel of head.panels) {
    panel.pixels = new Uint8Array(all, at, panel.rows * panel.channels);
    at += panel.pixels.length;
    // Hz from the frequency of the candidate to the center of a channel, and from one channel to the next.
    panel.first = (panel.fch1 - head.frequency_mhz) * 1e6;
    panel.step = panel.foff * 1e6;
  }
  return { ...head, sigma };
}

function palette() {
  const table = new Uint8ClampedArray(768);
  for (let i = 0; i < 256; i += 1) {
    const at = (i / 255) * (ANCHORS.length - 1), a = ANCHORS[Math.floor(at)], b = ANCHORS[Math.ceil(at)];
    for (let c = 0; c < 3; c += 1) table[3 * i + c] = a[c] + (b[c] - a[c]) * (at % 1);
  }
  return table;
}

// The same as the words of an ImageData, whose bytes are red, green, blue, alpha.
function words(table) {
  const bytes = new Uint8ClampedArray(1024).fill(255);
  for (let i = 0; i < 256; i += 1) bytes.set(table.subarray(3 * i, 3 * i + 3), 4 * i);
  return new Uint32Array(bytes.buffer);
}

class Waterfall {
  constructor(element, stamp) {
    this.element = element;
    this.stamp = stamp;
    this.view = { dedrift: false, overlay: true, common: true, log: false, measure: false, gain: 1, box: null };
    this.colors = palette();
    this.words = words(this.colors);
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.said = document.createElement("output");
    element.replaceChildren(this.tools(), this.canvas, this.said);
    this.home();
    this.listen();
    this.resize = new ResizeObserver(() => requestAnimationFrame(() => this.draw())); // the page is shown first
    this.resize.observe(element);
    element.waterfall = this;
  }

  tools() {
    const bar = document.createElement("div");
    bar.className = "tools";
    const button = (text, title, act) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.title = title;
      made.addEventListener("click", () => { act(made); this.draw(); });
      bar.append(made);
      return made;
    };
    const flag = (name, text, title) => button(text, title, () => this.toggle(name));
    this.buttons = {
      dedrift: flag("dedrift", "De-drift", "follow the drift (d)"),
      overlay: flag("overlay", "Track", "lines beside the track (o)"),
      common: flag("common", "One scale", "one color scale for all panels, or one for each"),
      log: flag("log", "Log", "logarithmic color scale"),
      measure: flag("measure", "Measure", "drag a box to measure in it (or drag with Shift)"),
    };
    button("+", "zoom in (+)", () => this.zoom(0.5));
    button("\u2212", "zoom out (-)", () => this.zoom(2));
    button("All", "the whole stamp", () => this.whole());
    button("Reset", "the view of the picture (0)", () => this.home());
    return bar;
  }

  toggle(name) {
    this.view[name] = !this.view[name];
    if (name === "dedrift") { this.home(); this.view.box = null; }
    this.draw();
  }

  span() { return this.x1 - this.x0; }

  // Hz of the track from the candidate's frequency, at a time after the start of the first ON.
  track(at) { return this.stamp.drift_rate_hz_s * at + (this.stamp.curvature_hz_s2 / 2) * at * at; }

  // Hz to subtract from a frequency in a row, so that the channel of the track stands still in the middle.
  shift(panel, row) {
    if (!this.view.dedrift) return 0;
    const hz = this.track(panel.start_s + (row + 0.5) * panel.tsamp);
    return panel.first + Math.round((hz - panel.first) / panel.step) * panel.step;
  }

  limits() {
    const ends = this.stamp.panels.filter((p) => p.rows).flatMap((p) => [p.first, p.first + p.step * (p.channels - 1)]
      .flatMap((hz) => [hz - this.shift(p, 0), hz - this.shift(p, p.rows - 1)]));
    return [Math.min(...ends), Math.max(...ends)];
  }

  whole() { [this.x0, this.x1] = this.limits(); }

  home() {
    const ends = this.stamp.panels.flatMap((p) => [p.start_s, p.start_s + p.rows * p.tsamp]).map((s) => this.track(s));
    const margin = 700 + 3 * this.stamp.bandwidth_hz, [low, high] = this.limits();
    const [from, to] = this.view.dedrift ? [0, 0] : [Math.min(...ends), Math.max(...ends)];
    this.x0 = Math.max(low, from - margin);
    this.x1 = Math.min(high, to + margin);
    if (!(this.x1 > this.x0)) this.whole();
  }

  zoom(factor, around = (this.x0 + this.x1) / 2) {
    const [low, high] = this.limits(), least = 8 * Math.abs(this.stamp.panels.find((p) => p.rows).step);
    const span = Math.min(Math.max(this.span() * factor, least), high - low), share = (around - this.x0) / this.span();
    this.x0 = around - share * span;
    this.x1 = this.x0 + span;
    this.pan(0);
  }

  pan(hz) {
    const [low, high] = this.limits(), by = Math.min(Math.max(hz, low - this.x0), high - this.x1);
    this.x0 += by;
    this.x1 += by;
  }

  hzAt(x) { return this.x0 + ((x - LEFT) / this.width) * this.span(); }

  xAt(hz) { return LEFT + ((hz - this.x0) / this.span()) * this.width; }

  // Sigma of a pixel; NaN where nothing was measured.
  pixel(panel, row, c) { return c >= 0 && c < panel.channels ? this.stamp.sigma[panel.pixels[row * panel.channels + c]] : NaN; }

  // Sigma of the bins of one row, one for each of `count` columns of the view: sums over the root of the channels.
  bins(panel, row, count, out) {
    const { sigma } = this.stamp, shift = this.shift(panel, row), per = this.span() / count, base = row * panel.channels;
    for (let x = 0; x < count; x += 1) {
      let a = (this.x0 + x * per + shift - panel.first) / panel.step, b = a + per / panel.step;
      if (a > b) [a, b] = [b, a];
      let first = Math.ceil(a - 0.5), last = Math.ceil(b - 0.5) - 1;
      if (last < first) first = last = Math.round((a + b) / 2);
      let sum = 0, n = 0;
      for (let c = Math.max(first, 0); c <= Math.min(last, panel.channels - 1); c += 1) {
        const value = sigma[panel.pixels[base + c]];
        if (value === value) { sum += value; n += 1; }
      }
      out[x] = n ? sum / Math.sqrt(n) : NaN;
    }
  }

  draw() {
    const ratio = window.devicePixelRatio || 1, wide = Math.max(320, this.element.clientWidth);
    const { panels } = this.stamp, { dedrift } = this.view;
    this.width = Math.floor(wide - LEFT - RIGHT);
    this.high = Math.min(96, Math.max(34, Math.floor(560 / panels.length)));
    this.tops = panels.map((_, i) => i * (this.high + GAP));
    this.bottom = panels.length * (this.high + GAP);
    const tall = this.bottom + AXIS + (dedrift ? SPECTRA : 0);
    this.canvas.width = wide * ratio;
    this.canvas.height = tall * ratio;
    this.canvas.style.width = `${wide}px`;
    this.canvas.style.height = `${tall}px`;
    const pen = this.pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.clearRect(0, 0, wide, tall);
    const style = getComputedStyle(this.element);
    this.ink = style.color;
    const columns = this.width;
    const sums = panels.map((panel) => Array.from({ length: panel.rows }, (_, row) => {
      const out = new Float32Array(columns);
      this.bins(panel, row, columns, out);
      return out;
    }));
    const peaks = sums.map((rows) => {
      let most = 0;
      for (const row of rows) for (let x = 0; x < columns; x += 1) if (row[x] > most) most = row[x];
      return most;
    });
    const top = (peak) => Math.min(20, Math.max(6, Math.ceil(peak))) / this.view.gain;
    this.scale = peaks.map((peak) => (this.view.common ? top(Math.max(...peaks)) : top(peak)));
    panels.forEach((panel, i) => this.drawPanel(panel, i, sums[i], columns));
    this.drawAxis(this.bottom);
    this.drawScale();
    if (dedrift) this.drawSpectra(this.bottom + AXIS);
    if (this.view.box) this.drawBox();
    for (const [name, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", this.view[name]);
    const snr = panels.map((p) => `${p.role} ${p.snr === null ? "missing" : p.snr.toFixed(1)}`).join(", ");
    this.canvas.setAttribute("aria-label", `Waterfall of ${panels.length} scans in time order; SNR: ${snr}`);
  }

  finest() { return Math.min(...this.stamp.panels.filter((p) => p.rows).map((p) => Math.abs(p.step))); }

  color(value, high) {
    const low = -1.5, scaled = this.view.log
      ? Math.log1p(Math.max(0, value)) / Math.log1p(high) : (value - low) / (high - low);
    return Math.min(255, Math.max(0, Math.round(scaled * 255)));
  }

  drawPanel(panel, i, rows, columns) {
    const { pen } = this, top = this.tops[i];
    pen.fillStyle = MASKED;
    pen.fillRect(LEFT, top, this.width, this.high);
    if (panel.rows) {
      const picture = new ImageData(columns, panel.rows), pixels = new Uint32Array(picture.data.buffer);
      rows.forEach((row, r) => {
        for (let x = 0; x < columns; x += 1) {
          if (row[x] === row[x]) pixels[r * columns + x] = this.words[this.color(row[x], this.scale[i])];
        }
      });
      const small = new OffscreenCanvas(columns, panel.rows);
      small.getContext("2d").putImageData(picture, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small, LEFT, top, this.width, this.high);
      if (this.view.overlay) this.drawTrack(panel, top);
    }
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillStyle = this.ink;
    pen.globalAlpha = panel.role === "ON" ? 1 : 0.65;
    pen.font = `${panel.role === "ON" ? "bold " : ""}13px system-ui, sans-serif`;
    pen.fillText(`${panel.role} ${panel.start_utc.slice(11, 19)}`, LEFT - 8, top + this.high * 0.32);
    pen.font = "13px system-ui, sans-serif";
    pen.fillText(panel.snr === null ? "missing" : `SNR ${panel.snr.toFixed(1)}`, LEFT - 8, top + this.high * 0.7);
    pen.globalAlpha = 1;
  }

  drawTrack(panel, top) {
    const { pen } = this, beside = this.stamp.bandwidth_hz + 0.018 * this.span();
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, top, this.width, this.high);
    pen.clip();
    pen.strokeStyle = TRACK;
    pen.lineWidth = 1.4;
    pen.setLineDash([6, 4]);
    for (const side of [-beside, beside]) {
      pen.beginPath();
      for (let k = 0; k <= 24; k += 1) {
        const hz = this.view.dedrift ? 0 : this.track(panel.start_s + (k / 24) * panel.rows * panel.tsamp);
        pen.lineTo(this.xAt(hz + side), top + (k / 24) * this.high);
      }
      pen.stroke();
    }
    pen.restore();
  }

  drawAxis(top) {
    const { pen } = this, raw = this.span() / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    pen.fillStyle = pen.strokeStyle = this.ink;
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let hz = Math.ceil(this.x0 / step) * step; hz <= this.x1; hz += step) {
      pen.fillRect(this.xAt(hz) - 0.5, top, 1, 4);
      pen.fillText(`${Number(hz.toPrecision(6))}`, this.xAt(hz), top + 5);
    }
    const from = this.view.dedrift ? "the track" : `${this.stamp.frequency_mhz.toFixed(6)} MHz`;
    pen.fillText(`Hz from ${from}`, LEFT + this.width / 2, top + 19);
  }

  drawScale() {
    const { pen } = this, x = LEFT + this.width + 8;
    const bars = this.view.common ? [[0, this.bottom - GAP, this.scale[0]]] : this.tops.map((t, i) => [t, this.high, this.scale[i]]);
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "left";
    for (const [top, high, most] of bars) {
      for (let y = 0; y < high; y += 1) {
        const share = 1 - y / high, value = this.view.log ? Math.expm1(share * Math.log1p(most)) : -1.5 + share * (most + 1.5);
        const c = 3 * this.color(value, most);
        pen.fillStyle = `rgb(${this.colors[c]} ${this.colors[c + 1]} ${this.colors[c + 2]})`;
        pen.fillRect(x, top + y, BARS, 1);
      }
      pen.fillStyle = this.ink;
      pen.textBaseline = "top";
      pen.fillText(`${Number(most.toPrecision(3))}\u03c3`, x + BARS + 3, top);
      pen.textBaseline = "bottom";
      pen.fillText(this.view.log ? "0" : "-1.5", x + BARS + 3, top + high);
    }
  }

  // The rows of each panel summed along the track, channel by channel of the view, over the root of the rows.
  spectra() {
    const step = this.finest(), count = Math.max(2, Math.round(this.span() / step));
    return this.stamp.panels.map((panel) => {
      const sum = new Float32Array(count), n = new Float32Array(count);
      for (let row = 0; row < panel.rows; row += 1) {
        const shift = this.shift(panel, row);
        for (let x = 0; x < count; x += 1) {
          const c = Math.round((this.x0 + (x + 0.5) * step + shift - panel.first) / panel.step);
          const value = this.pixel(panel, row, c);
          if (value === value) { sum[x] += value; n[x] += 1; }
        }
      }
      return sum.map((value, x) => (n[x] ? value / Math.sqrt(n[x]) : NaN));
    });
  }

  drawSpectra(top) {
    const { pen } = this, lines = this.spectra(), high = SPECTRA - 16;
    const most = Math.max(6, ...lines.map((line) => line.reduce((t, v) => (v > t ? v : t), 0)));
    const y = (value) => top + high * (1 - (value + 4) / (most + 4));
    pen.fillStyle = this.ink;
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillText("SNR of the sum", LEFT - 8, top + high / 2);
    for (const value of [0, most]) pen.fillText(value.toFixed(0), LEFT - 8, Math.max(y(value), top + 6));
    lines.forEach((line, i) => {
      const isOn = this.stamp.panels[i].role === "ON";
      pen.strokeStyle = isOn ? "#d2223a" : this.ink;
      pen.globalAlpha = isOn ? 1 : 0.6;
      pen.setLineDash(isOn ? [] : [4, 3]);
      pen.lineWidth = 1.3;
      pen.beginPath();
      line.forEach((value, x) => {
        if (value === value) pen.lineTo(LEFT + ((x + 0.5) / line.length) * this.width, y(value));
      });
      pen.stroke();
    });
    pen.globalAlpha = 1;
    pen.setLineDash([]);
  }

  drawBox() {
    const { pen } = this, { panel, row0, row1, hz0, hz1 } = this.view.box, { rows } = this.stamp.panels[panel];
    pen.strokeStyle = "#ffffff";
    pen.lineWidth = 1.5;
    const y = (row) => this.tops[panel] + (row / rows) * this.high;
    pen.strokeRect(this.xAt(hz0), y(row0), this.xAt(hz1) - this.xAt(hz0), y(row1) - y(row0));
  }

  // The straight line and the width with the highest SNR in a box of one panel.
  measure({ panel: number, row0, row1, hz0, hz1 }) {
    const panel = this.stamp.panels[number], rows = row1 - row0;
    const ends = [hz0, hz1].map((hz) => (hz - panel.first) / panel.step).sort((a, b) => a - b);
    const first = Math.max(0, Math.round(ends[0])), count = Math.min(1024, Math.round(ends[1]) - first + 1);
    if (rows < 1 || count < 2) return null;
    let best = null;
    const reach = rows > 1 ? Math.min(count - 1, 256) : 0;
    for (let slope = -reach; slope <= reach; slope += 1) {
      const sum = new Float64Array(count + 1), weight = new Float64Array(count + 1);
      for (let x = 0; x < count; x += 1) {
        let total = 0, n = 0;
        for (let r = 0; r < rows; r += 1) {
          const along = rows > 1 ? Math.round((slope * r) / (rows - 1)) : 0;
          const c = Math.round(first + x + along + this.shift(panel, row0 + r) / panel.step), inside = x + along;
          const value = inside >= 0 && inside < count ? this.pixel(panel, row0 + r, c) : NaN;
          if (value === value) { total += value; n += 1; }
        }
        sum[x + 1] = sum[x] + total;
        weight[x + 1] = weight[x] + n;
      }
      for (const width of WIDTHS.filter((w) => w <= count)) {
        for (let x = 0; x + width <= count; x += 1) {
          const n = weight[x + width] - weight[x], snr = n ? (sum[x + width] - sum[x]) / Math.sqrt(n) : 0;
          if (!best || snr > best.snr) best = { snr, slope, channel: first + x + (width - 1) / 2, width };
        }
      }
    }
    const seconds = Math.max(1, rows - 1) * panel.tsamp, at = panel.start_s + (row0 + rows / 2) * panel.tsamp;
    const own = this.view.dedrift ? this.stamp.drift_rate_hz_s + this.stamp.curvature_hz_s2 * at : 0;
    const hz = panel.first + best.channel * panel.step + this.shift(panel, row0);
    return {
      snr: best.snr, drift_hz_s: own + (best.slope * panel.step) / seconds, width_hz: best.width * Math.abs(panel.step),
      frequency_mhz: this.stamp.frequency_mhz + hz * 1e-6, role: panel.role, scan: number + 1,
    };
  }

  tell(box) {
    const found = box && this.measure(box);
    this.said.textContent = found ? `scan ${found.scan} (${found.role}): SNR ${found.snr.toFixed(1)}, drift `
      + `${found.drift_hz_s >= 0 ? "+" : ""}${found.drift_hz_s.toFixed(3)} Hz/s, width ${found.width_hz.toFixed(1)} Hz, `
      + `${found.frequency_mhz.toFixed(6)} MHz at the start of the box` : "";
  }

  boxOf(from, to) {
    const panel = this.tops.findIndex((top) => from.y >= top && from.y < top + this.high);
    if (panel < 0 || !this.stamp.panels[panel].rows) return null;
    const { rows } = this.stamp.panels[panel];
    const row = (y, round) => Math.min(rows, Math.max(0, round(((y - this.tops[panel]) / this.high) * rows)));
    const [y0, y1] = [Math.min(from.y, to.y), Math.max(from.y, to.y)], [x0, x1] = [Math.min(from.x, to.x), Math.max(from.x, to.x)];
    return { panel, row0: row(y0, Math.floor), row1: row(y1, Math.ceil), hz0: this.hzAt(x0), hz1: this.hzAt(x1) };
  }

  listen() {
    const { canvas } = this, place = (event) => {
      const at = canvas.getBoundingClientRect();
      return { x: event.clientX - at.left, y: event.clientY - at.top };
    };
    let from = null, boxes = false;
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls until the canvas has the focus
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.hzAt(place(event).x));
      this.draw();
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      from = place(event);
      boxes = this.view.measure || event.shiftKey;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = place(event);
      if (boxes) this.view.box = this.boxOf(from, to);
      else {
        this.pan(((from.x - to.x) / this.width) * this.span());
        from = to;
      }
      this.draw();
    });
    canvas.addEventListener("pointerup", () => {
      if (boxes) this.tell(this.view.box);
      from = null;
    });
    canvas.addEventListener("dblclick", () => { this.home(); this.draw(); });
    canvas.addEventListener("keydown", (event) => {
      const acts = {
        ArrowLeft: () => this.pan(-this.span() / 5), ArrowRight: () => this.pan(this.span() / 5), "+": () => this.zoom(0.5),
        "-": () => this.zoom(2), 0: () => this.home(),
      };
      if (event.ctrlKey || event.metaKey || event.altKey || !acts[event.key]) return;
      event.preventDefault();
      acts[event.key]();
      this.draw();
    });
  }
}

async function show(element) {
  const stamp = await load(element.dataset.stamp).catch(() => null);
  if (stamp && element.isConnected && !element.waterfall) new Waterfall(element, stamp);
}

// Show the waterfalls of a page, and those of the cards that replace others.
const all = () => document.querySelectorAll(".waterfall[data-stamp]").forEach(show);
const key = (act) => () => {
  const shown = document.querySelector(".waterfall canvas")?.parentElement.waterfall;
  return shown ? act(shown) : false;
};
const brighten = (factor) => key((shown) => { shown.view.gain *= factor; shown.draw(); });
all();
document.addEventListener("card", all);
listenTo({
  d: key((shown) => shown.toggle("dedrift")), o: key((shown) => shown.toggle("overlay")), "[": brighten(0.8), "]": brighten(1.25),
});
