// The frame around the text: light and dark, search, sidebars, menus, the section that is read, copying of code.
// It stands in the place of the theme's scripts, which weigh six times as much and measure every cell as a page opens.
{
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Light or dark: the template has settled it before the first paint; a button goes through the three modes.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const dress = (mode) => {
    root.dataset.mode = mode;
    root.dataset.theme = mode !== "auto" ? mode : dark.matches ? "dark" : "light";
  };
  dark.addEventListener("change", () => dress(root.dataset.mode));
  all(".theme-switch-button").forEach((button) => {
    button.title = button.ariaLabel;
    button.addEventListener("click", () => {
      const modes = dark.matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];  // the first click is seen
      dress(modes[(modes.indexOf(root.dataset.mode) + 1) % 3]);
      localStorage.setItem("mode", root.dataset.mode);
    });
  });

  // A click beside a dialog closes it, and so does Escape, of which Sphinx keeps the browser from taking notice.
  all("dialog").forEach((dialog) => {
    dialog.addEventListener("click", (event) => {
      const {left, right, top, bottom} = dialog.getBoundingClientRect(), {clientX: x, clientY: y} = event;
      if (event.target === dialog && (x < left || x > right || y < top || y > bottom)) dialog.close();
    });
    dialog.addEventListener("keydown", ({key}) => { if (key === "Escape") dialog.close(); });
  });

  // Search: Ctrl or Command and K goes to the field of the page, or else opens one.
  const mac = /^(Mac|iP)/.test(navigator.platform), asking = document.getElementById("pst-search-dialog");
  const search = () => {
    const field = document.querySelector(":not(#pst-search-dialog) > form.bd-search input");
    if (!field) asking.open ? asking.close() : asking.showModal();
    else if (field === document.activeElement) field.blur();
    else field.select();
  };
  all(".search-button__button").forEach((button) => button.addEventListener("click", search));
  if (mac) all(".search-button__kbd-shortcut kbd:first-child").forEach((key) => { key.textContent = "⌘"; });
  addEventListener("keydown", (event) => {
    const {altKey, ctrlKey, key, metaKey, shiftKey} = event;
    if (altKey || shiftKey || ctrlKey === mac || metaKey !== mac || key.toLowerCase() !== "k") return;
    event.preventDefault();
    search();
  }, true);

  // Sidebars: where there is no room beside the text, what is in one is lent to a dialog.
  const wide = matchMedia("(min-width: 992px)");
  const move = (from, to) => {
    to.append(...from.childNodes);
    to.classList.add(...from.classList);
    from.className = "";
  };
  for (const name of ["primary", "secondary"]) {
    const button = document.querySelector(`.${name}-toggle`), sidebar = document.getElementById(`pst-${name}-sidebar`);
    const dialog = document.getElementById(`pst-${name}-sidebar-modal`);
    if (!button || !sidebar || !dialog) continue;
    button.addEventListener("click", () => {
      if (name === "primary" && wide.matches) sidebar.classList.toggle("pst-sidebar-hidden");
      else {
        move(sidebar, dialog);
        dialog.showModal();
      }
    });
    dialog.addEventListener("close", () => move(dialog, sidebar));
    dialog.addEventListener("click", (event) => { if (event.target.closest("a[href^='#']")) dialog.close(); });
  }

  // The list of pages stays where it was scrolled to, or begins where this page is seen.
  const pages = document.querySelector("div.bd-sidebar"), place = "sidebar-scroll-top";
  if (pages && wide.matches) {
    const before = sessionStorage.getItem(place), here = all(".bd-docs-nav .active", pages).at(-1);
    if (before !== null) pages.scrollTop = before;
    else if (here) {
      const top = here.getBoundingClientRect().top - pages.getBoundingClientRect().top;
      if (top > innerHeight / 2) pages.scrollTop = top - pages.clientHeight / 4;
    }
    addEventListener("pagehide", () => sessionStorage.setItem(place, pages.scrollTop));
  }

  // Menus of the header.
  const menus = all('[data-bs-toggle="dropdown"]');
  const show = (menu, shown) => {
    menu.classList.toggle("show", shown);
    menu.ariaExpanded = shown;
  };
  addEventListener("click", ({target}) => menus.forEach(
    (menu) => show(menu, menu.contains(target) && !menu.classList.contains("show"))));
  addEventListener("keydown", ({key}) => { if (key === "Escape") menus.forEach((menu) => show(menu, false)); });

  // A shadow lies under the header once the page has been scrolled.
  const top = document.querySelector(".sbt-scroll-pixel-helper");
  if (top) new IntersectionObserver(([{boundingClientRect}]) => {
    document.body.classList.toggle("scrolled", boundingClientRect.y < 0);
  }).observe(top);

  // The contents of the page show which section is read: the innermost that a line below the upper quarter crosses.
  const entries = new Map(all("#pst-page-toc-nav a[href^='#']").flatMap((link) => {
    const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    return section ? [[section, link]] : [];
  }));
  const mark = (link) => {
    for (const one of entries.values()) {
      one.classList.toggle("active", one === link);
      one.ariaCurrent = one === link ? "true" : null;
    }
    all("#pst-page-toc-nav .toc-entry").forEach((entry) => entry.classList.toggle("active", entry.contains(link)));
  };
  let chosen = -Infinity;  // when a section was chosen: what comes by on the way to it is not read
  const choose = () => {
    const link = [...entries.values()].find(({hash}) => hash && hash === location.hash);
    if (!link) return;
    chosen = performance.now();
    mark(link);
  };
  const crossed = new Set();
  const line = new IntersectionObserver((changes) => {
    changes.forEach(({target, isIntersecting}) => crossed[isIntersecting ? "add" : "delete"](target));
    const section = [...entries.keys()].findLast((one) => crossed.has(one));
    if (section && performance.now() > chosen + 1000) mark(entries.get(section));
  }, {rootMargin: "-25% 0px -75% 0px"});
  [...entries.keys()].forEach((section) => line.observe(section));
  addEventListener("hashchange", choose);
  choose();

  // Copying of code. A page has a hundred cells, so the buttons come when there is nothing else to do; where the browser
  // does not let a page write to the clipboard, none comes.
  const template = document.getElementById("copy");
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(() => work({timeRemaining: () => 8}), 30));
  const cells = template && navigator.clipboard ? all("div.highlight > pre") : [];
  const offer = (deadline) => {
    while (cells.length && deadline.timeRemaining() > 2) {
      const cell = cells.shift();
      cell.after(template.content.cloneNode(true));
      const button = cell.nextElementSibling, told = button.dataset.tooltip;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(cell.textContent.replace(/\n$/, ""));
        button.dataset.tooltip = button.dataset.done;
        button.classList.add("success");
        setTimeout(() => {
          button.dataset.tooltip = told;
          button.classList.remove("success");
        }, 1500);
      });
    }
    if (cells.length) idle(offer);
  };
  addEventListener("load", () => idle(offer));
}
