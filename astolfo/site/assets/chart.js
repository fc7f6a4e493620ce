// Loss curves as SVG: each faint as it was and smoothed on top, with a slider (keys, finger or mouse) that reads values off.
//   astolfoChart(element, [{name, first, every, values}, ...], {x: "step" | "share", smooth: share of the curve})
window.astolfoChart = (() => {
  const margin = { left: 58, right: 14, top: 12, bottom: 38 };
  const number = (value) => (value >= 100 ? value.toFixed(1) : value.toPrecision(4));

  function smoothed(values, share) {
    const keep = 1 - 1 / Math.max(1, share * values.length);
    let average = 0, weight = 0;
    return values.map((value) => {
      average = keep * average + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
      return average / weight;
    });
  }

  function ticks(low, high, count) {
    const raw = (high - low) / count || 1;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
    return found;
  }

  const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.floor(q * (values.length - 1))];

  return function draw(element, series, { x = "step", smooth = 0.1 } = {}) {
    const width = Math.max(280, element.clientWidth - 26 || 640);
    const height = width < 500 ? 250 : 330;
    const lines = series.map((one, index) => {
      const total = one.values.length;
      const steps = one.values.map((_, i) => one.first + Math.min((i + 1) * one.every, one.steps));
      const xs = x === "step" ? steps : one.values.map((_, i) => (100 * (i + 1)) / total);
      return { ...one, index, steps, xs, mean: smoothed(one.values, smooth) };
    });
    const all = lines.flatMap((line) => line.values);
    const low = Math.min(...lines.map((line) => line.xs[0]));
    const high = Math.max(...lines.map((line) => line.xs.at(-1)), low + 1e-9);
    const top = Math.max(quantile(all, 0.985), ...lines.flatMap((line) => line.mean)) * 1.08 || 1;
    const toX = (value) => margin.left + ((value - low) / (high - low)) * (width - margin.left - margin.right);
    const toY = (value) => height - margin.bottom - (value / top) * (height - margin.top - margin.bottom);
    const path = (line, values) => `M${values.map((value, i) => `${toX(line.xs[i]).toFixed(1)} ${toY(Math.min(value, top)).toFixed(1)}`).join("L")}`;
    const unit = x === "step" ? "optimizer step" : "share of the run, %";
    const across = ticks(low, high, width < 500 ? 4 : 8).map((at) => `<line class="grid" x1="${toX(at)}" x2="${toX(at)}" y1="${margin.top}" y2="${height - margin.bottom}"/><text x="${toX(at)}" y="${height - margin.bottom + 17}" text-anchor="middle">${at.toLocaleString("en")}</text>`).join("");
    const down = ticks(0, top, 5).map((at) => `<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${toY(at)}" y2="${toY(at)}"/><text x="${margin.left - 8}" y="${toY(at) + 4}" text-anchor="end">${at}</text>`).join("");
    const curves = lines.map((line) => `<g class="s${line.index}"><path class="raw" d="${path(line, line.values)}"/><path class="mean" d="${path(line, line.mean)}"/></g>`).join("");
    const dots = lines.map((line) => `<g class="s${line.index}"><circle class="dot" r="5" cx="-99" cy="-99"/></g>`).join("");
    const named = lines.map((line) => line.name).join(" and ");
    element.innerHTML = `<div class="chart"><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Loss of ${named} by ${unit}">${across}${down}<text x="${(width + margin.left) / 2}" y="${height - 5}" text-anchor="middle">${unit}</text><text transform="translate(12 ${height / 2 - 10}) rotate(-90)" text-anchor="middle">loss</text>${curves}<line class="cursor" y1="${margin.top}" y2="${height - margin.bottom}" x1="-99" x2="-99"/>${dots}</svg><div class="reading"><input type="range" min="0" max="1000" value="1000" aria-label="Where to read the values"><p aria-live="polite"></p></div></div>`;
    const svg = element.querySelector("svg");
    const slider = element.querySelector("input");
    const circles = [...svg.querySelectorAll(".dot")];
    const cursor = svg.querySelector(".cursor");
    const said = element.querySelector("p");

    function read() {
      const at = low + ((high - low) * slider.value) / 1000;
      cursor.setAttribute("x1", toX(at));
      cursor.setAttribute("x2", toX(at));
      const words = lines.map((line, index) => {
        let near = 0;
        line.xs.forEach((value, i) => { if (Math.abs(value - at) < Math.abs(line.xs[near] - at)) near = i; });
        const out = at < line.xs[0] - (high - low) / 200 || at > line.xs.at(-1) + (high - low) / 200;
        circles[index].setAttribute("cx", out ? -99 : toX(line.xs[near]));
        circles[index].setAttribute("cy", out ? -99 : toY(Math.min(line.mean[near], top)));
        const value = out ? "not here" : `step ${line.steps[near].toLocaleString("en")}: ${number(line.values[near])} (smoothed ${number(line.mean[near])})`;
        return `<span class="s${index}"><span class="swatch"></span>${line.name}, ${value}</span>`;
      });
      said.innerHTML = words.join("");
      slider.setAttribute("aria-valuetext", said.textContent);
    }
    slider.addEventListener("input", read);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const place = ((event.clientX - box.left) / box.width) * width;
      slider.value = Math.round((1000 * (place - margin.left)) / (width - margin.left - margin.right));
      read();
    });
    read();
  };
})();
