// The pictures of an evaluation: one way of sampling at a time, chosen by buttons and a slider over alpha.
for (const section of document.querySelectorAll("[data-evaluation]")) {
  const grid = section.querySelector("[data-grid]");
  if (!grid) continue;
  const folder = section.dataset.evaluation;
  const { axes, alphas, cells, shown, best } = JSON.parse(grid.querySelector("script").textContent);
  const form = grid.querySelector("form");
  const slider = form.elements.alpha;
  const jump = grid.querySelector("[data-best]");
  const said = grid.querySelector("[data-cell]");
  const pictures = [...grid.querySelectorAll("[data-picture]")];

  function wanted() {
    const found = { alpha: alphas[slider ? slider.value : shown] };
    for (const axis of axes) found[axis.name] = axis.values[form.elements[axis.name].value];
    return found;
  }

  function nearest(asked) { // not every way was sampled at every alpha: the nearest is shown, and named; first axes count most
    const misses = (cell) => axes.reduce((sum, axis, i) => sum + (cell[axis.name] !== asked[axis.name]) * 2 ** (axes.length - i), Math.abs(cell.alpha - asked.alpha));
    return cells.reduce((found, cell) => (misses(cell) < misses(found) ? cell : found));
  }

  function show() {
    const asked = wanted();
    const cell = nearest(asked);
    const where = [...axes.map((axis) => (axis.name === "checkpoint" ? cell.checkpoint : `${cell[axis.name]} ${axis.name}`)), `alpha ${cell.alpha.toFixed(2)}`].join(", ");
    said.innerHTML = `<strong></strong> <span class="pill ${cell.tone}"></span> <span></span>`;
    said.children[0].textContent = where;
    said.children[1].textContent = cell.verdict;
    said.children[2].textContent = cell.reason + (Object.keys(asked).every((key) => cell[key] === asked[key]) ? "" : " What was asked for was not sampled; this is the nearest.");
    if (slider) {
      grid.querySelector("[data-alpha]").textContent = cell.alpha.toFixed(2);
      slider.setAttribute("aria-valuetext", `alpha ${cell.alpha.toFixed(2)}: ${cell.verdict}`);
      const top = best.find((one) => one.runtime === cell.runtime && one.uncond === cell.uncond)?.best ?? null;
      jump.hidden = top === null;
      jump.textContent = top === null ? "" : `best: ${top.toFixed(2)}`;
      jump.onclick = () => { slider.value = alphas.indexOf(top); show(); };
    }
    pictures.forEach((picture, i) => {
      const prompt = picture.nextElementSibling;
      picture.src = folder + cell.files[i];
      picture.alt = `${prompt.textContent} (${where})`;
      prompt.classList.toggle("shows", cell.shows?.[i] === true);
      prompt.classList.toggle("misses", cell.shows?.[i] === false);
    });
    for (const other of cells) { // what the slider will ask for next is there when it does
      if (other !== cell && axes.every((axis) => other[axis.name] === cell[axis.name])) for (const file of other.files) new Image().src = folder + file;
    }
  }

  grid.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
