// The lineage: choosing a model marks its ancestors and descendants and tells of it; choosing it again opens its page.
(() => {
  const graph = document.querySelector(".graph");
  const panel = document.querySelector("[data-chosen]");
  const rows = new Map([...graph.querySelectorAll("li[data-name]")].map((row) => [row.dataset.name, row]));
  const parents = (name) => rows.get(name).dataset.parents.split(" ").filter((parent) => rows.has(parent));
  const children = new Map([...rows.keys()].map((name) => [name, []]));
  for (const name of rows.keys()) for (const parent of parents(name)) children.get(parent).push(name);

  function reach(start, next) {
    const found = new Set([start]);
    for (const name of found) for (const other of next(name)) found.add(other);
    return found;
  }

  function choose(name) {
    const row = rows.get(name);
    graph.classList.toggle("choosing", Boolean(row));
    for (const marked of graph.querySelectorAll(".kin, .at")) marked.classList.remove("kin", "at");
    panel.hidden = !row;
    if (!row) return;
    const up = reach(name, parents);
    const down = reach(name, (other) => children.get(other));
    const kin = (other) => up.has(other) || down.has(other);
    row.classList.add("at");
    for (const [other, one] of rows) one.classList.toggle("kin", kin(other));
    for (const node of graph.querySelectorAll(".node")) node.classList.toggle("kin", kin(node.dataset.name));
    for (const edge of graph.querySelectorAll(".edge")) {
      const { from, to } = edge.dataset;
      edge.classList.toggle("kin", (up.has(from) && up.has(to)) || (down.has(from) && down.has(to)));
    }
    const body = row.querySelector("template").content.cloneNode(true);
    const told = document.createElement("p");
    told.className = "aside";
    told.textContent = `${up.size - 1} ancestors, ${down.size - 1} descendants`;
    body.querySelector("h3").after(told);
    panel.querySelector("[data-body]").replaceChildren(body);
  }

  const hash = () => decodeURIComponent(location.hash.slice(1));
  graph.addEventListener("click", (event) => {
    const row = event.target.closest("li[data-name]");
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (row.classList.contains("at") && row.querySelector("[data-run]")) return; // the link opens
    event.preventDefault();
    location.hash = row.dataset.name;
  });
  graph.addEventListener("keydown", (event) => {
    const links = [...graph.querySelectorAll("li[data-name] > a")];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at < 0 || to === undefined || !links[to]) return;
    event.preventDefault();
    links[to].focus();
  });
  function close() {
    const row = rows.get(hash());
    history.replaceState(null, "", location.pathname + location.search);
    choose("");
    row?.querySelector("a").focus();
  }
  panel.querySelector("[data-close]").addEventListener("click", close);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && !panel.hidden) close(); });
  const follow = () => {
    choose(hash());
    rows.get(hash())?.scrollIntoView({ block: "center", behavior: "instant" });
  };
  addEventListener("hashchange", () => choose(hash()));
  if (location.hash) follow();
})();
