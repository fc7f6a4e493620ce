// The theme: the system's, unless the button says otherwise. Remembered where the browser lets a page remember.
(() => {
  const names = ["System", "Light", "Dark"];
  const read = () => { try { return localStorage.getItem("astolfo-theme") || "System"; } catch { return "System"; } };
  const set = (name) => {
    if (name === "System") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name.toLowerCase();
  };
  set(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-button]");
    let now = names.includes(read()) ? read() : "System";
    const say = () => { button.textContent = now; button.setAttribute("aria-label", `Theme: ${now}. Change it.`); };
    button.hidden = false;
    say();
    button.addEventListener("click", () => {
      now = names[(names.indexOf(now) + 1) % names.length];
      try { localStorage.setItem("astolfo-theme", now); } catch { /* a private page forgets */ }
      set(now);
      say();
    });
  });
})();
