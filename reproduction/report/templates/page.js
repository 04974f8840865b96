"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tip = document.getElementById("tip");

  // The tooltip, above what it speaks of, inside the window.
  const say = (parts, box) => {
    tip.replaceChildren(...parts.map((part) => {
      if (typeof part === "string") return document.createTextNode(part);
      const bold = document.createElement("b");
      bold.textContent = part[0];
      return bold;
    }));
    tip.hidden = false;
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above < 4 ? box.bottom + 8 : above) + scrollY}px`;
  };
  const hush = () => { tip.hidden = true; };

  // Which net is shown. Without scripts all are.
  const panels = all("[data-panel]");
  const tabs = all("#tabs input");
  const open = (id) => {
    for (const panel of panels) panel.hidden = panel.dataset.panel !== id;
    for (const tab of tabs) tab.checked = tab.value === id;
    hush();
  };
  if (tabs.length) {
    for (const title of all(".panel-title")) title.classList.add("hidden");
    for (const tab of tabs) tab.addEventListener("change", () => { open(tab.value); history.replaceState(null, "", `#${tab.value}`); });
    const follow = () => {
      const id = decodeURIComponent(location.hash.slice(1));
      if (panels.some((panel) => panel.dataset.panel === id)) { open(id); document.getElementById("nets").scrollIntoView(); }
    };
    open((tabs.find((tab) => tab.defaultChecked) || tabs[0]).value);
    addEventListener("hashchange", follow);
    follow();
  }

  // The order of the bars.
  for (const input of all("[data-order]")) {
    input.addEventListener("change", () => input.closest(".sub").classList.toggle("by-iu", input.value === "iu"));
  }

  // How the pictures are shown.
  for (const input of all("[data-view-choice]")) {
    input.addEventListener("change", () => { input.closest(".shots").dataset.view = input.value; });
  }
  for (const input of all("[data-strength]")) {
    input.addEventListener("input", () => input.closest(".shots").style.setProperty("--strength", input.value / 100));
  }
  for (const input of all("[data-cut]")) {
    input.addEventListener("input", () => input.closest(".stage").style.setProperty("--cut", `${input.value}%`));
  }

  // The confusion matrix: a tooltip for each cell, by mouse, finger and keyboard.
  const share = (count, total) => {
    const percent = 100 * count / total;
    return `${percent.toFixed(percent && percent < 0.1 ? 4 : 2)} %`;
  };
  for (const box of all(".matrix-box")) {
    const heads = all("thead th", box);
    const rows = all("tbody tr", box);
    let here = null;
    const leave = () => {
      if (here) for (const mark of all(".here, .mark", box)) mark.classList.remove("here", "mark");
      here = null;
      hush();
    };
    const enter = (cell) => {
      leave();
      here = cell;
      const row = cell.parentElement;
      const head = heads[cell.cellIndex - 1];
      for (const mark of [row.cells[0], head]) mark.classList.add("mark");
      cell.classList.add("here");
      const total = Number(row.dataset.total), count = Number(cell.dataset.n || 0);
      const truth = row.cells[0].textContent, predicted = head.textContent;
      const numbers = total ? `: ${share(count, total)}, ${count.toLocaleString("en")} of ${total.toLocaleString("en")} pixels` : ": it has no pixel in the truth";
      say(truth === predicted ? [[truth], " as itself", numbers] : [[truth], " as ", [predicted], numbers], cell.getBoundingClientRect());
    };
    box.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) enter(cell); else leave();
    });
    box.addEventListener("pointerleave", leave);
    box.addEventListener("blur", leave);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (event.key === "Escape") leave();
      if (!step) return;
      event.preventDefault();
      const at = here ? [rows.indexOf(here.parentElement) + step[0], here.cellIndex + step[1]] : [0, 1];
      const row = rows[Math.min(Math.max(at[0], 0), rows.length - 1)];
      const cell = row.cells[Math.min(Math.max(at[1], 1), row.cells.length - 1)];
      cell.scrollIntoView({ block: "nearest", inline: "nearest" });
      enter(cell);
    });
  }

  // Curves: a line that follows the pointer, or the arrow keys, and says the values there.
  for (const chart of all(".chart")) {
    const data = JSON.parse(chart.querySelector("script").textContent);
    const NS = "http://www.w3.org/2000/svg";
    let at = null;
    const clear = () => { for (const mark of all(".cross, .dot", chart)) mark.remove(); at = null; hush(); };
    const point = (x) => {
      clear();
      at = x;
      const svg = all("svg", chart).find((each) => each.getBoundingClientRect().width > 0);
      const frame = data.frames[svg.dataset.frame];
      const put = (name, className, attributes) => {
        const mark = document.createElementNS(NS, name);
        mark.setAttribute("class", className);
        for (const [key, value] of Object.entries(attributes)) mark.setAttribute(key, value);
        svg.append(mark);
        return mark;
      };
      const px = (value) => frame.left + (value - data.x[0]) / (data.x[1] - data.x[0]) * (frame.right - frame.left);
      const scale = data.log ? Math.log10 : (value) => value;
      const py = (value) => frame.bottom - (scale(value) - scale(data.y[0])) / (scale(data.y[1]) - scale(data.y[0])) * (frame.bottom - frame.top);
      const cross = put("line", "cross", { x1: px(x), x2: px(x), y1: frame.top, y2: frame.bottom });
      const stage = data.stages.findLast((each) => each.start <= x) || data.stages[0];
      const parts = [[stage.name], `, iteration ${(x - stage.start).toLocaleString("en")}`];
      for (const line of data.lines) {
        const i = line.x.reduce((best, value, index) => Math.abs(value - x) < Math.abs(line.x[best] - x) ? index : best, 0);
        if (line.x[i] !== x) continue;
        put("circle", "dot", { cx: px(x), cy: py(line.y[i]), r: 4, style: `fill: var(${line.colour})` });
        parts.push(` · ${line.name} `, [line.text[i]]);
      }
      say(parts, cross.getBoundingClientRect());
    };
    const stops = [...new Set(data.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const nearest = (x) => stops.reduce((best, stop) => Math.abs(stop - x) < Math.abs(best - x) ? stop : best, stops[0]);
    chart.addEventListener("pointermove", (event) => {
      const svg = event.target.closest("svg");
      if (!svg) return clear();
      const box = svg.getBoundingClientRect(), frame = data.frames[svg.dataset.frame];
      const inside = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const x = data.x[0] + (inside - frame.left) / (frame.right - frame.left) * (data.x[1] - data.x[0]);
      point(nearest(x));
    });
    chart.addEventListener("pointerleave", clear);
    chart.addEventListener("blur", clear);
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") clear();
      if (!step) return;
      event.preventDefault();
      const next = at === null ? 0 : stops.indexOf(at) + step;
      point(stops[Math.min(Math.max(next, 0), stops.length - 1)]);
    });
  }
})();
