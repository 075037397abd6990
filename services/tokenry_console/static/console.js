// Draws the tables of the page as plots, and keeps the page up to date. Everything works without it but the plots.
"use strict";
(() => {
  const HEIGHT = 240;
  const COLOURS = 8;
  const AWAY_MILLISECONDS = 12000; // the console answers within 10 s, or says that it cannot
  let drawn = [];

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (text) => (text === "" ? null : Number(text));

  function read(table) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows].map((row) =>
      [...row.cells].map((cell) => cell.dataset.value ?? cell.textContent));
    return { names, rows };
  }

  // One column a line; the first is x.
  function wide({ names, rows }) {
    return { names: names.slice(1), data: names.map((_, index) => rows.map((row) => number(row[index]))) };
  }

  // A row a step of some line: name, x, y. Lines hold their value until their next step, and end with the last one.
  function long({ rows }) {
    const lines = new Map();
    for (const [name, x, y] of rows) {
      if (!lines.has(name)) lines.set(name, []);
      lines.get(name).push([Number(x), Number(y)]);
    }
    const last = Math.max(35, ...rows.map((row) => Number(row[1]))) * 1.05;
    const xs = [...new Set([0, last, ...rows.map((row) => Number(row[1]))])].sort((a, b) => a - b);
    const data = [xs];
    for (const steps of lines.values()) {
      let at = 0, held = null;
      const until = steps.length ? steps[steps.length - 1][0] : 0; // nobody knows what comes after
      data.push(xs.map((x) => {
        if (x > until) return null;
        while (at < steps.length && steps[at][0] <= x) held = steps[at++][1];
        return held;
      }));
    }
    return { names: [...lines.keys()], data };
  }

  function stack(data) {
    const sums = data[0].map(() => 0);
    return data.map((line, index) =>
      index === 0 ? line : line.map((value, at) => (value === null ? null : (sums[at] += value))));
  }

  function marks(text) {
    return text.split(";").filter(Boolean).map((mark) => {
      const [at, name] = mark.split("=");
      return { at: Number(at), name };
    });
  }

  function drawMarks(wanted) {
    return (plot) => {
      const { ctx } = plot;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = css("--bad");
      ctx.setLineDash([6, 4]);
      ctx.font = `${12 * devicePixelRatio}px sans-serif`;
      wanted.forEach(({ at, name }, index) => {
        const x = plot.valToPos(at, "x", true);
        if (x > plot.bbox.left + plot.bbox.width) return;
        ctx.beginPath();
        ctx.moveTo(x, plot.bbox.top);
        ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
        ctx.stroke();
        ctx.textAlign = index % 2 ? "left" : "right"; // two that are close stand on either side
        ctx.fillText(name, x + (index % 2 ? 5 : -5) * devicePixelRatio, plot.bbox.top + plot.bbox.height - 8 * devicePixelRatio);
      });
      ctx.restore();
    };
  }

  const short = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
    if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
    return `${+value.toPrecision(3)}`;
  };

  function draw(place) {
    const table = document.getElementById(place.dataset.table);
    if (!table || !table.tBodies[0].rows.length) return;
    const kind = place.dataset.plot;
    const time = place.dataset.time === "yes";
    const unit = place.dataset.unit ? ` ${place.dataset.unit}` : "";
    const { names, data } = kind === "curves" ? long(read(table)) : wide(read(table));
    const raw = data;
    const stacked = kind === "stacked";
    const stepped = kind === "curves" || kind === "steps";
    const grey = (index) => kind === "curves" && index > 0;
    const paths = stepped ? uPlot.paths.stepped({ align: 1 }) : undefined;
    const series = names.map((label, index) => {
      const colour = grey(index) ? css("--mute") : css(`--c${(index % COLOURS) + 1}`);
      return {
        label,
        stroke: colour,
        fill: stacked ? colour : undefined,
        width: grey(index) ? 1 : kind === "curves" ? 3 : 2,
        alpha: grey(index) ? 0.45 : 1,
        paths,
        points: { show: data[0].length < 3 },
        value: (plot, value, line, at) => (at === null ? "–" : short(raw[line][at]) + unit),
      };
    });
    let shown = stacked ? stack(data) : data;
    let lines = [{ label: time ? "time" : read(table).names[kind === "curves" ? 1 : 0] }, ...series];
    let order = null;
    if (stacked) { // the topmost first, so that the lower ones lie above it
      order = [0, ...series.map((_, index) => series.length - index)];
      shown = order.map((index) => shown[index]);
      lines = order.map((index) => lines[index]);
      for (const [at, index] of order.entries())
        if (at) lines[at].value = (plot, value, line, row) => (row === null ? "–" : short(raw[index][row]) + unit);
    }
    if (kind === "curves") { // the current one last, so that it lies above the others
      const current = [shown.splice(1, 1)[0], lines.splice(1, 1)[0]];
      shown.push(current[0]);
      lines.push(current[1]);
      const position = lines.length - 1;
      lines[position].value = (plot, value) => short(value) + unit;
      for (let at = 1; at < position; at++) lines[at].value = (plot, value) => short(value) + unit;
    }
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 } };
    const many = kind === "curves" && lines.length > 4;
    drawn.push(new uPlot({
      width: Math.max(260, place.clientWidth),
      height: HEIGHT,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
      scales: {
        x: { time, ...(Number(place.dataset.span) && { range: (plot, low, high) => [high - Number(place.dataset.span), high] }) },
        y: { range: (plot, low, high) => (kind === "curves" ? [0, 104] : [0, high > 0 ? high * 1.1 : 1]) },
      },
      axes: [
        time ? { ...axis, space: 80, values: [
          [3600 * 24, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
          [60, "{HH}:{mm}", null, null, null, null, null, null, 1],
          [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
        ] } : axis,
        { ...axis, size: 56, values: (plot, ticks) => ticks.map((tick) => short(tick) + (kind === "curves" ? " %" : "")) },
      ],
      series: lines,
      legend: { show: !many, live: true },
      cursor: { drag: { x: false, y: false } },
      hooks: { draw: [drawMarks(marks(place.dataset.marks))] },
    }, shown, place));
  }

  function drawAll() {
    for (const plot of drawn) plot.destroy();
    drawn = [];
    for (const place of document.querySelectorAll("[data-plot]")) {
      place.replaceChildren();
      draw(place);
    }
    for (const button of document.querySelectorAll(".scripted")) button.hidden = false;
  }

  // --- pictures to take along ---

  function save(canvas, name) {
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `tokenry-${name}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }, "image/png");
  }

  function onGround(width, height, paint) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    context.fillStyle = css("--panel");
    context.fillRect(0, 0, width, height);
    paint(context);
    return canvas;
  }

  function paintPicture(svg) {
    const scale = 2;
    const { width, height } = svg.viewBox.baseVal;
    return onGround(width * scale, height * scale, (context) => {
      context.scale(scale, scale);
      for (const shape of svg.children) {
        const style = getComputedStyle(shape);
        const at = (name) => Number(shape.getAttribute(name));
        context.globalAlpha = Number(style.opacity);
        context.fillStyle = style.fill === "none" ? "transparent" : style.fill;
        context.strokeStyle = style.stroke;
        context.lineWidth = parseFloat(style.strokeWidth);
        context.setLineDash(style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(/[ ,]+/).map(parseFloat));
        context.beginPath();
        if (shape.tagName === "rect") context.rect(at("x"), at("y"), at("width"), at("height"));
        else if (shape.tagName === "circle") context.arc(at("cx"), at("cy"), at("r"), 0, 2 * Math.PI);
        else if (shape.tagName === "line") { context.moveTo(at("x1"), at("y1")); context.lineTo(at("x2"), at("y2")); }
        else {
          context.font = `${style.fontSize} sans-serif`;
          context.textAlign = { middle: "center", end: "end" }[style.textAnchor] ?? "start";
          context.fillText(shape.textContent, at("x"), at("y"));
          continue;
        }
        if (style.fill !== "none" && shape.tagName !== "line") context.fill();
        if (style.stroke !== "none") context.stroke();
      }
    });
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy) {
      const said = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(said.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(said);
        button.textContent = "Selected";
      }
    } else if (button.dataset.png) {
      const figure = document.getElementById(button.dataset.png);
      const svg = figure.querySelector("svg.picture");
      const canvas = figure.querySelector("canvas");
      if (svg) save(paintPicture(svg), button.dataset.png);
      else if (canvas) save(onGround(canvas.width, canvas.height, (context) => context.drawImage(canvas, 0, 0)), button.dataset.png);
    }
  });

  // --- keeping up to date ---

  async function refresh() {
    const answer = await fetch(location.href, {
      headers: { "X-Tokenry-Live": "1" },
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(AWAY_MILLISECONDS),
    });
    if (answer.status === 401) {
      location.reload(); // and from there to the login page
      return false;
    }
    if (!answer.ok) throw new Error(`${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    // Read without scripting, what is for readers without it would be shown.
    for (const each of fresh.querySelectorAll("noscript")) each.remove();
    const open = new Set([...document.querySelectorAll("details[open]")].map((each) => each.id));
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = fresh.getElementById(part.id);
      if (next) part.replaceChildren(...next.childNodes);
    }
    for (const id of open) {
      const details = id && document.getElementById(id);
      if (details) details.open = true;
    }
    document.title = fresh.title;
    return Number(fresh.getElementById("page").dataset.live);
  }

  function keepUp() {
    let seconds = Number(document.getElementById("page")?.dataset.live || 0);
    if (!seconds) return;
    const liveness = document.getElementById("liveness");
    const again = async () => {
      const busy = document.activeElement?.closest("[data-part] input, [data-part] select") || String(getSelection());
      if (!document.hidden && !busy) {
        try {
          const next = await refresh();
          if (!next) return;
          seconds = next;
          drawAll();
          liveness.textContent = `refreshes every ${seconds} s`;
          document.body.classList.remove("away");
        } catch (error) {
          liveness.textContent = "the console does not answer: this page is old";
          document.body.classList.add("away");
        }
      }
      setTimeout(again, seconds * 1000);
    };
    setTimeout(again, seconds * 1000);
  }

  let resized;
  addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(drawAll, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
  keepUp();
})();
