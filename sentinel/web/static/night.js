// The map of a night: frequency by time, color by label, size by SNR. A click opens the candidate.
const LABELS = [[null, "none"], ["candidate", "candidate"], ["RFI", "rfi"], ["unsure", "unsure"]];
const box = document.getElementById("map");
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function radius(snr) { return 2 + Math.min(5, Math.log2(Math.max(1, snr / 8)) * 1.1); }

// A series of points of different sizes; its first values are times, its second frequencies.
function points(plot, index, data) {
  const { ctx } = plot, [xs, ys, sizes] = data, ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
  ctx.clip();
  ctx.strokeStyle = style(`--${LABELS[index][1]}`);
  ctx.fillStyle = `${ctx.strokeStyle}66`;
  for (let i = 0; i < xs.length; i += 1) {
    ctx.beginPath();
    ctx.arc(plot.valToPos(xs[i], "x", true), plot.valToPos(ys[i], "mhz", true), sizes[i] * ratio, 0, 7);
    ctx.fill();
    ctx.stroke();
  }
  ctx.restore();
}

function draw(found) {
  const groups = LABELS.map(() => [[], [], [], []]);
  found.id.forEach((id, i) => {
    const group = groups[LABELS.findIndex(([word]) => word === found.label[i])];
    if (group) [found.unix[i], found.mhz[i], radius(found.snr[i]), id].forEach((value, k) => group[k].push(value));
  });
  const extent = (values, least) => {
    const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [values[0], values[0]]);
    const pad = Math.max(least, (high - low) * 0.04);
    return [low - pad, high + pad];
  };
  const time = extent(found.unix, 600), mhz = extent(found.mhz, 0.01);
  const axis = { stroke: style("--soft"), grid: { stroke: style("--line") }, ticks: { stroke: style("--line") } };
  const plot = new uPlot({
    width: box.clientWidth - 10, height: box.clientHeight - 40, mode: 1, tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
    scales: { x: { time: true, range: () => time }, mhz: { range: () => mhz } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1e3).toISOString().slice(11, 16)) }, { ...axis, scale: "mhz", size: 80, values: (_, ticks) => ticks.map((tick) => tick.toFixed(3)) }],
    series: [{}, ...LABELS.map(([word, color]) => ({ label: word || color, scale: "mhz", stroke: style(`--${color}`), points: { show: false }, paths: () => null }))],
    legend: { live: false },
    cursor: { drag: { x: true, y: true } },
    hooks: { draw: [(it) => groups.forEach((group, i) => it.series[i + 1].show && points(it, i, group))] },
  }, [time, ...LABELS.map(() => [null, null])], box);
  // The candidate within 12 pixels of the mouse, the nearest one; null if there is none.
  const under = (event) => {
    let best = [12, null];
    groups.forEach(([xs, ys, , ids]) => xs.forEach((x, i) => {
      const away = Math.hypot(plot.valToPos(x, "x") - event.offsetX, plot.valToPos(ys[i], "mhz") - event.offsetY);
      if (away < best[0]) best = [away, ids[i]];
    }));
    return best[1];
  };
  plot.over.addEventListener("mousemove", (event) => {
    const id = under(event);
    plot.over.style.cursor = id ? "pointer" : "";
    plot.over.title = id ? `candidate ${id}` : "";
  });
  plot.over.addEventListener("click", (event) => {
    const id = under(event);
    if (id) location.href = `/candidates/${id}`;
  });
  addEventListener("resize", () => plot.setSize({ width: box.clientWidth - 10, height: box.clientHeight - 40 }));
}

fetch(`/night.json?night=${encodeURIComponent(box.dataset.night)}`).then((reply) => reply.json()).then((found) => {
  if (found.id.length) draw(found);
  else box.textContent = "No candidates in this night.";
}).catch((error) => { box.textContent = `The map could not be loaded: ${error.message}`; });
