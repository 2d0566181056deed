// What a page of tables gains with a script: filters, a comparison of any two cells, arrow keys in heat maps.
// Texts of strangers are only ever copied as text. Without this script every table can still be read.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Filters: rows come in bodies of their own, each with a word and a kind.
  const filters = all("form[data-list]").map((form) => {
    const rows = all("tbody[data-word]", byId(form.dataset.list));
    const open = form.elements.namedItem("all");
    const apply = () => {
      const words = all("input[name=word]:checked", form).map((input) => input.value);
      const kind = form.elements.namedItem("kind").value;
      const wanted = form.elements.namedItem("text").value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits =
          (!words.length || words.includes(row.dataset.word)) &&
          (!kind || kind === row.dataset.kind) &&
          (!wanted || row.textContent.toLowerCase().includes(wanted));
        row.hidden = !fits;
        shown += fits;
      }
      form.querySelector("output").textContent = `${shown} of ${rows.length} ${form.dataset.unit}`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    open.addEventListener("click", () => {
      const opening = open.textContent === "Open all";
      for (const row of rows.filter((each) => !each.hidden)) {
        all("details", row).forEach((details) => (details.open = opening));
      }
      open.textContent = opening ? "Close all" : "Open all";
    });
    apply();
    return { form, rows };
  });

  // A click anywhere on a row opens it; a keyboard has the summary.
  document.addEventListener("click", (event) => {
    const row = event.target.closest("table.list > tbody > tr:first-child");
    const details = row?.parentElement.querySelector(":scope > tr.more .under > details");
    if (details && !event.target.closest("a") && !String(getSelection())) details.open = !details.open;
  });

  // Heat maps: one stop of the tab key each, arrow keys inside.
  for (const picture of all("svg.grid")) {
    const cells = all(".cell", picture);
    const columns = Number(picture.dataset.columns);
    const links = cells.filter((cell) => cell.matches("a"));
    const stop = (cell) => links.forEach((link) => link.setAttribute("tabindex", link === cell ? "0" : "-1"));
    if (links.length) stop(links[0]);
    // Not on the picture itself: one that listens to keys would be a stop of its own.
    const frame = picture.parentElement;
    frame.addEventListener("focusin", (event) => links.includes(event.target) && stop(event.target));
    frame.addEventListener("keydown", (event) => {
      if (!links.includes(event.target)) return;
      const at = cells.indexOf(event.target);
      const column = at % columns;
      const first = at - column;
      const paths = {
        ArrowLeft: cells.slice(first, at).reverse(),
        ArrowRight: cells.slice(at + 1, first + columns),
        ArrowUp: cells.slice(0, at).reverse().filter((_, index) => (index + 1) % columns === 0),
        ArrowDown: cells.slice(at + 1).filter((_, index) => (index + 1) % columns === 0),
        Home: cells.slice(first, first + columns),
        End: cells.slice(first, first + columns).reverse(),
      };
      const next = paths[event.key]?.find((cell) => cell.matches("a"));
      if (next) next.focus();
      if (event.key in paths) event.preventDefault();
    });
    frame.addEventListener("click", (event) => {
      const cell = event.target.closest("a.cell");
      if (!cell || event.ctrlKey || event.metaKey || event.shiftKey || !byId("pairs")) return;
      event.preventDefault();
      right.value = cell.dataset.cell;
      location.hash = address();
    });
  }

  // The comparison: texts stand in the lists of cells, prompts have the same number everywhere.
  const [left, right, table] = [byId("left"), byId("right"), byId("pairs")];
  const { cells } = JSON.parse(byId("page-data").textContent);
  const address = () => `#compare/${left.value}/${right.value}`;
  const textsOf = (id) => new Map(all("tr[data-prompt]", byId(id)).map((row) => [row.dataset.prompt, row]));
  const make = (tag, text, label) => {
    const element = document.createElement(tag);
    element.textContent = text;
    element.dir = "auto";
    if (label) element.dataset.label = label;
    return element;
  };
  const compare = () => {
    const sides = [left.value, right.value];
    const [first, second] = sides.map(textsOf);
    const heads = all("thead th", table).slice(1);
    sides.forEach((id, side) => {
      const name = document.createElement("span");
      name.append(make("bdi", cells[id].name));
      const facts = document.createElement("ul");
      facts.append(...cells[id].facts.map((fact) => make("li", fact)));
      heads[side].replaceChildren(name, facts);
    });
    let same = 0;
    const rows = [...new Set([...first.keys(), ...second.keys()])].map((prompt) => {
      const row = document.createElement("tr");
      const head = make("th", (first.get(prompt) ?? second.get(prompt)).cells[0].textContent, "prompt");
      head.scope = "row";
      const [one, other] = [first, second].map((texts) => texts.get(prompt)?.cells[1].textContent ?? "–");
      const equal = first.has(prompt) && second.has(prompt) && one === other;
      same += equal;
      row.classList.toggle("same", equal);
      row.append(head, make("td", one, cells[sides[0]].name), make("td", other, cells[sides[1]].name));
      return row;
    });
    table.tBodies[0].replaceChildren(...rows);
    const silent = sides.filter((id, side) => ![first, second][side].size).map((id) => cells[id].name);
    byId("compare").querySelector("output").textContent =
      `${rows.length} prompts, ${same} with the same text` +
      (silent.length ? `; there are no texts of ${[...new Set(silent)].join(" and ")}` : "");
  };
  if (table) {
    const changed = () => {
      compare();
      history.replaceState(null, "", address());
    };
    for (const select of [left, right]) select.addEventListener("change", changed);
    const form = left.form;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.elements.namedItem("swap").addEventListener("click", () => {
      [left.value, right.value] = [right.value, left.value];
      changed();
    });
    form.reset();
    compare();
  }

  // Deep links: what an address names is shown, whatever hides it.
  const follow = () => {
    let anchor = location.hash.slice(1);
    try {
      anchor = decodeURIComponent(anchor);
    } catch {
      return;
    }
    const [section, ...pair] = anchor.split("/");
    if (table && section === "compare" && pair.length === 2 && pair.every((id) => Object.hasOwn(cells, id))) {
      [left.value, right.value] = pair;
      compare();
      byId("compare").scrollIntoView();
      byId("compare").focus({ preventScroll: true });
      return;
    }
    const target = anchor && byId(anchor);
    if (!target) return;
    for (const { form, rows } of filters) if (target.hidden && rows.includes(target)) form.reset();
    target.hidden = false;
    for (let each = target; each; each = each.parentElement) if (each.matches("details")) each.open = true;
    const own = target.querySelector(":scope > tr.more .under > details");
    if (own) own.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  follow();

  // On paper nothing can be opened, so all is open but the long lists of texts.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open]):not(.long)");
    closed.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((details) => (details.open = false)));
})();
