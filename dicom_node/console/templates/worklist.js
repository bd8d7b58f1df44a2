"use strict";
// Fetches the list again and puts only what changed into the page, so that focus, scroll position and selection stay.
(() => {
  const PERIOD = 1000 * Number(document.documentElement.dataset.refreshSeconds);
  const at = (id) => document.getElementById(id);
  const table = at("list");
  const body = table.tBodies[0];
  const button = at("pause");
  let paused = false;
  let timer = 0;
  let turn = 0; // of the newest request; an answer to an earlier one comes too late

  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  // What a row says apart from its rank and age, which change by themselves.
  const content = (row) => Array.from(row.cells).slice(1).filter((cell) => !cell.matches(".waiting"))
    .map((cell) => cell.textContent).join("\n");

  function show(fresh) {
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    const place = focused ? focused.sectionRowIndex : -1;
    const wanted = Array.from(fresh.getElementById("list").tBodies[0].rows);
    const stay = new Set(wanted.map((row) => row.id));
    const gone = Array.from(body.rows).filter((row) => !stay.has(row.id));
    let added = 0;
    let changed = 0;
    for (const row of body.rows) row.classList.remove("fresh");
    gone.forEach((row) => row.remove());
    wanted.forEach((row, index) => {
      const old = at(row.id);
      if (!old) added += 1;
      else if (content(old) !== content(row)) changed += 1;
      if (!old || content(old) !== content(row)) row.classList.add("fresh");
      const keep = old && (old.innerHTML === row.innerHTML) ? old : document.importNode(row, true);
      if (old && keep !== old) old.replaceWith(keep);
      if (body.rows[index] !== keep) body.insertBefore(keep, body.rows[index] || null);
    });
    for (const id of ["summary", "empty"]) at(id).replaceWith(document.importNode(fresh.getElementById(id), true));
    table.hidden = wanted.length === 0;
    if (focused && document.activeElement !== focused) {
      const next = at(focused.id) || body.rows[Math.min(place, body.rows.length - 1)];
      if (next) next.focus({ preventScroll: true });
    }
    const told = [[added, "new"], [changed, "changed"], [gone.length, "gone"]].filter(([count]) => count > 0);
    if (told.length) say(at("news"), `List changed: ${told.map(([count, word]) => `${count} ${word}`).join(", ")}`);
  }

  async function refresh() {
    const mine = ++turn;
    const patience = new AbortController();
    const limit = setTimeout(() => patience.abort(), PERIOD);
    try {
      const answer = await fetch(`${location.pathname}?fragment`, { cache: "no-store", signal: patience.signal });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const text = await answer.text();
      if (mine !== turn) return;
      show(new DOMParser().parseFromString(text, "text/html"));
      say(at("notice"), "");
    } catch (error) {
      if (mine === turn) say(at("notice"), `Not up to date: no new list from the node since ${at("as-of").textContent}.`);
    } finally {
      clearTimeout(limit);
      if (mine === turn) timer = setTimeout(refresh, PERIOD);
    }
  }

  function toggle() {
    paused = !paused;
    turn += 1;
    clearTimeout(timer);
    button.firstElementChild.textContent = paused ? "Resume refresh" : "Pause refresh";
    say(at("notice"), paused ? `Paused: this is the list as of ${at("as-of").textContent}.` : "");
    if (!paused) refresh();
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "p") toggle();
    const step = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    const here = Array.from(body.rows).indexOf(document.activeElement);
    if (!step || (here < 0 && event.key.startsWith("Arrow"))) return;
    const row = body.rows[here < 0 ? 0 : here + step];
    if (row) row.focus();
    event.preventDefault();
  }

  button.hidden = false;
  at("keys").hidden = false;
  button.addEventListener("click", toggle);
  document.addEventListener("keydown", key);
  timer = setTimeout(refresh, PERIOD);
})();
