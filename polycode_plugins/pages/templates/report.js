"use strict";
// The page's behaviour: charts drawn when they come into view, the choosers, sorting, copying.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;

  // -- colours: tokens become colours when the scheme is known ------------------------------------

  // Viridis at ninths. The end that the background would swallow is left out.
  const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]
    .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

  function viridis(at) {
    const place = (dark.matches ? 0.32 + 0.68 * at : 0.85 * at) * (VIRIDIS.length - 1);
    const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
    const mix = VIRIDIS[low].map((v, i) => Math.round(v + (VIRIDIS[low + 1][i] - v) * (place - low)));
    return `rgb(${mix.join(",")})`;
  }

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  function colour(token) {
    return token.startsWith("scale:") ? viridis(Number(token.slice(6))) : style(token);
  }

  function coloured(value, key) {
    if (Array.isArray(value)) return value.map((item) => coloured(item, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, k)]));
    }
    return key === "color" && typeof value === "string" ? colour(value) : value;
  }

  // -- charts -------------------------------------------------------------------------------------

  let loading = null;

  // Plotly lies in the page gzipped. Its text runs as a script that the page's policy knows by hash.
  function plotly() {
    loading ??= (async () => {
      const packed = atob(document.getElementById("plotly").textContent);
      const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
    })();
    return loading;
  }

  function layoutOf(figure, narrow) {
    const ink = style("ink"), grid = style("grid"), card = style("card");
    const axis = {
      gridcolor: grid, linecolor: grid, zeroline: false, automargin: true, ticks: "", fixedrange: touch,
    };
    const titled = (own) => ({ ...axis, ...own, title: { ...own.title, standoff: 10, font: { size: 13 } } });
    return {
      xaxis: titled(figure.layout.xaxis),
      yaxis: titled(figure.layout.yaxis),
      font: { family: style("sans"), size: 12, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: narrow ? 44 : 60, r: 12, t: 8, b: 44 },
      showlegend: false,
      hovermode: "closest",
      dragmode: touch ? false : "zoom",
      hoverlabel: { bgcolor: card, bordercolor: grid, font: { color: ink, size: 12 }, align: "left", namelength: -1 },
    };
  }

  function chosen(chart, trace) {
    const box = [...chart.querySelectorAll("input[data-key]")].find((b) => b.dataset.key === trace.meta);
    return box ? box.checked : trace.visible;
  }

  async function draw(chart) {
    const figure = JSON.parse(chart.querySelector('script[type="application/json"]').textContent);
    await plotly();
    const data = coloured(figure.data).map((trace) => ({ ...trace, visible: chosen(chart, trace) }));
    const target = chart.querySelector(".plot");
    chart.classList.add("drawn");
    await Plotly.react(target, data, layoutOf(figure, target.clientWidth < 480), {
      responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
      modeBarButtons: [["toImage", "resetScale2d"]],
    });
    chart.dataset.state = "drawn";
    // A box may have been clicked while the chart was being drawn.
    if (target.data.some((trace) => trace.visible !== chosen(chart, trace))) apply(chart);
  }

  function drawOrExplain(chart) {
    draw(chart).catch((error) => {
      chart.classList.remove("drawn");
      chart.dataset.state = "failed";
      console.error(error);
    });
  }

  const charts = [...document.querySelectorAll("figure.chart")];
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      drawOrExplain(target);
    }
  }, { rootMargin: "400px" });
  // Without plotly in the page, the pictures stay.
  const drawable = document.getElementById("plotly").textContent !== "";
  document.documentElement.classList.toggle("pictured", !drawable);
  if (drawable) for (const chart of charts) seen.observe(chart);

  function paint() {
    for (const swatch of document.querySelectorAll("[data-colour]")) {
      swatch.style.backgroundColor = colour(swatch.dataset.colour);
    }
    const stops = Array.from({ length: 9 }, (_, i) => viridis(i / 8)).join(",");
    for (const bar of document.querySelectorAll(".scale")) {
      bar.style.backgroundImage = `linear-gradient(to right, ${stops})`;
    }
  }
  paint();
  dark.addEventListener("change", () => {
    paint();
    for (const chart of charts) if (chart.dataset.state === "drawn") drawOrExplain(chart);
  });

  // -- choosers -----------------------------------------------------------------------------------

  function apply(chart) {
    const target = chart.querySelector(".plot");
    if (chart.dataset.state !== "drawn") return; // draw() reads the boxes
    Plotly.restyle(target, { visible: target.data.map((trace) => chosen(chart, trace)) });
  }

  for (const chooser of document.querySelectorAll(".chooser")) {
    const chart = chooser.closest("figure");
    chooser.addEventListener("change", () => apply(chart));
    chooser.addEventListener("click", ({ target }) => {
      const { kind, to } = target.dataset;
      if (!to) return;
      for (const box of chooser.querySelectorAll(".row:not([hidden]) input[data-kind]")) {
        if (box.dataset.kind === kind) box.checked = to === "all";
      }
      apply(chart);
    });
    // "all" and "none" then mean the rows that the filter left.
    chooser.querySelector("input[type=search]")?.addEventListener("input", ({ target }) => {
      const wanted = target.value.trim().toLowerCase();
      for (const row of chooser.querySelectorAll("[data-name]")) {
        row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
      }
    });
  }

  // -- tables -------------------------------------------------------------------------------------

  const opened = new Map(); // a row, and the one below it that holds what was opened

  const rowsOf = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("opened"));

  function sort(table, index, heading) {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const numeric = heading.classList.contains("number");
    const order = new Intl.Collator("en", { numeric: true });
    const value = (row) => row.cells[index].dataset.sort;
    const rows = rowsOf(table).sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // undefined comes last either way
      const difference = numeric ? Number(x) - Number(y) : order.compare(x, y);
      return descending ? -difference : difference;
    });
    table.tBodies[0].append(...rows.flatMap((row) => opened.has(row) ? [row, opened.get(row)] : [row]));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      heading.querySelector("button").addEventListener("click", () => sort(table, index, heading));
    });
  }

  // What is opened in a cell takes the width of the table, in a row of its own.
  function unfold(details) {
    const row = details.closest("tr"), body = details.querySelector(".body");
    if (details.open && body) {
      const below = document.createElement("tr"), cell = document.createElement("td");
      below.className = "opened";
      cell.colSpan = row.cells.length;
      cell.append(body);
      below.append(cell);
      row.after(below);
      opened.set(row, below);
    } else if (!details.open && opened.has(row)) {
      const below = opened.get(row);
      details.append(below.querySelector(".body"));
      below.remove();
      opened.delete(row);
    }
  }

  for (const details of document.querySelectorAll("td.said > details")) {
    details.addEventListener("toggle", () => unfold(details));
  }

  // -- filtering, columns, files ------------------------------------------------------------------

  const tools = (kind) => document.querySelectorAll(`.tools [data-table].${kind}`);
  const tableOf = (tool) => document.getElementById(tool.dataset.table);

  // A row stays that holds every word, and the kind that is chosen.
  function filter(tool) {
    const bar = tool.closest(".tools"), table = tableOf(tool);
    const words = bar.querySelector(".filter").value.trim().toLowerCase().split(/\s+/);
    const kind = bar.querySelector("select")?.value ?? "";
    const rows = rowsOf(table);
    for (const row of rows) {
      // Soft breaks in names are no part of them.
      const text = row.textContent.replaceAll(/[\u200b\u00ad]/g, "").toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word)) && (!kind || row.dataset.kind === kind));
      if (opened.has(row)) opened.get(row).hidden = row.hidden;
    }
    const left = rows.filter((row) => !row.hidden).length;
    bar.querySelector(".tally").textContent = left < rows.length ? `${left} of ${rows.length}` : "";
  }

  for (const kind of ["filter", "kinds"]) {
    for (const tool of tools(kind)) tool.addEventListener("input", () => filter(tool));
  }

  for (const button of tools("columns")) {
    const more = button.textContent;
    button.addEventListener("click", () => {
      const all = tableOf(button).closest(".scroll").classList.toggle("all");
      button.setAttribute("aria-pressed", String(all));
      button.textContent = all ? button.dataset.fewer : more;
    });
  }

  // Numbers in full, the rest as it is shown; the rows that the filter left, in their order.
  function csv(table) {
    const heads = [...table.tHead.rows[0].cells];
    const plain = (cell) => cell.textContent.replaceAll(/[\u200b\u00ad]/g, "").trim();
    const value = (cell, i) => heads[i].classList.contains("exact") ? cell.dataset.sort
      : cell.querySelector("summary")?.textContent ?? plain(cell);
    const quoted = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    const lines = [
      heads.map((head) => quoted(head.querySelector("button").textContent)),
      ...rowsOf(table).filter((row) => !row.hidden)
        .map((row) => [...row.cells].map((cell, i) => quoted(value(cell, i)))),
    ];
    return lines.map((line) => line.join(",") + "\r\n").join("");
  }

  for (const button of tools("csv")) {
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      // The mark in front tells spreadsheets that it is UTF-8.
      link.href = URL.createObjectURL(new Blob(["\ufeff", csv(tableOf(button))], { type: "text/csv" }));
      link.download = `${button.dataset.table}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
  }

  // -- copying ------------------------------------------------------------------------------------

  async function copy(button) {
    const block = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(block.textContent);
    } catch {
      getSelection().selectAllChildren(block); // no clipboard here: the text is ready to be copied
      button.textContent = "Selected";
      return;
    }
    button.textContent = "Copied";
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", () => copy(button));
  }
})();
