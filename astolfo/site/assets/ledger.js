// Filters of the ledger: every word must occur, every choice must match. The address keeps them: #q=lion&era=first
(() => {
  const form = document.querySelector("[data-filters]");
  const rows = [...document.querySelectorAll(".run")];
  const fields = [...form.querySelectorAll("[name]")];
  const none = document.querySelector("[data-none]");

  function apply() {
    const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = fields.filter((field) => field.name !== "q" && field.value);
    let shown = 0;
    for (const row of rows) {
      const fits = words.every((word) => row.dataset.words.includes(word)) && chosen.every((field) => row.dataset[field.name] === field.value);
      row.hidden = !fits;
      shown += fits;
    }
    for (const body of document.querySelectorAll("[data-era].ledger, tbody[data-era]")) body.hidden = !body.querySelector(".run:not([hidden])");
    form.querySelector("[data-found]").textContent = shown === rows.length ? `${rows.length} runs` : `${shown} of ${rows.length} runs`;
    none.hidden = shown > 0;
    form.querySelector("[type=reset]").hidden = shown === rows.length && !words.length && !chosen.length;
  }

  function keep() {
    const said = new URLSearchParams();
    for (const field of fields) if (field.value.trim()) said.set(field.name, field.value.trim());
    history.replaceState(null, "", `#${said}`);
  }

  function restore() {
    const said = new URLSearchParams(location.hash.slice(1));
    for (const field of fields) field.value = said.get(field.name) || "";
    for (const field of fields) if (field.selectedIndex === -1) field.value = "";
    if (fields.some((field) => field.name !== "q" && field.value)) form.querySelector("details").open = true;
    apply();
  }

  form.hidden = false;
  form.addEventListener("input", () => { apply(); keep(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { apply(); keep(); }));
  document.querySelector("[data-clear]").addEventListener("click", () => { form.reset(); form.elements.q.focus(); });
  addEventListener("hashchange", restore);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
      event.preventDefault();
      form.elements.q.focus();
    }
  });
  if (matchMedia("(min-width: 60rem)").matches) form.querySelector("details").open = true;
  restore();
})();
