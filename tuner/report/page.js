(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const tip = document.getElementById("tip");
  const marks = all("figure a[href^='#t']");
  const trialOf = (mark) => mark.getAttribute("href").slice(1);
  let pinned = null;

  // Without JavaScript the controls would do nothing, so they stay hidden until now.
  all("button[hidden], label[hidden]").forEach((control) => { control.hidden = false; });

  const light = (trial) => {
    all("svg.marks").forEach((svg) => svg.classList.toggle("dimmed", trial !== null));
    marks.forEach((mark) => mark.classList.toggle("lit", trialOf(mark) === trial));
    all("table.all tbody tr").forEach((row) => row.classList.toggle("lit", row.id === trial));
  };

  const show = (mark) => {
    const [who, ...rest] = mark.getAttribute("aria-label").split(": ");
    const row = document.getElementById(trialOf(mark));
    const name = document.createElement("strong");
    name.textContent = row ? `${who} · ${row.dataset.name}` : who;
    tip.replaceChildren(name, rest.join(": "));
    tip.hidden = false;
    const place = mark.getBoundingClientRect();
    const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${window.scrollX + Math.max(8, Math.min(place.right + 8, right))}px`;
    tip.style.top = `${window.scrollY + place.bottom + 8}px`;
    light(trialOf(mark));
  };
  const hide = () => { tip.hidden = true; light(null); };
  const free = () => { pinned = null; hide(); };

  marks.forEach((mark) => {
    mark.addEventListener("pointerenter", () => { if (!pinned) show(mark); });
    mark.addEventListener("pointerleave", () => { if (!pinned) hide(); });
    mark.addEventListener("focus", () => { if (!pinned) show(mark); });
    mark.addEventListener("blur", () => { if (!pinned) hide(); });
    mark.addEventListener("click", (event) => {
      event.preventDefault();
      if (pinned === mark) { free(); } else { pinned = mark; show(mark); }
    });
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") free(); });
  document.addEventListener("click", (event) => { if (!event.target.closest("figure a")) free(); });
  all("table.all tbody tr").forEach((line) => {
    line.addEventListener("pointerenter", () => { if (!pinned) light(line.id); });
    line.addEventListener("pointerleave", () => { if (!pinned) light(null); });
  });

  const theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  all(".copy").forEach((button) => button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Press Ctrl-C";
    }
  }));

  all(".controls input").forEach((box) => box.addEventListener("change", () => {
    const shown = new Set(all(".controls input:checked").map((input) => input.value));
    all("table.all tbody tr").forEach((line) => { line.hidden = !shown.has(line.dataset.state); });
  }));

  all("table.all thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") === "descending";
      all("table.all thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (line) => line.cells[column].dataset.key;
      const compare = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b));
      const body = document.querySelector("table.all tbody");
      body.append(...[...body.rows].sort((a, b) => (rising ? compare(a, b) : compare(b, a))));
    });
  });
})();
