// Charts of loss curves: one for the runs that the page names, or for the two that its form chooses (the address keeps them:
// losses.html#one+two). A run's curve is a script of its own, loaded when it is asked for.
(() => {
  const chart = document.querySelector("[data-chart]");
  if (!chart) return;
  const form = document.querySelector("[data-compare]");
  const loading = new Map();
  window.astolfoLoss = {};

  function load(run) {
    if (!loading.has(run)) {
      loading.set(run, new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = `${chart.dataset.root}data/${run}.js`;
        script.onload = () => done({ name: run, ...window.astolfoLoss[run] });
        script.onerror = () => failed(new Error(`The losses of ${run} are missing.`));
        document.head.append(script);
      }));
    }
    return loading.get(run);
  }

  let asked = 0;
  async function show() {
    const runs = form ? [...new Set([form.elements.a.value, form.elements.b.value])].filter(Boolean) : chart.dataset.runs.split(" ");
    const turn = ++asked;
    const options = form ? { x: form.elements.x.value, smooth: form.elements.smooth.value / 100 } : {};
    chart.hidden = !runs.length;
    if (!runs.length) return;
    try {
      const series = await Promise.all(runs.map(load));
      if (turn === asked) window.astolfoChart(chart, series, options);
    } catch (error) {
      chart.textContent = error.message;
    }
  }

  function restore() {
    const [a, b] = location.hash.slice(1).split("+");
    const names = [...form.elements.a.options].map((option) => option.value);
    form.elements.a.value = names.includes(a) ? a : names[1];
    form.elements.b.value = names.includes(b) ? b : "";
    show();
  }

  if (form) {
    form.hidden = false;
    form.addEventListener("input", () => {
      form.querySelector("[data-smooth]").textContent = `${form.elements.smooth.value} %`;
      const names = [form.elements.a.value, form.elements.b.value].filter(Boolean).join("+");
      history.replaceState(null, "", `#${names}`);
      show();
    });
    addEventListener("hashchange", restore);
    restore();
  } else show();

  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; show(); } });
})();
