"use strict";

(function () {
  const MOST = 40;      // of the zoom
  const STEP = 1.25;    // of a key
  const PAUSE = 350;    // ms without scrolling after which the wheel zooms
  const root = document.documentElement;
  const large = document.getElementById("large");
  const wide = large.querySelector(".stage");
  const rows = [...document.querySelectorAll(".row")];
  const views = new WeakMap(rows.map((row) => [row, { k: 1, x: 0, y: 0 }]));
  let gain = 1;         // of the difference from the reference; 1 shows pictures
  let shown = null;     // the cell that is shown large
  let scrolled = 0;

  // A picture that is on the page twice is stored once.
  for (const picture of document.querySelectorAll("img[data-same]")) {
    picture.src = document.getElementById(picture.dataset.same).src;
  }

  /* Zoom and pan: a row has one view {k, x, y}; a point u of a picture, in parts of its sides, is
     shown at k u + (x, y). */

  function setView(row, k, x, y) {
    k = Math.min(MOST, Math.max(1, k));
    const within = (v) => Math.min(0, Math.max(1 - k, v));
    const view = { k, x: within(x), y: within(y) };
    views.set(row, view);
    apply(row, view);
    if (shown && rowOf(shown) === row) apply(large, view);
  }

  function apply(element, view) {
    element.style.setProperty("--k", view.k);
    element.style.setProperty("--x", view.x);
    element.style.setProperty("--y", view.y);
    element.classList.toggle("zoomed", view.k > 1);
    for (const picture of element.querySelectorAll(".stage img")) grain(picture, view.k);
  }

  /** Show pixels as squares where a picture is larger than its own pixels. */
  function grain(picture, k) {
    const width = picture.parentElement.clientWidth * k * devicePixelRatio;
    const own = picture.naturalWidth || Number(picture.getAttribute("width"));
    picture.classList.toggle("grainy", width > own * 1.01);
  }

  /** Zoom so that what is at (u, v) of the stage stays there. */
  function zoomAt(row, factor, u, v) {
    const { k, x, y } = views.get(row);
    const next = Math.min(MOST, Math.max(1, k * factor));
    const ratio = next / k;
    setView(row, next, u - ratio * (u - x), v - ratio * (v - y));
  }

  function pan(row, du, dv) {
    const { k, x, y } = views.get(row);
    setView(row, k, x + du, y + dv);
  }

  function reset() {
    for (const row of rows) setView(row, 1, 0, 0);
  }

  function placeIn(stage, event) {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  /* Wheel, mouse and fingers. */

  function listen(stage, rowNow) {
    const fingers = new Map();
    let travelled = 0;

    stage.addEventListener("wheel", (event) => {
      const row = rowNow();
      const out = event.deltaY > 0;
      const pinching = event.ctrlKey;  // how a pinch on a touchpad arrives
      const scrolling = !large.open && performance.now() - scrolled < PAUSE;
      if (!pinching && (scrolling || (out && views.get(row).k === 1))) return;
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      const speed = pinching ? 0.01 : 0.002;
      zoomAt(row, Math.exp(-event.deltaY * lines * speed), ...placeIn(stage, event));
    }, { passive: false });

    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (!fingers.size) travelled = 0;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (event.pointerType === "mouse" || views.get(rowNow()).k > 1) {
        stage.setPointerCapture(event.pointerId);
      }
    });

    stage.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = [event.clientX, event.clientY];
      const row = rowNow();
      const box = stage.getBoundingClientRect();
      if (fingers.size === 1) {
        travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
        pan(row, (now[0] - before[0]) / box.width, (now[1] - before[1]) / box.height);
      } else if (fingers.size === 2) {
        travelled = Infinity;
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const apart = (a) => Math.max(1, Math.hypot(a[0] - other[0], a[1] - other[1]));
        const middle = (a) => [(a[0] + other[0]) / 2, (a[1] + other[1]) / 2];
        const [from, to] = [middle(before), middle(now)];
        pan(row, (to[0] - from[0]) / box.width, (to[1] - from[1]) / box.height);
        zoomAt(row, apart(now) / apart(before),
          (to[0] - box.left) / box.width, (to[1] - box.top) / box.height);
      }
      fingers.set(event.pointerId, now);
    });

    const lift = (event) => fingers.delete(event.pointerId);
    stage.addEventListener("pointerup", lift);
    stage.addEventListener("pointercancel", lift);
    stage.addEventListener("click", () => {
      if (travelled < 5 && stage !== wide && stage.querySelector("img")) open(stage.parentElement);
    });
    stage.addEventListener("dragstart", (event) => event.preventDefault());
  }

  /* One picture, large: it looks through the view of its row. */

  const rowOf = (cell) => cell.closest(".row");
  const cellsOf = (row) => [...row.querySelectorAll(".cell")].filter((c) => c.querySelector("img"));

  function open(cell) {
    show(cell);
    if (!large.open) large.showModal();
    apply(large, views.get(rowOf(cell)));
  }

  function show(cell) {
    shown = cell;
    const row = rowOf(cell);
    wide.style.setProperty("--ratio", getComputedStyle(row).getPropertyValue("--ratio"));
    fill(wide, cell);
    document.getElementById("large-name").textContent =
      `${row.dataset.picture}: ${cell.dataset.name}`;
    document.getElementById("large-values").textContent = cell.dataset.values || "";
    apply(large, views.get(row));
  }

  function fill(stage, cell) {
    const picture = cell.querySelector("img").cloneNode();
    picture.removeAttribute("id");
    picture.loading = "eager";
    stage.replaceChildren(picture);
    stage.classList.remove("difference");
    if (gain > 1) differ(stage, cell);
  }

  function go(by) {
    const cells = cellsOf(rowOf(shown));
    show(cells[(cells.indexOf(shown) + by + cells.length) % cells.length]);
  }

  function goRow(by) {
    const row = rows[rows.indexOf(rowOf(shown)) + by];
    if (!row) return;
    const cells = cellsOf(row);
    show(cells.find((cell) => cell.dataset.name === shown.dataset.name) || cells[0]);
  }

  function peek(on) {
    const reference = rowOf(shown).querySelector(".cell[data-kind=reference]");
    if (!reference) return;
    fill(wide, on ? reference : shown);
    apply(large, views.get(rowOf(shown)));
  }

  large.addEventListener("close", () => {
    const row = rowOf(shown);
    shown = null;
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  });
  large.addEventListener("click", (event) => {
    if (event.target.dataset.go) go(Number(event.target.dataset.go));
    if ("close" in event.target.dataset) large.close();
  });

  /* The difference: the reference is laid over a picture, and the page subtracts. */

  function differ(stage, cell) {
    const reference = rowOf(cell).querySelector(".cell[data-kind=reference] img");
    const comparable = cell.dataset.kind === "method" || (cell.dataset.kind === "input" && "same" in cell.dataset);
    if (!reference || !comparable) return;
    const over = reference.cloneNode();
    over.removeAttribute("id");
    over.className = "over";
    over.alt = "";
    stage.append(over);
    stage.classList.add("difference");
  }

  function setGain(next) {
    gain = next;
    root.style.setProperty("--gain", gain);
    for (const radio of document.getElementsByName("view")) radio.checked = +radio.value === gain;
    for (const row of rows) {
      for (const cell of cellsOf(row)) {
        const stage = cell.querySelector(".stage");
        stage.querySelector(".over")?.remove();
        stage.classList.remove("difference");
        if (gain > 1) differ(stage, cell);
      }
      apply(row, views.get(row));
    }
    if (shown) show(shown);
  }

  /* Keys. */

  function onZoomKey(row, key) {
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (key === "+" || key === "=") zoomAt(row, STEP, 0.5, 0.5);
    else if (key === "-" || key === "−") zoomAt(row, 1 / STEP, 0.5, 0.5);
    else if (key === "0") setView(row, 1, 0, 0);
    else if (key in moves && views.get(row).k > 1) pan(row, 0.1 * moves[key][0], 0.1 * moves[key][1]);
    else return false;
    return true;
  }

  function onLargeKey(event) {
    const ways = { ArrowLeft: () => go(-1), ArrowRight: () => go(1), ArrowUp: () => goRow(-1), ArrowDown: () => goRow(1) };
    if (event.key in ways) ways[event.key]();
    else if (event.key === " " && !event.target.matches("button")) { if (!event.repeat) peek(true); }
    else return onZoomKey(rowOf(shown), event.key);
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, summary")) return;
    let done = true;
    if (event.key === "d") setGain(gain > 1 ? 1 : 4);
    else if (large.open) done = onLargeKey(event);
    else if (event.target.matches(".row")) {
      if (event.key === "Enter") open(cellsOf(event.target)[0]);
      else done = onZoomKey(event.target, event.key);
    } else done = false;
    if (done) event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && large.open) { event.preventDefault(); peek(false); }
  });

  /* The bar. */

  for (const radio of document.getElementsByName("view")) {
    radio.addEventListener("change", () => setGain(+radio.value));
  }
  const size = document.getElementById("size");
  size.addEventListener("input", () => {
    root.style.setProperty("--cell", `${size.value}px`);
    refresh();
  });
  document.getElementById("reset").addEventListener("click", reset);

  function refresh() {
    for (const row of rows) apply(row, views.get(row));
    if (shown) apply(large, views.get(rowOf(shown)));
  }
  addEventListener("resize", refresh);
  addEventListener("scroll", () => { scrolled = performance.now(); }, { passive: true });

  for (const row of rows) {
    for (const cell of cellsOf(row)) listen(cell.querySelector(".stage"), () => row);
  }
  listen(wide, () => rowOf(shown));
  refresh();
})();
