"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = (id) => document.getElementById(id);
  const word = (name, row) => (data.words[name] ? data.words[name][row] : "");
  const OUTCOMES = { kept: "kept", lost: "lost", read: "not judged", error: "not read" };
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  const STEP = 60, PRINTED = 400, CHOICES = ["style_target", "variant", "strategy", "generator", "group"], ENDS = 6;
  const ON_CARD = ["style_probability", "verdict_style_probability", "year", "artifacts", "content"];
  const all = data.names.map((_, row) => row);
  const haystack = all.map((row) => [data.names[row], word("prompt", row), word("reason", row), word("error", row), word("notes", row)].join("\n").toLowerCase());
  let order = all, drawn = 0, cell = null, open = 0;

  // Everything from a file goes in as text, never as markup.
  const make = (tag, kind, text) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const value = (column, row) => {
    const number = data.numbers[row][column];
    return number === null ? "" : number.toFixed(data.columns[column].digits);
  };

  function shot(row) {
    const frame = make("span", "shot", data.thumbnails[row] ? "" : word("error", row) ? "not read" : "no picture kept");
    for (const [kind, type, list] of [["", "jpeg", data.thumbnails], ["map", "png", data.maps]]) {
      if (!list[row]) continue;
      const image = make("img", kind);
      image.alt = kind ? "where it is damaged" : "";
      image.decoding = "async";
      image.src = `data:image/${type};base64,${list[row]}`;
      frame.append(image);
    }
    const [picture, map] = frame.children;
    // A map has few pixels, whose rounded shape is not the picture's: it is stretched over where the picture lies in its frame.
    if (map) picture.addEventListener("load", () => {
      const shape = picture.naturalWidth / picture.naturalHeight, wide = Math.min(100, 100 * shape), tall = Math.min(100, 100 / shape);
      Object.assign(map.style, { width: `${wide}%`, height: `${tall}%`, left: `${50 - wide / 2}%`, top: `${50 - tall / 2}%` });
    });
    return frame;
  }

  function card(row) {
    const item = make("li"), button = make("button", `card ${data.outcome[row]}`), readings = make("span", "readings");
    button.type = "button";
    button.dataset.row = row;
    data.columns.forEach((column, k) => {
      if (!ON_CARD.includes(column.key) || value(k, row) === "") return;
      const reading = make("span"), label = make("i", "", column.label.replace("(style)", "")), number = make("b", "", value(k, row));
      label.title = number.title = `${column.label}: ${column.trust}`;
      reading.append(label, number);
      readings.append(reading);
    });
    const picture = shot(row);
    picture.append(make("span", "mark", OUTCOMES[data.outcome[row]]));
    button.append(picture, make("span", "name", data.names[row]), make("span", "why", word("error", row) || word("reason", row)), readings);
    item.append(button);
    return item;
  }

  function draw(count) {
    const until = Math.min(order.length, drawn + count), some = document.createDocumentFragment();
    for (; drawn < until; drawn++) some.append(card(order[drawn]));
    page("cards").append(some);
  }

  // What a print would show is there before anybody prints: a picture that is made at that moment would come out empty.
  function prepare() {
    if (drawn >= Math.min(order.length, PRINTED)) return;
    draw(STEP);
    idle(prepare);
  }

  function show() {
    const find = page("find").value.trim().toLowerCase(), outcome = page("outcome").value, sort = page("sort").value;
    const chosen = CHOICES.map((name) => [name, page(name).value]).filter(([, wanted]) => wanted);
    order = all.filter((row) =>
      (!find || haystack[row].includes(find)) &&
      (!outcome || (outcome === "duplicate" ? word("duplicate_of", row) || word("reference_match", row) : outcome === "flags" ? word("flags", row) : data.outcome[row] === outcome)) &&
      chosen.every(([name, wanted]) => word(name, row) === wanted) &&
      (!cell || (word("style_target", row) === cell.meant && word("verdict_style", row) === cell.seen)));
    if (sort !== "") {
      const sign = page("down").checked ? -1 : 1, key = (row) => data.numbers[row][Number(sort)];
      order.sort((a, b) => {
        const x = key(a), y = key(b);  // what has no value comes last either way
        return x === null || y === null ? (x === null) - (y === null) || a - b : sign * (x - y) || a - b;
      });
    }
    page("count").textContent = `${order.length} of ${all.length}` + (cell ? `, meant as ${cell.meant}, seen as ${cell.seen}` : "");
    page("cards").replaceChildren();
    drawn = 0;
    draw(STEP);
    idle(prepare);
  }

  function detail(place) {
    if (!order.length) return;
    open = (place + order.length) % order.length;
    const row = order[open], box = page("detail"), body = make("div", "body"), table = make("table"), heading = make("h3", "", data.names[row]);
    heading.id = "detail-name";
    for (const [name, label] of [["style_target", "meant"], ["style_top", "guide sees"], ["verdict_style", "verdict sees"], ["scene", "scene"], ["artifact_kind", "damage"], ["artifact_where", "where"], ["variant", "variant"],
      ["strategy", "strategy"], ["generator", "generator"], ["group", "group"], ["prompt", "prompt"], ["baseline", "counterpart"], ["duplicate_of", "alike to"],
      ["reference_match", "repeats the reference"], ["flags", "signs of reward hacking"], ["notes", "noted"]]) {
      if (!word(name, row)) continue;
      const line = table.insertRow(), said = make("td", "", word(name, row));
      said.colSpan = 2;
      said.style.textAlign = "left";
      line.append(make("th", "", label), said);
    }
    data.columns.forEach((column, k) => {
      if (value(k, row) === "") return;
      const line = table.insertRow();
      line.append(make("td", "", column.label), make("td", "", value(k, row)), make("td", "", column.trust));
    });
    const buttons = make("div", "buttons");
    for (const [text, act] of [["Previous", () => detail(open - 1)], ["Next", () => detail(open + 1)], ["Close", () => box.close()]]) {
      const button = make("button", "", text);
      button.type = "button";
      button.addEventListener("click", act);
      buttons.append(button);
    }
    const readings = make("div", "scroll");
    readings.append(table);
    body.append(shot(row), readings);
    box.replaceChildren(buttons, heading, make("div", "quiet", word("error", row) || word("reason", row)), body);
    if (!box.open) box.showModal();
    buttons.lastChild.focus();
  }

  for (const name of CHOICES) {
    const values = [...new Set(data.words[name] || [])].filter(Boolean).sort();
    if (values.length < 2) page(name).parentElement.hidden = true;
    values.forEach((text) => page(name).add(new Option(text, text)));
  }
  data.columns.forEach((column, k) => page("sort").add(new Option(column.label, k)));
  page("controls").addEventListener("input", show);
  page("controls").addEventListener("submit", (event) => event.preventDefault());
  page("controls").addEventListener("reset", () => { cell = null; setTimeout(show); });
  if (page("maps")) page("maps").addEventListener("input", (event) => document.body.classList.toggle("maps", event.target.checked));
  page("cards").addEventListener("click", (event) => {
    const button = event.target.closest(".card");
    if (button) detail(order.indexOf(Number(button.dataset.row)));
  });
  document.addEventListener("click", (event) => {
    const { row, meant, seen } = event.target.dataset || {};
    if (event.target.tagName === "circle" && row !== undefined) {
      if (!order.includes(Number(row))) page("controls").reset(), order = all;
      detail(order.indexOf(Number(row)));
    } else if (meant) {
      cell = { meant, seen };
      show();
      page("gallery").scrollIntoView();
    }
  });
  // One dot of a chart is reached by Tab, its neighbours by the arrows: thousands of stops would be none.
  document.addEventListener("keydown", (event) => {
    const dot = event.target;
    if (dot.tagName !== "circle" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); dot.dispatchEvent(new MouseEvent("click", { bubbles: true })); }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const dots = [...dot.parentElement.querySelectorAll("circle")], next = dots[(dots.indexOf(dot) + step + dots.length) % dots.length];
    dot.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  page("detail").addEventListener("close", () => {
    if (!order.length) return;
    draw(open + 1 - drawn);
    page("cards").querySelector(`[data-row="${order[open]}"]`).focus();
  });
  page("detail").addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") detail(open + 1);
    if (event.key === "ArrowLeft") detail(open - 1);
  });
  page("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName) || page("detail").open) return;
    if (event.key === "/") { event.preventDefault(); page("find").focus(); }
    if (event.key === "m" && page("maps")) page("maps").click();
  });
  addEventListener("beforeprint", () => {
    draw(PRINTED - drawn);
    for (const image of document.images) image.decoding = "sync";
  });
  new IntersectionObserver((seen) => { if (seen[0].isIntersecting) draw(STEP); }, { rootMargin: "1200px" }).observe(page("end"));
  // The ends of the verdict's order, of the guide's where there is no verdict, by the quantile among the pictures of the same style.
  const by = ["verdict_log_odds", "style_log_odds"].map((key) => data.columns.findIndex((column) => column.key === key)).find((k) => k >= 0);
  const alike = {}, place = [];
  const ranked = by === undefined || !data.thumbnails.length ? [] :
    all.filter((row) => data.numbers[row][by] !== null).sort((a, b) => data.numbers[b][by] - data.numbers[a][by] || a - b);
  for (const row of ranked) (alike[word("style_target", row)] ||= []).push(row);
  for (const rows of Object.values(alike)) rows.forEach((row, k) => { place[row] = (k + .5) / rows.length; });
  ranked.sort((a, b) => place[a] - place[b]);
  if (ranked.length >= 2 * ENDS) {
    page("ends").hidden = false;
    [ranked.slice(0, ENDS), ranked.slice(-ENDS).reverse()].forEach((rows, k) => rows.forEach((row) => {
      const item = make("li"), button = make("button", data.outcome[row]), said = `${data.names[row]}: ${word("reason", row)}`;
      button.type = "button";
      button.title = said;
      button.setAttribute("aria-label", said);
      button.append(shot(row));
      button.addEventListener("click", () => {
        if (!order.includes(row)) { page("controls").reset(); order = all; }
        detail(order.indexOf(row));
      });
      item.append(button);
      page("ends").querySelectorAll("ul")[k].append(item);
    }));
  }
  show();
})();
